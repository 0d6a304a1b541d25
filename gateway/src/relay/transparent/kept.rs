//! What is left here of clients that are away and may come back to their session at the broker.

use std::{collections::BTreeMap, sync::Arc};

use broker_core::Will;

use crate::relay::client::Notes;

/// Notes and Wills by client id, of so many clients; who is away longest is forgotten first.
#[derive(Debug)]
pub(super) struct Kept {
    max: usize,
    turns: u64,
    by_id: BTreeMap<Arc<str>, Entry>,
    by_turn: BTreeMap<u64, Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    turn: u64,
    notes: Notes,
    will: Option<Box<Will>>,
}

impl Kept {
    pub(super) fn new(max: usize) -> Kept {
        Kept {
            max,
            turns: 0,
            by_id: BTreeMap::new(),
            by_turn: BTreeMap::new(),
        }
    }

    pub(super) fn put(&mut self, client_id: Arc<str>, notes: Notes, will: Option<Box<Will>>) {
        self.take(&client_id);
        if self.by_id.len() >= self.max
            && let Some((_, oldest)) = self.by_turn.pop_first()
        {
            self.by_id.remove(&oldest);
        }
        self.turns += 1;
        let turn = self.turns;
        self.by_turn.insert(turn, Arc::clone(&client_id));
        self.by_id.insert(client_id, Entry { turn, notes, will });
    }

    pub(super) fn take(&mut self, client_id: &str) -> Option<(Notes, Option<Box<Will>>)> {
        let entry = self.by_id.remove(client_id)?;
        self.by_turn.remove(&entry.turn);
        Some((entry.notes, entry.will))
    }
}

//! What the sessions of clients that sleep (MQTT-SN §6.14) have beyond others: how long they do, and notes.

use bytes::Bytes;

use crate::{NOTE_BYTES, NOTES_BYTES_MAX, Timestamp};

use super::Sending;

/// One per session that needs it.
#[derive(Debug)]
pub(crate) struct Sleeper {
    /// The client sleeps until then at the longest, or would if it had not woken, or if it has not been told that it is
    /// connected; `NEVER` if it does not sleep.
    pub(crate) until: Timestamp,
    /// Set while the client is only awake.
    pub(crate) awake: Option<Awake>,
    /// In the order of their numbers.
    notes: Vec<(u16, Bytes)>,
}

/// A client that is awake for what waits for it.
#[derive(Debug)]
pub(crate) struct Awake {
    /// Messages of QoS 0 of those that waited when it woke.
    pub(crate) qos0_left: usize,
    /// It was told that nothing waits any more.
    pub(crate) is_drained: bool,
}

impl Default for Sleeper {
    fn default() -> Sleeper {
        Sleeper {
            until: Timestamp::NEVER,
            awake: None,
            notes: Vec::new(),
        }
    }
}

impl Sleeper {
    /// There is nothing to be kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.until == Timestamp::NEVER && self.awake.is_none() && self.notes.is_empty()
    }

    pub(crate) fn notes(&self) -> &[(u16, Bytes)] {
        &self.notes
    }

    /// Replaces or removes a note. False, and nothing is changed, if there would be too many.
    pub(crate) fn note(&mut self, number: u16, value: Option<Bytes>) -> bool {
        let at = self.notes.binary_search_by_key(&number, |(number, _)| *number);
        match (at, value) {
            (Ok(at), None) => drop(self.notes.remove(at)),
            (Err(_), None) => {}
            (at, Some(value)) => {
                let others = self.notes.iter().filter(|(other, _)| *other != number);
                let bytes: usize = others.map(|(_, value)| value.len() + NOTE_BYTES).sum();
                if bytes + value.len() + NOTE_BYTES > NOTES_BYTES_MAX {
                    return false;
                }
                match at {
                    Ok(at) => self.notes[at].1 = value,
                    Err(at) => {
                        self.notes.reserve_exact(1);
                        self.notes.insert(at, (number, value));
                    }
                }
            }
        }
        true
    }
}

impl Awake {
    /// Something that waited goes out.
    pub(crate) fn count(&mut self, sending: &Sending) {
        if let Sending::Publish { packet_id: None, .. } = sending {
            self.qos0_left = self.qos0_left.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_replaced_removed_and_bounded() {
        let mut sleeper = Sleeper::default();
        let half = Bytes::from(vec![1; NOTES_BYTES_MAX / 2 - NOTE_BYTES]);
        assert!(sleeper.note(7, Some(half.clone())));
        assert!(sleeper.note(2, Some(half.clone())));
        assert!(!sleeper.note(3, Some(Bytes::new())), "an empty note counts, too");
        assert!(!sleeper.note(2, Some(Bytes::from(vec![1; half.len() + 1]))));
        assert!(
            sleeper.note(2, Some(half.clone())),
            "it takes the place of the old one"
        );
        assert!(sleeper.note(7, None) && sleeper.note(7, None));
        assert_eq!(sleeper.notes(), [(2, half)]);
        assert!(sleeper.note(2, None));
        assert!(sleeper.is_empty());
    }
}

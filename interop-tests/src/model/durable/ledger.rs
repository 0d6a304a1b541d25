//! What was published, when, and what is known of its fate.

use broker_core::QoS;

/// A message, or a Will that may become one.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) number: u64,
    pub(super) publisher: usize,
    pub(super) topic: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) is_empty: bool,
    /// It was sent first at this tick: nobody can have it before.
    pub(super) begin: u64,
    /// It is published no more after this tick; `u64::MAX` while it may be.
    pub(super) end: u64,
    /// It is known to be published and stored, since this tick.
    pub(super) sure: Option<u64>,
    /// How often it was sent.
    pub(super) attempts: u32,
    /// It may be lost, as long as nobody says that it is not.
    pub(super) is_shaky: bool,
    /// Milliseconds; `u64::MAX`: never.
    pub(super) expires: u64,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Published at this time, milliseconds.
    Delayed(u64),
    Will(Fate),
}

/// What becomes of a Will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its connection lives.
    Armed,
    /// It is published at this time, unless its client comes back before. True: a crash does not change that.
    Due(u64, bool),
    /// It is not published.
    Never,
    /// It may be published, at any time.
    Maybe,
    /// It is published.
    Published,
}

impl Note {
    /// How often it may be published: QoS 2 once, however often it was sent.
    pub(super) fn copies(&self) -> u32 {
        match self.qos {
            QoS::ExactlyOnce => 1,
            _ => self.attempts,
        }
    }
}

/// All messages of a run. Ticks count everything that clients do and hear.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) tick: u64,
    pub(super) crashes: u32,
    notes: Vec<Note>,
    /// Those whose `end` is not known.
    open: Vec<u64>,
}

/// What is due may happen this much later, milliseconds.
pub(super) const SLACK_MS: u64 = 130;

impl Ledger {
    pub(super) fn next_number(&self) -> u64 {
        self.notes.len() as u64 + 1
    }

    /// A new message, sent now.
    pub(super) fn add(&mut self, mut note: Note) {
        note.begin = self.tick;
        note.end = u64::MAX;
        self.open.push(note.number);
        self.notes.push(note);
    }

    pub(super) fn get(&self, number: u64) -> Option<&Note> {
        self.notes.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub(super) fn note(&self, number: u64) -> &Note {
        self.get(number).expect("numbers are given here")
    }

    pub(super) fn note_mut(&mut self, number: u64) -> &mut Note {
        &mut self.notes[usize::try_from(number - 1).expect("a small number")]
    }

    pub(super) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// It is sent once more.
    pub(super) fn resent(&mut self, number: u64, now: u64) {
        let note = self.note_mut(number);
        note.attempts += 1;
        if let Kind::Delayed(due) = &mut note.kind {
            *due = now.max(*due);
        }
        if note.end < u64::MAX {
            note.end = u64::MAX;
            self.open.push(number);
        }
    }

    /// Its publisher was told that it is taken.
    pub(super) fn acknowledged(&mut self, number: u64) {
        let tick = self.tick;
        let note = self.note_mut(number);
        if note.kind == Kind::Plain {
            note.sure.get_or_insert(tick);
        } else {
            note.is_shaky = false;
        }
    }

    /// Its publisher was told that it is not taken.
    pub(super) fn refused(&mut self, number: u64) {
        self.note_mut(number).is_shaky = true;
    }

    pub(super) fn set_fate(&mut self, number: u64, fate: Fate) {
        self.note_mut(number).kind = Kind::Will(fate);
    }

    pub(super) fn fate(&self, number: u64) -> Option<Fate> {
        match self.note(number).kind {
            Kind::Will(fate) => Some(fate),
            _ => None,
        }
    }

    /// What was to become of it has: it is not published any more.
    pub(super) fn close(&mut self, number: u64) {
        let tick = self.tick;
        self.note_mut(number).end = tick;
        self.open.retain(|open| *open != number);
    }

    /// Nothing is under way at the time `now`: what was sent has arrived, what was to last is stored.
    pub(super) fn quiet(&mut self, now: u64) {
        self.tick += 1;
        let tick = self.tick;
        let mut open = std::mem::take(&mut self.open);
        open.retain(|&number| {
            let note = self.note_mut(number);
            let is_done = match &mut note.kind {
                Kind::Plain => true,
                Kind::Delayed(due) => now >= *due + SLACK_MS,
                Kind::Will(Fate::Due(due, is_firm)) => {
                    *is_firm = true;
                    let is_published = now >= *due + SLACK_MS;
                    if is_published {
                        note.kind = Kind::Will(Fate::Published);
                    }
                    is_published
                }
                Kind::Will(Fate::Never) => true,
                Kind::Will(_) => false,
            };
            if is_done {
                note.end = tick;
                if !note.is_shaky && note.kind != Kind::Will(Fate::Never) {
                    note.sure.get_or_insert(tick);
                }
            }
            !is_done
        });
        self.open = open;
    }

    /// The process was killed: what nobody acknowledged may be lost, and nothing of before is published any more but
    /// what waits for its time.
    pub(super) fn crash(&mut self) {
        self.tick += 1;
        self.crashes += 1;
        let tick = self.tick;
        let mut open = std::mem::take(&mut self.open);
        open.retain(|&number| {
            let note = self.note_mut(number);
            match note.kind {
                Kind::Plain => {
                    note.is_shaky |= note.sure.is_none();
                    note.end = tick;
                    false
                }
                // It was acknowledged, or is shaky since it was sent.
                Kind::Delayed(_) => true,
                Kind::Will(Fate::Due(_, false) | Fate::Never) => {
                    note.kind = Kind::Will(Fate::Maybe);
                    true
                }
                Kind::Will(_) => true,
            }
        });
        self.open = open;
    }

    /// Commits may fail: what is not stored by now may be lost.
    pub(super) fn shake(&mut self) {
        for number in self.open.clone() {
            let note = self.note_mut(number);
            match note.kind {
                Kind::Plain => note.is_shaky |= note.sure.is_none(),
                Kind::Will(Fate::Armed) | Kind::Delayed(_) => {}
                Kind::Will(_) => note.kind = Kind::Will(Fate::Maybe),
            }
        }
    }
}

//! What the log says about the state of the store: one line per change.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use store::State;

use super::StorageStats;

/// A sync that takes longer makes the store count as slow.
const SLOW: Duration = Duration::from_secs(1);

/// How a store is, in one word for `$SYS` and one number for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Condition {
    /// It takes commits.
    Ok = 0,
    /// A sync took longer than a second.
    Slow = 1,
    /// There is no room; acknowledgements are withheld.
    Full = 2,
    /// It has failed; acknowledgements are withheld until the next start.
    Failed = 3,
}

impl Condition {
    /// The condition of this number; unknown ones are [`Condition::Failed`].
    pub(in crate::node) const fn from_number(number: u8) -> Condition {
        match number {
            0 => Condition::Ok,
            1 => Condition::Slow,
            2 => Condition::Full,
            _ => Condition::Failed,
        }
    }

    pub(in crate::node) const fn name(self) -> &'static str {
        match self {
            Condition::Ok => "ok",
            Condition::Slow => "slow",
            Condition::Full => "full",
            Condition::Failed => "failed",
        }
    }
}

/// What was seen of a store at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) state: State,
    /// The longest sync since the look before, or the write that is under way.
    pub(super) sync: Duration,
    /// Records dropped at the limit of bytes, since the start.
    pub(super) cut_by_size: u64,
    /// Records dropped at the limit of age, since the start.
    pub(super) cut_by_age: u64,
}

impl Look {
    /// The longest sync is forgotten by it.
    pub(super) fn at(stats: &StorageStats) -> Look {
        match stats {
            StorageStats::Memory(store) => Look {
                state: State::Ok,
                sync: Duration::ZERO,
                cut_by_size: store.records_dropped(),
                cut_by_age: 0,
            },
            StorageStats::Disk(stats) => Look {
                state: stats.state(),
                sync: Duration::from_micros(stats.fsync_micros_max.swap(0, Relaxed))
                    .max(stats.write_under_way()),
                cut_by_size: stats.trimmed_by_size.load(Relaxed),
                cut_by_age: stats.trimmed_by_age.load(Relaxed),
            },
        }
    }

    fn condition(&self) -> Condition {
        match self.state {
            State::Failed => Condition::Failed,
            State::Full => Condition::Full,
            State::Ok if self.sync > SLOW => Condition::Slow,
            State::Ok => Condition::Ok,
        }
    }
}

/// Something to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The condition has changed to this.
    Condition(Condition, Duration),
    /// So many records were dropped at the limit of bytes, although somebody might want them.
    CutBySize(u64),
    /// The same at the limit of age.
    CutByAge(u64),
}

/// Compares what is seen with what was seen before.
#[derive(Debug)]
pub(super) struct Watch {
    condition: Condition,
    cut_by_size: u64,
    cut_by_age: u64,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch {
            condition: Condition::Ok,
            cut_by_size: 0,
            cut_by_age: 0,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition
    }

    /// What is new.
    pub(super) fn look(&mut self, look: &Look) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        let condition = look.condition();
        if condition != self.condition {
            alarms.push(Alarm::Condition(condition, look.sync));
        }
        let (size, age) = (
            look.cut_by_size - self.cut_by_size,
            look.cut_by_age - self.cut_by_age,
        );
        if size > 0 {
            alarms.push(Alarm::CutBySize(size));
        }
        if age > 0 {
            alarms.push(Alarm::CutByAge(age));
        }
        *self = Watch {
            condition,
            cut_by_size: look.cut_by_size,
            cut_by_age: look.cut_by_age,
        };
        alarms
    }
}

impl Alarm {
    pub(super) fn log(self) {
        match self {
            Alarm::Condition(Condition::Ok, _) => tracing::warn!("the store works normally again"),
            Alarm::Condition(Condition::Slow, sync) => tracing::warn!(
                milliseconds = u64::try_from(sync.as_millis()).unwrap_or(u64::MAX),
                "the disk of the store is slow; acknowledgements wait for it"
            ),
            Alarm::Condition(Condition::Full, _) => tracing::error!(
                "the store has no room; what must be stored is not acknowledged until there is: make room on the disk"
            ),
            Alarm::Condition(Condition::Failed, _) => tracing::error!(
                "the store has failed; what must be stored is not acknowledged until the next start: look for errors \
                 of the disk, then see `tidegate store check`"
            ),
            Alarm::CutBySize(records) => tracing::warn!(
                records,
                "messages that sessions may be waiting for were dropped at store.max_bytes"
            ),
            Alarm::CutByAge(records) => tracing::warn!(
                records,
                "messages that sessions may be waiting for were dropped at store.max_age"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Look = Look {
        state: State::Ok,
        sync: Duration::ZERO,
        cut_by_size: 0,
        cut_by_age: 0,
    };

    #[test]
    fn a_change_is_told_once() {
        let mut watch = Watch::new();
        assert_eq!(watch.look(&FINE), []);
        let full = Look {
            state: State::Full,
            ..FINE
        };
        let told = |condition| [Alarm::Condition(condition, Duration::ZERO)];
        assert_eq!(watch.look(&full), told(Condition::Full));
        assert_eq!(watch.look(&full), []);
        assert_eq!(watch.look(&FINE), told(Condition::Ok));
        let failed = Look {
            state: State::Failed,
            ..FINE
        };
        assert_eq!(watch.look(&failed), told(Condition::Failed));
        assert_eq!(
            (watch.look(&failed), watch.condition()),
            (vec![], Condition::Failed)
        );
    }

    #[test]
    fn a_sync_of_more_than_a_second_is_slow() {
        let mut watch = Watch::new();
        let sync = |millis| Look {
            sync: Duration::from_millis(millis),
            ..FINE
        };
        assert_eq!(watch.look(&sync(1000)), []);
        let slow = [Alarm::Condition(Condition::Slow, Duration::from_millis(1001))];
        assert_eq!(watch.look(&sync(1001)), slow);
        let full = Look {
            state: State::Full,
            ..sync(5000)
        };
        let told = [Alarm::Condition(Condition::Full, Duration::from_secs(5))];
        assert_eq!(watch.look(&full), told, "the worst counts");
    }

    #[test]
    fn what_a_limit_cut_is_told_in_numbers() {
        let mut watch = Watch::new();
        let cut = |by_size, by_age| Look {
            cut_by_size: by_size,
            cut_by_age: by_age,
            ..FINE
        };
        assert_eq!(watch.look(&cut(5, 0)), [Alarm::CutBySize(5)]);
        assert_eq!(watch.look(&cut(5, 0)), []);
        assert_eq!(watch.look(&cut(7, 3)), [Alarm::CutBySize(2), Alarm::CutByAge(3)]);
    }
}

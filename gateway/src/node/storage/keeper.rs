//! Looks after the store while the node runs: gives back what nobody needs, and tells of its state.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Poll, Waker},
    thread::JoinHandle,
    time::Duration,
};

use broker_core::{
    shard::Ticket,
    store::{Extent, Journal, JournalError, JournalReply, JournalRequest, Sequence},
};
use driver::Clock;

use super::{
    StorageStats,
    watch::{Alarm, Condition, Look, Watch},
};
use crate::embed::block_on_for;

/// Between two looks while messages are kept.
const BUSY: Duration = Duration::from_secs(5);
/// Between two looks while none are.
const IDLE: Duration = Duration::from_secs(30);

/// How long an answer of the store is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lowest place that some shard still needs; [`Sequence::END`]: none needs any.
pub(in crate::node) type Low = Box<dyn Fn() -> Sequence + Send>;
/// Told of every change of the condition.
pub(in crate::node) type Told = Box<dyn Fn(Condition) + Send>;

/// The thread that looks after the store. Dropped, it ends it.
pub(in crate::node) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses it.
    pub(in crate::node) fn start(
        journal: Box<dyn Journal>,
        stats: StorageStats,
        clock: Clock,
        low: Low,
        told: Told,
    ) -> io::Result<Keeper> {
        let shared = Arc::<Shared>::default();
        let mut work = Work {
            journal,
            stats,
            clock,
            low,
            told,
            watch: Watch::new(),
            trimmed: Sequence::FIRST,
            is_asked: false,
        };
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                let mut pause = BUSY;
                while !theirs.is_over_after(pause) {
                    pause = if work.look() { BUSY } else { IDLE };
                }
            })?;
        let thread = Some(thread);
        Ok(Keeper { shared, thread })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *self.shared.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.over.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that looks after the store had panicked");
        }
    }
}

impl Shared {
    fn is_over_after(&self, pause: Duration) -> bool {
        let guard = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.over.wait_timeout_while(guard, pause, |is_over| !*is_over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Work {
    journal: Box<dyn Journal>,
    stats: StorageStats,
    clock: Clock,
    low: Low,
    told: Told,
    watch: Watch,
    /// Everything before it was given back.
    trimmed: Sequence,
    /// The store owes an answer.
    is_asked: bool,
}

impl Work {
    /// Looks once. True if something is kept or wrong, so that the next look is due soon.
    fn look(&mut self) -> bool {
        for alarm in self.watch.look(&Look::at(&self.stats)) {
            alarm.log();
            if let Alarm::Condition(condition, _) = alarm {
                (self.told)(condition);
            }
        }
        let is_kept = self.trim().unwrap_or_else(|error| {
            // The next look tries again; why it fails is the state of the store, which was told.
            tracing::debug!(%error, "the log of the store was not trimmed");
            true
        });
        is_kept || self.watch.condition() != Condition::Ok
    }

    /// Gives back what no shard needs. True if something is left, or if the store does not answer.
    fn trim(&mut self) -> Result<bool, JournalError> {
        let Some(JournalReply::Head(Extent { next, .. })) = self.ask(JournalRequest::Head)? else {
            return Ok(true);
        };
        // Asked after the end of the log: what is appended in between may be needed by those who say that they need
        // nothing.
        let upto = (self.low)().min(next);
        if upto > self.trimmed && self.ask(JournalRequest::Trim { upto })?.is_some() {
            self.trimmed = upto;
        }
        Ok(upto < next)
    }

    /// `None`: the store has not answered this or an earlier question; a disk that hangs must not keep this thread.
    fn ask(&mut self, request: JournalRequest) -> Result<Option<JournalReply>, JournalError> {
        if self.is_asked && self.journal.poll(self.clock.now(), Waker::noop()).is_none() {
            return Ok(None);
        }
        let (journal, clock) = (&mut self.journal, self.clock);
        journal.submit(clock.now(), &mut VecDeque::from([(Ticket(0), request)]));
        let answer = poll_fn(|context| match journal.poll(clock.now(), context.waker()) {
            Some((_, answer)) => Poll::Ready(answer),
            None => Poll::Pending,
        });
        let answer = block_on_for(PATIENCE, answer);
        self.is_asked = answer.is_none();
        answer.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use broker_core::{
        Timestamp,
        store::{
            Durability, JournalLimits, NewRecord,
            memory::{MemoryJournal, MemoryLimits, MemoryStore},
        },
    };

    use super::*;

    fn extent(work: &mut Work) -> (u64, u64) {
        let Ok(Some(JournalReply::Head(extent))) = work.ask(JournalRequest::Head) else {
            panic!("the store has an end");
        };
        (extent.first.0, extent.next.0)
    }

    fn append(work: &mut Work, count: usize) {
        let data = bytes::Bytes::from_static(b"\0\x01t");
        let commit = JournalRequest::Commit {
            records: vec![NewRecord { data, indexed: true }; count],
            writes: Vec::new(),
            dedup: None,
        };
        work.ask(commit).unwrap();
    }

    #[test]
    fn what_no_shard_needs_is_given_back_and_then_there_is_time() {
        let store = MemoryStore::new(MemoryLimits::default());
        let low = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&low);
        let mut work = Work {
            journal: Box::new(store.journal()),
            stats: StorageStats::Memory(store),
            clock: Clock::start(),
            low: Box::new(move || Sequence(theirs.load(Relaxed))),
            told: Box::new(|condition| panic!("{condition:?}")),
            watch: Watch::new(),
            trimmed: Sequence::FIRST,
            is_asked: false,
        };
        append(&mut work, 9);
        assert!(work.look(), "no shard has said yet what it needs");
        assert_eq!(extent(&mut work), (1, 10));
        low.store(6, Relaxed);
        assert!(work.look());
        assert_eq!(extent(&mut work), (6, 10));
        low.store(Sequence::END.0, Relaxed);
        assert!(!work.look(), "nothing is kept, so the next look may wait");
        assert_eq!(extent(&mut work), (10, 10));
        append(&mut work, 1);
        low.store(10, Relaxed);
        assert!(work.look());
        assert_eq!(extent(&mut work), (10, 11));
    }

    #[test]
    fn the_end_does_not_wait_for_the_next_look() {
        let store = MemoryStore::new(MemoryLimits::default());
        let keeper = Keeper::start(
            Box::new(store.journal()),
            StorageStats::Memory(store),
            Clock::start(),
            Box::new(|| Sequence::END),
            Box::new(|_| ()),
        );
        let began = std::time::Instant::now();
        drop(keeper.unwrap());
        assert!(began.elapsed() < BUSY);
    }

    /// A store that answers nothing.
    struct Silent(MemoryJournal);

    impl Journal for Silent {
        fn limits(&self) -> JournalLimits {
            self.0.limits()
        }

        fn durability(&self) -> Durability {
            self.0.durability()
        }

        fn submit(&mut self, _: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>) {
            requests.clear();
        }

        fn poll(&mut self, _: Timestamp, _: &Waker) -> Option<(Ticket, Result<JournalReply, JournalError>)> {
            None
        }
    }

    #[test]
    fn a_store_that_does_not_answer_is_still_looked_at() {
        let store = MemoryStore::new(MemoryLimits::default());
        let mut work = Work {
            journal: Box::new(Silent(store.journal())),
            stats: StorageStats::Memory(store),
            clock: Clock::start(),
            low: Box::new(|| Sequence::END),
            told: Box::new(|_| ()),
            watch: Watch::new(),
            trimmed: Sequence::FIRST,
            is_asked: false,
        };
        assert!(work.look() && work.is_asked);
        let began = std::time::Instant::now();
        assert!(work.look() && work.is_asked);
        assert!(
            began.elapsed() < PATIENCE,
            "it does not wait twice for one answer"
        );
    }
}

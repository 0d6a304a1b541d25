//! The thread that drops what is no longer needed.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use broker_core::{
    Timestamp,
    store::{Durability, Fault, Sequence},
};
use tracing::{error, info, warn};

use super::{Engine, KeeperMessage, ReaderMessage};
use crate::{
    files::Files,
    log::{segment::SegmentEnd, view::Snapshot},
    options::Options,
    reserve::GaveWay,
    stats::{State, add, wall_clock_millis},
};

pub(super) struct Keeper {
    engine: Arc<Engine>,
    inbox: Receiver<KeeperMessage>,
    files: Arc<dyn Files>,
    max_bytes: Option<u64>,
    max_age: Option<Duration>,
    /// The tables have the writes before this one durably.
    persisted: Sequence,
    /// When it was last tried to make the reserve.
    reserve_tried: Option<Instant>,
}

/// A segment that should have gone but must stay is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A reserve that was given up is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Cursor,
    Size,
    Age,
}

impl Keeper {
    pub(super) fn new(engine: Arc<Engine>, options: &Options, inbox: Receiver<KeeperMessage>) -> Keeper {
        Keeper {
            engine,
            inbox,
            files: Arc::clone(&options.files),
            max_bytes: options.max_bytes,
            max_age: options.max_age,
            persisted: Sequence::FIRST,
            reserve_tried: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let has_dropped = self.collect();
            self.make_reserve(has_dropped);
            let message = match self.wait() {
                Some(wait) => self.inbox.recv_timeout(wait),
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(KeeperMessage::Rolled(file)) => self.seal(&*file),
                Ok(KeeperMessage::Trimmed) | Err(RecvTimeoutError::Timeout) => {}
                Ok(KeeperMessage::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// A segment has ended: from now on it need not be read at the next start.
    fn seal(&mut self, file: &dyn crate::files::File) {
        if self.engine.durability != Durability::Sync
            && let Err(error) = file.sync()
        {
            error!("a segment of the log could not be synced: a loss of power may lose its records: {error}");
            self.engine.stats.set_state(State::Failed);
        }
        self.persist();
    }

    fn persist(&mut self) {
        let Engine { tables, reserve, .. } = &*self.engine;
        let mut result = tables.persist();
        if result == Err(Fault::Full) && reserve.give_way(reserve.tries()) == GaveWay::Freed {
            result = tables.persist();
        }
        match result {
            Ok(persisted) => self.persisted = persisted,
            Err(fault) => warn!("the tables could not be made durable, so the log is kept: {fault}"),
        }
    }

    /// Drops the segments that nobody needs or that a limit does not allow, oldest first, and none whose writes the
    /// tables could lose. True if there were any.
    fn collect(&mut self) -> bool {
        let snapshot = self.engine.view.snapshot();
        let due = self.due(&snapshot);
        let Some((last, _)) = due.last() else { return false };
        if last.next > self.persisted {
            self.persist();
        }
        let count = due
            .iter()
            .take_while(|(end, _)| end.next <= self.persisted)
            .count();
        self.report(&snapshot, &due[..count]);
        let dropped = self.engine.view.drop_first(count);
        let stats = &self.engine.stats;
        for segment in &dropped {
            stats.segments.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            let len = segment.end.get().map_or(0, |end| end.len);
            stats
                .log_bytes
                .fetch_sub(len, std::sync::atomic::Ordering::Relaxed);
            if let Err(error) = self.files.remove(&segment.path) {
                warn!(path = %segment.path.display(), "a segment of the log cannot be removed, its room is lost: {error}");
            }
        }
        // A reader thread that has panicked leaves the indexes to the next start.
        let _ = self.engine.reader.send(ReaderMessage::Dropped(dropped));
        count > 0
    }

    /// Makes what is missing of the reserve, if it is time to try; `has_dropped`: there may be more room now.
    fn make_reserve(&mut self, has_dropped: bool) {
        let reserve = &self.engine.reserve;
        if reserve.is_short() && (has_dropped || self.reserve_pause().is_zero()) {
            reserve.make();
            self.reserve_tried = Some(Instant::now());
        }
    }

    /// How long until the reserve is tried, if it is short. To find out, the disk is filled to the brim for a moment;
    /// while nothing is refused that is done seldom.
    fn reserve_pause(&self) -> Duration {
        let pause = if self.engine.reserve.is_spent() {
            TRY_AGAIN
        } else {
            LOOK_AGAIN
        };
        self.reserve_tried
            .map_or(Duration::ZERO, |tried| pause.saturating_sub(tried.elapsed()))
    }

    /// How long until there is something to do; `None`: until somebody asks.
    fn wait(&self) -> Option<Duration> {
        let reserve = &self.engine.reserve;
        let pause = reserve.is_short().then(|| self.reserve_pause());
        pause.into_iter().chain(self.until_too_old()).min()
    }

    /// The oldest segments, as far as they may go.
    fn due(&self, snapshot: &Snapshot) -> Vec<(SegmentEnd, Reason)> {
        let sealed = snapshot.segments.iter().filter_map(|segment| segment.end.get());
        let mut bytes = snapshot.active_len + sealed.clone().map(|end| end.len).sum::<u64>();
        let now = wall_clock();
        let mut due = Vec::new();
        for end in sealed {
            let too_old = self.max_age.is_some_and(|age| end.last.after(age) < now);
            let reason = if end.next <= snapshot.floor {
                Reason::Cursor
            } else if self.max_bytes.is_some_and(|max| bytes > max) {
                Reason::Size
            } else if too_old {
                Reason::Age
            } else {
                break;
            };
            due.push((*end, reason));
            bytes -= end.len;
        }
        due
    }

    /// Counts what goes, and says what a limit took; the alarm is raised by whoever watches the counters.
    fn report(&self, snapshot: &Snapshot, due: &[(SegmentEnd, Reason)]) {
        let stats = &self.engine.stats;
        let mut totals = snapshot
            .segments
            .first()
            .map_or(0, |segment| segment.before.records);
        let mut first = snapshot.floor;
        for (end, reason) in due {
            let records = end.totals.records.saturating_sub(totals);
            totals = end.totals.records;
            let counter = match reason {
                Reason::Cursor => &stats.trimmed_by_cursor,
                Reason::Size => &stats.trimmed_by_size,
                Reason::Age => &stats.trimmed_by_age,
            };
            add(counter, records);
            if *reason != Reason::Cursor {
                let limit = if *reason == Reason::Size { "size" } else { "age" };
                info!(
                    limit,
                    records,
                    first = first.0,
                    last = end.next.0.saturating_sub(1),
                    "records were dropped from the log by a limit, also if sessions still want them"
                );
            }
            first = first.max(end.next);
        }
    }

    /// How long until the oldest segment is too old; `None`: nothing will be.
    fn until_too_old(&self) -> Option<Duration> {
        let age = self.max_age?;
        let snapshot = self.engine.view.snapshot();
        let oldest = snapshot.segments.first()?.end.get()?;
        Some(oldest.last.after(age).since(wall_clock()).max(LOOK_AGAIN))
    }
}

fn wall_clock() -> Timestamp {
    Timestamp::from_millis(wall_clock_millis())
}

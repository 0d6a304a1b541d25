//! The one place of the data plane that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker_core::Timestamp;

/// A monotonic clock, anchored once to the calendar: it never runs backwards, and after a restart its readings
/// still compare with those of the process before. Copies read the same clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    anchor_millis: u64,
}

impl Clock {
    /// A clock anchored to the system time of this moment. One per process, copied to whoever needs it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver's clock: every other place gets the time as a value"
    )]
    pub fn start() -> Clock {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Clock {
            anchor: Instant::now(),
            anchor_millis: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The present, in whole milliseconds, rounded down.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.anchor_millis).after(self.anchor.elapsed())
    }

    /// The instant at which [`Clock::now`] reaches `at`. Later than [`Clock::LONGEST`] from the start counts as that.
    pub fn instant(&self, at: Timestamp) -> Instant {
        let after = at.since(Timestamp::from_millis(self.anchor_millis));
        self.anchor + after.min(Clock::LONGEST)
    }

    /// No instant is further from the start of the clock than this: 100 years.
    pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
}

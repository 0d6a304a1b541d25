//! How many connections a listener has, and may have.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use broker_core::Timestamp;

use super::LogLimit;
use crate::ListenerInfo;

/// The places of one listener.
pub(crate) struct Seats {
    info: Arc<ListenerInfo>,
    /// 0: no limit.
    max: usize,
    taken: AtomicUsize,
    /// Lets a line about those who were never admitted through now and then.
    strangers: LogLimit,
    /// Called when the last one is given back.
    emptied: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Seats {
    pub(crate) fn new(
        info: Arc<ListenerInfo>,
        max: usize,
        emptied: Option<Box<dyn Fn() + Send + Sync>>,
    ) -> Arc<Seats> {
        Arc::new(Seats {
            info,
            max,
            taken: AtomicUsize::new(0),
            strangers: LogLimit::default(),
            emptied,
        })
    }

    /// A place for one more; `None` at the limit.
    pub(crate) fn admit(self: &Arc<Seats>) -> Option<Permit> {
        let before = self.taken.fetch_add(1, Relaxed);
        let permit = Permit(self.clone());
        (self.max == 0 || before < self.max).then_some(permit)
    }

    /// A place although none may be free: another one is about to be given back for it.
    pub(crate) fn admit_in_place(self: &Arc<Seats>) -> Permit {
        self.taken.fetch_add(1, Relaxed);
        Permit(self.clone())
    }

    /// There is no place for one more.
    pub(crate) fn is_full(&self) -> bool {
        self.max > 0 && self.taken() >= self.max
    }

    /// Places taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

/// A connection's place among the `max_connections` of its listener.
pub(crate) struct Permit(Arc<Seats>);

impl Permit {
    pub(crate) fn listener_name(&self) -> &str {
        &self.0.info.name
    }

    /// How many lines about strangers were suppressed before this one; `None` if this one is, too.
    pub(crate) fn allows_line(&self, now: Timestamp) -> Option<u64> {
        self.0.strangers.allows(now)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Relaxed) == 1
            && let Some(emptied) = &self.0.emptied
        {
            emptied();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_given_once_and_its_return_is_told() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        let emptied = move || {
            count.fetch_add(1, Relaxed);
        };
        let info = Arc::new(ListenerInfo {
            name: "tcp:test".into(),
            zone: "".into(),
            mountpoint: "".into(),
        });
        let seats = Seats::new(info, 2, Some(Box::new(emptied)));
        let first = seats.admit().expect("there is room");
        let second = seats.admit();
        assert!(seats.admit().is_none());
        assert_eq!(seats.taken(), 2);
        drop(second);
        let again = seats.admit().expect("there is room again");
        drop(first);
        assert_eq!(told.load(Relaxed), 0);
        drop(again);
        assert_eq!((told.load(Relaxed), seats.taken()), (1, 0));
    }
}

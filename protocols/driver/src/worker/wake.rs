//! Which links have something to do.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use broker_core::LinkId;

/// The links whose sockets became ready. Practically only the worker's own thread touches it, from within its event
/// loop, so the lock is never contended.
#[derive(Default)]
pub(super) struct Ready(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    links: Vec<LinkId>,
    worker: Option<Waker>,
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link gets its turn.
    pub(super) fn push(&self, link: LinkId) {
        let mut inner = self.lock();
        inner.links.push(link);
        let worker = (inner.links.len() == 1).then(|| inner.worker.clone()).flatten();
        drop(inner);
        if let Some(worker) = worker {
            worker.wake();
        }
    }

    /// Swaps the list for an empty one.
    pub(super) fn take(&self, links: &mut Vec<LinkId>, worker: &Waker) {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.links, links);
        match &mut inner.worker {
            Some(known) => known.clone_from(worker),
            none => *none = Some(worker.clone()),
        }
    }
}

/// Wakes one link. A socket holds it while it is not ready.
pub(super) struct LinkWake {
    link: LinkId,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl LinkWake {
    pub(super) fn new(link: LinkId, ready: Arc<Ready>) -> Arc<LinkWake> {
        Arc::new(LinkWake {
            link,
            queued: AtomicBool::new(false),
            ready,
        })
    }

    /// The link has its turn now: what happens from here on is news.
    pub(super) fn begin(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for LinkWake {
    fn wake(self: Arc<LinkWake>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<LinkWake>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.link);
        }
    }
}

//! Which links and sockets have something to do.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use broker_core::LinkId;

/// What was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A link with a socket of its own.
    Link(LinkId),
    /// The datagram socket of the listener with this number.
    Socket(u32),
}

/// The links and datagram sockets that became ready. Practically only the worker's own thread touches it, from within
/// its event loop, so the lock is never contended.
#[derive(Default)]
pub(super) struct Ready(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    sources: Vec<Source>,
    worker: Option<Waker>,
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It gets its turn.
    pub(super) fn push(&self, source: Source) {
        let mut inner = self.lock();
        inner.sources.push(source);
        let worker = (inner.sources.len() == 1).then(|| inner.worker.clone()).flatten();
        drop(inner);
        if let Some(worker) = worker {
            worker.wake();
        }
    }

    /// Swaps the list for an empty one.
    pub(super) fn take(&self, sources: &mut Vec<Source>, worker: &Waker) {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.sources, sources);
        match &mut inner.worker {
            Some(known) => known.clone_from(worker),
            none => *none = Some(worker.clone()),
        }
    }
}

/// Wakes one source. A socket holds it while it is not ready.
pub(super) struct SourceWake {
    source: Source,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl SourceWake {
    pub(super) fn new(source: Source, ready: Arc<Ready>) -> Arc<SourceWake> {
        Arc::new(SourceWake {
            source,
            queued: AtomicBool::new(false),
            ready,
        })
    }

    /// The source has its turn now: what happens from here on is news.
    pub(super) fn begin(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for SourceWake {
    fn wake(self: Arc<SourceWake>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<SourceWake>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.source);
        }
    }
}

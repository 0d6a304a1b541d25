//! Where the threads of the store leave what they have for a handle.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use broker_core::{shard::Ticket, store::Fault};

/// The completions of one handle, and how to wake it.
pub(crate) struct Slot<A> {
    inner: Mutex<Inner<A>>,
    waiting_tail: AtomicBool,
}

struct Inner<A> {
    done: VecDeque<(Ticket, A)>,
    waker: Option<Waker>,
    /// Commits of the handle that failed, and why the last one did.
    failed: (u64, Option<Fault>),
}

impl<A> Slot<A> {
    pub(crate) fn new() -> Slot<A> {
        Slot {
            inner: Mutex::new(Inner {
                done: VecDeque::new(),
                waker: None,
                failed: (0, None),
            }),
            waiting_tail: AtomicBool::new(false),
        }
    }

    /// Whether the handle wants to be woken by every group.
    pub(crate) fn has_waiting_tail(&self) -> bool {
        self.waiting_tail.load(Ordering::SeqCst)
    }

    /// To be set before the handle looks whether the log has gone on.
    pub(crate) fn set_waiting_tail(&self, waits: bool) {
        self.waiting_tail.store(waits, Ordering::SeqCst);
    }

    /// A commit of the handle fails with this.
    pub(crate) fn fail(&self, fault: &Fault) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.failed = (inner.failed.0 + 1, Some(fault.clone()));
    }

    /// Why a commit fails, if one before it did and the handle did not know: it knew of so many failures.
    pub(crate) fn failed_beyond(&self, known: u64) -> Option<Fault> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (failures, last) = &inner.failed;
        last.clone().filter(|_| known < *failures)
    }

    /// Adds completions and wakes the handle.
    pub(crate) fn complete(&self, completions: impl IntoIterator<Item = (Ticket, A)>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.done.extend(completions);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves all completions to `taken`; if there are none, `waker` is woken when there are.
    pub(crate) fn take(&self, taken: &mut VecDeque<(Ticket, A)>, waker: &Waker) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.done.is_empty() {
            match &mut inner.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        } else {
            inner.waker = None;
            taken.append(&mut inner.done);
        }
    }

    /// Wakes the handle: what it waits for elsewhere may be there.
    pub(crate) fn wake(&self) {
        let waker = self
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .waker
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

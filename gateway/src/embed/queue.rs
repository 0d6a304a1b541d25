//! From the data plane to the application: the messages of one subscription that it has not taken yet.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use broker_core::QoS;

use super::{received::Received, shared::Ticket};

/// A message, and what acknowledges it once it is let go.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) received: Received,
    pub(super) ticket: Option<Arc<Ticket>>,
}

/// Bounded: QoS 1 and 2 by the client's receive maximum, since they are acknowledged only when they are taken; QoS 0
/// by `qos0_max`, above which the new message is dropped and counted.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    dropped: AtomicU64,
    qos0_max: usize,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// How many of them are QoS 0.
    qos0: usize,
    /// The application waits.
    waker: Option<Waker>,
    ended: bool,
}

impl Queue {
    pub(super) fn new(qos0_max: usize) -> Arc<Queue> {
        Arc::new(Queue {
            inner: Mutex::default(),
            dropped: AtomicU64::new(0),
            qos0_max,
        })
    }

    /// A thread that panicked has left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a message. One for a queue that has ended is let go.
    pub(super) fn push(&self, item: Item) {
        let is_qos0 = item.received.qos() == QoS::AtMostOnce;
        let mut inner = self.lock();
        if inner.ended {
            // Letting it go takes another lock.
            drop(inner);
            return drop(item);
        }
        if is_qos0 && inner.qos0 >= self.qos0_max {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inner.qos0 += usize::from(is_qos0);
        inner.items.push_back(item);
        wake(inner);
    }

    /// The next message; `None` if there is none, now or ever.
    pub(super) fn pop(&self) -> Option<Item> {
        self.lock().pop()
    }

    /// The next message, or `None` at the end; pending, the waker is called when there is either.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Option<Item>> {
        let mut inner = self.lock();
        if let Some(item) = inner.pop() {
            return Poll::Ready(Some(item));
        }
        if inner.ended {
            return Poll::Ready(None);
        }
        let is_known = |waker: &Waker| waker.will_wake(context.waker());
        if !inner.waker.as_ref().is_some_and(is_known) {
            let old = inner.waker.replace(context.waker().clone());
            // Dropping a waker may run the application's code.
            drop(inner);
            drop(old);
        }
        Poll::Pending
    }

    /// Nothing more comes. With `keeps_session` the broker will send again what is not acknowledged: the application
    /// must not get it here, or it would get it twice.
    pub(super) fn end(&self, keeps_session: bool) {
        let mut inner = self.lock();
        inner.ended = true;
        let mut again = VecDeque::new();
        if keeps_session {
            (again, inner.items) = mem::take(&mut inner.items)
                .into_iter()
                .partition(|item| item.ticket.is_some());
        }
        wake(inner);
        drop(again);
    }

    /// Ends it and takes out what is left.
    pub(super) fn drain(&self) -> VecDeque<Item> {
        let mut inner = self.lock();
        inner.ended = true;
        inner.qos0 = 0;
        let items = mem::take(&mut inner.items);
        wake(inner);
        items
    }

    /// QoS 0 messages dropped at the bound.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.qos0 -= usize::from(item.received.qos() == QoS::AtMostOnce);
        Some(item)
    }
}

/// The waker runs the application's code: not under the lock.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

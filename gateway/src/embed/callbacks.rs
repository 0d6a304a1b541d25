//! The thread that runs callbacks, so that the data plane never runs an application's code.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::JoinHandle,
};

use super::{
    queue::{Item, Queue},
    received::Received,
};

/// Messages that one callback gets before another has its turn.
const SLICE: usize = 64;

/// An application's function for the messages of a subscription.
pub(super) type Callback = Box<dyn FnMut(Received) + Send>;

/// Where clients leave their callbacks.
#[derive(Clone)]
pub(super) struct Callbacks(Arc<Ready>);

/// The thread. Dropped after the queues have ended, it waits until the callbacks have had what is left in them.
pub(super) struct CallbackThread {
    callbacks: Callbacks,
    thread: Option<JoinHandle<()>>,
}

/// Callbacks for which there are messages; each at most once.
#[derive(Default)]
struct Ready {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    tasks: VecDeque<Arc<Task>>,
    /// The thread ends once no task is left.
    ending: bool,
    /// It has.
    ended: bool,
}

/// One callback. Its queue holds it, as the waker, while there are no messages.
struct Task {
    queue: Arc<Queue>,
    /// Only the thread takes it.
    callback: Mutex<Callback>,
    /// It stands among the ready ones.
    is_ready: AtomicBool,
    ready: Weak<Ready>,
}

impl CallbackThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(super) fn start() -> io::Result<CallbackThread> {
        let ready = Arc::new(Ready::default());
        let callbacks = Callbacks(Arc::clone(&ready));
        let thread = std::thread::Builder::new()
            .name("callbacks".to_owned())
            .spawn(move || {
                while let Some(task) = ready.next() {
                    task.run();
                }
            })?;
        Ok(CallbackThread {
            callbacks,
            thread: Some(thread),
        })
    }

    pub(super) fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }
}

impl Drop for CallbackThread {
    fn drop(&mut self) {
        self.callbacks.0.end();
        let Some(thread) = self.thread.take() else { return };
        // A callback may own the broker: its thread cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread of the callbacks had panicked");
        }
    }
}

impl Callbacks {
    /// Calls `callback` with what comes into `queue`, until it ends.
    pub(super) fn add(&self, queue: Arc<Queue>, callback: Callback) {
        let task = Arc::new(Task {
            queue,
            callback: Mutex::new(callback),
            is_ready: AtomicBool::new(false),
            ready: Arc::downgrade(&self.0),
        });
        task.wake();
    }
}

impl Ready {
    /// A thread that panicked has left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, task: Arc<Task>) {
        let mut inner = self.lock();
        if !inner.ended {
            inner.tasks.push_back(task);
            self.changed.notify_one();
        }
    }

    /// Waits for the next; `None` at the end.
    fn next(&self) -> Option<Arc<Task>> {
        let mut inner = self.lock();
        loop {
            if let Some(task) = inner.tasks.pop_front() {
                return Some(task);
            }
            if inner.ending {
                inner.ended = true;
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self) {
        self.lock().ending = true;
        self.changed.notify_one();
    }
}

impl Task {
    fn run(self: Arc<Task>) {
        // Before the queue is looked at: what comes after that wakes it again.
        self.is_ready.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self));
        let context = Context::from_waker(&waker);
        for _ in 0..SLICE {
            match self.queue.poll(&context) {
                Poll::Ready(Some(item)) => self.call(item),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
        self.wake();
    }

    fn call(&self, item: Item) {
        let Item { received, ticket } = item;
        let mut callback = self.callback.lock().unwrap_or_else(PoisonError::into_inner);
        // What a callback leaves behind when it panics is its own affair.
        let outcome = catch_unwind(AssertUnwindSafe(|| (*callback)(received)));
        drop(callback);
        // Only now is the message acknowledged.
        drop(ticket);
        if outcome.is_err() {
            tracing::error!("a callback panicked; it is called again for the next message");
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::SeqCst)
            && let Some(ready) = self.ready.upgrade()
        {
            ready.push(self);
        }
    }
}

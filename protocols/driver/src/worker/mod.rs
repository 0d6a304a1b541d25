//! The threads of the data plane, and the handles by which the rest of the process reaches them.

mod arena;
mod control;
mod datagram_output;
mod datagrams;
mod input;
mod link;
mod mailbox;
mod moving;
mod newcomers;
mod output;
mod parcels;
mod ports;
mod secured;
mod settle;
mod store;
mod timers;
mod turn;
mod wake;

use std::{
    fmt,
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use broker_core::{
    Effects, LinkId, Peer, ShardId, Timestamp,
    shard::{Question, Reply, Shard, Ticket},
    store::Journal,
};

pub(crate) use link::{Io, Link};
pub(crate) use mailbox::{Command, Mailbox};
pub use turn::Worker;

use crate::{
    CallError, Clock, Counters, DatagramConfig, DatagramListener, ListenError, Listener, ListenerConfig,
    StartError, WorkerConfig,
};

/// Takes the questions that shards ask. Called on the worker's thread: it must pass the question on and return at
/// once. The answer comes back by [`WorkerHandle::reply`].
pub type AskHandler = Arc<dyn Fn(ShardId, Ticket, Box<Question>) + Send + Sync>;

/// Reaches one worker from any thread. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle {
    id: ShardId,
    mailbox: Arc<Mailbox>,
    counters: Arc<Counters>,
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerHandle({})", self.id.0)
    }
}

impl WorkerHandle {
    /// The shard that the worker runs.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The worker's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Answers a question of the shard. Fails only if the worker has ended.
    pub fn reply(&self, ticket: Ticket, reply: Reply) -> Result<(), CallError> {
        self.mailbox.send(Command::Reply(ticket, reply))
    }

    /// Runs `call` on the worker's thread, between two turns; what the shard then has to say is delivered. `call` must
    /// not block. [`CallError::Busy`] is the back-pressure of the mailbox: try again later.
    pub fn run(&self, call: impl FnOnce(&mut Worker) + Send + 'static) -> Result<(), CallError> {
        self.mailbox.send(Command::Run(Box::new(call)))
    }

    /// Like [`WorkerHandle::run`], and waits for the result.
    pub async fn call<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Worker) -> R + Send + 'static,
    ) -> Result<R, CallError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A caller that no longer waits is no reason to fail.
        self.run(move |worker| drop(sender.send(call(worker))))?;
        receiver.await.map_err(|_| CallError::Ended)
    }

    /// Like [`WorkerHandle::call`], for threads without a runtime. Must not be called on a worker's thread.
    pub fn call_blocking<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Worker) -> R + Send + 'static,
    ) -> Result<R, CallError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.run(move |worker| drop(sender.send(call(worker))))?;
        receiver.recv().map_err(|_| CallError::Ended)
    }

    /// Nudges the peer of a link, mostly an [attached](Worker::attach) one; nothing happens if the link is gone.
    pub fn with_peer(
        &self,
        link: LinkId,
        call: impl FnOnce(&mut dyn Peer, Timestamp, &mut Effects<'_>) + Send + 'static,
    ) -> Result<(), CallError> {
        self.run(move |worker| {
            worker.with_peer(link, call);
        })
    }

    /// Calls [`Peer::handle_input`] of an [attached](Worker::attach) link without bytes, so that the peer looks after
    /// what its owner has left for it in a place that both know. Never refused for want of room, so the owner must
    /// not nudge again before the peer has been called.
    ///
    /// # Errors
    /// If the worker has ended.
    pub fn nudge(&self, link: LinkId) -> Result<(), CallError> {
        self.mailbox.send(Command::Nudge(link))
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}

/// All workers of a process. Dropped without [`Workers::shutdown`], it ends them without waiting for slow clients.
pub struct Workers {
    handles: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<()>>,
    clock: Clock,
    /// Numbers of datagram listeners given out.
    datagram_listeners: AtomicU32,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.handles).finish()
    }
}

impl Workers {
    /// Starts one thread per element of `shards`; each makes its shard there, so that a shard need not be `Send`, and
    /// owns the handle on the node's store through which its shard stores. The n-th is [`ShardId`]`(n)`. All are
    /// running when this returns.
    pub fn start<F>(
        config: &WorkerConfig,
        clock: Clock,
        shards: Vec<(F, Box<dyn Journal>)>,
        ask: AskHandler,
    ) -> Result<Workers, StartError>
    where
        F: FnOnce() -> Shard + Send + 'static,
    {
        if shards.is_empty() || shards.len() > usize::from(u16::MAX) + 1 {
            return Err(StartError::Count(shards.len()));
        }
        let handles: Vec<WorkerHandle> = (0..shards.len())
            .map(|id| WorkerHandle {
                id: ShardId(id as u16),
                mailbox: Arc::new(Mailbox::new(config)),
                counters: Arc::default(),
            })
            .collect();
        let mut workers = Workers {
            handles,
            threads: Vec::new(),
            clock,
            datagram_listeners: AtomicU32::new(0),
        };
        let everyone: Arc<[WorkerHandle]> = workers.handles.clone().into();
        for (index, (shard, journal)) in shards.into_iter().enumerate() {
            let setup = turn::Setup {
                handle: workers.handles[index].clone(),
                everyone: everyone.clone(),
                config: config.clone(),
                clock,
                ask: ask.clone(),
                journal,
            };
            let thread = spawn(setup, shard).map_err(|cause| StartError::Thread { worker: index, cause })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// A handle per worker, by [`ShardId`].
    pub fn handles(&self) -> &[WorkerHandle] {
        &self.handles
    }

    /// The clock that all workers read.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Opens a listener; its sockets are spread over all workers in turn. Connections are accepted from when this
    /// returns, so sessions must have been restored before.
    pub fn listen(&self, config: ListenerConfig) -> Result<Listener, ListenError> {
        Listener::open(config, &self.handles, self.clock)
    }

    /// Opens a datagram listener, with a socket on each worker. Datagrams are taken from when this returns, so
    /// sessions must have been restored before.
    pub fn listen_datagram(&self, config: DatagramConfig) -> Result<DatagramListener, ListenError> {
        let number = self.datagram_listeners.fetch_add(1, Relaxed);
        DatagramListener::open(config, number, &self.handles)
    }

    /// Ends all workers and waits for them: every connection is closed once what waits for it is written, or when
    /// `within` has passed. Listeners should be [stopped](Listener::stop) and clients told (by [`WorkerHandle::run`])
    /// before. Blocks the calling thread.
    pub fn shutdown(mut self, within: Duration) {
        self.end(within);
    }

    fn end(&mut self, within: Duration) {
        for handle in &self.handles {
            // One that has ended already needs no telling.
            let _ = handle.mailbox.send(Command::Shutdown(within));
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Runs a worker on a new thread, and returns once it is running.
fn spawn(setup: turn::Setup, shard: impl FnOnce() -> Shard + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (started, running) = mpsc::sync_channel(1);
    let name = format!("worker-{}", setup.handle.id.0);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let _end = EndOnDrop(setup.handle.mailbox.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let _context = runtime.enter();
        let mut worker = Worker::new(setup, shard());
        drop(started.send(Ok(())));
        // The worker divides its time itself: tokio's budget would make sockets seem busy in the middle of a turn.
        runtime.block_on(tokio::task::unconstrained(poll_fn(|context| {
            worker.poll(context)
        })));
    })?;
    match running.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the shard could not be made")),
    }
}

/// Nobody waits for a worker that has ended, even if it panicked.
struct EndOnDrop(Arc<Mailbox>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

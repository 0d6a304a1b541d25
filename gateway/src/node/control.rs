//! The control plane's answers to the questions of shards: authentication that may take long.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use broker_core::{
    ShardId, Timestamp,
    shard::{Common, Question, Reply, Ticket},
};
use driver::{AskHandler, Clock, WorkerHandle};

/// Questions that wait. At the limit a client is refused as server busy (0x89): it may come again.
const QUEUE_MAX: usize = 1024;

/// Threads that work out answers, and the way back to the shards.
pub(super) struct ControlPlane {
    questions: SyncSender<Asked>,
    shared: Arc<Shared>,
}

struct Shared {
    common: Mutex<Arc<Common>>,
    handles: OnceLock<Vec<WorkerHandle>>,
    clock: Clock,
    /// A question that waited for longer is answered with server busy: its client has given up.
    timeout: Duration,
}

struct Asked {
    shard: ShardId,
    ticket: Ticket,
    question: Box<Question>,
    at: Timestamp,
}

impl ControlPlane {
    pub(super) fn start(common: Arc<Common>, clock: Clock, timeout: Duration) -> io::Result<ControlPlane> {
        let shared = Arc::new(Shared {
            common: Mutex::new(common),
            handles: OnceLock::new(),
            clock,
            timeout,
        });
        let (questions, waiting) = sync_channel(QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        // Hashing passwords is what they do, so one per core.
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        for number in 0..threads {
            let (shared, waiting) = (Arc::clone(&shared), Arc::clone(&waiting));
            std::thread::Builder::new()
                .name(format!("control-{number}"))
                .spawn(move || work(&shared, &waiting))?;
        }
        Ok(ControlPlane { questions, shared })
    }

    /// Tells it where the answers go.
    pub(super) fn connect(&self, handles: &[WorkerHandle]) {
        // Set once: a node starts its workers once.
        let _ = self.shared.handles.set(handles.to_vec());
    }

    pub(super) fn reconfigure(&self, common: Arc<Common>) {
        *self.shared.common.lock().unwrap_or_else(PoisonError::into_inner) = common;
    }

    pub(super) fn ask_handler(&self) -> AskHandler {
        let (questions, shared) = (self.questions.clone(), Arc::clone(&self.shared));
        Arc::new(move |shard, ticket, question| {
            let at = shared.clock.now();
            match questions.try_send(Asked {
                shard,
                ticket,
                question,
                at,
            }) {
                Ok(()) => {}
                Err(TrySendError::Full(asked) | TrySendError::Disconnected(asked)) => {
                    tracing::warn!(
                        limit = QUEUE_MAX,
                        "too many clients wait for authentication; one is refused"
                    );
                    shared.reply(asked.shard, asked.ticket, Question::refuse_busy());
                }
            }
        })
    }
}

fn work(shared: &Shared, waiting: &Mutex<Receiver<Asked>>) {
    loop {
        let asked = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        // The node has ended.
        let Ok(asked) = asked else { return };
        let now = shared.clock.now();
        let reply = if now.since(asked.at) > shared.timeout {
            tracing::warn!(timeout = ?shared.timeout, "authentication took too long; a client is refused");
            Question::refuse_busy()
        } else {
            let common = Arc::clone(&shared.common.lock().unwrap_or_else(PoisonError::into_inner));
            // An authenticator of an embedding application may panic: its client is refused, the thread goes on.
            catch_unwind(AssertUnwindSafe(|| asked.question.answer(now, &common))).unwrap_or_else(|_| {
                tracing::error!("an authenticator has panicked; its client is refused");
                Question::refuse_busy()
            })
        };
        shared.reply(asked.shard, asked.ticket, reply);
    }
}

impl Shared {
    fn reply(&self, shard: ShardId, ticket: Ticket, reply: Reply) {
        let Some(handle) = self
            .handles
            .get()
            .and_then(|handles| handles.get(usize::from(shard.0)))
        else {
            return;
        };
        // A worker that has ended has no client that waits.
        let _ = handle.reply(ticket, reply);
    }
}

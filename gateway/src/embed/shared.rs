//! What an application and the peer of its client have in common: the commands on their way to the peer.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use broker_core::{Disconnect, LinkId, Message, PacketId, QoS, ReasonCode, SubscribeOptions};
use driver::WorkerHandle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{End, queue::Queue};

/// What an application wants of its client's peer.
pub(super) enum Command {
    /// Publish; the permit bounds what is under way and goes back when the exchange is over.
    Publish {
        message: Message,
        /// `None` for QoS 0, which has no acknowledgement.
        reply: Option<oneshot::Sender<ReasonCode>>,
        permit: OwnedSemaphorePermit,
    },
    Subscribe {
        filter: String,
        options: SubscribeOptions,
        queue: Arc<Queue>,
        reply: oneshot::Sender<Result<ReasonCode, AlreadySubscribed>>,
        permit: OwnedSemaphorePermit,
    },
    Unsubscribe {
        filter: String,
        /// Only if the subscription is still this one; `None`: whatever it is.
        only: Option<Arc<Queue>>,
        reply: Option<oneshot::Sender<ReasonCode>>,
    },
    /// The application leaves the subscription to its session.
    Detach { filter: String, queue: Arc<Queue> },
    /// The application has taken a delivery of QoS 1 or 2.
    Taken(PacketId, QoS),
    Disconnect {
        disconnect: Disconnect,
        reply: Option<oneshot::Sender<()>>,
    },
}

/// The client has a subscription to this filter, and a stream that reads it.
#[derive(Debug)]
pub(super) struct AlreadySubscribed;

/// The way from the application to the peer. At most one nudge is under way, whatever number of commands waits.
#[derive(Default)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Deliveries that no subscription of the client claimed.
    unclaimed: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// Bounded by the permits, by the deliveries under way and by the subscriptions.
    commands: Vec<Command>,
    /// Where the peer lives, once it is attached.
    link: Option<(WorkerHandle, LinkId)>,
    nudged: bool,
    end: Option<End>,
}

impl Shared {
    /// A thread that panicked has left nothing half done: every change below is one push or one take.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a command to the peer.
    ///
    /// # Errors
    /// Why the connection is over.
    pub(super) fn send(&self, command: Command) -> Result<(), End> {
        let mut inner = self.lock();
        if let Some(end) = &inner.end {
            return Err(end.clone());
        }
        inner.commands.push(command);
        // Before it is attached there is nobody to nudge: being attached, the peer looks by itself.
        let Some((handle, link)) = inner.link.as_ref().filter(|_| !inner.nudged) else {
            return Ok(());
        };
        let (handle, link) = (handle.clone(), *link);
        inner.nudged = true;
        drop(inner);
        handle.nudge(link).map_err(|_| End::BrokerEnded)
    }

    /// The peer lives there.
    pub(super) fn attached(&self, handle: WorkerHandle, link: LinkId) {
        self.lock().link = Some((handle, link));
    }

    /// Moves all commands to `commands`, which is empty.
    pub(super) fn take(&self, commands: &mut Vec<Command>) {
        let mut inner = self.lock();
        inner.nudged = false;
        mem::swap(&mut inner.commands, commands);
    }

    /// The connection is over; the first reason stays. Whoever waits for an answer of the peer waits no longer.
    pub(super) fn close(&self, end: End) {
        let mut inner = self.lock();
        inner.end.get_or_insert(end);
        inner.link = None;
        let commands = mem::take(&mut inner.commands);
        drop(inner);
        drop(commands);
    }

    /// Why the connection is over, if it is.
    pub(super) fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    pub(super) fn count_unclaimed(&self) {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }
}

/// A delivery of QoS 1 or 2 that is not acknowledged. Shared by the subscriptions that it matches; it is acknowledged
/// when the last of them lets it go.
pub(super) struct Ticket {
    shared: Arc<Shared>,
    packet_id: PacketId,
    qos: QoS,
}

impl Ticket {
    pub(super) fn new(shared: &Arc<Shared>, packet_id: PacketId, qos: QoS) -> Arc<Ticket> {
        Arc::new(Ticket {
            shared: Arc::clone(shared),
            packet_id,
            qos,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // After the end of the connection there is nobody to acknowledge it to: it comes again with the session.
        let _ = self.shared.send(Command::Taken(self.packet_id, self.qos));
    }
}

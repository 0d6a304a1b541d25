//! What other threads send to a worker.
//!
//! One lock per delivery, which is a whole batch; and one wake-up per sleep of the receiver: a worker that is awake
//! looks into its mailbox at every turn, and only a sleeping one costs the sender a system call.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use broker_core::{
    LinkId, ShardId,
    shard::{Batch, Reply, Ticket},
};

use super::Worker;
use crate::{
    CallError, WorkerConfig,
    datagram::{DatagramCommand, Parcel},
    listener::Arrival,
};

/// A message to a worker, other than a batch.
pub(crate) enum Command {
    /// A socket, or what became of it: bounded, like `Run`.
    Arrival(Arrival),
    /// The answer to a question of the shard. Bounded by the questions that the shard has open.
    Reply(Ticket, Reply),
    /// Tells an attached peer that something waits for it. Bounded: its owner sends one at a time.
    Nudge(LinkId),
    /// About datagram sockets. Parcels are bounded by their bytes, the rest by the number of listeners.
    Datagrams(DatagramCommand),
    /// A call of the control plane.
    Run(Box<dyn FnOnce(&mut Worker) + Send>),
    /// End within this time.
    Shutdown(std::time::Duration),
}

/// The mailbox of one worker.
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    batches_max: usize,
    bytes_max: usize,
    calls_max: usize,
    datagram_bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    batches: VecDeque<(ShardId, Batch)>,
    /// What the batches account for.
    bytes: usize,
    commands: VecDeque<Command>,
    /// What the parcels among them account for.
    parcel_bytes: usize,
    /// Set while the worker sleeps.
    sleeper: Option<Waker>,
    /// Workers whose batches did not fit.
    waiting: Vec<Arc<Mailbox>>,
    /// A mailbox that was full has been emptied.
    nudged: bool,
    ended: bool,
}

/// What a worker takes from its mailbox at once. Kept by the worker, so that both sides reuse their memory.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) batches: VecDeque<(ShardId, Batch)>,
    pub(super) commands: VecDeque<Command>,
}

/// What became of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All are delivered.
    All,
    /// The rest did not fit; the sender is woken once the receiver has emptied its mailbox.
    Full,
    /// The receiver has ended.
    Ended,
}

impl Mailbox {
    pub(super) fn new(config: &WorkerConfig) -> Mailbox {
        Mailbox {
            inner: Mutex::default(),
            batches_max: config.mailbox_batches_max.max(1),
            bytes_max: config.mailbox_bytes_max.max(1),
            calls_max: config.mailbox_calls_max.max(1),
            datagram_bytes_max: config.mailbox_datagram_bytes_max,
        }
    }

    /// A sender that panicked has left nothing half done: every change below is one push or one take.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a command. Only arrivals and calls are refused when too much waits.
    pub(crate) fn send(&self, command: Command) -> Result<(), CallError> {
        let mut inner = self.lock();
        if inner.ended {
            return Err(CallError::Ended);
        }
        let bounded = matches!(command, Command::Arrival(_) | Command::Run(_));
        if bounded && inner.commands.len() >= self.calls_max {
            return Err(CallError::Busy);
        }
        inner.commands.push_back(command);
        wake(inner);
        Ok(())
    }

    /// Delivers a parcel of another worker. One with datagrams comes back if too much waits. A worker that has ended
    /// swallows it.
    pub(super) fn send_parcel(&self, parcel: Parcel) -> Result<(), Parcel> {
        let mut inner = self.lock();
        if inner.ended {
            return Ok(());
        }
        let weight = parcel.weight();
        if inner.parcel_bytes + weight > self.datagram_bytes_max && parcel.has_datagrams() {
            return Err(parcel);
        }
        inner.parcel_bytes += weight;
        match inner.commands.back_mut() {
            // So many small ones do not keep calls out.
            Some(Command::Datagrams(DatagramCommand::Parcel(last))) if last.from == parcel.from => {
                last.append(parcel);
            }
            _ => inner
                .commands
                .push_back(Command::Datagrams(DatagramCommand::Parcel(parcel))),
        }
        wake(inner);
        Ok(())
    }

    /// Moves as many of `batches` as fit.
    pub(super) fn send_batches(
        &self,
        from: ShardId,
        sender: &Arc<Mailbox>,
        batches: &mut VecDeque<Batch>,
    ) -> Sent {
        let mut inner = self.lock();
        if inner.ended {
            return Sent::Ended;
        }
        let waiting = batches.len();
        while inner.batches.len() < self.batches_max && inner.bytes < self.bytes_max {
            let Some(batch) = batches.pop_front() else { break };
            inner.bytes += batch.weight();
            inner.batches.push_back((from, batch));
        }
        let sent = if batches.is_empty() { Sent::All } else { Sent::Full };
        if sent == Sent::Full && !inner.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, sender)) {
            inner.waiting.push(sender.clone());
        }
        if batches.len() < waiting {
            wake(inner);
        }
        sent
    }

    /// Takes all that waits.
    pub(super) fn take(&self, inbox: &mut Inbox) {
        let mut inner = self.lock();
        inner.sleeper = None;
        inner.nudged = false;
        inner.bytes = 0;
        inner.parcel_bytes = 0;
        std::mem::swap(&mut inner.batches, &mut inbox.batches);
        std::mem::swap(&mut inner.commands, &mut inbox.commands);
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        for sender in waiting {
            sender.nudge();
        }
    }

    /// The worker goes to sleep, unless something has come in since it looked.
    pub(super) fn sleep(&self, waker: &Waker) -> bool {
        let mut inner = self.lock();
        if inner.nudged || !inner.batches.is_empty() || !inner.commands.is_empty() {
            return false;
        }
        inner.sleeper = Some(waker.clone());
        true
    }

    /// The worker has ended: nothing is accepted any more, and nobody waits for room.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        let batches = std::mem::take(&mut inner.batches);
        let commands = std::mem::take(&mut inner.commands);
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop((batches, commands));
        for sender in waiting {
            sender.nudge();
        }
    }

    fn nudge(&self) {
        let mut inner = self.lock();
        inner.nudged = true;
        wake(inner);
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let sleeper = inner.sleeper.take();
    drop(inner);
    if let Some(waker) = sleeper {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use broker_core::{
        ClientInfo, Connect, ConnectionInfo, MessageParts, PacketId, Request, Subscribe, SubscribeOptions,
        Timestamp,
        admission::{Admission, AuthenticationChain},
        shard::{Common, Shard, ShardSettings},
    };

    use super::*;

    fn mailbox(batches_max: usize, calls_max: usize) -> Arc<Mailbox> {
        Arc::new(Mailbox::new(&WorkerConfig {
            mailbox_batches_max: batches_max,
            mailbox_calls_max: calls_max,
            ..WorkerConfig::default()
        }))
    }

    fn batches(count: usize) -> VecDeque<Batch> {
        std::iter::repeat_with(Batch::default).take(count).collect()
    }

    #[test]
    fn what_does_not_fit_stays_with_the_sender_until_it_is_nudged() {
        let (sender, receiver) = (mailbox(2, 1), mailbox(2, 1));
        let mut waiting = batches(5);
        assert_eq!(
            receiver.send_batches(ShardId(7), &sender, &mut waiting),
            Sent::Full
        );
        assert_eq!(waiting.len(), 3);
        assert_eq!(
            receiver.send_batches(ShardId(7), &sender, &mut waiting),
            Sent::Full
        );
        assert!(sender.sleep(Waker::noop()), "nothing has come in");

        let mut inbox = Inbox::default();
        receiver.take(&mut inbox);
        assert_eq!(inbox.batches.len(), 2);
        assert!(!sender.sleep(Waker::noop()), "the receiver has room again");
        waiting.pop_back();
        assert_eq!(
            receiver.send_batches(ShardId(7), &sender, &mut waiting),
            Sent::All
        );
    }

    fn shard(id: u16) -> Shard {
        let common = Common {
            admission: Admission {
                authentication: AuthenticationChain::new(true),
                ..Admission::default()
            },
            ..Common::default()
        };
        Shard::new(ShardSettings {
            id: ShardId(id),
            shards: 2,
            common: Arc::new(common),
            seed: 1,
        })
    }

    /// Somebody who wants everything.
    fn subscriber() -> [Request; 2] {
        let connection = ConnectionInfo {
            protocol: "mqtt",
            proto_name: "MQTT",
            proto_ver: 5,
            listener: "test".into(),
            zone: "".into(),
        };
        let connect = Connect {
            client_id: "s".to_owned(),
            username: None,
            password: None,
            peer: None,
            local: None,
            connection: Arc::new(connection),
            certificate: None,
            mountpoint: "".into(),
            clean_start: true,
            session_expiry_interval: 0,
            keep_alive: 0,
            receive_maximum: 10,
            auth: None,
            will: None,
            user_properties: Vec::new(),
            is_bridge: false,
            keeps_will: false,
            may_sleep: false,
            wake: None,
        };
        let subscribe = Subscribe {
            packet_id: PacketId::FIRST,
            filters: vec![("#".to_owned(), SubscribeOptions::default())],
            subscription_id: None,
            user_properties: Vec::new(),
        };
        [
            Request::Connect(Box::new(connect)),
            Request::Subscribe(Box::new(subscribe)),
        ]
    }

    /// A batch with one message of a thousand bytes, for a subscriber of the other shard.
    fn heavy() -> Batch {
        let (mut from, mut to) = (shard(0), shard(1));
        let now = Timestamp::default();
        let drain = |shard: &mut Shard| while shard.poll_output().is_some() {};
        for request in subscriber() {
            to.handle(now, LinkId(1), request);
            drain(&mut to);
        }
        for (_, batch) in to.take_batches() {
            from.handle_batch(now, to.id(), batch);
            drain(&mut from);
        }
        from.take_batches();
        let message = MessageParts::new("t", &[0; 1000]).publish(now, ClientInfo::system());
        from.publish_internal(now, message.expect("a short topic"))
            .expect("no limit");
        let (_, batch) = from
            .take_batches()
            .pop()
            .expect("the other shard has a subscriber");
        batch
    }

    #[test]
    fn heavy_batches_wait_although_there_are_few() {
        let receiver = Arc::new(Mailbox::new(&WorkerConfig {
            mailbox_bytes_max: 1500,
            ..WorkerConfig::default()
        }));
        let mut waiting: VecDeque<Batch> = std::iter::repeat_with(heavy).take(3).collect();
        assert!((1000..1500).contains(&waiting[0].weight()));
        assert_eq!(
            receiver.send_batches(ShardId(0), &receiver, &mut waiting),
            Sent::Full
        );
        assert_eq!(waiting.len(), 1);
        receiver.take(&mut Inbox::default());
        assert_eq!(
            receiver.send_batches(ShardId(0), &receiver, &mut waiting),
            Sent::All
        );
    }

    #[test]
    fn calls_are_refused_at_the_limit_and_after_the_end() {
        let mailbox = mailbox(1, 1);
        let call = || Command::Run(Box::new(|_| ()));
        assert_eq!(mailbox.send(call()), Ok(()));
        assert_eq!(mailbox.send(call()), Err(CallError::Busy));
        assert_eq!(mailbox.send(Command::Shutdown(std::time::Duration::ZERO)), Ok(()));
        mailbox.end();
        assert_eq!(mailbox.send(call()), Err(CallError::Ended));
        assert_eq!(
            mailbox.send_batches(ShardId(0), &mailbox, &mut batches(1)),
            Sent::Ended
        );
    }
}

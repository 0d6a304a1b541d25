//! One embedded client as the broker sees it.
//!
//! ```text
//!       attached         admitted
//! New ──────────▶ Connecting ────▶ Connected ──▶ Closed
//!                     └───────────────────────────┘ refused, cancelled, disconnected, closed by the broker
//! ```
//!
//! What the application wants comes as [`Command`]s, taken at each nudge. The messages of a subscription go to its
//! [`Queue`]; which one, a subscription identifier says. It is a hash of the filter, the same in every process, so
//! that what waits in a session of an earlier process finds the subscription that the application makes again. Two
//! filters with one hash are told apart as long as the client lives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use broker_core::{
    ClientInfo, Close, Closing, Connect, Connected, Delivery, Disconnect, DisconnectCause, Effects, Event,
    PacketId, Publish, QoS, ReasonCode, Request, Subscribe, SubscriptionIds, Timestamp, Unsubscribe,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    End,
    queue::{Item, Queue},
    received::Received,
    shared::{AlreadySubscribed, Command, Shared, Ticket},
};

/// Filters that a client with a resumed session has given up, of which the broker may still send what waited.
const RELEASED_MAX: usize = 4096;

/// The answer to a connect.
pub(super) type Admission = oneshot::Sender<Result<Connected, Closing>>;

/// One embedded client. Performs no I/O and reads no clock.
pub(super) struct Peer {
    shared: Arc<Shared>,
    /// Memory of the last round of commands, for the next.
    commands: Vec<Command>,
    state: State,
}

enum State {
    New { connect: Box<Connect>, reply: Admission },
    Connecting { reply: Admission },
    Connected(Box<Connection>),
    Closed,
}

/// An admitted client.
struct Connection {
    client: Arc<ClientInfo>,
    /// The session outlives the connection: the broker sends again what is not acknowledged.
    keeps_session: bool,
    next: PacketId,
    publishing: HashMap<PacketId, Publishing>,
    asking: HashMap<PacketId, Asking>,
    /// By subscription identifier.
    streams: BTreeMap<u32, Stream>,
    unclaimed: Unclaimed,
}

/// A message of QoS 1 or 2 on its way to the broker.
struct Publishing {
    reply: Option<oneshot::Sender<ReasonCode>>,
    /// Of the PUBREC.
    reason: ReasonCode,
    _permit: OwnedSemaphorePermit,
}

/// A SUBSCRIBE or UNSUBSCRIBE that the broker has not answered.
enum Asking {
    Subscribe {
        id: u32,
        queue: Arc<Queue>,
        reply: oneshot::Sender<Result<ReasonCode, AlreadySubscribed>>,
        _permit: OwnedSemaphorePermit,
    },
    Unsubscribe(oneshot::Sender<ReasonCode>),
}

struct Stream {
    filter: String,
    queue: Arc<Queue>,
}

/// Deliveries that no stream of the application claims.
///
/// Those of a subscription that the session has from before, or that was detached, wait unacknowledged (so there are
/// at most as many as the client's receive maximum) until the application subscribes to the filter again or
/// unsubscribes from it. Others are acknowledged and counted.
#[derive(Default)]
struct Unclaimed {
    held: Vec<(SubscriptionIds, Item)>,
    /// The session is one from before: it may have subscriptions that this client has not made.
    resumed: bool,
    /// Subscriptions that the client had and gave up.
    released: BTreeSet<u32>,
    /// Subscriptions that the client left to the session.
    detached: BTreeSet<u32>,
}

impl Peer {
    /// A client that will connect when it is nudged first.
    pub(super) fn new(shared: Arc<Shared>, connect: Connect, reply: Admission) -> Peer {
        Peer {
            shared,
            commands: Vec::new(),
            state: State::New {
                connect: Box::new(connect),
                reply,
            },
        }
    }

    fn drain(&mut self, effects: &mut Effects<'_>) {
        self.state = match mem::replace(&mut self.state, State::Closed) {
            State::New { connect, reply } => {
                effects.requests.push(Request::Connect(connect));
                State::Connecting { reply }
            }
            state => state,
        };
        let mut commands = mem::take(&mut self.commands);
        self.shared.take(&mut commands);
        for command in commands.drain(..) {
            self.handle_command(command, effects);
        }
        self.commands = commands;
    }

    fn handle_command(&mut self, command: Command, effects: &mut Effects<'_>) {
        match (&mut self.state, command) {
            (State::Connected(connection), Command::Disconnect { disconnect, reply }) => {
                if let Some(interval) = disconnect.session_expiry_interval {
                    connection.keeps_session = interval > 0;
                }
                effects.requests.push(Request::Disconnect(Box::new(disconnect)));
                self.close(End::Disconnected, effects);
                if let Some(reply) = reply {
                    // Whoever no longer waits needs no answer; the same below.
                    let _ = reply.send(());
                }
            }
            (State::Connecting { .. }, Command::Disconnect { disconnect, .. }) => {
                effects.requests.push(Request::Disconnect(Box::new(disconnect)));
                self.close(End::Disconnected, effects);
            }
            (State::Connected(connection), command) => connection.handle_command(command, effects),
            // Nobody has a client yet that could ask, or it is over: the answer is that no answer comes.
            (State::New { .. } | State::Connecting { .. } | State::Closed, _) => {}
        }
    }

    fn close(&mut self, end: End, effects: &mut Effects<'_>) {
        let (reason, detail) = match &end {
            End::Disconnected => ("normal", String::new()),
            End::Closed(_) => ("closed_by_broker", end.to_string()),
            End::BrokerEnded => ("server_shutting_down", String::new()),
        };
        *effects.close = Some(Close { reason, detail });
        self.finish(end);
    }

    /// Lets everybody know that nothing comes any more.
    fn finish(&mut self, end: End) {
        self.shared.close(end);
        if let State::Connected(connection) = mem::replace(&mut self.state, State::Closed) {
            for stream in connection.streams.values() {
                stream.queue.end(connection.keeps_session);
            }
        }
    }

    fn refused(&mut self, closing: Closing, effects: &mut Effects<'_>) {
        if let State::Connecting { reply } = mem::replace(&mut self.state, State::Closed) {
            let _ = reply.send(Err(closing.clone()));
        }
        self.close(End::Closed(closing), effects);
    }

    fn connected(&mut self, connected: Connected) {
        self.state = match mem::replace(&mut self.state, State::Closed) {
            State::Connecting { reply } => {
                let connection = Box::new(Connection::new(&connected));
                let _ = reply.send(Ok(connected));
                State::Connected(connection)
            }
            state => state,
        };
    }
}

impl Connection {
    fn new(connected: &Connected) -> Connection {
        Connection {
            client: Arc::clone(&connected.client),
            keeps_session: connected.session_expiry_interval > 0,
            next: PacketId::FIRST,
            publishing: HashMap::new(),
            asking: HashMap::new(),
            streams: BTreeMap::new(),
            unclaimed: Unclaimed {
                resumed: connected.session_present,
                ..Unclaimed::default()
            },
        }
    }

    fn handle_command(&mut self, command: Command, effects: &mut Effects<'_>) {
        match command {
            Command::Publish {
                message,
                reply,
                permit,
            } => {
                let packet_id = (message.qos() != QoS::AtMostOnce).then(|| self.free_id());
                if let Some(packet_id) = packet_id {
                    let publishing = Publishing {
                        reply,
                        reason: ReasonCode::Success,
                        _permit: permit,
                    };
                    self.publishing.insert(packet_id, publishing);
                }
                effects.requests.push(Request::Publish(Publish {
                    message,
                    packet_id,
                    dup: false,
                }));
            }
            Command::Subscribe {
                filter,
                options,
                queue,
                reply,
                permit,
            } => {
                let Some(id) = self.vacant_id(&filter) else {
                    let _ = reply.send(Err(AlreadySubscribed));
                    return;
                };
                let packet_id = self.free_id();
                let asking = Asking::Subscribe {
                    id,
                    queue: Arc::clone(&queue),
                    reply,
                    _permit: permit,
                };
                self.asking.insert(packet_id, asking);
                effects.requests.push(Request::Subscribe(Box::new(Subscribe {
                    packet_id,
                    filters: vec![(filter.clone(), options)],
                    subscription_id: Some(id),
                    user_properties: Vec::new(),
                })));
                // Not only after the SUBACK: messages may come before it (§3.8.4), and what waits comes before them.
                self.unclaimed.claim(id, &queue);
                self.streams.insert(id, Stream { filter, queue });
            }
            Command::Unsubscribe { filter, only, reply } => {
                self.unsubscribe(filter, only.as_ref(), reply, effects);
            }
            Command::Detach { filter, queue } => self.detach(&filter, &queue),
            Command::Taken(packet_id, QoS::ExactlyOnce) => {
                effects
                    .requests
                    .push(Request::PubRec(packet_id, ReasonCode::Success));
            }
            Command::Taken(packet_id, _) => {
                effects
                    .requests
                    .push(Request::PubAck(packet_id, ReasonCode::Success));
            }
            // The peer takes it before the connection sees it.
            Command::Disconnect { .. } => {}
        }
    }

    fn unsubscribe(
        &mut self,
        filter: String,
        only: Option<&Arc<Queue>>,
        reply: Option<oneshot::Sender<ReasonCode>>,
        effects: &mut Effects<'_>,
    ) {
        match self.find(&filter) {
            Some(id) => {
                let is_meant = |stream: &Stream| only.is_none_or(|queue| Arc::ptr_eq(queue, &stream.queue));
                if !self.streams.get(&id).is_some_and(is_meant) {
                    return;
                }
                if let Some(stream) = self.streams.remove(&id) {
                    stream.queue.end(false);
                }
                self.unclaimed.release(id);
            }
            None if only.is_some() => return,
            None => self.unclaimed.release(subscription_id(&filter)),
        }
        let packet_id = self.free_id();
        if let Some(reply) = reply {
            self.asking.insert(packet_id, Asking::Unsubscribe(reply));
        }
        effects.requests.push(Request::Unsubscribe(Box::new(Unsubscribe {
            packet_id,
            filters: vec![filter],
            user_properties: Vec::new(),
        })));
    }

    /// The stream ends, the subscription stays: what the application has not taken waits for its return.
    fn detach(&mut self, filter: &str, queue: &Arc<Queue>) {
        let Some(id) = self.find(filter) else { return };
        if self
            .streams
            .get(&id)
            .is_none_or(|stream| !Arc::ptr_eq(&stream.queue, queue))
        {
            return;
        }
        self.streams.remove(&id);
        self.unclaimed.detached.insert(id);
        self.unclaimed.give_back(id, queue);
    }

    fn handle_event(&mut self, shared: &Arc<Shared>, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Deliver(delivery) => self.deliver(shared, delivery),
            Event::PubAck(packet_id, reason) => self.published(packet_id, reason),
            Event::PubRec(packet_id, reason) if reason.is_error() => self.published(packet_id, reason),
            Event::PubRec(packet_id, reason) => {
                if let Some(publishing) = self.publishing.get_mut(&packet_id) {
                    publishing.reason = reason;
                }
                effects
                    .requests
                    .push(Request::PubRel(packet_id, ReasonCode::Success));
            }
            Event::PubComp(packet_id, _) => {
                let reason = self
                    .publishing
                    .get(&packet_id)
                    .map(|publishing| publishing.reason);
                self.published(packet_id, reason.unwrap_or(ReasonCode::Success));
            }
            Event::PubRel(packet_id, _) => effects
                .requests
                .push(Request::PubComp(packet_id, ReasonCode::Success)),
            Event::SubAck(packet_id, codes) => self.subscribed(packet_id, &codes),
            Event::UnsubAck(packet_id, codes) => {
                if let Some(Asking::Unsubscribe(reply)) = self.asking.remove(&packet_id) {
                    let _ = reply.send(first(&codes));
                }
            }
            // The peer takes the first three before the connection sees them; AUTH answers what is never asked.
            Event::Connected(_) | Event::Refused(_) | Event::Close(_) | Event::Auth(_) => {}
        }
    }

    fn published(&mut self, packet_id: PacketId, reason: ReasonCode) {
        if let Some(Publishing {
            reply: Some(reply), ..
        }) = self.publishing.remove(&packet_id)
        {
            let _ = reply.send(reason);
        }
    }

    fn subscribed(&mut self, packet_id: PacketId, codes: &[ReasonCode]) {
        let Some(Asking::Subscribe { id, queue, reply, .. }) = self.asking.remove(&packet_id) else {
            return;
        };
        let code = first(codes);
        // The application may have ended the subscription, and even made it anew, before it was granted.
        let is_current = self
            .streams
            .get(&id)
            .is_some_and(|stream| Arc::ptr_eq(&stream.queue, &queue));
        if is_current && code.is_error() {
            self.streams.remove(&id);
            self.unclaimed.give_back(id, &queue);
        }
        let _ = reply.send(Ok(code));
    }

    fn deliver(&mut self, shared: &Arc<Shared>, delivery: Delivery) {
        let ids = delivery.subscription_ids.clone();
        let ticket = delivery
            .packet_id
            .map(|packet_id| Ticket::new(shared, packet_id, delivery.qos));
        let item = Item {
            received: Received::new(delivery, &self.client.mountpoint),
            ticket,
        };
        let mut is_claimed = false;
        for id in &ids {
            if let Some(stream) = self.streams.get(id) {
                is_claimed = true;
                stream.queue.push(item.clone());
            }
        }
        if is_claimed {
            return;
        }
        if item.ticket.is_some() && ids.iter().any(|id| self.unclaimed.is_awaited(*id)) {
            self.unclaimed.held.push((ids, item));
        } else {
            shared.count_unclaimed();
        }
    }

    /// At most as many are in use as there are permits, far fewer than 65 535.
    fn free_id(&mut self) -> PacketId {
        loop {
            let id = self.next;
            self.next = id.next();
            if !self.publishing.contains_key(&id) && !self.asking.contains_key(&id) {
                return id;
            }
        }
    }

    /// The identifier of the client's subscription to `filter`.
    fn find(&self, filter: &str) -> Option<u32> {
        let mut id = subscription_id(filter);
        loop {
            if self.streams.get(&id)?.filter == filter {
                return Some(id);
            }
            id = next_subscription_id(id);
        }
    }

    /// An identifier for a subscription to `filter`; `None` if the client has one to it already.
    fn vacant_id(&self, filter: &str) -> Option<u32> {
        let mut id = subscription_id(filter);
        while let Some(stream) = self.streams.get(&id) {
            if stream.filter == filter {
                return None;
            }
            id = next_subscription_id(id);
        }
        Some(id)
    }
}

impl Unclaimed {
    fn is_awaited(&self, id: u32) -> bool {
        self.detached.contains(&id) || (self.resumed && !self.released.contains(&id))
    }

    /// The application subscribes: it gets what was held, each message with the first subscription that claims it.
    fn claim(&mut self, id: u32, queue: &Queue) {
        self.detached.remove(&id);
        self.released.remove(&id);
        for (_, item) in self.held.extract_if(.., |(ids, _)| ids.contains(&id)) {
            queue.push(item);
        }
    }

    /// The application has no stream after all: what it has not taken waits again.
    fn give_back(&mut self, id: u32, queue: &Queue) {
        for item in queue.drain() {
            if item.ticket.is_some() {
                self.detached.insert(id);
                self.held.push((SubscriptionIds::from_slice(&[id]), item));
            }
        }
    }

    /// The application wants nothing of this subscription: letting go of what is held acknowledges it.
    fn release(&mut self, id: u32) {
        self.detached.remove(&id);
        if self.resumed && self.released.len() < RELEASED_MAX {
            self.released.insert(id);
        } else {
            // Nobody gives up thousands of subscriptions before taking up those of the session again.
            self.resumed = false;
            self.released.clear();
        }
        let (detached, resumed, released) = (&self.detached, self.resumed, &self.released);
        let is_awaited = |id: &u32| detached.contains(id) || (resumed && !released.contains(id));
        self.held.retain(|(ids, _)| ids.iter().any(is_awaited));
    }
}

fn first(codes: &[ReasonCode]) -> ReasonCode {
    codes.first().copied().unwrap_or(ReasonCode::UnspecifiedError)
}

/// Highest subscription identifier (§3.8.2.1.2).
const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;

/// FNV-1a, folded to the range of subscription identifiers, 1 to 268 435 455.
fn subscription_id(filter: &str) -> u32 {
    let hash = filter.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % SUBSCRIPTION_ID_MAX + 1
}

fn next_subscription_id(id: u32) -> u32 {
    id % SUBSCRIPTION_ID_MAX + 1
}

impl broker_core::Peer for Peer {
    /// A nudge: an embedded client sends commands instead of bytes.
    fn handle_input(&mut self, _now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        self.drain(effects);
        input.len()
    }

    fn handle_event(&mut self, _now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Connected(connected) => self.connected(*connected),
            Event::Refused(closing) => self.refused(*closing, effects),
            Event::Close(closing) => self.close(End::Closed(*closing), effects),
            event => {
                if let State::Connected(connection) = &mut self.state {
                    connection.handle_event(&self.shared, event, effects);
                }
            }
        }
    }

    fn handle_timeout(&mut self, _now: Timestamp, _effects: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _now: Timestamp, effects: &mut Effects<'_>) {
        if matches!(self.state, State::Connecting { .. } | State::Connected(_)) {
            effects.requests.push(Request::Disconnect(Box::new(Disconnect {
                cause: DisconnectCause::ConnectionLost,
                session_expiry_interval: None,
                user_properties: Vec::new(),
            })));
        }
        self.finish(End::BrokerEnded);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

impl Drop for Peer {
    /// The worker has ended, in order or not: nobody must wait for it.
    fn drop(&mut self) {
        self.finish(End::BrokerEnded);
    }
}

#[cfg(test)]
mod tests;

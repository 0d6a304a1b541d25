//! An admitted client: its exchanges with the broker, and where its deliveries go.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use broker_core::{
    ClientInfo, Connected, Delivery, Effects, Event, PacketId, Publish, QoS, ReasonCode, Request, Subscribe,
    Unsubscribe,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    super::{
        queue::{Item, Queue},
        received::Received,
        shared::{AlreadySubscribed, Command, Shared, Ticket},
    },
    next_subscription_id, subscription_id,
    unclaimed::Unclaimed,
};

/// An admitted client.
pub(super) struct Connection {
    client: Arc<ClientInfo>,
    /// The session outlives the connection: the broker sends again what is not acknowledged.
    pub(super) keeps_session: bool,
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

impl Connection {
    pub(super) fn new(connected: &Connected) -> Connection {
        Connection {
            client: Arc::clone(&connected.client),
            keeps_session: connected.session_expiry_interval > 0,
            next: PacketId::FIRST,
            publishing: HashMap::new(),
            asking: HashMap::new(),
            streams: BTreeMap::new(),
            unclaimed: Unclaimed::new(connected.session_present),
        }
    }

    pub(super) fn handle_command(&mut self, command: Command, effects: &mut Effects<'_>) {
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
        self.unclaimed.detach(id, queue);
    }

    /// The connection is over: so are its streams.
    pub(super) fn end(&self) {
        for stream in self.streams.values() {
            stream.queue.end(self.keeps_session);
        }
    }

    pub(super) fn handle_event(&mut self, shared: &Arc<Shared>, event: Event, effects: &mut Effects<'_>) {
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
            // The peer takes the first three before the connection sees them; the others answer what is never asked.
            Event::Connected(_) | Event::Refused(_) | Event::Close(_) => {}
            Event::Auth(_) | Event::Noted(..) | Event::Asleep | Event::WillSet(_) | Event::Drained => {}
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
        if !self.unclaimed.hold(ids, item) {
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

fn first(codes: &[ReasonCode]) -> ReasonCode {
    codes.first().copied().unwrap_or(ReasonCode::UnspecifiedError)
}

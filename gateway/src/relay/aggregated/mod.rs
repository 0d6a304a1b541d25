//! One connection to the broker for all clients (MQTT-SN §4.2.2, "aggregating gateway").
//!
//! The gateway has the sessions: subscriptions, what waits for a client, its Will. The broker knows one client, which
//! subscribes to whatever any client does, each filter at the highest quality of service that somebody asked for.
//!
//! - A message of the broker is acknowledged once it is in the queue of each client that it is for. These queues are in
//!   memory and bounded; a client whose queue is full misses messages, others do not wait for it.
//! - A message of a client is acknowledged to it when the broker has acknowledged it.
//! - A SUBSCRIBE goes to the broker even if the filter is subscribed to already, since that is how retained messages
//!   are asked for. They come with the retain flag set, which messages as they are published do not [MQTT-3.3.1-9], so
//!   they are given to those alone whose SUBSCRIBE was lately, and each of them once.
//! - While there is no connection, clients stay, CONNECT and requests are answered with "congestion", and what comes of
//!   QoS 0 is dropped. Then all filters are subscribed to anew.

mod connect;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use broker_core::{
    ClientInfo, Closing, DisconnectCause, Event, LinkId, PacketId, QoS, ReasonCode, Request, Timestamp, Will,
    filter_index::FilterIndex, random::Random, timer::TimerQueue,
};

use super::{
    client::{Backoff, Notes},
    connection::{Connection, Incoming},
    deliveries::Deliveries,
    upstream::{ConnId, Counters, Notice, Output, Terms, Transport, Upstream},
};
use publish::Exchange;
use subscribe::Filter;

/// How the gateway introduces itself to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    /// Its client id.
    pub(crate) client_id: String,
    /// Subscriptions and messages outlive a broken connection at the broker. Those of an earlier life of the gateway are
    /// ended: nobody knows any more whom they were for.
    pub(crate) is_persistent: bool,
}

/// Names a session; never used twice.
type SessionKey = u64;

/// The state machine: see the [module](self).
pub(crate) struct Aggregated {
    terms: Terms,
    introduction: Introduction,
    connection: Option<Connection>,
    connections: u64,
    backoff: Backoff,
    sessions: BTreeMap<SessionKey, Session>,
    last_session: SessionKey,
    by_id: HashMap<Arc<str>, SessionKey>,
    by_link: HashMap<LinkId, SessionKey>,
    timers: TimerQueue<SessionKey>,
    filters: FilterIndex<Filter>,
    /// To be ended at the broker once there is a connection.
    stale_filters: BTreeSet<String>,
    exchanges: BTreeMap<PacketId, Exchange>,
    last_id: PacketId,
    /// QoS 2 of the broker: received, not released.
    unreleased: BTreeSet<PacketId>,
    /// The broker may have a session of an earlier life of the gateway.
    forgets: bool,
    /// The broker has not confirmed all filters of a session that it has.
    must_resubscribe: bool,
    random: Random,
    counters: Counters,
}

/// A client's session.
#[derive(Debug)]
struct Session {
    client: Arc<ClientInfo>,
    presence: Presence,
    /// It ends with its connection.
    is_clean: bool,
    expiry_secs: u32,
    notes: Notes,
    will: Option<Box<Will>>,
    deliveries: Deliveries,
    last_id: PacketId,
    subscriptions: BTreeSet<String>,
    /// Messages of QoS 1 and 2 of the client, by its packet identifiers, to the broker's.
    publishing: BTreeMap<PacketId, PacketId>,
    was_full: bool,
    /// A timer is armed for this time or an earlier one.
    armed: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Connected; or awake, that is, there until it has got what waits for it.
    Here { link: LinkId, is_awake: bool },
    /// Until then; later it counts as lost.
    Asleep(Timestamp),
    /// Until then the session is kept.
    Away(Timestamp),
}

impl Session {
    fn link(&self) -> Option<LinkId> {
        match self.presence {
            Presence::Here { link, .. } => Some(link),
            Presence::Asleep(_) | Presence::Away(_) => None,
        }
    }

    fn deadline(&self) -> Timestamp {
        match self.presence {
            Presence::Here { .. } => Timestamp::NEVER,
            Presence::Asleep(until) | Presence::Away(until) => until,
        }
    }

    fn tell(&self, event: Event, out: &mut Output) {
        if let Some(link) = self.link() {
            out.events.push((link, event));
        }
    }

    /// Hands out what the client takes.
    fn deliver(&mut self, out: &mut Output) {
        if let Some(link) = self.link() {
            self.deliveries.hand_out(|event| out.events.push((link, event)));
        }
        self.after_delivery(out);
    }

    fn after_delivery(&mut self, out: &mut Output) {
        if !self.deliveries.is_empty() {
            return;
        }
        self.was_full = false;
        if let Presence::Here {
            link,
            is_awake: is_awake @ true,
        } = &mut self.presence
        {
            *is_awake = false;
            out.events.push((*link, Event::Drained));
        }
    }
}

impl Aggregated {
    pub(crate) fn new(terms: Terms, introduction: Introduction) -> Aggregated {
        Aggregated {
            random: Random::new(terms.seed),
            filters: FilterIndex::with_seed(terms.seed),
            terms,
            forgets: introduction.is_persistent,
            must_resubscribe: false,
            introduction,
            connection: None,
            connections: 0,
            backoff: Backoff::new(),
            sessions: BTreeMap::new(),
            last_session: 0,
            by_id: HashMap::new(),
            by_link: HashMap::new(),
            timers: TimerQueue::new(),
            stale_filters: BTreeSet::new(),
            exchanges: BTreeMap::new(),
            last_id: PacketId::FIRST,
            unreleased: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// The connection, if the broker has accepted it.
    fn open(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().filter(|connection| connection.is_open())
    }

    fn is_open(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_open)
    }

    fn dial(&mut self, now: Timestamp, out: &mut Output) {
        let credentials = &self.terms.credentials;
        let version = mqtt::codec::ProtocolVersion::V4;
        let mut packet = mqtt::codec::Connect::new(version, &self.introduction.client_id);
        packet.clean_start = !self.introduction.is_persistent || self.forgets;
        packet.keep_alive = self.terms.timing.keep_alive_secs();
        packet.username = credentials.username.as_deref();
        packet.password = credentials
            .password
            .as_deref()
            .filter(|_| packet.username.is_some());
        self.connections += 1;
        match Connection::open(now, ConnId(self.connections), self.terms.timing, packet, out) {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => self.lost(now, &error.to_string(), out),
        }
    }

    /// There is no connection any more.
    fn lost(&mut self, now: Timestamp, reason: &str, out: &mut Output) {
        if let Some(mut connection) = self.connection.take() {
            connection.close(now, false, out);
        }
        let random = self.random.next();
        self.backoff.failed(now, random);
        out.notices.push(Notice::BrokerLost(reason.to_owned()));
        self.abandon_subscribing(out);
    }

    fn connected(&mut self, now: Timestamp, session_present: bool, reason: ReasonCode, out: &mut Output) {
        if reason.is_error() {
            let text = format!("the broker refuses the connection: {}", reason.text());
            return self.lost(now, &text, out);
        }
        self.backoff.succeeded();
        if std::mem::take(&mut self.forgets) {
            if let Some(mut connection) = self.connection.take() {
                connection.close(now, true, out);
            }
            return self.dial(now, out);
        }
        out.notices.push(Notice::BrokerConnected);
        if !session_present {
            self.unreleased.clear();
            self.stale_filters.clear();
        }
        if std::mem::take(&mut self.must_resubscribe) || !session_present {
            self.resubscribe(now, out);
        }
        for filter in std::mem::take(&mut self.stale_filters) {
            self.end_filter(now, filter, None, out);
        }
        self.publish_again(now, session_present, out);
    }

    fn handle_input(&mut self, now: Timestamp, bytes: &[u8], out: &mut Output) {
        if let Some(connection) = &mut self.connection {
            connection.feed(bytes);
        }
        loop {
            let Some(connection) = &mut self.connection else {
                return;
            };
            let was_open = connection.is_open();
            let packet = match connection.next() {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                Err(fault) => return self.lost(now, &fault.to_string(), out),
            };
            match packet {
                Incoming::ConnAck {
                    session_present,
                    reason,
                } => {
                    self.connected(now, session_present, reason, out);
                }
                _ if !was_open => return self.lost(now, "the broker's first packet is no CONNACK", out),
                packet => self.handle_packet(now, packet, out),
            }
        }
    }

    fn handle_packet(&mut self, now: Timestamp, packet: Incoming, out: &mut Output) {
        match packet {
            Incoming::Publish { message, packet_id } => self.receive(now, &message, packet_id, out),
            Incoming::TooLarge(qos, id) => {
                self.counters.dropped_too_large += 1;
                self.acknowledge(now, qos, id, out);
            }
            Incoming::PubRel(id) => {
                self.unreleased.remove(&id);
                if let Some(connection) = self.open() {
                    connection.pub_comp(now, id, out);
                }
            }
            Incoming::PubAck(id) => self.published(id, ReasonCode::Success, out),
            Incoming::PubRec(id) => self.publish_received(now, id, out),
            Incoming::PubComp(id) => self.publish_complete(id, out),
            Incoming::SubAck(id, codes) => self.subscribed(now, id, &codes, out),
            Incoming::UnsubAck(id) => self.unsubscribed(now, id, out),
            Incoming::PingResp | Incoming::ConnAck { .. } => {}
        }
    }

    fn arm(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let at = session.deadline();
            if at < session.armed {
                session.armed = at;
                self.timers.arm(at, key);
            }
        }
    }

    /// A packet identifier for the broker that is not in use.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.next();
            if !self.exchanges.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

impl Upstream for Aggregated {
    fn start(&mut self, now: Timestamp, out: &mut Output) {
        self.dial(now, out);
    }

    fn handle_request(&mut self, now: Timestamp, link: LinkId, request: Request, out: &mut Output) {
        if let Request::Connect(connect) = request {
            return self.connect(now, link, *connect, out);
        }
        let Some(&key) = self.by_link.get(&link) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        match request {
            Request::Disconnect(disconnect) => self.disconnect(now, key, disconnect.cause, out),
            Request::Publish(publish) => self.publish(now, key, &publish, out),
            Request::PubRel(id, _) => self.release(now, key, id, out),
            Request::Subscribe(subscribe) => self.subscribe(now, key, &subscribe, out),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(now, key, &unsubscribe, out),
            Request::PubAck(id, _) => {
                session.deliveries.pub_ack(id);
                session.deliver(out);
            }
            Request::PubRec(id, reason) => session.received(id, reason.is_error(), out),
            Request::PubComp(id, _) => {
                session.deliveries.pub_comp(id);
                session.deliver(out);
            }
            Request::Undeliverable(Some(id)) => {
                match session.deliveries.sent_qos(id) {
                    Some(QoS::ExactlyOnce) => session.received(id, true, out),
                    _ => drop(session.deliveries.pub_ack(id)),
                }
                session.deliver(out);
            }
            Request::Undeliverable(None) => {}
            Request::Note(number, value) => {
                let reason = session.notes.set(number, value);
                session.tell(Event::Noted(number, reason), out);
            }
            Request::SetWill(will) => {
                session.will = will;
                session.tell(Event::WillSet(ReasonCode::Success), out);
            }
            // The one is handled above; the other is MQTT 5's.
            Request::Connect(_) | Request::Auth(_) => {}
        }
    }

    fn handle_transport(&mut self, now: Timestamp, conn: ConnId, happening: Transport<'_>, out: &mut Output) {
        let Some(connection) = self
            .connection
            .as_mut()
            .filter(|connection| connection.id() == conn)
        else {
            return;
        };
        match happening {
            Transport::Opened => connection.handle_opened(now, out),
            Transport::Input(bytes) => self.handle_input(now, bytes, out),
            Transport::Closed(reason) => self.lost(now, reason, out),
        }
    }

    fn handle_timeout(&mut self, now: Timestamp, out: &mut Output) {
        match &mut self.connection {
            Some(connection) => {
                if let Err(fault) = connection.handle_timeout(now, out) {
                    self.lost(now, &fault.to_string(), out);
                }
            }
            None if self.backoff.is_over(now) => self.dial(now, out),
            None => {}
        }
        while let Some(key) = self.timers.pop_due(now) {
            let Some(session) = self.sessions.get_mut(&key) else {
                continue;
            };
            // Left over from before it was armed for a later time.
            if session.armed > now {
                continue;
            }
            session.armed = Timestamp::NEVER;
            match session.presence {
                Presence::Asleep(until) if until <= now => {
                    self.disconnect(now, key, DisconnectCause::ConnectionLost, out);
                }
                Presence::Away(until) if until <= now => self.end(now, key, out),
                _ => self.arm(key),
            }
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let connection = match &self.connection {
            Some(connection) => connection.deadline(),
            None => self.backoff.until(),
        };
        Some(self.timers.next().map_or(connection, |next| next.min(connection)))
    }

    fn shutdown(&mut self, now: Timestamp, out: &mut Output) {
        for session in self.sessions.values() {
            let closing = Closing::new(ReasonCode::ServerShuttingDown);
            session.tell(Event::Close(Box::new(closing)), out);
        }
        self.by_link.clear();
        if let Some(connection) = &mut self.connection {
            connection.close(now, true, out);
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

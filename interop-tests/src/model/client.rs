//! Clients of the model: what they owe the broker, and when they pay.

use std::sync::Arc;

use broker_core::{
    ClientInfo, Connect, Event, LinkId, PacketId, QoS, ReasonCode, Request, Timestamp,
    admission::{Authentication, Authenticator, Credentials, Grant},
};

use testkit::Random;

/// When a client acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    /// As soon as it can.
    AtOnce,
    /// At some later step, in any order.
    Later,
    /// Not on this connection.
    Never,
}

/// An answer that a client owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// PUBACK.
    Ack(PacketId),
    /// PUBREC.
    Received(PacketId),
    /// PUBREL.
    Release(PacketId),
    /// PUBCOMP.
    Complete(PacketId),
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its connection.
    pub(super) link: Option<LinkId>,
    /// As the broker knows it on this connection.
    pub(super) info: Option<Arc<ClientInfo>>,
    /// It speaks MQTT 5.
    pub(super) is_v5: bool,
    /// Session expiry interval of its CONNECT.
    pub(super) expiry: u32,
    /// It reads too slowly.
    pub(super) congested: bool,
    /// Filters it once subscribed to.
    pub(super) filters: Vec<String>,
    /// Identifiers of QoS 2 messages that it has not released.
    pub(super) publishing: Vec<PacketId>,
    acks: Acks,
    owed: Vec<Owed>,
    last_id: u16,
    /// The connection before, which goes on if the new one is refused.
    previous: Option<(LinkId, Option<Arc<ClientInfo>>)>,
}

impl Client {
    /// A client that never was connected.
    pub(super) fn new(number: usize) -> Client {
        Client {
            link: None,
            info: None,
            is_v5: true,
            expiry: 0,
            congested: false,
            filters: Vec::new(),
            publishing: Vec::new(),
            acks: Acks::AtOnce,
            owed: Vec::new(),
            last_id: u16::try_from(number).unwrap_or(0) * 1000,
            previous: None,
        }
    }

    /// It sends a CONNECT on a connection of its own.
    pub(super) fn begin(&mut self, link: LinkId, connect: &Connect, acks: Acks) {
        let before = self.link.replace(link);
        self.previous = before.map(|before| (before, self.info.take()));
        self.is_v5 = connect.connection.proto_ver >= 5;
        self.expiry = connect.session_expiry_interval;
        self.congested = false;
        self.acks = acks;
        self.owed.clear();
    }

    /// A packet identifier of its own.
    pub(super) fn packet_id(&mut self) -> PacketId {
        self.last_id = self.last_id % 60_000 + 1;
        super::packet_id(self.last_id)
    }

    /// The broker says something; what the client answers at once.
    pub(super) fn event(&mut self, link: LinkId, event: &Event) -> Option<Request> {
        if self.link != Some(link) {
            return None;
        }
        let owed = match event {
            Event::Connected(connected) => {
                self.info = Some(Arc::clone(&connected.client));
                return None;
            }
            Event::Refused(_) => {
                (self.link, self.info) = match self.previous.take() {
                    Some((link, info)) => (Some(link), info),
                    None => (None, None),
                };
                return None;
            }
            Event::Close(_) => {
                self.link = None;
                return None;
            }
            Event::Deliver(delivery) => match (delivery.qos, delivery.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => Owed::Ack(id),
                (QoS::ExactlyOnce, Some(id)) => Owed::Received(id),
                _ => return None,
            },
            Event::PubRec(id, reason) => {
                if reason.is_error() && self.is_v5 {
                    self.publishing.retain(|publishing| publishing != id);
                    return None;
                }
                Owed::Release(*id)
            }
            Event::PubRel(id, ReasonCode::Success) => Owed::Complete(*id),
            Event::PubComp(id, _) => {
                self.publishing.retain(|publishing| publishing != id);
                return None;
            }
            _ => return None,
        };
        if self.acks == Acks::AtOnce {
            return Some(owed.request(ReasonCode::Success));
        }
        if !self.owed.contains(&owed) {
            self.owed.push(owed);
        }
        None
    }

    /// Something that it owes, or that makes no sense.
    pub(super) fn next_answer(&mut self, random: &mut Random) -> Option<(LinkId, Request)> {
        let link = self.link?;
        if random.chance(8) {
            let id = super::packet_id(u16::try_from(random.between(1, 40)).unwrap_or(1));
            let request = match random.below(5) {
                0 => Request::PubAck(id, ReasonCode::Success),
                1 => Request::PubRec(id, ReasonCode::Success),
                2 => Request::PubRel(id, ReasonCode::Success),
                3 => Request::Undeliverable(Some(id)),
                _ => Request::PubComp(id, ReasonCode::Success),
            };
            return Some((link, request));
        }
        if self.owed.is_empty() || self.acks == Acks::Never {
            return None;
        }
        let place = if random.chance(60) {
            0
        } else {
            random.below(self.owed.len())
        };
        let owed = self.owed.remove(place);
        let is_refused = self.is_v5 && matches!(owed, Owed::Received(_)) && random.chance(15);
        let reason = if is_refused {
            ReasonCode::UnspecifiedError
        } else {
            ReasonCode::Success
        };
        Some((link, owed.request(reason)))
    }
}

impl Owed {
    fn request(self, reason: ReasonCode) -> Request {
        match self {
            Owed::Ack(id) => Request::PubAck(id, reason),
            Owed::Received(id) => Request::PubRec(id, reason),
            Owed::Release(id) => Request::PubRel(id, reason),
            Owed::Complete(id) => Request::PubComp(id, reason),
        }
    }
}

/// Lets everybody in, but has to be asked.
#[derive(Debug)]
pub(super) struct SlowConsent;

impl Authenticator for SlowConsent {
    fn name(&self) -> &str {
        "slow_consent"
    }

    fn authenticate(&self, _now: Timestamp, _credentials: &Credentials<'_>) -> Authentication {
        Authentication::Allow(Grant::default())
    }
}

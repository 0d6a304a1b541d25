//! Deliveries on their way to one client: what waits for a topic id, and what waits for an acknowledgement.

use std::collections::VecDeque;

use broker_core::{Delivery, PacketId, QoS, Timestamp};

use super::timers::Retry;
use crate::codec::{MsgId, Topic, TopicId};

/// Made for the first delivery that cannot be sent and forgotten at once.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// In order; the first has no topic id that the client knows.
    pub(super) waiting: VecDeque<Item>,
    pub(super) register: Option<Registering>,
    pub(super) inflight: Vec<Inflight>,
    /// Deliveries so far: their order.
    pub(super) count: u64,
}

/// A delivery.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) delivery: Delivery,
    pub(super) order: u64,
    /// How often the client has called its topic id invalid.
    pub(super) rejections: u32,
}

/// The REGISTER that the client has not answered. There is one at a time (§6.5).
#[derive(Debug)]
pub(super) struct Registering {
    pub(super) topic_id: TopicId,
    pub(super) msg_id: MsgId,
    pub(super) retry: Retry,
}

/// A delivery of QoS 1 or 2 under way.
#[derive(Debug)]
pub(super) enum Inflight {
    /// PUBLISH was sent.
    Published {
        id: PacketId,
        item: Item,
        topic: Topic,
        retry: Retry,
    },
    /// PUBREC has come; the broker has not said PUBREL.
    Received(PacketId),
    /// PUBREL was sent.
    Released { id: PacketId, retry: Retry },
}

impl Inflight {
    pub(super) fn id(&self) -> PacketId {
        match self {
            Inflight::Published { id, .. } | Inflight::Received(id) | Inflight::Released { id, .. } => *id,
        }
    }

    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Inflight::Published { retry, .. } | Inflight::Released { retry, .. } => Some(retry.at),
            Inflight::Received(_) => None,
        }
    }
}

impl Outgoing {
    /// Nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.register.is_none() && self.inflight.is_empty()
    }

    /// How many of QoS 0 wait: those of QoS 1 and 2 are bounded by the window.
    pub(super) fn waiting_qos0(&self) -> usize {
        let is_qos0 = |item: &&Item| item.delivery.qos == QoS::AtMostOnce;
        self.waiting.iter().filter(is_qos0).count()
    }

    /// Puts a delivery among those that wait, by its order.
    pub(super) fn wait(&mut self, item: Item) {
        let at = self.waiting.partition_point(|other| other.order < item.order);
        self.waiting.insert(at, item);
    }

    pub(super) fn find(&self, id: MsgId) -> Option<usize> {
        self.inflight
            .iter()
            .position(|inflight| inflight.id().get() == id.0)
    }
}

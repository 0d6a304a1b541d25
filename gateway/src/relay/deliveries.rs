//! Messages on their way to one client: a queue, and what was handed to the peer and is not acknowledged.

use std::collections::VecDeque;

use broker_core::{Delivery, Event, PacketId, QoS};

/// Bounds of a [`Deliveries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Messages.
    pub(crate) messages: usize,
    /// Their memory, bytes.
    pub(crate) bytes: usize,
}

/// Messages for one client, in order. None is handed out while nobody is attached.
#[derive(Debug)]
pub(crate) struct Deliveries {
    limits: QueueLimits,
    /// Of QoS 1 and 2 that the client takes at once; `None`: nobody is attached.
    window: Option<usize>,
    queue: VecDeque<Delivery>,
    queue_bytes: usize,
    in_flight: Vec<InFlight>,
}

#[derive(Debug)]
enum InFlight {
    /// QoS 1 or 2, handed to the peer.
    Sent(Delivery),
    /// QoS 2: the client has it; to be released.
    Received(PacketId),
    /// QoS 2: the client did not take it, which its sender is not told: the rest of the exchange is left to the gateway.
    Refused(PacketId),
    /// QoS 2: released, until the client says that it is complete.
    Released(PacketId),
}

impl InFlight {
    fn id(&self) -> Option<PacketId> {
        match self {
            InFlight::Sent(delivery) => delivery.packet_id,
            InFlight::Received(id) | InFlight::Refused(id) | InFlight::Released(id) => Some(*id),
        }
    }
}

/// What became of a message that was put into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits, or was handed out.
    Kept,
    /// It waits, and one of QoS 0 gave way to it.
    InPlaceOfQoS0,
    /// It is of QoS 0 and was dropped, as the queue is full.
    DroppedQoS0,
    /// It was dropped, as the queue is full.
    Dropped,
}

/// What a client's answer, or a PUBREL, leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is known of this packet identifier, or the step came twice.
    None,
    /// The client is told.
    Forward,
    /// The gateway itself completes it.
    Complete,
}

impl Deliveries {
    pub(crate) fn new(limits: QueueLimits) -> Deliveries {
        Deliveries {
            limits,
            window: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            in_flight: Vec::new(),
        }
    }

    /// No room for another message without one giving way.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.limits.messages || self.queue_bytes >= self.limits.bytes
    }

    /// Not more than half is left of what may wait.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.queue.len() <= self.limits.messages / 2 && self.queue_bytes <= self.limits.bytes / 2
    }

    /// Nothing waits, and nothing is to be acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// A message waits or has not been acknowledged under this packet identifier.
    pub(crate) fn is_used(&self, id: PacketId) -> bool {
        let waits = self.queue.iter().any(|delivery| delivery.packet_id == Some(id));
        waits || self.in_flight.iter().any(|entry| entry.id() == Some(id))
    }

    /// Somebody has come who takes `window` messages of QoS 1 and 2 at once: what was handed out and not acknowledged
    /// is handed out again.
    pub(crate) fn attach(&mut self, window: u16, mut hand_out: impl FnMut(Event)) {
        self.window = Some(usize::from(window.max(1)));
        for entry in &mut self.in_flight {
            match entry {
                InFlight::Sent(delivery) => {
                    delivery.dup = true;
                    hand_out(Event::Deliver(delivery.clone()));
                }
                InFlight::Released(id) => {
                    hand_out(Event::PubRel(*id, broker_core::ReasonCode::Success));
                }
                InFlight::Received(_) | InFlight::Refused(_) => {}
            }
        }
        self.hand_out(hand_out);
    }

    /// Nobody is there any more.
    pub(crate) fn detach(&mut self) {
        self.window = None;
    }

    /// Adds a message whatever waits, unless it is of QoS 0: for a connection that is not read while [full](Self::is_full).
    pub(crate) fn push(&mut self, delivery: Delivery) -> Pushed {
        let mut pushed = Pushed::Kept;
        if self.is_full() && delivery.qos == QoS::AtMostOnce {
            if !self.drop_qos0() {
                return Pushed::DroppedQoS0;
            }
            pushed = Pushed::InPlaceOfQoS0;
        }
        self.append(delivery);
        pushed
    }

    /// Adds a message if there is room, or if the oldest of QoS 0 can give way to it.
    pub(crate) fn push_bounded(&mut self, delivery: Delivery) -> Pushed {
        let mut pushed = Pushed::Kept;
        while self.is_full() {
            if !self.drop_qos0() {
                return match delivery.qos {
                    QoS::AtMostOnce => Pushed::DroppedQoS0,
                    _ => Pushed::Dropped,
                };
            }
            pushed = Pushed::InPlaceOfQoS0;
        }
        self.append(delivery);
        pushed
    }

    fn append(&mut self, delivery: Delivery) {
        self.queue_bytes += delivery.message.weight();
        self.queue.push_back(delivery);
    }

    fn drop_qos0(&mut self) -> bool {
        let found = self
            .queue
            .iter()
            .position(|delivery| delivery.qos == QoS::AtMostOnce);
        let dropped = found.and_then(|at| self.queue.remove(at));
        self.queue_bytes -= dropped.as_ref().map_or(0, |delivery| delivery.message.weight());
        dropped.is_some()
    }

    /// Hands out what the client takes now.
    pub(crate) fn hand_out(&mut self, mut hand_out: impl FnMut(Event)) {
        let Some(window) = self.window else {
            return;
        };
        while let Some(next) = self.queue.front() {
            if next.qos != QoS::AtMostOnce && self.in_flight.len() >= window {
                return;
            }
            if let Some(delivery) = self.queue.pop_front() {
                self.queue_bytes -= delivery.message.weight();
                if delivery.qos != QoS::AtMostOnce {
                    self.in_flight.push(InFlight::Sent(delivery.clone()));
                }
                hand_out(Event::Deliver(delivery));
            }
        }
        // A client that sleeps most of the time owns no memory for it.
        self.queue = VecDeque::new();
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        self.in_flight.iter().position(|entry| entry.id() == Some(id))
    }

    /// The client has acknowledged a message of QoS 1, or refused it: its sender gets a PUBACK either way.
    pub(crate) fn pub_ack(&mut self, id: PacketId) -> Step {
        let Some(at) = self.position(id) else {
            return Step::None;
        };
        match &self.in_flight[at] {
            InFlight::Sent(delivery) if delivery.qos == QoS::AtLeastOnce => {
                self.in_flight.remove(at);
                Step::Complete
            }
            _ => Step::None,
        }
    }

    /// The client has received a message of QoS 2, or has refused it: its sender gets a PUBREC either way, as MQTT 3.1.1
    /// knows no other.
    pub(crate) fn pub_rec(&mut self, id: PacketId, is_refused: bool) -> Step {
        let Some(at) = self.position(id) else {
            return Step::None;
        };
        let entry = &mut self.in_flight[at];
        match entry {
            InFlight::Sent(delivery) if delivery.qos == QoS::ExactlyOnce => {
                *entry = match is_refused {
                    true => InFlight::Refused(id),
                    false => InFlight::Received(id),
                };
                Step::Forward
            }
            _ => Step::None,
        }
    }

    /// A message of QoS 2 that the client is never given.
    pub(crate) fn refuse(&mut self, id: PacketId) {
        if self.position(id).is_none() {
            self.in_flight.push(InFlight::Refused(id));
        }
    }

    /// The sender releases a message of QoS 2. One that is not known was received on an earlier connection.
    pub(crate) fn pub_rel(&mut self, id: PacketId) -> Step {
        let Some(at) = self.position(id) else {
            self.in_flight.push(InFlight::Released(id));
            return self.told();
        };
        let entry = &mut self.in_flight[at];
        match entry {
            InFlight::Refused(_) => {
                self.in_flight.remove(at);
                Step::Complete
            }
            InFlight::Received(_) | InFlight::Released(_) => {
                *entry = InFlight::Released(id);
                self.told()
            }
            InFlight::Sent(_) => Step::None,
        }
    }

    fn told(&self) -> Step {
        match self.window {
            Some(_) => Step::Forward,
            None => Step::None,
        }
    }

    /// A message of QoS 2 is complete.
    pub(crate) fn pub_comp(&mut self, id: PacketId) -> Step {
        match self.position(id) {
            Some(at) if matches!(self.in_flight[at], InFlight::Released(_)) => {
                self.in_flight.remove(at);
                Step::Complete
            }
            _ => Step::None,
        }
    }

    /// The quality of service of a message that was handed out and is not acknowledged.
    pub(crate) fn sent_qos(&self, id: PacketId) -> Option<QoS> {
        match &self.in_flight[self.position(id)?] {
            InFlight::Sent(delivery) => Some(delivery.qos),
            _ => None,
        }
    }
}

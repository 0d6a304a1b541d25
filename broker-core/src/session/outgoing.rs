//! Deliveries of one session: what waits, and what is under way until the client has acknowledged it.

mod acknowledge;
mod persist;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Message, PacketId, QoS, SubscriptionIds, Timestamp,
    store::{
        Sequence,
        format::{OutgoingEntry, OutgoingState, encode_message},
    },
};

pub(crate) use acknowledge::Acked;

/// A message on its way to one session.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: SubscriptionIds,
    /// Set if a shared group chose this session: another member gets it when this one leaves.
    pub(crate) shared: Option<Arc<SharedTarget>>,
    /// Where it stands in the journal, if it came from there.
    pub(crate) sequence: Option<Sequence>,
    /// Messages of a higher one go first.
    pub(crate) priority: u16,
}

/// A message of a shared group that this session has, from its place in the journal.
pub(crate) type Lease = (Arc<SharedTarget>, Sequence);

/// A shared group on one filter.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct SharedTarget {
    pub(crate) filter: Box<str>,
    pub(crate) group: Arc<str>,
}

impl Queued {
    fn weight(&self) -> usize {
        self.message.weight() + size_of::<Queued>()
    }
}

#[derive(Debug)]
struct Inflight {
    packet_id: PacketId,
    /// Counts the deliveries of the session.
    order: u64,
    /// Where the session's own reading of the journal came upon it.
    place: Option<Sequence>,
    state: InflightState,
    sent_at: Timestamp,
    /// Sent on the present connection; false after a reconnect until it is sent again.
    under_way: bool,
    /// The store is told of it in this state.
    stored: bool,
    /// The store may have an entry of it, of whatever state.
    has_entry: bool,
}

/// The states of §4.3.2 and §4.3.3, seen by the sender.
#[derive(Debug)]
enum InflightState {
    /// PUBLISH sent: waits for PUBACK or PUBREC.
    Published(Queued),
    /// Like it, on an earlier connection: the message has to be fetched from the journal before it can be repeated.
    Unread(Box<Unread>),
    /// PUBREL sent: waits for PUBCOMP. The message is gone.
    Released,
}

/// A [`Queued`] whose message is in the journal only.
#[derive(Debug)]
struct Unread {
    sequence: Sequence,
    qos: QoS,
    retain: bool,
    subscription_ids: SubscriptionIds,
    shared: Option<Arc<SharedTarget>>,
}

/// What to put on the wire.
#[derive(Debug)]
pub(crate) enum Sending {
    /// `packet_id` is present for QoS 1 and 2.
    Publish {
        item: Queued,
        packet_id: Option<PacketId>,
        dup: bool,
    },
    Release(PacketId),
}

/// Outgoing half of a session.
#[derive(Debug)]
pub(crate) struct Outgoing {
    next: PacketId,
    /// Deliveries of QoS 1 and 2 that may be under way at once.
    window: u16,
    under_way: u16,
    inflight: VecDeque<Inflight>,
    /// An identifier was used again while older ones were still under way, so that `inflight` is no longer in
    /// ring order.
    lapped: bool,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// How many of `queue` are QoS 0.
    queue_qos0: usize,
    /// Deliveries so far.
    sent: u64,
    /// Deliveries that are over and whose entries the store still has.
    finished: BTreeSet<PacketId>,
    /// Of deliveries that are over, their places, until the store is told: priorities, or a crash, may have put them
    /// before what is still to be read.
    completed: Vec<Sequence>,
    /// Messages of shared groups that the groups need not keep for others any more.
    settled: Vec<Lease>,
    /// Messages of shared groups that another member may have got before.
    repeated: BTreeSet<Sequence>,
}

impl Outgoing {
    pub(crate) fn new(window: u16) -> Outgoing {
        Outgoing {
            next: PacketId::FIRST,
            window,
            under_way: 0,
            inflight: VecDeque::new(),
            lapped: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_qos0: 0,
            sent: 0,
            finished: BTreeSet::new(),
            completed: Vec::new(),
            settled: Vec::new(),
            repeated: BTreeSet::new(),
        }
    }

    /// The connection is gone: everything unacknowledged will be sent again on the next one.
    pub(crate) fn disconnect(&mut self) {
        self.under_way = 0;
        for entry in &mut self.inflight {
            entry.under_way = false;
        }
    }

    /// A new connection, with a window of its own.
    pub(crate) fn reconnect(&mut self, window: u16) {
        self.window = window;
    }

    pub(crate) fn inflight_len(&self) -> usize {
        self.inflight.len()
    }

    /// A message of this QoS may go out at once without overtaking one of its kind. QoS 0 does not wait for a
    /// client that is slow to acknowledge.
    pub(crate) fn has_room(&self, qos: QoS) -> bool {
        match qos {
            QoS::AtMostOnce => self.queue_qos0 == 0,
            _ => self.queue.len() == self.queue_qos0 && self.under_way < self.window && !self.must_resend(),
        }
    }

    /// Appends to what waits, then cuts to the limits (0: none): first QoS 0, then the rest; of these the oldest of the
    /// lowest priority. Returns what was cut.
    pub(crate) fn enqueue(&mut self, item: Queued, len_max: usize, bytes_max: usize) -> Vec<Queued> {
        self.queue_bytes += item.weight();
        self.queue_qos0 += usize::from(item.qos == QoS::AtMostOnce);
        let behind = self
            .queue
            .iter()
            .rev()
            .take_while(|other| other.priority < item.priority)
            .count();
        self.queue.insert(self.queue.len() - behind, item);
        let mut cut = Vec::new();
        while (len_max > 0 && self.queue.len() > len_max) || (bytes_max > 0 && self.queue_bytes > bytes_max) {
            let Some(item) = self.unqueue(self.first_to_go()) else {
                break;
            };
            cut.push(item);
        }
        cut
    }

    fn first_to_go(&self) -> usize {
        if self.queue_qos0 == 0 {
            let lowest = self.queue.back().map_or(0, |item| item.priority);
            return self.queue.partition_point(|item| item.priority > lowest);
        }
        let is_qos0 = |item: &&Queued| item.qos == QoS::AtMostOnce;
        let lowest = self.queue.iter().rev().find(is_qos0).map(|item| item.priority);
        let first = self
            .queue
            .iter()
            .position(|item| is_qos0(&item) && Some(item.priority) == lowest);
        first.unwrap_or(0)
    }

    /// Records `item` (QoS 1 or 2) as sent now and gives it a packet identifier. The window must be open.
    pub(crate) fn send(&mut self, now: Timestamp, item: Queued) -> PacketId {
        let packet_id = self.free_id();
        self.sent += 1;
        self.inflight.push_back(Inflight {
            packet_id,
            order: self.sent,
            place: item.sequence.filter(|_| item.shared.is_none()),
            state: InflightState::Published(item),
            sent_at: now,
            under_way: true,
            stored: false,
            has_entry: false,
        });
        self.under_way += 1;
        packet_id
    }

    /// The next thing that may go out: repetitions in their old order first, then what waits. Expired
    /// messages go to `expired` instead.
    pub(crate) fn next_sending(&mut self, now: Timestamp, expired: &mut Vec<Queued>) -> Option<Sending> {
        if let Some(sending) = self.next_repetition(now) {
            return Some(sending);
        }
        loop {
            let is_open = self.under_way < self.window;
            // With the window closed, QoS 0 goes on.
            let at = if is_open || self.queue.front()?.qos == QoS::AtMostOnce {
                0
            } else {
                self.first_qos0()?
            };
            let item = self.unqueue(at)?;
            if item.message.is_expired(now) {
                expired.push(item);
                continue;
            }
            if item.qos == QoS::AtMostOnce {
                return Some(Sending::Publish {
                    item,
                    packet_id: None,
                    dup: false,
                });
            }
            let packet_id = Some(self.send(now, item.clone()));
            return Some(Sending::Publish {
                item,
                packet_id,
                dup: false,
            });
        }
    }

    fn first_qos0(&self) -> Option<usize> {
        if self.queue_qos0 == 0 {
            return None;
        }
        self.queue.iter().position(|item| item.qos == QoS::AtMostOnce)
    }

    fn unqueue(&mut self, at: usize) -> Option<Queued> {
        let item = self.queue.remove(at)?;
        self.queue_bytes -= item.weight();
        self.queue_qos0 -= usize::from(item.qos == QoS::AtMostOnce);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(item)
    }

    /// `None`: nothing is to be repeated, or the window is closed, and then only QoS 0 goes on.
    fn next_repetition(&mut self, now: Timestamp) -> Option<Sending> {
        if !self.must_resend() {
            return None;
        }
        let entry = self.inflight.iter_mut().find(|entry| !entry.under_way)?;
        // PUBREL does not count against the client's Receive Maximum (§4.9), but it keeps its place in our window.
        if self.under_way >= self.window && !matches!(entry.state, InflightState::Released) {
            return None;
        }
        let sending = entry.sending()?;
        entry.under_way = true;
        entry.sent_at = now;
        self.under_way += 1;
        Some(sending)
    }

    fn must_resend(&self) -> bool {
        usize::from(self.under_way) < self.inflight.len()
    }

    /// Deliveries that the client has not acknowledged since `before`, to be repeated (3.x only).
    pub(crate) fn retry(&mut self, now: Timestamp, before: Timestamp) -> Vec<Sending> {
        let due = self
            .inflight
            .iter_mut()
            .filter(|entry| entry.under_way && entry.sent_at <= before);
        due.filter_map(|entry| {
            entry.sent_at = now;
            entry.sending()
        })
        .collect()
    }

    /// When the oldest unacknowledged delivery was sent; `NEVER` if there is none.
    pub(crate) fn oldest_sent(&self) -> Timestamp {
        let sent = self
            .inflight
            .iter()
            .filter(|entry| entry.under_way)
            .map(|entry| entry.sent_at);
        sent.min().unwrap_or(Timestamp::NEVER)
    }

    /// Where `packet_id` stands. Identifiers are given in ring order, so their distances from the oldest one are
    /// sorted, until the ring is lapped.
    fn position(&self, packet_id: PacketId) -> Option<usize> {
        let first = self.inflight.front()?.packet_id;
        if self.lapped {
            return self
                .inflight
                .iter()
                .position(|entry| entry.packet_id == packet_id);
        }
        let wanted = distance(first, packet_id);
        self.inflight
            .binary_search_by_key(&wanted, |entry| distance(first, entry.packet_id))
            .ok()
    }

    /// Counts up from 1 and leaves out identifiers in use [MQTT-2.2.1-3].
    fn free_id(&mut self) -> PacketId {
        let mut id = self.next;
        // Fewer than 65 535 can be under way, because the window is a u16: a free one is found.
        while self.inflight.len() < usize::from(u16::MAX) && self.position(id).is_some() {
            id = id.next();
        }
        self.next = id.next();
        self.lapped = match (self.inflight.front(), self.inflight.back()) {
            (Some(first), Some(last)) => {
                self.lapped || distance(first.packet_id, id) < distance(first.packet_id, last.packet_id)
            }
            _ => false,
        };
        id
    }
}

/// Steps from `first` to `id` around the ring.
fn distance(first: PacketId, id: PacketId) -> u16 {
    id.get().wrapping_sub(first.get())
}

impl InflightState {
    fn lease(&self) -> Option<Lease> {
        let (target, sequence) = match self {
            InflightState::Published(item) => (item.shared.as_ref()?, item.sequence?),
            InflightState::Unread(unread) => (unread.shared.as_ref()?, unread.sequence),
            InflightState::Released => return None,
        };
        Some((Arc::clone(target), sequence))
    }
}

impl Inflight {
    fn published_qos(&self) -> Option<QoS> {
        match &self.state {
            InflightState::Published(item) => Some(item.qos),
            InflightState::Unread(unread) => Some(unread.qos),
            InflightState::Released => None,
        }
    }

    /// What its group is to be told when it is over. Of QoS 2 it was told when the store was.
    fn settled(&self) -> Option<Lease> {
        let is_taken = self.has_entry && self.published_qos() == Some(QoS::ExactlyOnce);
        if is_taken { None } else { self.state.lease() }
    }

    fn is_shared(&self) -> bool {
        match &self.state {
            InflightState::Published(item) => item.shared.is_some(),
            InflightState::Unread(unread) => unread.shared.is_some(),
            InflightState::Released => false,
        }
    }

    fn entry(&self) -> OutgoingEntry {
        let pair = |target: &Arc<SharedTarget>| (target.filter.to_string(), target.group.to_string());
        let state = match &self.state {
            InflightState::Published(item) => OutgoingState::Published {
                sequence: item.sequence,
                message: match item.sequence {
                    Some(_) => Bytes::new(),
                    None => encode_message(&item.message),
                },
                qos: item.qos,
                retain: item.retain,
                subscription_ids: item.subscription_ids.clone(),
                shared: item.shared.as_ref().map(pair),
            },
            InflightState::Unread(unread) => OutgoingState::Published {
                sequence: Some(unread.sequence),
                message: Bytes::new(),
                qos: unread.qos,
                retain: unread.retain,
                subscription_ids: unread.subscription_ids.clone(),
                shared: unread.shared.as_ref().map(pair),
            },
            InflightState::Released => OutgoingState::Released,
        };
        OutgoingEntry {
            order: self.order,
            place: self.place,
            state,
        }
    }

    /// As a repetition; `None` if the message has to be fetched first.
    fn sending(&self) -> Option<Sending> {
        match &self.state {
            InflightState::Published(item) => Some(Sending::Publish {
                item: item.clone(),
                packet_id: Some(self.packet_id),
                dup: true,
            }),
            InflightState::Unread(_) => None,
            InflightState::Released => Some(Sending::Release(self.packet_id)),
        }
    }
}

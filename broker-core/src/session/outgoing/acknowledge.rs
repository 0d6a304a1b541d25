//! What becomes of deliveries under way: acknowledged, given up, or taken back by a shared group.

use std::collections::VecDeque;

use super::{Inflight, InflightState, Lease, Outgoing, Queued, SharedTarget};
use crate::{Message, PacketId, QoS};

/// What an acknowledgement did.
#[derive(Debug)]
pub(crate) enum Acked {
    /// The delivery is complete. `None`: its message was not read since the client came back.
    Complete(Option<Message>),
    /// PUBREL goes out.
    Release(Option<Message>),
    /// PUBREC came again: PUBREL goes out again.
    ReleaseAgain,
    /// PUBCOMP came: the exchange is over.
    Finished,
    /// No such packet identifier, or not in that state.
    Unknown,
}

impl Outgoing {
    /// PUBACK.
    pub(crate) fn puback(&mut self, packet_id: PacketId) -> Acked {
        match self.position(packet_id) {
            Some(at) if self.inflight[at].published_qos() == Some(QoS::AtLeastOnce) => self.finish(at),
            _ => Acked::Unknown,
        }
    }

    /// PUBREC; with an error as its reason the delivery is over.
    pub(crate) fn pubrec(&mut self, packet_id: PacketId, is_error: bool) -> Acked {
        let Some(at) = self.position(packet_id) else {
            return Acked::Unknown;
        };
        match self.inflight[at].published_qos() {
            None => Acked::ReleaseAgain,
            Some(QoS::ExactlyOnce) if is_error => self.finish(at),
            Some(QoS::ExactlyOnce) => {
                let entry = &mut self.inflight[at];
                self.settled.extend(entry.settled());
                let state = std::mem::replace(&mut entry.state, InflightState::Released);
                match state {
                    InflightState::Published(item) => Acked::Release(Some(item.message)),
                    InflightState::Unread(_) => Acked::Release(None),
                    InflightState::Released => Acked::ReleaseAgain,
                }
            }
            Some(_) => Acked::Unknown,
        }
    }

    /// PUBCOMP.
    pub(crate) fn pubcomp(&mut self, packet_id: PacketId) -> Acked {
        match self.position(packet_id) {
            Some(at) if self.inflight[at].published_qos().is_none() => self.finish(at),
            _ => Acked::Unknown,
        }
    }

    /// Forgets a delivery of any state: the peer could not send it.
    pub(crate) fn cancel(&mut self, packet_id: PacketId) -> Acked {
        self.position(packet_id)
            .map_or(Acked::Unknown, |at| self.finish(at))
    }

    fn finish(&mut self, at: usize) -> Acked {
        let entry = self.inflight.remove(at).expect("position() found it");
        self.under_way -= u16::from(entry.under_way);
        if entry.has_entry {
            self.finished.insert(entry.packet_id);
        }
        self.completed.extend(entry.place);
        if self.inflight.is_empty() && self.inflight.capacity() > 64 {
            self.inflight = VecDeque::new();
        }
        self.settled.extend(entry.settled());
        match entry.state {
            InflightState::Published(item) => Acked::Complete(Some(item.message)),
            InflightState::Unread(_) => Acked::Complete(None),
            InflightState::Released => Acked::Finished,
        }
    }

    /// What shared groups are to be told.
    pub(crate) fn take_settled(&mut self) -> Vec<Lease> {
        std::mem::take(&mut self.settled)
    }

    /// Takes out what a shared group gave to this session and another member may have instead: everything that
    /// waits, and QoS 1 that was sent on a connection that is gone. What is under way stays: the client will
    /// acknowledge it, and until then it counts against its Receive Maximum [MQTT-3.3.4-9]. QoS 2 once sent stays
    /// in any case [MQTT-4.8.2-4]. Only of the groups that `is_wanted` names.
    pub(crate) fn take_shared(&mut self, is_wanted: impl Fn(&SharedTarget) -> bool) -> Vec<Queued> {
        let wanted = |item: &Queued| {
            item.sequence.is_none() && item.shared.as_ref().is_some_and(|target| is_wanted(target))
        };
        let mut taken = Vec::new();
        if self.inflight.iter().any(|entry| entry.is_shared()) {
            let (gone, kept) = std::mem::take(&mut self.inflight).into_iter().partition(|entry: &Inflight| {
                let is_free = matches!(&entry.state, InflightState::Published(item) if item.qos == QoS::AtLeastOnce && item.sequence.is_none() && wanted(item));
                is_free && !entry.under_way
            });
            self.inflight = kept;
            for entry in Vec::from(gone) {
                if entry.has_entry {
                    self.finished.insert(entry.packet_id);
                }
                if let InflightState::Published(item) = entry.state {
                    taken.push(item);
                }
            }
        }
        if self.queue.iter().any(|item| item.shared.is_some()) {
            let (gone, kept) = std::mem::take(&mut self.queue)
                .into_iter()
                .partition(|item| wanted(item));
            self.queue = kept;
            let gone: VecDeque<Queued> = gone;
            self.queue_bytes -= gone.iter().map(Queued::weight).sum::<usize>();
            self.queue_qos0 = self
                .queue
                .iter()
                .filter(|item| item.qos == QoS::AtMostOnce)
                .count();
            taken.extend(gone);
        }
        taken
    }
}

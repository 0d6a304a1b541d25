//! What of the deliveries of a session outlives its connection and the process.

use std::{collections::BTreeSet, sync::Arc};

use super::{Inflight, InflightState, Lease, Outgoing, Queued, SharedTarget, Unread};
use crate::{
    Message, PacketId, QoS, Timestamp,
    store::{
        Sequence,
        format::{Origins, OutgoingEntry, OutgoingState, decode_message},
    },
};

impl Outgoing {
    /// What waits goes back to where it came from; messages that stand in the journal are left to it. QoS 0 comes from
    /// nowhere: it goes, unless the client sleeps.
    pub(crate) fn park(&mut self, keeps_qos0: bool) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|item| keeps_qos0 && item.qos == QoS::AtMostOnce && item.shared.is_none());
        queue.shrink_to_fit();
        self.queue_bytes = queue.iter().map(Queued::weight).sum();
        self.queue_qos0 = queue.len();
        self.queue = queue;
        // All leases of QoS 1 were given back.
        self.repeated.clear();
        for entry in &mut self.inflight {
            if let InflightState::Published(item) = &mut entry.state
                && let Some(sequence) = item.sequence
            {
                entry.state = InflightState::Unread(Box::new(Unread {
                    sequence,
                    qos: item.qos,
                    retain: item.retain,
                    subscription_ids: std::mem::take(&mut item.subscription_ids),
                    shared: item.shared.take(),
                }));
            }
        }
        self.inflight.shrink_to_fit();
    }

    /// Nothing waits for the client, and the store is told everything.
    pub(crate) fn is_idle(&self) -> bool {
        self.inflight.is_empty() && self.queue.is_empty() && self.finished.is_empty()
    }

    /// The identifier to go on with.
    pub(crate) fn next_packet_id(&self) -> PacketId {
        self.next
    }

    /// Deliveries so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Goes on counting from there.
    pub(crate) fn go_on(&mut self, next: PacketId, sent: u64) {
        self.next = next;
        self.sent = sent;
    }

    /// Messages and bytes that wait.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.queue.len(), self.queue_bytes)
    }

    /// Messages of QoS 0 that wait.
    pub(crate) fn queued_qos0(&self) -> usize {
        self.queue_qos0
    }

    /// Takes out what waits at QoS 0 and is not wanted any more.
    pub(crate) fn take_queued_qos0(&mut self, is_old: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let mut taken = Vec::new();
        let mut at = 0;
        while let Some(item) = self.queue.get(at) {
            if item.qos == QoS::AtMostOnce && is_old(item) {
                taken.extend(self.unqueue(at));
            } else {
                at += 1;
            }
        }
        taken
    }

    /// The first message of the session's own reading that was not sent; `next` if all were.
    pub(crate) fn unsent(&self, next: Sequence) -> Sequence {
        let own = |item: &Queued| item.sequence.filter(|_| item.shared.is_none());
        self.queue.iter().filter_map(own).min().unwrap_or(next)
    }

    /// Places from `from` on whose messages are under way.
    pub(crate) fn under_way_from(&self, from: Sequence) -> BTreeSet<Sequence> {
        let places = self.inflight.iter().filter_map(|entry| entry.place);
        places.filter(|place| *place >= from).collect()
    }

    /// The earliest place in the journal that is still needed for what is under way.
    pub(crate) fn oldest_needed(&self) -> Option<Sequence> {
        self.inflight.iter().filter_map(Inflight::sequence).min()
    }

    /// The entry of a delivery, which the caller writes.
    pub(crate) fn store(&mut self, packet_id: PacketId) -> Option<OutgoingEntry> {
        let at = self.position(packet_id)?;
        self.finished.remove(&packet_id);
        Some(self.inflight[at].store())
    }

    /// True if the store knows of the delivery.
    pub(crate) fn is_stored(&self, packet_id: PacketId) -> bool {
        self.position(packet_id)
            .is_some_and(|at| self.inflight[at].stored)
    }

    /// A commit failed: nothing is known of what the store has.
    pub(crate) fn forget_stored(&mut self) {
        for entry in &mut self.inflight {
            entry.stored = false;
        }
    }

    /// Deliveries that the store does not know, as entries, which the caller writes.
    pub(crate) fn store_all(&mut self) -> Vec<(PacketId, OutgoingEntry)> {
        let unknown = self.inflight.iter_mut().filter(|entry| !entry.stored);
        let entries: Vec<_> = unknown.map(|entry| (entry.packet_id, entry.store())).collect();
        for (packet_id, _) in &entries {
            self.finished.remove(packet_id);
        }
        entries
    }

    /// Deliveries that are over and whose entries the caller removes.
    pub(crate) fn take_finished(&mut self) -> Vec<PacketId> {
        std::mem::take(&mut self.finished).into_iter().collect()
    }

    /// Places of deliveries that are over.
    pub(crate) fn take_completed(&mut self) -> Vec<Sequence> {
        std::mem::take(&mut self.completed)
    }

    /// The store could not be told: again next time.
    pub(crate) fn give_back(&mut self, finished: Vec<PacketId>, complete: Vec<Sequence>) {
        self.forget_stored();
        self.completed.extend(complete);
        for packet_id in finished {
            match self.position(packet_id) {
                Some(at) => self.inflight[at].has_entry = true,
                None => {
                    self.finished.insert(packet_id);
                }
            }
        }
    }

    /// Every identifier that the store has an entry of.
    pub(crate) fn stored_ids(&self) -> Vec<PacketId> {
        let inflight = self.inflight.iter().filter(|entry| entry.has_entry);
        let mut ids: Vec<_> = inflight.map(|entry| entry.packet_id).collect();
        ids.extend(&self.finished);
        ids
    }

    /// Deliveries as the store had them, in any order. Returns how many have a message that cannot be read.
    pub(crate) fn restore(
        &mut self,
        mut entries: Vec<(PacketId, OutgoingEntry)>,
        origins: &mut Origins,
        target: impl Fn(&str, &str) -> Arc<SharedTarget>,
    ) -> u64 {
        let mut unreadable = 0;
        entries.sort_by_key(|(_, entry)| entry.order);
        for (packet_id, entry) in entries {
            let state = match entry.state {
                OutgoingState::Released => InflightState::Released,
                OutgoingState::Published {
                    sequence,
                    message,
                    qos,
                    retain,
                    subscription_ids,
                    shared,
                } => {
                    let shared = shared.map(|(filter, group)| target(&filter, &group));
                    match sequence {
                        Some(sequence) => InflightState::Unread(Box::new(Unread {
                            sequence,
                            qos,
                            retain,
                            subscription_ids,
                            shared,
                        })),
                        None => {
                            let Ok(message) = decode_message(&message, origins) else {
                                unreadable += 1;
                                continue;
                            };
                            InflightState::Published(Queued {
                                message,
                                qos,
                                retain,
                                subscription_ids,
                                shared,
                                sequence: None,
                                priority: 0,
                            })
                        }
                    }
                }
            };
            self.inflight.push_back(Inflight {
                packet_id,
                order: entry.order,
                place: entry.place,
                state,
                sent_at: Timestamp::default(),
                under_way: false,
                stored: true,
                has_entry: true,
            });
        }
        // Whether they are in ring order is not worth finding out.
        self.lapped = !self.inflight.is_empty();
        unreadable
    }

    /// Places of messages that have to be fetched before they can be repeated.
    pub(crate) fn unread(&self) -> Vec<Sequence> {
        let unread = |entry: &Inflight| match &entry.state {
            InflightState::Unread(unread) => Some(unread.sequence),
            _ => None,
        };
        self.inflight.iter().filter_map(unread).collect()
    }

    /// The messages that were asked for; those that are missing have left the journal. Returns how many deliveries
    /// ended for that.
    pub(crate) fn fill(&mut self, mut find: impl FnMut(Sequence) -> Option<Message>) -> usize {
        let mut missing = Vec::new();
        for entry in &mut self.inflight {
            let InflightState::Unread(unread) = &mut entry.state else {
                continue;
            };
            match find(unread.sequence) {
                Some(message) => {
                    entry.state = InflightState::Published(Queued {
                        message,
                        qos: unread.qos,
                        retain: unread.retain,
                        subscription_ids: std::mem::take(&mut unread.subscription_ids),
                        shared: unread.shared.take(),
                        sequence: Some(unread.sequence),
                        priority: 0,
                    });
                }
                None => missing.push(entry.packet_id),
            }
        }
        for packet_id in &missing {
            self.cancel(*packet_id);
        }
        missing.len()
    }

    /// What is under way of shared groups that read the journal.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.inflight
            .iter()
            .filter_map(|entry| entry.state.lease())
            .collect()
    }

    /// Takes out what shared groups have leased and may lease to others: what waits, and QoS 1 that is not under way
    /// any more. With each, whether it was sent.
    pub(crate) fn take_leased(&mut self, is_wanted: impl Fn(&SharedTarget) -> bool) -> Vec<(Lease, bool)> {
        let mut taken = Vec::new();
        let mut ids = Vec::new();
        for entry in &self.inflight {
            let InflightState::Published(item) = &entry.state else {
                continue;
            };
            if let (Some(target), Some(sequence), QoS::AtLeastOnce, false) =
                (&item.shared, item.sequence, item.qos, entry.under_way)
                && is_wanted(target)
            {
                taken.push(((Arc::clone(target), sequence), true));
                ids.push(entry.packet_id);
            }
        }
        let settled = self.settled.len();
        for packet_id in ids {
            self.cancel(packet_id);
        }
        // They are not settled: somebody else gets them.
        self.settled.truncate(settled);
        let mut at = 0;
        while let Some(item) = self.queue.get(at) {
            match (&item.shared, item.sequence) {
                (Some(target), Some(sequence)) if is_wanted(target) => {
                    // On an earlier connection, perhaps.
                    let was_sent = self.repeated.contains(&sequence);
                    taken.push(((Arc::clone(target), sequence), was_sent));
                    self.unqueue(at);
                }
                _ => at += 1,
            }
        }
        for ((_, sequence), _) in &taken {
            self.repeated.remove(sequence);
        }
        taken
    }

    /// A message of a group that another member may have got before.
    pub(crate) fn note_repeated(&mut self, sequence: Sequence) {
        self.repeated.insert(sequence);
    }

    /// True once for each message noted.
    pub(crate) fn take_repeated(&mut self, sequence: Sequence) -> bool {
        !self.repeated.is_empty() && self.repeated.remove(&sequence)
    }

    /// Deliveries that may be under way.
    pub(crate) fn window(&self) -> u16 {
        self.window
    }
}

impl Inflight {
    /// Its entry, which the caller writes.
    fn store(&mut self) -> OutgoingEntry {
        self.stored = true;
        self.has_entry = true;
        self.entry()
    }

    fn sequence(&self) -> Option<Sequence> {
        match &self.state {
            InflightState::Published(item) => item.sequence,
            InflightState::Unread(unread) => Some(unread.sequence),
            InflightState::Released => None,
        }
    }
}

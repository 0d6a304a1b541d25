//! Messages that shared groups have given to members: on the member's shard until they are settled or given back, on
//! the group's until it is told so.

use std::sync::Arc;

use crate::{
    ClientId, Message, QoS, ShardId, SubscriptionIds, Timestamp,
    session::{Queued, SessionKey, SharedTarget, Tenant},
    store::{
        Sequence,
        format::{Name, Token},
    },
};

use super::{Shard, ShardMessage, commit::Held, publish::effective_qos};

impl Shard {
    /// A message that a group has chosen a session of this shard for.
    pub(super) fn deliver_lease(
        &mut self,
        now: Timestamp,
        to: &ClientId,
        target: &Arc<SharedTarget>,
        sequence: Sequence,
        message: Message,
        is_repeated: bool,
    ) {
        let subscription = self.by_client.get(to).copied().and_then(|key| {
            let route = self.index.find(&target.filter)?;
            let subscription = self.online(key)?.subscriptions.get(route, Some(&target.group))?;
            Some((key, subscription.options, subscription.id))
        });
        let Some((key, options, id)) = subscription else {
            return self.return_lease(target, sequence, false);
        };
        let session = self.session(key);
        let qos = effective_qos(message.qos(), options.qos, self.common.config.mqtt.upgrade_qos);
        let item = Queued {
            qos,
            retain: message.retain() && (options.retain_as_published || session.is_bridge),
            subscription_ids: id.into_iter().collect::<SubscriptionIds>(),
            shared: Some(Arc::clone(target)),
            sequence: Some(sequence),
            priority: self.priority(&message),
            message,
        };
        if let Some(session) = self.online_mut(key) {
            if is_repeated && qos == QoS::AtLeastOnce {
                session.outgoing.note_repeated(sequence);
            }
            if session.stored.is_some() {
                self.keep_from(sequence);
            }
        }
        self.deliver(now, key, item);
        if qos == QoS::AtMostOnce {
            // Nobody will acknowledge it. The group, if it is this shard's, is about to go on by itself.
            match self.owner_of(target) {
                owner if owner == self.id => {
                    self.end_lease(target, sequence, false);
                }
                _ => self.settle(target, sequence, false),
            }
        }
    }

    /// Tells groups what the session has for good.
    pub(super) fn settle_shared(&mut self, key: SessionKey) {
        let Some(session) = self.online_mut(key) else {
            return;
        };
        for (target, sequence) in session.outgoing.take_settled() {
            self.settle(&target, sequence, false);
        }
    }

    /// The same of all that is under way, when the session ends: nobody else gets it [MQTT-4.8.2-5].
    pub(super) fn settle_all_shared(&mut self, key: SessionKey) {
        let leases = match &self.sessions[key.0 as usize] {
            Tenant::Online(session) => session.outgoing.leases(),
            Tenant::Dormant(dormant) => dormant
                .rest
                .as_ref()
                .map_or_else(Vec::new, |rest| rest.outgoing.leases()),
            Tenant::Ending(_) => Vec::new(),
        };
        for (target, sequence) in leases {
            self.settle(&target, sequence, false);
        }
    }

    /// `is_taken`: the store has an entry that says so.
    pub(super) fn settle(&mut self, target: &Arc<SharedTarget>, sequence: Sequence, is_taken: bool) {
        let owner = self.owner_of(target);
        if owner == self.id {
            return self.lease_settled(target, sequence, is_taken);
        }
        let target = Arc::clone(target);
        self.outbound.push(
            owner,
            ShardMessage::Settled {
                target,
                sequence,
                is_taken,
            },
        );
    }

    fn owner_of(&self, target: &SharedTarget) -> ShardId {
        token_of(target).shard(self.shards)
    }

    pub(super) fn lease_settled(&mut self, target: &SharedTarget, sequence: Sequence, is_taken: bool) {
        if let Some(number) = self.end_lease(target, sequence, is_taken) {
            self.group_moves(number);
        }
    }

    /// Returns the group's number if the message was leased.
    fn end_lease(&mut self, target: &SharedTarget, sequence: Sequence, is_taken: bool) -> Option<u64> {
        let number = self.owned.number(target);
        let group = number.and_then(|number| self.owned.groups.get_mut(&number));
        let is_passed = group.as_ref().is_none_or(|group| sequence < group.position());
        if is_taken && is_passed {
            // The group has ended meanwhile, or was told of the end of the session before.
            self.delete(Name::Taken(token_of(target), sequence));
            return None;
        }
        let (number, group) = (number?, group?);
        let is_leased = group.release(sequence).is_some();
        if !is_leased && !is_taken {
            return None;
        }
        group.settle(sequence, is_taken);
        self.mark_group(number);
        Some(number)
    }

    fn return_lease(&mut self, target: &Arc<SharedTarget>, sequence: Sequence, was_sent: bool) {
        let owner = self.owner_of(target);
        if owner == self.id {
            return self.lease_returned(target, sequence, was_sent);
        }
        let target = Arc::clone(target);
        self.outbound.push(
            owner,
            ShardMessage::Returned {
                target,
                sequence,
                was_sent,
            },
        );
    }

    pub(super) fn lease_returned(&mut self, target: &SharedTarget, sequence: Sequence, was_sent: bool) {
        let Some(number) = self.owned.number(target) else {
            return;
        };
        let Some(group) = self.owned.groups.get_mut(&number) else {
            return;
        };
        if let Some(lease) = group.release(sequence) {
            group.returned.insert(sequence, lease.returned(was_sent));
        }
        self.mark_group(number);
        self.fetch_returned(number);
    }

    /// Gives back what groups have leased to a session that has lost its connection or its subscription.
    pub(super) fn give_back(&mut self, key: SessionKey, is_wanted: impl Fn(&SharedTarget) -> bool) {
        let Some(session) = self.online_mut(key) else {
            return;
        };
        let mut taken = session.outgoing.take_leased(is_wanted);
        taken.sort_by_key(|((_, sequence), _)| *sequence);
        for ((target, sequence), was_sent) in taken {
            self.return_lease(&target, sequence, was_sent);
        }
    }

    /// A QoS 2 message of a group is the member's for good, with the commit that gives it a packet identifier: then
    /// the group need not wait for the member any more.
    pub(super) fn take_for_good(&mut self, target: &Arc<SharedTarget>, sequence: Sequence) {
        self.put(Name::Taken(token_of(target), sequence), bytes::Bytes::new());
        self.hold(Held::Taken(Arc::clone(target), sequence));
    }
}

fn token_of(target: &SharedTarget) -> Token {
    Token::of_parts(&[&target.filter, &target.group])
}

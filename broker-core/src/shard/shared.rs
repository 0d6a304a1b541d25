//! Shared subscriptions (§4.8.2): one member of a group gets each message. Every shard knows all members, so the
//! publisher's shard chooses.

use std::{hash::BuildHasher, sync::Arc};

use crate::{
    ClientId, Message, SharedStrategy, SubscriptionIds, Timestamp,
    filter_index::FilterId,
    session::{Kind, Queued, Session, SessionKey, SharedTarget, Turns},
};

use super::{
    RouteChange, Shard, ShardMessage,
    publish::effective_qos,
    route::{Group, Member},
};

impl Shard {
    /// One connected member of each group on this filter gets the message. True if there was one. `is_stored`: groups
    /// with persistent members get it from the journal.
    pub(super) fn route_shared(
        &mut self,
        now: Timestamp,
        message: &Message,
        publisher: Option<SessionKey>,
        id: FilterId,
        is_stored: bool,
    ) -> bool {
        let count = self
            .index
            .get(id)
            .groups
            .as_ref()
            .map_or(0, |groups| groups.len());
        let mut is_matched = false;
        for at in 0..count {
            let Some(group) = self.index.get(id).group_at(at) else {
                break;
            };
            if is_stored && group.is_durable() {
                continue;
            }
            let target = Arc::clone(&group.target);
            let Some(member) = self.choose(message, publisher, id, at) else {
                continue;
            };
            self.hand_to_member(now, &member, &target, message.clone());
            is_matched = true;
        }
        is_matched
    }

    pub(super) fn choose(
        &mut self,
        message: &Message,
        publisher: Option<SessionKey>,
        id: FilterId,
        at: usize,
    ) -> Option<Member> {
        let own = self.id;
        let strategy = self.common.config.shared_strategy;
        let mut turn = 0;
        if strategy == SharedStrategy::RoundRobin {
            turn = self.turn(publisher, id, at);
        }
        let group = self.index.get_mut(id).group_at_mut(at)?;
        let count = group.candidates().len();
        if count == 0 {
            return None;
        }
        let pick = match strategy {
            SharedStrategy::Random => self.random.below(count),
            SharedStrategy::RoundRobin => turn as usize % count,
            SharedStrategy::RoundRobinPerGroup => group.next_turn() as usize % count,
            SharedStrategy::Sticky => group.sticky().unwrap_or_else(|| self.random.below(count)),
            SharedStrategy::Local => pick_local(group, own, &mut self.random),
            SharedStrategy::HashClientId => hash(message.origin().client_id.as_str()) % count,
            SharedStrategy::HashTopic => hash(message.topic()) % count,
        };
        let member = group.candidates()[pick].clone();
        if strategy == SharedStrategy::Sticky {
            group.set_sticky(&member.client_id);
        }
        Some(member)
    }

    /// The publisher's own turn in this group. It starts with the group's, so that publishers of one message each do
    /// not all meet the same member; messages from inside the process always take the group's.
    fn turn(&mut self, publisher: Option<SessionKey>, id: FilterId, at: usize) -> u32 {
        let Some(group) = self.index.get_mut(id).group_at_mut(at) else {
            return 0;
        };
        let key = hash(&*group.target) as u64;
        match publisher.and_then(|key| self.sessions.get_mut(key.0 as usize)?.online_mut()) {
            Some(session) => session
                .turns
                .get_or_insert_with(|| Box::new(Turns::default()))
                .next(key, || group.next_turn()),
            None => group.next_turn(),
        }
    }

    /// The chosen member's shard delivers.
    fn hand_to_member(
        &mut self,
        now: Timestamp,
        member: &Member,
        target: &Arc<SharedTarget>,
        message: Message,
    ) {
        if member.shard == self.id {
            self.deliver_shared(now, &member.client_id, target, message);
        } else {
            let (to, target) = (member.client_id.clone(), Arc::clone(target));
            self.forward(member.shard, ShardMessage::Dispatch { to, target, message });
        }
    }

    /// Delivers to a member of this shard. If it has left meanwhile, another member is chosen.
    pub(super) fn deliver_shared(
        &mut self,
        now: Timestamp,
        to: &ClientId,
        target: &Arc<SharedTarget>,
        message: Message,
    ) {
        let subscription = self.by_client.get(to).copied().and_then(|key| {
            let route = self.index.find(&target.filter)?;
            let subscription = self.online(key)?.subscriptions.get(route, Some(&target.group))?;
            Some((key, subscription.options, subscription.id))
        });
        let Some((key, options, id)) = subscription else {
            return self.redispatch_message(now, target, &message, Some(to));
        };
        let session = self.session(key);
        let item = Queued {
            qos: effective_qos(message.qos(), options.qos, self.common.config.mqtt.upgrade_qos),
            retain: message.retain() && (options.retain_as_published || session.is_bridge),
            subscription_ids: id.into_iter().collect::<SubscriptionIds>(),
            shared: Some(Arc::clone(target)),
            sequence: None,
            priority: 0,
            message,
        };
        self.deliver(now, key, item);
    }

    /// A session lost its connection: connected members of its groups get what it has not acknowledged.
    pub(super) fn redispatch_session(&mut self, now: Timestamp, key: SessionKey) {
        self.give_back(key, |_| true);
        let index = &self.index;
        let Some(session) = self.sessions[key.0 as usize].online_mut() else {
            return;
        };
        let Session {
            subscriptions,
            outgoing,
            ..
        } = session;
        // A group that it has left has let it keep what was under way.
        let is_wanted = |target: &SharedTarget| {
            index.find(&target.filter).is_some_and(|id| {
                subscriptions.get(id, Some(&target.group)).is_some()
                    && index.get(id).group(&target.group).is_some_and(Group::has_online)
            })
        };
        for item in outgoing.take_shared(is_wanted) {
            self.redispatch(now, item, None);
        }
    }

    /// Gives what one member had to another member than `except`.
    pub(super) fn redispatch(&mut self, now: Timestamp, item: Queued, except: Option<&ClientId>) {
        if let Some(target) = item.shared {
            self.metrics.messages_redispatched.inc();
            self.redispatch_message(now, &target, &item.message, except);
        }
    }

    fn redispatch_message(
        &mut self,
        now: Timestamp,
        target: &Arc<SharedTarget>,
        message: &Message,
        except: Option<&ClientId>,
    ) {
        // It may have waited for its first member.
        if message.is_expired(now) {
            self.metrics.messages_dropped_expired.inc();
            return self.dropped_point(now, message, None, "expired");
        }
        let id = self.index.find(&target.filter);
        let at = id.and_then(|id| self.index.get(id).groups.as_ref()?.get_index_of(&target.group));
        let member = match (id, at) {
            (Some(id), Some(at)) => {
                if let (Some(gone), Some(group)) = (except, self.index.get_mut(id).group_mut(&target.group)) {
                    // It has no connection; it may be a member still.
                    group.set_offline(gone);
                }
                self.choose(message, None, id, at)
            }
            _ => None,
        };
        match member {
            Some(member) => self.hand_to_member(now, &member, target, message.clone()),
            None => {
                self.metrics.messages_dropped.inc();
                self.metrics.messages_dropped_no_subscribers.inc();
                self.dropped_point(now, message, None, "no_subscribers");
            }
        }
    }

    /// Tells every shard that the session is or is no longer connected, as far as its shared groups go.
    pub(super) fn announce_presence(&mut self, key: SessionKey, online: bool) {
        let tenant = &self.sessions[key.0 as usize];
        let client_id = tenant.client_id().clone();
        let mut memberships = Vec::new();
        for subscription in tenant.subscriptions().iter() {
            if let Kind::Shared(group) = &subscription.kind {
                memberships.push((subscription.route, Arc::clone(group), subscription.durable));
            }
        }
        for (route, group, durable) in memberships {
            let member = Member {
                shard: self.id,
                client_id: client_id.clone(),
                durable,
            };
            let filter: Box<str> = self.index.name(route).into();
            let target = self.add_member(&filter, &group, member, online);
            self.announce(&RouteChange::Member {
                target,
                client_id: client_id.clone(),
                online,
                durable,
            });
        }
    }
}

fn pick_local(group: &Group, own: crate::ShardId, random: &mut crate::random::Random) -> usize {
    let candidates = group.candidates();
    let local = candidates.iter().filter(|member| member.shard == own).count();
    if local == 0 {
        return random.below(candidates.len());
    }
    let wanted = random.below(local);
    let mut places = candidates
        .iter()
        .enumerate()
        .filter(|(_, member)| member.shard == own);
    places.nth(wanted).map_or(0, |(at, _)| at)
}

/// The same in every process, so that a group splits topics alike on every shard.
fn hash(value: &(impl std::hash::Hash + ?Sized)) -> usize {
    foldhash::quality::FixedState::with_seed(0x7368_6172).hash_one(value) as usize
}

//! What a topic filter leads to: subscribers of this shard, other shards, shared groups.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::{
    ClientId, ShardId, SubscribeOptions,
    session::{SessionKey, SharedTarget},
    store::format::Token,
};

/// Most shards of a node: a set of them is one word.
pub const SHARDS_MAX: u16 = 64;

/// The destinations of one filter.
#[derive(Debug, Default)]
pub(crate) struct Route {
    /// Connected plain subscribers of this shard.
    pub(crate) subscribers: Subscribers,
    /// Plain subscriptions of this shard that get every message at once.
    pub(crate) prompt: u32,
    /// Plain subscriptions of this shard, with or without a connection, that get QoS 1 and 2 from the journal.
    pub(crate) durable: u32,
    /// Other shards with prompt subscriptions.
    pub(crate) remote: ShardSet,
    /// Other shards with durable subscriptions.
    pub(crate) remote_durable: ShardSet,
    /// Shared groups by name; one word in millions of routes without one.
    pub(crate) groups: Option<Box<Groups>>,
}

impl Route {
    pub(crate) fn is_empty(&self) -> bool {
        self.prompt == 0
            && self.durable == 0
            && self.remote.is_empty()
            && self.remote_durable.is_empty()
            && self.groups.is_none()
    }

    /// Somebody wants messages of QoS 1 and 2 from the journal.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable > 0
            || !self.remote_durable.is_empty()
            || self
                .groups
                .as_ref()
                .is_some_and(|groups| groups.values().any(Group::is_durable))
    }

    /// How many subscriptions of this shard there are of a kind.
    pub(crate) fn count_mut(&mut self, durable: bool) -> &mut u32 {
        if durable {
            &mut self.durable
        } else {
            &mut self.prompt
        }
    }

    /// Other shards that have subscriptions of a kind.
    pub(crate) fn remote_mut(&mut self, durable: bool) -> &mut ShardSet {
        if durable {
            &mut self.remote_durable
        } else {
            &mut self.remote
        }
    }

    /// The group `name`.
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.as_ref()?.get(name)
    }

    pub(crate) fn group_mut(&mut self, name: &str) -> Option<&mut Group> {
        self.groups.as_mut()?.get_mut(name)
    }

    /// The group at this place.
    pub(crate) fn group_at(&self, at: usize) -> Option<&Group> {
        self.groups.as_ref()?.get_index(at).map(|(_, group)| group)
    }

    pub(crate) fn group_at_mut(&mut self, at: usize) -> Option<&mut Group> {
        self.groups.as_mut()?.get_index_mut(at).map(|(_, group)| group)
    }

    /// The group `name` on this route's filter, made if need be.
    pub(crate) fn group_or_insert(&mut self, filter: &str, name: &Arc<str>, shards: u16) -> &mut Group {
        let groups = self.groups.get_or_insert_default();
        groups.entry(Arc::clone(name)).or_insert_with(|| Group {
            target: Arc::new(SharedTarget {
                filter: filter.into(),
                group: Arc::clone(name),
            }),
            online: Vec::new(),
            offline: Vec::new(),
            durable: 0,
            owner: Token::of_parts(&[filter, name]).shard(shards),
            turn: 0,
            sticky: None,
        })
    }

    /// Takes a member out of a group; a group without members is forgotten.
    pub(crate) fn leave_group(&mut self, name: &str, client_id: &ClientId) {
        let Some(groups) = &mut self.groups else {
            return;
        };
        if let Some(group) = groups.get_mut(name) {
            group.remove(client_id);
            if group.online.is_empty() && group.offline.is_empty() {
                groups.swap_remove(name);
            }
        }
        if groups.is_empty() {
            self.groups = None;
        }
    }
}

/// Shared groups on one filter, by name. Clients choose the names, so the hash is keyed.
pub(crate) type Groups = IndexMap<Arc<str>, Group, foldhash::quality::RandomState>;

/// One plain subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    pub(crate) session: SessionKey,
    /// Subscription identifier; 0: none.
    pub(crate) id: u32,
    pub(crate) options: SubscribeOptions,
    /// Messages of QoS 1 and 2 come from the journal.
    pub(crate) durable: bool,
}

/// The plain subscribers of one filter: mostly one, sometimes a million.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "most filters have one subscriber: the others may cost a detour"
)]
pub(crate) enum Subscribers {
    #[default]
    None,
    One(Subscriber),
    Few(Box<Vec<Subscriber>>),
    Many(Box<IndexMap<SessionKey, Subscriber, foldhash::fast::FixedState>>),
}

impl Subscribers {
    /// Up to here a list is searched; beyond, a map pays.
    const FEW: usize = 16;

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Subscribers::None)
    }

    pub(crate) fn for_each(&self, mut f: impl FnMut(&Subscriber)) {
        match self {
            Subscribers::None => {}
            Subscribers::One(one) => f(one),
            Subscribers::Few(list) => list.iter().for_each(f),
            Subscribers::Many(map) => map.values().for_each(f),
        }
    }

    /// Adds or replaces the subscriber of this session.
    pub(crate) fn insert(&mut self, new: Subscriber) {
        match self {
            Subscribers::None => *self = Subscribers::One(new),
            Subscribers::One(one) if one.session == new.session => *one = new,
            Subscribers::One(one) => *self = Subscribers::Few(Box::new(vec![*one, new])),
            Subscribers::Few(list) => {
                if let Some(old) = list.iter_mut().find(|old| old.session == new.session) {
                    *old = new;
                } else if list.len() < Subscribers::FEW {
                    list.push(new);
                } else {
                    let all = list.drain(..).chain([new]).map(|one| (one.session, one));
                    *self = Subscribers::Many(Box::new(all.collect()));
                }
            }
            Subscribers::Many(map) => {
                map.insert(new.session, new);
            }
        }
    }

    pub(crate) fn remove(&mut self, session: SessionKey) {
        match self {
            Subscribers::One(one) if one.session == session => *self = Subscribers::None,
            Subscribers::None | Subscribers::One(_) => {}
            Subscribers::Few(list) => {
                list.retain(|one| one.session != session);
                if let [one] = list[..] {
                    *self = Subscribers::One(one);
                }
            }
            Subscribers::Many(map) => {
                map.swap_remove(&session);
                // Half of what made it a map, so that one client coming and going does not rebuild it each time.
                if map.len() <= Subscribers::FEW / 2 {
                    *self = Subscribers::Few(Box::new(map.values().copied().collect()));
                }
            }
        }
    }
}

/// A set of shards of this node, at most 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet(u64);

impl ShardSet {
    /// Most shards of a node.
    pub(crate) const MAX: u16 = SHARDS_MAX;

    pub(crate) fn insert(&mut self, shard: ShardId) {
        self.0 |= 1 << shard.0;
    }

    pub(crate) fn remove(&mut self, shard: ShardId) {
        self.0 &= !(1 << shard.0);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn union(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 | other.0)
    }

    /// In ascending order.
    pub(crate) fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let next = u16::try_from(rest.trailing_zeros())
                .ok()
                .filter(|&next| next < ShardSet::MAX)?;
            rest &= rest - 1;
            Some(ShardId(next))
        })
    }
}

/// A shared subscription group on one filter, known in full to every shard, so that the publisher's shard picks the
/// member.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) target: Arc<SharedTarget>,
    /// Members with a connection, by client id: the same order on every shard.
    online: Vec<Member>,
    /// Members without.
    offline: Vec<Member>,
    /// Members whose sessions outlive their connections.
    durable: u32,
    /// The shard that reads the journal for the group while there are any.
    pub(crate) owner: ShardId,
    turn: u32,
    sticky: Option<ClientId>,
}

/// A member of a shared group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) shard: ShardId,
    pub(crate) client_id: ClientId,
    /// Its session outlives its connection.
    pub(crate) durable: bool,
}

impl Group {
    /// Some member's session outlives its connection: QoS 1 and 2 go through the journal.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable > 0
    }

    /// Adds the member or changes whether it is connected.
    pub(crate) fn set(&mut self, member: Member, online: bool) {
        self.remove(&member.client_id);
        self.durable += u32::from(member.durable);
        let members = if online {
            &mut self.online
        } else {
            &mut self.offline
        };
        if let Err(at) = position(members, &member.client_id) {
            members.insert(at, member);
        }
    }

    pub(crate) fn remove(&mut self, client_id: &ClientId) {
        for members in [&mut self.online, &mut self.offline] {
            if let Ok(at) = position(members, client_id) {
                let gone = members.remove(at);
                self.durable -= u32::from(gone.durable);
            }
        }
    }

    /// The member, if it is one, has no connection.
    pub(crate) fn set_offline(&mut self, client_id: &ClientId) {
        if let Ok(at) = position(&self.online, client_id) {
            let member = self.online[at].clone();
            self.set(member, false);
        }
    }

    /// Those to choose among: the connected members.
    pub(crate) fn candidates(&self) -> &[Member] {
        &self.online
    }

    pub(crate) fn has_online(&self) -> bool {
        !self.online.is_empty()
    }

    /// The group's own turn, counting up.
    pub(crate) fn next_turn(&mut self) -> u32 {
        let turn = self.turn;
        self.turn = self.turn.wrapping_add(1);
        turn
    }

    /// The member that got the last message, if it still is a candidate.
    pub(crate) fn sticky(&self) -> Option<usize> {
        let sticky = self.sticky.as_ref()?;
        position(self.candidates(), sticky).ok()
    }

    pub(crate) fn set_sticky(&mut self, client_id: &ClientId) {
        self.sticky = Some(client_id.clone());
    }
}

fn position(members: &[Member], client_id: &ClientId) -> Result<usize, usize> {
    members.binary_search_by(|member| member.client_id.cmp(client_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(session: u32) -> Subscriber {
        Subscriber {
            session: SessionKey(session),
            id: session,
            options: SubscribeOptions::default(),
            durable: false,
        }
    }

    fn sessions(subscribers: &Subscribers) -> Vec<u32> {
        let mut found = Vec::new();
        subscribers.for_each(|one| found.push(one.session.0));
        found.sort_unstable();
        found
    }

    #[test]
    fn subscribers_are_found_whatever_their_number() {
        let mut subscribers = Subscribers::default();
        for n in 0..100 {
            subscribers.insert(subscriber(n));
            subscribers.insert(subscriber(n));
            assert_eq!(sessions(&subscribers), (0..=n).collect::<Vec<_>>());
        }
        for n in (0..100).rev() {
            subscribers.remove(SessionKey(n));
            subscribers.remove(SessionKey(n));
            assert_eq!(sessions(&subscribers), (0..n).collect::<Vec<_>>());
        }
        assert!(subscribers.is_empty());
    }

    #[test]
    fn connected_members_are_chosen_among() {
        let mut route = Route::default();
        let group = route.group_or_insert("f", &"g".into(), 1);
        for (name, online) in [("a", false), ("b", true), ("c", false), ("d", true)] {
            group.set(
                Member {
                    shard: ShardId(0),
                    client_id: ClientId::new(name),
                    durable: false,
                },
                online,
            );
        }
        let names = |group: &Group| {
            group
                .candidates()
                .iter()
                .map(|member| member.client_id.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(group), ["b", "d"]);
        group.set(
            Member {
                shard: ShardId(0),
                client_id: ClientId::new("b"),
                durable: false,
            },
            false,
        );
        assert_eq!(names(group), ["d"]);
        group.remove(&ClientId::new("d"));
        assert!(names(group).is_empty());
    }

    #[test]
    fn shard_sets_list_their_members() {
        let mut set = ShardSet::default();
        for shard in [63, 0, 5] {
            set.insert(ShardId(shard));
        }
        assert_eq!(set.iter().map(|shard| shard.0).collect::<Vec<_>>(), [0, 5, 63]);
        set.remove(ShardId(63));
        assert_eq!(set.iter().count(), 2);
    }
}

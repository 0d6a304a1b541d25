//! The shared groups with persistent members that a shard owns: which they are, and what the store knows of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hashbrown::HashMap;

use crate::{
    ClientId, Message, ShardId, Timestamp,
    session::{Reading, SharedTarget},
    store::{
        Sequence,
        format::{GroupEntry, Name, Token},
    },
};

use super::{Shard, ShardMessage, commit::Held, route::Member};

/// The groups that a shard reads the journal for.
#[derive(Debug, Default)]
pub(super) struct OwnedGroups {
    pub(super) groups: BTreeMap<u64, OwnedGroup>,
    numbers: HashMap<Arc<SharedTarget>, u64, foldhash::quality::RandomState>,
    last: u64,
    dirty: BTreeSet<u64>,
    /// New ones whose entries are not committed.
    unsettled: usize,
}

/// The members to whose clients a message was sent before it was given back, the last [`SENT_TO_MAX`] of them.
pub(super) type SentTo = Vec<ClientId>;
/// Beyond, the first of them may get it again without DUP.
const SENT_TO_MAX: usize = 16;

/// A message that a member has.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) member: ClientId,
    /// Who had it before.
    pub(super) sent_to: SentTo,
}

impl Lease {
    /// It was given back: who has had it now.
    pub(super) fn returned(self, was_sent: bool) -> SentTo {
        let mut sent_to = self.sent_to;
        if was_sent && !sent_to.contains(&self.member) {
            if sent_to.len() == SENT_TO_MAX {
                sent_to.remove(0);
            }
            sent_to.push(self.member);
        }
        sent_to
    }
}

/// One group on one filter.
#[derive(Debug)]
pub(super) struct OwnedGroup {
    pub(super) target: Arc<SharedTarget>,
    token: Token,
    /// Everything before it in the journal was leased or is settled.
    pub(super) next: Sequence,
    pub(super) reading: Reading,
    /// As in [`Stored`](crate::session::Stored).
    pub(super) beyond: Sequence,
    /// Read, and for the next member that has room.
    pub(super) waiting: BTreeMap<Sequence, (Message, SentTo)>,
    /// To whom messages are given that are not settled.
    pub(super) leased: BTreeMap<Sequence, Lease>,
    /// How many each member has.
    pub(super) counts: HashMap<ClientId, u32, foldhash::quality::RandomState>,
    /// Given back, and to be fetched.
    pub(super) returned: BTreeMap<Sequence, SentTo>,
    /// Those that are being fetched.
    pub(super) fetching: Vec<Sequence>,
    /// Messages that a member has for good, at or beyond the position: the store has an entry of each.
    pub(super) taken: BTreeSet<Sequence>,
    /// Such as the store will be told of, if the position has not passed them by then.
    settled: BTreeSet<Sequence>,
    /// Messages before it may have been sent before the process was killed.
    pub(super) repeats_before: Sequence,
    /// The position that the store has.
    stored: Option<Sequence>,
}

impl OwnedGroup {
    fn new(target: Arc<SharedTarget>, next: Sequence) -> OwnedGroup {
        OwnedGroup {
            token: Token::of_parts(&[&target.filter, &target.group]),
            target,
            next,
            reading: Reading::Live,
            beyond: Sequence::FIRST,
            waiting: BTreeMap::new(),
            leased: BTreeMap::new(),
            counts: HashMap::default(),
            returned: BTreeMap::new(),
            fetching: Vec::new(),
            taken: BTreeSet::new(),
            settled: BTreeSet::new(),
            repeats_before: Sequence::FIRST,
            stored: None,
        }
    }

    /// As the store had it.
    pub(super) fn restored(
        target: Arc<SharedTarget>,
        token: Token,
        next: Sequence,
        taken: BTreeSet<Sequence>,
    ) -> OwnedGroup {
        OwnedGroup {
            token,
            reading: Reading::Behind,
            taken,
            repeats_before: Sequence::END,
            stored: Some(next),
            ..OwnedGroup::new(target, next)
        }
    }

    /// Everything before it is settled.
    pub(super) fn position(&self) -> Sequence {
        let waiting = self.waiting.keys().next().copied();
        let leased = self.leased.keys().next().copied();
        let returned = self.returned.keys().next().copied();
        [waiting, leased, returned]
            .into_iter()
            .flatten()
            .fold(self.next, Sequence::min)
    }

    /// A member has the message for good. `is_taken`: the store has an entry that says so.
    pub(super) fn settle(&mut self, sequence: Sequence, is_taken: bool) {
        if is_taken {
            self.settled.remove(&sequence);
            self.taken.insert(sequence);
        } else {
            self.settled.insert(sequence);
        }
    }

    /// The store could not be told that these are settled.
    pub(super) fn unmark(&mut self, settled: Vec<Sequence>) {
        for sequence in settled {
            if self.taken.remove(&sequence) {
                self.settled.insert(sequence);
            }
        }
    }

    /// Ends a lease.
    pub(super) fn release(&mut self, sequence: Sequence) -> Option<Lease> {
        let lease = self.leased.remove(&sequence)?;
        let member = &lease.member;
        if let Some(count) = self.counts.get_mut(member) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(member);
            }
        }
        Some(lease)
    }
}

impl OwnedGroups {
    pub(super) fn add(&mut self, group: OwnedGroup) {
        self.last += 1;
        self.numbers.insert(Arc::clone(&group.target), self.last);
        self.groups.insert(self.last, group);
    }

    pub(super) fn number(&self, target: &SharedTarget) -> Option<u64> {
        self.numbers.get(target).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}

impl Shard {
    fn own_group(&mut self, target: &Arc<SharedTarget>) {
        // It gets what is committed from here on: its first persistent member has no SUBACK yet.
        let group = OwnedGroup::new(Arc::clone(target), self.tail.next);
        if self.tail.next < Sequence::END {
            let entry = GroupEntry {
                filter: target.filter.to_string(),
                group: target.group.to_string(),
                next: group.next,
            };
            self.put(Name::Group(group.token), entry.encode());
            self.owned.unsettled += 1;
            self.hold(Held::Owned(self.owned.last + 1));
        }
        self.owned.add(group);
    }

    /// Its last persistent member has left: what was not delivered is for nobody.
    fn disown_group(&mut self, number: u64) {
        let Some(group) = self.owned.groups.remove(&number) else {
            return;
        };
        self.owned.numbers.remove(&group.target);
        self.owned.dirty.remove(&number);
        self.delete(Name::Group(group.token));
        for sequence in group.taken {
            self.delete(Name::Taken(group.token, sequence));
        }
    }

    /// A session is a member of a group, with or without a connection.
    pub(super) fn add_member(
        &mut self,
        filter: &str,
        name: &Arc<str>,
        member: Member,
        online: bool,
    ) -> Arc<SharedTarget> {
        let id = self.index.insert(filter);
        let group = self.index.get_mut(id).group_or_insert(filter, name, self.shards);
        group.set(member, online);
        let (target, owner, is_durable) = (Arc::clone(&group.target), group.owner, group.is_durable());
        if owner == self.id {
            match (self.owned.number(&target), is_durable) {
                (None, true) => self.own_group(&target),
                (Some(number), false) => self.disown_group(number),
                (Some(number), true) => self.group_moves(number),
                (None, false) => {}
            }
        }
        target
    }

    /// A session is no member any more.
    pub(super) fn remove_member(
        &mut self,
        filter: &str,
        name: &str,
        client_id: &ClientId,
    ) -> Option<Arc<SharedTarget>> {
        let id = self.index.find(filter)?;
        let group = self.index.get(id).group(name)?;
        let (target, owner) = (Arc::clone(&group.target), group.owner);
        self.index.get_mut(id).leave_group(name, client_id);
        let is_durable = self
            .index
            .get(id)
            .group(name)
            .is_some_and(|group| group.is_durable());
        self.drop_route_if_empty(id);
        if owner == self.id
            && !is_durable
            && let Some(number) = self.owned.number(&target)
        {
            self.disown_group(number);
        }
        Some(target)
    }

    pub(super) fn group_stored(&mut self) {
        self.owned.unsettled = self.owned.unsettled.saturating_sub(1);
    }

    /// How far the group has come is written again.
    pub(super) fn fail_group(&mut self, number: u64) {
        if let Some(group) = self.owned.groups.get_mut(&number) {
            group.stored = None;
            self.mark_group(number);
        }
    }

    /// Another shard asks whether all is seen that it announced. If that made a group persistent, its member may be
    /// promised something only when the group's entry is committed.
    pub(super) fn pass(&mut self, from: ShardId, operation: u64) {
        if self.owned.unsettled > 0 {
            self.hold(Held::Passed(from, operation));
        } else {
            self.outbound.push(from, ShardMessage::Passed(operation));
        }
    }

    /// All members that were restored are known. Of a group whose first persistent member's subscription was lost in a
    /// crash, or whose last one ended in it, the entry may be left.
    pub(super) fn disown_orphans(&mut self) {
        let index = &self.index;
        let is_orphan = |target: &SharedTarget| {
            let id = index.find(&target.filter);
            let group = id.and_then(|id| index.get(id).group(&target.group));
            !group.is_some_and(super::route::Group::is_durable)
        };
        let groups = self.owned.groups.iter();
        let orphans: Vec<u64> = groups
            .filter(|(_, group)| is_orphan(&group.target))
            .map(|(number, _)| *number)
            .collect();
        for number in orphans {
            self.disown_group(number);
        }
    }

    /// The journal's end is known.
    pub(super) fn groups_begin(&mut self) {
        let numbers: Vec<u64> = self.owned.groups.keys().copied().collect();
        for number in numbers {
            let end = self.tail.next;
            if let Some(group) = self.owned.groups.get_mut(&number) {
                group.repeats_before = group.repeats_before.min(end);
                if group.next == Sequence::END {
                    group.next = end;
                    self.mark_group(number);
                }
            }
        }
    }

    /// Every group that was up to date, or about to be, has to read again.
    pub(super) fn groups_behind(&mut self) {
        for group in self.owned.groups.values_mut() {
            group.reading = Reading::Behind;
        }
        let numbers: Vec<u64> = self.owned.groups.keys().copied().collect();
        for number in numbers {
            self.read_group(number);
        }
    }

    pub(super) fn mark_group(&mut self, number: u64) {
        self.owned.dirty.insert(number);
        if self.flush_at == Timestamp::NEVER {
            self.flush_at = Timestamp::from_millis(self.now.as_millis().saturating_add(250));
        }
    }

    /// Writes how far groups have come.
    pub(super) fn flush_groups(&mut self) {
        for number in std::mem::take(&mut self.owned.dirty) {
            let Some(group) = self.owned.groups.get_mut(&number) else {
                continue;
            };
            let position = group.position();
            if position == Sequence::END {
                continue;
            }
            let token = group.token;
            let rest = group.taken.split_off(&position);
            let passed = std::mem::replace(&mut group.taken, rest);
            let is_new = group.stored.replace(position) != Some(position);
            // An older lease keeps the position back: after a crash these would be handed out again.
            let mut settled = std::mem::take(&mut group.settled).split_off(&position);
            settled.retain(|sequence| group.taken.insert(*sequence));
            let entry = GroupEntry {
                filter: group.target.filter.to_string(),
                group: group.target.group.to_string(),
                next: position,
            };
            for sequence in &settled {
                self.put(Name::Taken(token, *sequence), bytes::Bytes::new());
            }
            if is_new {
                self.put(Name::Group(token), entry.encode());
            }
            if is_new || !settled.is_empty() {
                self.hold(Held::GroupFlushed(number, settled.into_iter().collect()));
            }
            for sequence in passed {
                self.delete(Name::Taken(token, sequence));
            }
        }
    }

    /// The earliest place in the journal that a group of this shard needs.
    pub(super) fn groups_need_from(&self) -> Sequence {
        let tail = self.tail.next;
        let positions = self.owned.groups.values().map(|group| match group.reading {
            Reading::Live if group.position() == group.next => group.next.max(tail),
            _ => group.position(),
        });
        positions.min().unwrap_or(Sequence::END)
    }
}

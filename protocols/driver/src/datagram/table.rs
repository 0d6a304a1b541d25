//! Whose a datagram is: from remotes to peers.

use std::{hash::BuildHasher, net::SocketAddr};

use broker_core::{LinkId, Remote, ShardId};
use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// A [`Remote`] that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemoteRef<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) node: Option<&'a [u8]>,
}

impl<'a> RemoteRef<'a> {
    pub(crate) fn of(remote: &'a Remote) -> RemoteRef<'a> {
        RemoteRef {
            address: remote.address,
            node: remote.node.as_deref(),
        }
    }

    pub(crate) fn to_remote(self) -> Remote {
        Remote {
            address: self.address,
            node: self.node.map(Box::from),
        }
    }
}

/// Which link of which worker a peer is, whatever has become of it: it was opened at the `front` under the id `born`,
/// and has moved so many times since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    pub(crate) front: ShardId,
    pub(crate) born: LinkId,
    pub(crate) moves: u32,
}

impl Track {
    /// True if `later` is news of the same link, not older than this.
    pub(crate) fn is_followed_by(self, later: Track) -> bool {
        self.born == later.born && self.moves <= later.moves
    }
}

/// Where a peer is.
#[derive(Debug)]
pub(crate) enum Place {
    /// A link of this worker. Its remote stands in the link.
    Here(LinkId),
    /// On another worker.
    Away(Box<Away>),
}

/// A peer that was opened here and lives on another worker.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    pub(crate) remote: Remote,
    pub(crate) to: ShardId,
    pub(crate) track: Track,
    /// More than its first datagram has come for it.
    pub(crate) has_gone_on: bool,
}

/// The peers of one socket: 24 bytes for each that is here, 96 for each that is away.
///
/// An entry of a peer that is here does not repeat its remote, so whoever asks says how to compare (`is`).
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashTable<Entry>,
    /// Keyed at random: remotes are chosen by others.
    hasher: RandomState,
    away: usize,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    place: Place,
}

impl Table {
    fn hash(&self, remote: RemoteRef<'_>) -> u64 {
        // The flow label of an IPv6 address is not part of whose it is.
        self.hasher
            .hash_one((remote.address.ip(), remote.address.port(), remote.node))
    }

    pub(crate) fn get_mut(
        &mut self,
        remote: RemoteRef<'_>,
        is: impl Fn(LinkId) -> bool,
    ) -> Option<&mut Place> {
        let hash = self.hash(remote);
        self.entries
            .find_mut(hash, |entry| entry.hash == hash && entry.is(remote, &is))
            .map(|entry| &mut entry.place)
    }

    pub(crate) fn get(&self, remote: RemoteRef<'_>, is: impl Fn(LinkId) -> bool) -> Option<&Place> {
        let hash = self.hash(remote);
        self.entries
            .find(hash, |entry| entry.hash == hash && entry.is(remote, &is))
            .map(|entry| &entry.place)
    }

    /// Sets the place of a remote. Returns the former one.
    pub(crate) fn set(
        &mut self,
        remote: RemoteRef<'_>,
        place: Place,
        is: impl Fn(LinkId) -> bool,
    ) -> Option<Place> {
        let hash = self.hash(remote);
        let former = self.take(hash, |entry| entry.is(remote, &is));
        self.away += usize::from(matches!(place, Place::Away(_)));
        self.entries
            .insert_unique(hash, Entry { hash, place }, |entry| entry.hash);
        former
    }

    /// Removes the entry of a link of this worker, unless another has taken its place.
    pub(crate) fn remove_here(&mut self, remote: RemoteRef<'_>, id: LinkId) -> bool {
        let hash = self.hash(remote);
        let is_it = |entry: &Entry| matches!(entry.place, Place::Here(here) if here == id);
        self.take(hash, is_it).is_some()
    }

    /// Removes an entry of a peer that is away, as far as it is this one, wherever it is.
    pub(crate) fn remove_away(&mut self, remote: RemoteRef<'_>, is: impl Fn(&Away) -> bool) -> bool {
        let hash = self.hash(remote);
        let is_it = |entry: &Entry| matches!(&entry.place, Place::Away(away) if RemoteRef::of(&away.remote) == remote && is(away));
        self.take(hash, is_it).is_some()
    }

    /// The entry of a peer that is away.
    pub(crate) fn away_mut(&mut self, remote: RemoteRef<'_>) -> Option<&mut Away> {
        let hash = self.hash(remote);
        let is_it = |entry: &Entry| matches!(&entry.place, Place::Away(away) if RemoteRef::of(&away.remote) == remote);
        match &mut self.entries.find_mut(hash, is_it)?.place {
            Place::Away(away) => Some(away),
            Place::Here(_) => None,
        }
    }

    /// Its peers.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many peers are away.
    pub(crate) fn away(&self) -> usize {
        self.away
    }

    fn take(&mut self, hash: u64, is: impl Fn(&Entry) -> bool) -> Option<Place> {
        let found = self
            .entries
            .find_entry(hash, |entry| entry.hash == hash && is(entry))
            .ok()?;
        let (entry, _) = found.remove();
        self.away -= usize::from(matches!(entry.place, Place::Away(_)));
        if self.entries.len() * 8 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2, |entry| entry.hash);
        }
        Some(entry.place)
    }
}

impl Entry {
    fn is(&self, remote: RemoteRef<'_>, is: impl Fn(LinkId) -> bool) -> bool {
        match &self.place {
            Place::Here(id) => is(*id),
            Place::Away(away) => RemoteRef::of(&away.remote) == remote,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    fn remote(port: u16, node: Option<&[u8]>) -> RemoteRef<'_> {
        RemoteRef {
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            node,
        }
    }

    fn away(remote: RemoteRef<'_>, to: u16, moves: u32) -> Place {
        Place::Away(Box::new(Away {
            remote: remote.to_remote(),
            to: ShardId(to),
            track: Track {
                front: ShardId(0),
                born: LinkId(9),
                moves,
            },
            has_gone_on: false,
        }))
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 24);
        assert!(size_of::<Entry>() + size_of::<Away>() <= 96);
    }

    #[test]
    fn nodes_and_addresses_are_told_apart() {
        let remotes = [
            remote(1, None),
            remote(2, None),
            remote(1, Some(b"")),
            remote(1, Some(b"a")),
        ];
        let mut table = Table::default();
        for (n, one) in remotes.iter().enumerate() {
            let id = LinkId(n as u64);
            assert!(table.set(*one, Place::Here(id), |other| other == id).is_none());
        }
        for (n, one) in remotes.iter().enumerate() {
            let is = |id: LinkId| remotes[id.0 as usize] == *one;
            let found = table.get(*one, is);
            assert!(matches!(found, Some(Place::Here(id)) if id.0 == n as u64));
        }
        assert!(table.get(remote(3, None), |_| false).is_none());
    }

    #[test]
    fn a_link_that_was_replaced_takes_nothing_with_it() {
        let mut table = Table::default();
        let one = remote(1, None);
        table.set(one, Place::Here(LinkId(1)), |_| true);
        let former = table.set(one, Place::Here(LinkId(2)), |_| true);
        assert!(matches!(former, Some(Place::Here(LinkId(1)))));
        table.remove_here(one, LinkId(1));
        assert!(matches!(table.get(one, |_| true), Some(Place::Here(LinkId(2)))));
        table.remove_here(one, LinkId(2));
        assert!(table.get(one, |_| true).is_none());
    }

    #[test]
    fn those_away_are_counted_and_removed_only_if_meant() {
        let mut table = Table::default();
        let one = remote(1, None);
        table.set(one, away(one, 1, 3), |_| false);
        assert_eq!(table.away(), 1);
        assert!(!table.remove_away(one, |away| away.track.moves == 2));
        table.away_mut(one).expect("it is away").track.moves = 2;
        assert!(table.remove_away(one, |away| away.track.moves == 2));
        assert_eq!(table.away(), 0);
        for port in 1..2000 {
            table.set(remote(port, None), away(remote(port, None), 1, 0), |_| false);
        }
        let full = table.entries.capacity();
        for port in 1..2000 {
            assert!(table.remove_away(remote(port, None), |_| true));
        }
        assert!(table.entries.capacity() < full / 8, "memory goes back");
    }
}

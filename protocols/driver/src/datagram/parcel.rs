//! What workers tell each other about datagrams: one parcel per turn and destination.

use std::net::SocketAddr;

use broker_core::{Remote, ShardId};

use super::table::Track;
use crate::dtls::AssociationId;

/// What an item counts for in the bounds of a mailbox, besides the bytes of its datagram.
const ITEM_BYTES: usize = size_of::<Item>();

/// Items for one worker, in order. A notice is never dropped; datagrams are, at the bound.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// Who sends it.
    pub(crate) from: ShardId,
    items: Vec<Item>,
    /// The datagrams of the items, one after the other.
    bytes: Vec<u8>,
}

/// One piece of news about a socket.
#[derive(Debug)]
struct Item {
    /// The number of the listener.
    listener: u32,
    news: News,
    /// Bytes of the datagram that comes with it.
    len: usize,
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum News {
    /// A datagram for a peer that the front believes to be at the receiver.
    Datagram {
        remote: Remote,
        local: SocketAddr,
        track: Track,
    },
    /// One that has come back to the front: there was no such peer.
    Returned {
        remote: Remote,
        local: SocketAddr,
        track: Track,
    },
    /// A datagram for the endpoint's common peer.
    Common,
    /// For the front: a datagram for this association, and for no other that its address may have by now.
    Outgoing { association: AssociationId },
    /// For the front: the peer has gone on to another worker.
    Moved {
        remote: Remote,
        track: Track,
        to: ShardId,
    },
    /// For the front: the peer is no more.
    Ended { remote: Remote, track: Track },
    /// From the front: the peer has to give way to another.
    Displaced { remote: Remote, track: Track },
    /// To all others: a client finds no place, and nobody here gives way.
    Crowded,
    /// From the front: the association of a peer has ended.
    AssociationEnded {
        remote: Remote,
        track: Track,
        reason: &'static str,
    },
}

impl News {
    /// True for what may be dropped.
    pub(crate) fn is_datagram(&self) -> bool {
        matches!(
            self,
            News::Datagram { .. } | News::Returned { .. } | News::Common | News::Outgoing { .. }
        )
    }
}

impl Parcel {
    pub(crate) fn new(from: ShardId) -> Parcel {
        Parcel {
            from,
            items: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, listener: u32, news: News, datagram: &[u8]) {
        self.items.push(Item {
            listener,
            news,
            len: datagram.len(),
        });
        self.bytes.extend_from_slice(datagram);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// True if something in it may be dropped.
    pub(crate) fn has_datagrams(&self) -> bool {
        self.items.iter().any(|item| item.news.is_datagram())
    }

    /// What it counts for in the receiver's mailbox.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + self.items.len() * ITEM_BYTES
    }

    /// Appends what another parcel of the same sender holds.
    pub(crate) fn append(&mut self, mut other: Parcel) {
        self.items.append(&mut other.items);
        self.bytes.append(&mut other.bytes);
    }

    /// Drops all datagrams, but no notice. Says of which listeners they were.
    pub(crate) fn drop_datagrams(&mut self) -> Vec<u32> {
        let of_datagrams = |item: &Item| item.news.is_datagram().then_some(item.listener);
        let dropped = self.items.iter().filter_map(of_datagrams).collect();
        self.items.retain(|item| !item.news.is_datagram());
        self.bytes = Vec::new();
        dropped
    }

    /// Passes on all items, each with its listener and its datagram.
    pub(crate) fn unpack(self, mut each: impl FnMut(u32, News, &[u8])) {
        let mut rest = &self.bytes[..];
        for item in self.items {
            let (datagram, others) = rest.split_at(item.len);
            rest = others;
            each(item.listener, item.news, datagram);
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_core::LinkId;

    use super::*;

    fn track() -> Track {
        Track {
            front: ShardId(0),
            born: LinkId(1),
            moves: 1,
        }
    }

    fn remote() -> Remote {
        Remote {
            address: SocketAddr::from(([10, 0, 0, 1], 1)),
            node: None,
        }
    }

    #[test]
    fn each_item_gets_its_own_bytes_and_notices_are_never_dropped() {
        let mut parcel = Parcel::new(ShardId(0));
        parcel.push(1, News::Common, b"one");
        let (remote, track) = (remote(), track());
        parcel.push(2, News::Ended { remote, track }, b"");
        let mut other = Parcel::new(ShardId(0));
        other.push(3, News::Common, b"three");
        parcel.append(other);
        assert!(parcel.weight() >= 8);

        let mut copy = Parcel::new(ShardId(0));
        let mut seen = Vec::new();
        parcel.unpack(|listener, news, datagram| {
            seen.push((listener, datagram.to_vec()));
            copy.push(listener, news, datagram);
        });
        assert_eq!(
            seen,
            [(1, b"one".to_vec()), (2, b"".to_vec()), (3, b"three".to_vec())]
        );
        assert_eq!(copy.drop_datagrams(), [1, 3]);
        seen.clear();
        copy.unpack(|listener, _, datagram| seen.push((listener, datagram.to_vec())));
        assert_eq!(seen, [(2, b"".to_vec())]);
    }
}

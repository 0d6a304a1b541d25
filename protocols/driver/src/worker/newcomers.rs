//! Who gives way when a datagram listener has all the peers that it may have.
//!
//! One datagram with a false address is enough to get a peer. So a peer of which nothing has been heard since its first
//! datagram is worth less than one that has gone on: where a newcomer finds no place, the oldest such peer ends. A flood
//! of false addresses then displaces itself, and a client gets in if it says its second datagram before as many strangers
//! have come as there are places for them. Peers that have gone on never give way.
//!
//! A worker on which there is no newcomer asks the others to let one of theirs go.
//!
//! The front decides, as it sees all datagrams of its peers, wherever they live. The newcomer takes its place at once, so
//! that for the time of a message between two workers there is one peer more than allowed. On a DTLS listener a handshake
//! has proven the address, and nobody gives way.

use broker_core::{Close, LinkId, Remote, ShardId};

use super::{
    Worker,
    link::Link,
    ports::{Port, is_peer_of},
};
use crate::{
    datagram::{News, Place, RemoteRef, Track},
    listener::Permit,
};

/// Entries of peers that have ended or gone on, which are not worth being sought out.
const STALE: usize = 64;

/// A peer that may be a false address.
#[derive(Debug)]
pub(super) struct Newcomer {
    remote: Remote,
    /// The id under which it was opened.
    born: LinkId,
}

/// Where the peer that gives way is.
enum Victim {
    Here(LinkId),
    Away(ShardId, Track),
}

impl Worker {
    /// A place for one more peer; `None` if there is none.
    pub(super) fn admit(&mut self, listener: u32) -> Option<Permit> {
        let seats = self.datagrams.port(listener)?.core.seats.clone();
        if let Some(permit) = seats.admit() {
            return Some(permit);
        }
        if self.displace(listener) {
            return Some(seats.admit_in_place());
        }
        self.ask_for_room(listener);
        None
    }

    /// All newcomers may be those of other workers. Whoever is in earnest repeats itself, and finds the place then.
    fn ask_for_room(&mut self, listener: u32) {
        let now = self.now;
        let port = self.datagrams.port(listener);
        let Some(port) = port.filter(|port| port.secured.is_none() && port.crowded_at < now) else {
            return;
        };
        port.crowded_at = now;
        for worker in 0..self.everyone.len() {
            let to = ShardId(u16::try_from(worker).expect("at most 65 536 workers"));
            if to != self.id {
                self.forward(to, listener, News::Crowded, &[]);
            }
        }
    }

    /// A client of another worker finds no place.
    pub(super) fn make_room(&mut self, listener: u32) {
        let port = self.datagrams.port(listener);
        if port.is_some_and(|port| port.core.seats.is_full()) {
            self.displace(listener);
        }
    }

    /// Takes note of a peer that has just been opened.
    pub(super) fn enter_newcomer(&mut self, listener: u32, remote: &Remote, born: LinkId) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        if port.secured.is_some() || port.core.config.max_connections == 0 {
            return;
        }
        let remote = remote.clone();
        port.newcomers.push_back(Newcomer { remote, born });
        if port.newcomers.len() > 2 * port.table.len() + STALE {
            let mut newcomers = std::mem::take(&mut port.newcomers);
            let links = &self.links;
            newcomers.retain(|newcomer| victim(port, |id| links.get(id), newcomer).is_some());
            newcomers.shrink_to(2 * newcomers.len());
            port.newcomers = newcomers;
        }
    }

    /// Ends the oldest peer of which nothing was heard since its first datagram. False if there is none.
    fn displace(&mut self, listener: u32) -> bool {
        loop {
            let Some(port) = self.datagrams.port(listener) else {
                return false;
            };
            let Some(newcomer) = port.newcomers.pop_front() else {
                return false;
            };
            let links = &self.links;
            match victim(port, |id| links.get(id), &newcomer) {
                Some(Victim::Here(id)) => self.end_newcomer(listener, id),
                Some(Victim::Away(to, track)) => {
                    let remote = newcomer.remote;
                    port.table.remove_away(RemoteRef::of(&remote), |_| true);
                    self.forward(to, listener, News::Displaced { remote, track }, &[]);
                }
                None => continue,
            }
            return true;
        }
    }

    /// The front says that a peer has to give way.
    pub(super) fn displaced(&mut self, listener: u32, remote: &Remote, track: Track) {
        let key = RemoteRef::of(remote);
        let links = &self.links;
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        if let Some(Place::Here(id)) = port.table.get(key, |id| is_peer_of(links, id, key)) {
            let id = *id;
            if self.is_on_track(id, track) {
                self.end_newcomer(listener, id);
            }
        }
    }

    fn end_newcomer(&mut self, listener: u32, id: LinkId) {
        let close = Close {
            reason: "displaced",
            detail: String::new(),
        };
        // There may be as many as datagrams come in.
        let now = self.now;
        let drops = self
            .datagrams
            .port(listener)
            .map(|port| (port.core.clone(), port.core.drops.allows(now)));
        if let Some((core, Some(suppressed))) = drops {
            let listener = &*core.config.info.name;
            tracing::info!(
                listener,
                suppressed,
                "max_connections: the oldest newcomer gives way"
            );
        }
        self.end_link_quietly(id, &close, |counters| &counters.closed_overload);
    }
}

/// Where the newcomer is, if it is one still.
fn victim<'l>(port: &Port, link: impl Fn(LinkId) -> Option<&'l Link>, newcomer: &Newcomer) -> Option<Victim> {
    let remote = RemoteRef::of(&newcomer.remote);
    let route = |id| link(id).and_then(Link::route);
    let is_peer = |id| {
        let known = route(id).and_then(|route| route.remote.as_ref());
        known.is_some_and(|known| RemoteRef::of(known) == remote)
    };
    match port.table.get(remote, is_peer)? {
        Place::Here(id) => {
            let route = route(*id)?;
            (route.track.born == newcomer.born && !route.has_gone_on).then_some(Victim::Here(*id))
        }
        Place::Away(away) => {
            let is_it = away.track.born == newcomer.born && !away.has_gone_on;
            is_it.then_some(Victim::Away(away.to, away.track))
        }
    }
}

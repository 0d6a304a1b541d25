//! Peers of a datagram socket that live on another worker.
//!
//! The kernel gives all datagrams from one address to the same worker: the *front* of the peers there. A peer whose
//! client belongs to another shard moves to that worker, whose socket sends its answers; the front keeps
//! `remote -> worker` and forwards what comes in.
//!
//! # Races
//!
//! Links and parcels go through the same queue, so what one worker tells another comes in its order: a link comes
//! before the datagrams that follow it. Still, a datagram can be under way to a worker that the peer has left:
//!
//! - **While the peer waits to leave**, at the end of the turn, its worker forwards what comes for it itself. The
//!   parcel leaves after the link.
//! - **A worker that does not know the remote of a forwarded datagram** returns it to the front: the peer has ended
//!   there, or gone on. It told the front so before. The front looks again, where the peer is now, or takes the datagram
//!   for a stranger's.
//! - **If the front has heard nothing** although the datagram comes back, its entry is wrong (the link was dropped
//!   because a mailbox was full, or is closing). It forgets the entry, so that no datagram goes to and fro for ever.
//! - **News of two moves may overtake each other**, as they come from two workers. Each says how often the peer has moved
//!   ([`Track::moves`](crate::datagram::Track)), and the front believes the highest; with it, a returned datagram tells
//!   an entry that was wrong from one that has become right meanwhile.
//! - **News of a link that was** never touches its successor at the same remote: [`Track`](crate::datagram::Track) says
//!   under which id it was opened, and ids are not used twice.
//! - **A client with several addresses of this machine to talk to** may have several fronts. Where a link arrives for a
//!   remote that has one already, the newer one stays.
//!
//! # Bounds
//!
//! Datagrams that wait in a worker's mailbox, and those gathered for it in one turn, account for at most
//! `mailbox_datagram_bytes_max` each. Above it they are dropped and counted. News are not: there are as many as moves
//! and ends of links.

use std::mem;

use broker_core::{LinkId, Remote, ShardId};

use super::{
    Worker,
    ports::{Route, is_peer_of},
};
use crate::datagram::{Away, News, Origin, Parcel, Place, RemoteRef, Track};

impl Worker {
    /// Tells another worker at the end of the turn.
    pub(super) fn forward(&mut self, to: ShardId, listener: u32, news: News, datagram: &[u8]) {
        let max = self.config.mailbox_datagram_bytes_max;
        let Some(parcel) = self.datagrams.parcels.get_mut(usize::from(to.0)) else {
            return;
        };
        if news.is_datagram() && parcel.weight() + datagram.len() > max {
            return self.drop_datagram(listener, "forward_full");
        }
        parcel.push(listener, news, datagram);
    }

    /// Sends what was gathered in this turn.
    pub(super) fn send_parcels(&mut self) {
        for index in 0..self.datagrams.parcels.len() {
            let parcel = &mut self.datagrams.parcels[index];
            if parcel.is_empty() {
                continue;
            }
            let parcel = mem::replace(parcel, Parcel::new(self.id));
            let Err(mut refused) = self.everyone[index].mailbox().send_parcel(parcel) else {
                continue;
            };
            for listener in refused.drop_datagrams() {
                self.drop_datagram(listener, "forward_full");
            }
            // Without datagrams it is taken.
            let _ = self.everyone[index].mailbox().send_parcel(refused);
        }
    }

    /// What another worker has sent.
    pub(super) fn unpack(&mut self, parcel: Parcel) {
        let from = parcel.from;
        parcel.unpack(|listener, news, datagram| match news {
            News::Datagram { remote, local, track } => {
                let origin = Origin {
                    from: remote.address,
                    local,
                };
                self.forwarded(listener, origin, remote, track, datagram);
            }
            News::Returned { remote, local, track } => {
                let remote_ref = RemoteRef::of(&remote);
                if let Some(port) = self.datagrams.port(listener) {
                    port.tally.returned.add(1);
                    let is_wrong = |away: &Away| away.to == from && away.track == track;
                    port.table.remove_away(remote_ref, is_wrong);
                }
                let origin = Origin {
                    from: remote.address,
                    local,
                };
                self.route_datagram(listener, origin, remote_ref, datagram);
            }
            News::Common => self.common_input(listener, datagram),
            News::Outgoing { association } => self.seal(listener, association, datagram),
            News::AssociationEnded {
                remote,
                track,
                reason,
            } => self.association_ended_elsewhere(listener, &remote, track, reason),
            News::Moved { remote, track, to } => self.moved(listener, &remote, track, to),
            News::Displaced { remote, track } => self.displaced(listener, &remote, track),
            News::Crowded => self.make_room(listener),
            News::Ended { remote, track } => self.ended_elsewhere(listener, &remote, track),
        });
    }

    /// A datagram for a peer that should be here.
    fn forwarded(&mut self, listener: u32, origin: Origin, remote: Remote, track: Track, datagram: &[u8]) {
        let key = RemoteRef::of(&remote);
        if track.front == self.id {
            // It has followed a peer that came home.
            return self.route_datagram(listener, origin, key, datagram);
        }
        let links = &self.links;
        let port = self.datagrams.port(listener);
        let place = port.and_then(|port| port.table.get(key, |id| is_peer_of(links, id, key)));
        if let Some(Place::Here(id)) = place {
            let id = *id;
            let is_meant = self.datagrams.secured(listener).is_none() || self.is_on_track(id, track);
            if is_meant && self.offer_datagram(id, origin.local, datagram) {
                return;
            }
        }
        let local = origin.local;
        self.forward(
            track.front,
            listener,
            News::Returned { remote, local, track },
            datagram,
        );
    }

    /// The front hears that a peer has gone on.
    fn moved(&mut self, listener: u32, remote: &Remote, track: Track, to: ShardId) {
        let key = RemoteRef::of(remote);
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        if let Some(away) = port.table.away_mut(key)
            && away.track.born == track.born
        {
            if away.track.is_followed_by(track) {
                away.track = track;
                away.to = to;
            }
            return;
        }
        let (links, is_secured) = (&self.links, port.secured.is_some());
        let home = match port.table.get(key, |id| is_peer_of(links, id, key)) {
            Some(Place::Here(id)) => Some(*id),
            _ => None,
        };
        // Else it has come home already, and this is old news.
        if is_secured && !home.is_some_and(|id| self.is_on_track(id, track)) {
            // Its association ended while it was on its way.
            self.tell_association_ended(listener, remote.clone(), track, to, "association_ended");
        }
    }

    /// The front hears that a peer has ended.
    fn ended_elsewhere(&mut self, listener: u32, remote: &Remote, track: Track) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let is_it = |away: &Away| away.track.is_followed_by(track);
        if port.table.remove_away(RemoteRef::of(remote), is_it)
            && let Some(secured) = &mut port.secured
        {
            secured.remove_peer(remote);
        }
        // It may be the last that a stopped listener waited for.
        self.close_port(listener);
    }

    /// The link of a datagram peer has been sent to another worker.
    pub(super) fn datagram_link_left(&mut self, id: LinkId, route: &Route, to: ShardId) {
        let (Some(remote), track) = (route.remote.clone(), route.track) else {
            return;
        };
        let Some(port) = self.datagrams.port(route.listener) else {
            return;
        };
        if track.front != self.id {
            port.table.remove_here(RemoteRef::of(&remote), id);
            if to != track.front {
                self.forward(
                    track.front,
                    route.listener,
                    News::Moved { remote, track, to },
                    &[],
                );
            }
            return;
        }
        // Here it stands under its id, unless a newer link has taken its place.
        if port.table.remove_here(RemoteRef::of(&remote), id) {
            let away = Away {
                remote: remote.clone(),
                to,
                track,
                has_gone_on: route.has_gone_on,
            };
            port.table
                .set(RemoteRef::of(&remote), Place::Away(Box::new(away)), |_| false);
        }
    }

    /// A link that was opened elsewhere has ended.
    pub(super) fn tell_front_of_end(&mut self, route: Route) {
        if let Some(remote) = route.remote
            && route.track.front != self.id
        {
            let track = route.track;
            self.forward(track.front, route.listener, News::Ended { remote, track }, &[]);
        }
    }
}

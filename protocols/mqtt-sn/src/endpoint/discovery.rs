//! ADVERTISE at an interval, and GWINFO for those who search (§6.1).

use std::time::Duration;

use broker_core::{Destination, Remote, Timestamp, Transmit, random::Random};
use bytes::{Bytes, BytesMut};

use super::{Settings, words};
use crate::codec::{Message, Node};

/// Searchers that wait for their answer; above it, new ones are answered at once, or dropped if these are too many.
const SEARCHERS_MAX: usize = 256;

/// Time between two GWINFO to everyone.
const BROADCAST_PAUSE: Duration = Duration::from_secs(1);

/// A broadcast comes back to the socket that has sent it, within this time.
const ECHO: Duration = Duration::from_secs(2);

/// What an endpoint owes to those who look for a gateway.
#[derive(Debug)]
pub(super) struct Discovery {
    advertise_at: Option<Timestamp>,
    searchers: Vec<Searcher>,
    /// A GWINFO to everyone, and the hops that it may go.
    broadcast: Option<(Timestamp, Option<u8>)>,
    answered_at: Option<Timestamp>,
    broadcast_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Searcher {
    due: Timestamp,
    remote: Remote,
    radius: u8,
}

impl Discovery {
    /// The first ADVERTISE is due at once.
    pub(super) fn new(settings: &Settings, is_first: bool) -> Discovery {
        let advertises = is_first && settings.advertise_interval.is_some();
        Discovery {
            advertise_at: advertises.then(Timestamp::default),
            searchers: Vec::new(),
            broadcast: None,
            answered_at: None,
            broadcast_at: None,
        }
    }

    /// A SEARCHGW. The searcher gets a GWINFO of its own, since a broadcast may not reach it. If it has asked everyone,
    /// everyone near hears the answer, so that others need not ask.
    pub(super) fn search(
        &mut self,
        now: Timestamp,
        remote: &Remote,
        radius: u8,
        to_everyone: bool,
        delay: Duration,
    ) -> Result<(), &'static str> {
        let due = now.after(delay);
        if to_everyone {
            let hops = (radius > 0).then_some(radius);
            let earliest = self
                .answered_at
                .map_or(due, |at| due.max(at.after(BROADCAST_PAUSE)));
            self.broadcast = match self.broadcast {
                None => Some((earliest, hops)),
                Some((at, other)) => Some((at, other.zip(hops).map(|(one, two)| one.max(two)))),
            };
        }
        if self.searchers.iter().any(|other| other.remote == *remote) {
            return Ok(());
        }
        if self.searchers.len() >= SEARCHERS_MAX {
            return Err(words::SEARCHERS_FULL);
        }
        self.searchers.push(Searcher {
            due,
            remote: remote.clone(),
            radius,
        });
        Ok(())
    }

    /// Somebody else has told everyone about this gateway. The searchers still get their own answers: whoever sends
    /// false GWINFO must not keep them from finding it.
    pub(super) fn suppress(&mut self) {
        self.broadcast = None;
    }

    /// True if a message that names this gateway may be one of its own.
    pub(super) fn may_be_echo(&self, now: Timestamp) -> bool {
        self.broadcast_at.is_some_and(|at| now.since(at) <= ECHO)
    }

    pub(super) fn fire(&mut self, now: Timestamp, settings: &Settings, transmits: &mut Vec<Transmit>) {
        if let Some(interval) = settings.advertise_interval
            && self.advertise_at.is_some_and(|at| at <= now)
        {
            let duration = seconds(interval);
            self.advertise_at = Some(now.after_secs(u64::from(duration)));
            let message = Message::Advertise {
                gateway_id: settings.gateway_id,
                duration,
            };
            transmits.push(self.broadcast(now, None, &message));
        }
        let gw_info = Message::GwInfo {
            gateway_id: settings.gateway_id,
            address: &[],
        };
        if let Some((_, radius)) = self.broadcast.take_if(|(at, _)| *at <= now) {
            self.answered_at = Some(now);
            transmits.push(self.broadcast(now, radius, &gw_info));
        }
        for searcher in self.searchers.extract_if(.., |searcher| searcher.due <= now) {
            transmits.push(self::gw_info(
                &searcher.remote,
                searcher.radius,
                settings.gateway_id,
            ));
        }
        if self.searchers.is_empty() {
            self.searchers = Vec::new();
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        let searchers = self.searchers.iter().map(|searcher| searcher.due);
        let broadcast = self.broadcast.map(|(at, _)| at);
        searchers.chain(self.advertise_at).chain(broadcast).min()
    }

    fn broadcast(&mut self, now: Timestamp, radius: Option<u8>, message: &Message<'_>) -> Transmit {
        self.broadcast_at = Some(now);
        Transmit {
            to: Destination::Broadcast { radius },
            datagram: encode(message),
        }
    }
}

/// Draws the time after which a SEARCHGW is answered (T_GWINFO, §6.1).
pub(super) fn delay(settings: &Settings, random: &mut Random) -> Duration {
    random.up_to(settings.gwinfo_delay_max)
}

/// GWINFO for one searcher.
pub(super) fn gw_info(remote: &Remote, radius: u8, gateway_id: u8) -> Transmit {
    let message = Message::GwInfo {
        gateway_id,
        address: &[],
    };
    reply(remote, radius, &message)
}

/// A datagram for `remote`, in an envelope if it is a node. The forwarder broadcasts it within `radius`.
pub(super) fn reply(remote: &Remote, radius: u8, message: &Message<'_>) -> Transmit {
    let datagram = match &remote.node {
        None => encode(message),
        Some(node) => {
            let mut datagram = BytesMut::new();
            Node::seal(radius, node, &mut datagram, |to| message.encode(to));
            datagram.freeze()
        }
    };
    Transmit {
        to: Destination::Remote(remote.clone()),
        datagram,
    }
}

fn encode(message: &Message<'_>) -> Bytes {
    let mut datagram = BytesMut::with_capacity(message.encoded_len());
    message.encode(&mut datagram);
    datagram.freeze()
}

/// The unit of an ADVERTISE (§5.3.3): whole seconds, at least one, at most what two octets can say.
fn seconds(interval: Duration) -> u16 {
    let rounded_up = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
    u16::try_from(rounded_up.max(1)).unwrap_or(u16::MAX)
}

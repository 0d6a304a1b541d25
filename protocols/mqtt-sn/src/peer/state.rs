//! What a client is doing, seen from the gateway.
//!
//! ```text
//!                    CONNECT             (Will) WILLTOPIC, WILLMSG
//!   AwaitConnect ───────────────▶ AwaitWill ─────────────┐
//!        │                           ▲                   ▼         refused: CONNACK with its code
//!        │                   CONNECT │ ┌───────────▶ Connecting ───────────────────────────────────▶ Closed
//!        │                           │ │ CONNECT         │
//!        │ PINGREQ(client id)        │ │                 │ CONNACK
//!        ▼                           │ │                 ▼                 DISCONNECT, keep alive,
//!   Connecting, to wake ◀──────┐   ┌─┴─┴────────── Connected: Active ────── N_RETRY, kicked ───────▶ Closed
//!        │                     │   │                     │
//!        │ admitted            │   │                     │ DISCONNECT(duration)
//!        ▼                     │   │                     ▼
//!   Connected: Awake, Drained ─┼───┼──────────────▶ FallingAsleep
//!              │    everything │   │  N_RETRY             │ the broker has stored it:
//!      CONNECT │    delivered  │   │                      ▼ DISCONNECT or PINGRESP
//!              └───────────────┼───┴────────────────── Asleep ──── time out (lost: the broker's affair) ──▶ Closed
//!                              └────────────────────────┘
//!                                PINGREQ(client id); DISCONNECT (to leave, or to sleep for another time)
//! ```
//!
//! These are the states of §6.14, Figure 4; what stands between two of them waits for an answer, of the client or of
//! the broker, and carries what it needs then. "Lost" and "disconnected" are what remains of a client without a peer:
//! its session.

use std::sync::Arc;

use broker_core::{ClientId, ClientInfo, PacketId, QoS, Timestamp, Will};

use super::{
    common::Common,
    late::{self, LateCopies},
    outgoing::Outgoing,
    timers::LATE,
};
use crate::{
    codec::{self, MsgId, ReturnCode, TopicId},
    topics::Topics,
};

#[derive(Debug)]
pub(super) enum State {
    /// Its first datagram is a CONNECT or a PINGREQ with a client id.
    AwaitConnect {
        until: Timestamp,
    },
    AwaitWill(Box<AwaitWill>),
    Connecting(Box<Connecting>),
    Connected(Box<Connection>),
    FallingAsleep(Box<FallingAsleep>),
    Asleep(Box<Asleep>),
    /// Not a client: it publishes what comes without a connection (§6.8).
    Common(Box<Common>),
    /// Nothing comes in or goes out any more.
    Closed,
}

/// What a CONNECT said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Setup {
    /// As the broker is to know the client; empty if the broker is to choose.
    pub(super) client_id: Box<str>,
    pub(super) will: bool,
    pub(super) clean_session: bool,
    /// Seconds.
    pub(super) duration: u16,
}

/// The client is asked for its Will (§6.2).
#[derive(Debug)]
pub(super) struct AwaitWill {
    pub(super) setup: Setup,
    pub(super) prompt: Prompt,
    pub(super) until: Timestamp,
}

/// What it was asked for.
#[derive(Debug)]
pub(super) enum Prompt {
    Topic,
    /// It has named the topic.
    Message {
        qos: QoS,
        retain: bool,
        topic: Box<str>,
    },
}

/// The broker decides.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) setup: Setup,
    /// Sent along with the CONNECT.
    pub(super) will: Option<Box<Will>>,
    pub(super) goal: Goal,
    pub(super) greeting: Greeting,
    /// See [`Connection::fallback`].
    pub(super) fallback: Option<Nap>,
    /// A later CONNECT that says something else: it is seen to once the broker has decided about this one, as answers
    /// of the broker do not say to which of two they belong.
    pub(super) next: Option<Setup>,
}

/// Why the broker was asked for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// CONNECT.
    Connect,
    /// PINGREQ of a client that sleeps. `nap`: how, if this peer saw it fall asleep; else the session's notes say it.
    Wake { nap: Option<Nap> },
    /// DISCONNECT of a client that sleeps, with another duration. If it does not work out, the old one stays.
    SleepFor { seconds: u16, nap: Nap },
    /// DISCONNECT of a client that sleeps, without a duration.
    Leave,
}

/// A sleep (§6.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nap {
    /// As the client said, seconds.
    pub(super) seconds: u16,
    /// When the client is lost.
    pub(super) until: Timestamp,
}

/// An admitted client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Arc<ClientInfo>,
    pub(super) phase: Phase,
    /// Of its CONNECT, seconds; 0: none.
    pub(super) duration: u16,
    /// Its CONNECT had the Will flag.
    pub(super) will_flag: bool,
    pub(super) heard_at: Timestamp,
    pub(super) greeting: Greeting,
    /// Its CONNECT came when it had just fallen asleep, and it has said nothing since: it may sleep after all.
    pub(super) fallback: Option<Nap>,
    /// Until then the same CONNECT may come because its CONNACK was lost: the client has said nothing since.
    pub(super) fresh_until: Timestamp,
    /// What the session has noted of sleep.
    pub(super) noted: Noted,
    /// Requests that the broker has not answered.
    pub(super) asked: Vec<Asked>,
    /// Numbers requests to the broker and REGISTERs.
    pub(super) number: PacketId,
    pub(super) topics: Option<Box<Topics>>,
    pub(super) outgoing: Option<Box<Outgoing>>,
    pub(super) will: Option<Box<Will>>,
    pub(super) late: Option<Box<LateCopies>>,
}

/// The last CONNECT, so that it is known again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub(super) print: u64,
    /// Until then it may be one that the network has held back, whatever the client has done since.
    pub(super) late_until: Timestamp,
    /// The broker has chosen the client id, and the client does not know it: it may wake without.
    pub(super) without_id: bool,
}

/// The states of an admitted client (§6.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Active,
    /// It woke and is given what waited for it.
    Awake(Nap),
    /// The broker has no more for it: it sleeps again as soon as everything is acknowledged.
    Drained(Nap),
}

/// What the session's notes 0 and 1 say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// The guard is that of this peer.
    pub(super) guard: bool,
    /// Seconds of sleep.
    pub(super) seconds: Option<u16>,
}

/// A request of the client that the broker has not answered.
#[derive(Debug)]
pub(super) enum Asked {
    Publish {
        msg_id: MsgId,
        topic_id: TopicId,
    },
    Release(MsgId),
    /// The topic id waits until it is noted.
    Register {
        msg_id: MsgId,
        topic_id: TopicId,
    },
    /// So does that of a SUBACK.
    Subscribe {
        msg_id: MsgId,
        number: PacketId,
        topic_id: TopicId,
        granted: Option<(ReturnCode, QoS)>,
    },
    Unsubscribe {
        msg_id: MsgId,
        number: PacketId,
    },
    WillTopic(Option<Box<Will>>),
    WillMsg(Option<Box<Will>>),
}

/// The broker stores that the client sleeps.
#[derive(Debug)]
pub(super) struct FallingAsleep {
    pub(super) asleep: Asleep,
    /// What the client is told then, if it waits for something.
    pub(super) answer: Option<codec::Message<'static>>,
    /// The client that says something after this time has not got its answer: the broker could not store the sleep, or the
    /// session is not this client's any more.
    pub(super) patience_until: Timestamp,
}

/// The client sleeps. Its session is away; the peer only remembers whose it is.
#[derive(Clone, Debug)]
pub(super) struct Asleep {
    pub(super) client_id: ClientId,
    pub(super) nap: Nap,
    pub(super) greeting: Greeting,
}

impl Greeting {
    /// Of a CONNECT that is seen to now.
    pub(super) fn new(now: Timestamp, setup: &Setup) -> Greeting {
        Greeting {
            print: late::print(setup),
            late_until: now.after(LATE),
            without_id: setup.client_id.is_empty(),
        }
    }

    /// Of a client whose CONNECT nobody here has seen.
    pub(super) fn unseen(now: Timestamp) -> Greeting {
        Greeting {
            print: 0,
            late_until: now,
            without_id: false,
        }
    }

    pub(super) fn is_late_copy(self, now: Timestamp, setup: &Setup) -> bool {
        now < self.late_until && self.print == late::print(setup)
    }
}

impl Nap {
    /// A sleep that begins now.
    pub(super) fn new(now: Timestamp, seconds: u16) -> Nap {
        Nap {
            seconds,
            until: now.after_secs(super::timers::tolerant(seconds)),
        }
    }
}

impl Connection {
    /// A number for the next request to the broker, or REGISTER.
    pub(super) fn next_number(&mut self) -> PacketId {
        let number = self.number;
        self.number = number.next();
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;

    #[test]
    fn an_idle_client_is_small() {
        // What an allocation costs beyond its size.
        const ALLOCATION: usize = 16;
        let peer = size_of::<Peer>() + ALLOCATION;
        assert!(peer + size_of::<Connection>() + ALLOCATION <= 400);
        assert!(peer + size_of::<Asleep>() + ALLOCATION <= 300);
    }
}

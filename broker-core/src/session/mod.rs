//! A session (MQTT 5 §4.1): what the broker keeps for one client, with or without a connection.

mod outgoing;
mod replay;
mod subscriptions;

use std::sync::Arc;

use crate::{
    ClientId, ClientInfo, Connect, LinkId, PacketId, Timestamp, Will,
    admission::{AuthorizationCache, ExchangeState},
};

pub(crate) use outgoing::{Acked, Outgoing, Queued, Sending, SharedTarget};
pub(crate) use replay::{Replay, Replays};
pub(crate) use subscriptions::{Kind, Subscription, Subscriptions};

/// Position of a session in its shard. Reused after the session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey(pub(crate) u32);

/// The state of one client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Arc<ClientInfo>,
    pub(crate) presence: Presence,
    /// Seconds that it outlives its connection; `u32::MAX`: for ever.
    pub(crate) expiry_interval: u32,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) outgoing: Outgoing,
    /// QoS 2 messages received and not yet released.
    pub(crate) awaiting_rel: Vec<PacketId>,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) replays: Replays,
    pub(crate) authorization_cache: AuthorizationCache,
    /// Admission ends here (an expiring token); `NEVER` otherwise.
    pub(crate) admitted_until: Timestamp,
    /// Set if the client came by enhanced authentication: it may re-authenticate.
    pub(crate) exchange: Option<Box<Exchange>>,
    /// Bridges get the retain flag as published.
    pub(crate) is_bridge: bool,
    /// When unacknowledged deliveries are looked at for repetition; `NEVER` if none is due.
    pub(crate) retry_at: Timestamp,
    /// The earliest timer that stands for this session; `NEVER` if there is none.
    pub(crate) armed: Timestamp,
    /// Scratch of the publish under way: its number, and the position of this session among its receivers.
    pub(crate) mark: (u64, u32),
    /// Round robin of this publisher over the shared groups it recently published to.
    pub(crate) turns: Option<Box<Turns>>,
}

/// Whether the client is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Presence {
    Online {
        link: LinkId,
        connected_at: Timestamp,
        /// Bytes wait on its connection above the high-water mark: only queued from here on.
        congested: bool,
    },
    Offline {
        /// The session ends; `NEVER` if it is kept for ever.
        expires_at: Timestamp,
        /// The Will is published; `NEVER` if there is none.
        will_at: Timestamp,
    },
}

/// What re-authentication (MQTT 5 §4.12.1) needs to know.
pub(crate) struct Exchange {
    pub(crate) client_id: ClientId,
    pub(crate) connect: Connect,
    /// The client's next AUTH goes on from here.
    pub(crate) state: Option<ExchangeState>,
    /// The control plane works on a step.
    pub(crate) asked: bool,
}

impl std::fmt::Debug for Exchange {
    /// Shows neither credentials nor state.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// Round-robin counters of one publisher, bounded: the oldest gives way.
#[derive(Debug, Default)]
pub(crate) struct Turns(smallvec::SmallVec<[(u64, u32); 4]>);

impl Turns {
    const MAX: usize = 16;

    /// The next turn in the group named by `group`; the first one is `first`.
    pub(crate) fn next(&mut self, group: u64, first: impl FnOnce() -> u32) -> u32 {
        if let Some((_, turn)) = self.0.iter_mut().find(|(key, _)| *key == group) {
            *turn = turn.wrapping_add(1);
            return *turn;
        }
        if self.0.len() == Turns::MAX {
            self.0.remove(0);
        }
        let first = first();
        self.0.push((group, first));
        first
    }
}

impl Session {
    pub(crate) fn is_online(&self) -> bool {
        matches!(self.presence, Presence::Online { .. })
    }

    /// MQTT 5 clients are told more and never get a repetition on a living connection.
    pub(crate) fn is_v5(&self) -> bool {
        self.client.connection.proto_ver >= 5
    }

    /// The earliest time at which something is due for this session.
    pub(crate) fn deadline(&self) -> Timestamp {
        match self.presence {
            Presence::Offline { expires_at, will_at } => expires_at.min(will_at),
            Presence::Online { .. } => self.admitted_until.min(self.retry_at),
        }
    }
}

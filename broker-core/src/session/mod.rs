//! A session (MQTT 5 §4.1): what the broker keeps for one client, with or without a connection.

mod outgoing;
mod replay;
mod sleeper;
mod stored;
mod subscriptions;

use std::sync::Arc;

use crate::{
    ClientId, ClientInfo, Connect, LinkId, PacketId, Timestamp, Will,
    admission::{AuthorizationCache, ExchangeState},
    filter_index::FilterId,
    store::{Sequence, format::Token},
};

pub(crate) use outgoing::{Acked, Outgoing, Queued, Sending, SharedTarget};
pub(crate) use replay::{Replay, Replays};
pub(crate) use sleeper::{Awake, Sleeper};
pub(crate) use stored::{Dormant, DormantWill, Reading, Rest, Stored};
pub(crate) use subscriptions::{Kind, Subscription, Subscriptions};

/// Position of a session in its shard. Reused after the session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey(pub(crate) u32);

/// Who lives at a [`SessionKey`].
#[derive(Debug)]
pub(crate) enum Tenant {
    /// A session with a connection.
    Online(Box<Session>),
    /// A persistent session without one.
    Dormant(Box<Dormant>),
    /// What is left of a session that has ended.
    Ending(Box<Ending>),
}

/// The subscriptions of a session that has ended, which are many.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) client_id: ClientId,
    /// The name of its entries, if the store knew it.
    pub(crate) token: Option<Token>,
    pub(crate) subscriptions: Subscriptions,
    /// The earliest timer that stood for the session.
    pub(crate) armed: Timestamp,
}

/// The state of one client that is connected.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Arc<ClientInfo>,
    pub(crate) link: LinkId,
    /// Tells its connections apart, also those of one link.
    pub(crate) connection: u64,
    pub(crate) connected_at: Timestamp,
    /// Bytes wait on its connection above the high-water mark: only queued from here on.
    pub(crate) congested: bool,
    /// Its CONNACK waits for the store: only queued until then.
    pub(crate) opening: bool,
    /// Answers to the client that wait for the store: later ones wait behind them.
    pub(crate) held: u32,
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
    /// Set if the session outlives its connection, or did so before: what the store knows of it.
    pub(crate) stored: Option<Box<Stored>>,
    /// What most sessions have not.
    pub(crate) sleeper: Option<Box<Sleeper>>,
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
    /// MQTT 5 clients are told more and never get a repetition on a living connection.
    pub(crate) fn is_v5(&self) -> bool {
        self.client.connection.proto_ver >= 5
    }

    /// MQTT 3.x has no words for a failure, and its clients may want repetitions on a living connection. The peers of
    /// other protocols see to both.
    pub(crate) fn speaks_mqtt_3(&self) -> bool {
        self.client.connection.protocol == "mqtt" && !self.is_v5()
    }

    /// The earliest time at which something is due for this session.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.admitted_until.min(self.retry_at)
    }

    /// The session gets the record at `sequence` through this route as it is committed: it has read everything before
    /// it, and the subscription is older.
    pub(crate) fn is_due(&mut self, sequence: Sequence, route: FilterId) -> bool {
        let Some(stored) = &mut self.stored else {
            return false;
        };
        if let Reading::Asked(_) = stored.reading {
            stored.beyond = sequence.next();
            return false;
        }
        let is_next =
            stored.reading == Reading::Live && sequence >= stored.next && !stored.ahead.contains(&sequence);
        if !is_next || (stored.unsettled == 0 && sequence >= stored.settled_from) {
            return is_next;
        }
        let since = self
            .subscriptions
            .get(route, None)
            .map(|subscription| subscription.since);
        if since == Some(Sequence::END) {
            // Whether the message is older, the session learns when it reads again.
            stored.reading = Reading::Behind;
        }
        since.is_some_and(|since| since <= sequence)
    }

    /// The client is not connected, and awake only for what waits for it.
    pub(crate) fn is_awake(&self) -> bool {
        self.sleeper
            .as_ref()
            .is_some_and(|sleeper| sleeper.awake.is_some())
    }

    /// The client has connected: it sleeps no more, unless it is only awake.
    pub(crate) fn end_sleep(&mut self) {
        self.sleeper = self.sleeper.take().and_then(|mut sleeper| {
            if sleeper.awake.is_none() {
                sleeper.until = Timestamp::NEVER;
            }
            (!sleeper.is_empty()).then_some(sleeper)
        });
    }

    /// Its connection takes messages.
    pub(crate) fn takes_messages(&self) -> bool {
        !self.congested && !self.opening
    }
}

impl Tenant {
    pub(crate) fn online(&self) -> Option<&Session> {
        match self {
            Tenant::Online(session) => Some(session),
            Tenant::Dormant(_) | Tenant::Ending(_) => None,
        }
    }

    pub(crate) fn online_mut(&mut self) -> Option<&mut Session> {
        match self {
            Tenant::Online(session) => Some(session),
            Tenant::Dormant(_) | Tenant::Ending(_) => None,
        }
    }

    pub(crate) fn client_id(&self) -> &ClientId {
        match self {
            Tenant::Online(session) => &session.client.client_id,
            Tenant::Dormant(dormant) => &dormant.client_id,
            Tenant::Ending(ending) => &ending.client_id,
        }
    }

    pub(crate) fn subscriptions(&self) -> &Subscriptions {
        match self {
            Tenant::Online(session) => &session.subscriptions,
            Tenant::Dormant(dormant) => &dormant.subscriptions,
            Tenant::Ending(ending) => &ending.subscriptions,
        }
    }

    pub(crate) fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        match self {
            Tenant::Online(session) => &mut session.subscriptions,
            Tenant::Dormant(dormant) => &mut dormant.subscriptions,
            Tenant::Ending(ending) => &mut ending.subscriptions,
        }
    }

    /// The name of its entries, if the store knows it.
    pub(crate) fn token(&self) -> Option<Token> {
        match self {
            Tenant::Online(session) => session.stored.as_ref().map(|stored| stored.token),
            Tenant::Dormant(dormant) => Some(dormant.token()),
            Tenant::Ending(ending) => ending.token,
        }
    }

    /// The earliest time at which something is due.
    pub(crate) fn deadline(&self) -> Timestamp {
        match self {
            Tenant::Online(session) => session.deadline(),
            Tenant::Dormant(dormant) => dormant.deadline(),
            Tenant::Ending(_) => Timestamp::NEVER,
        }
    }

    /// The earliest timer that stands.
    pub(crate) fn armed_mut(&mut self) -> &mut Timestamp {
        match self {
            Tenant::Online(session) => &mut session.armed,
            Tenant::Dormant(dormant) => &mut dormant.armed,
            Tenant::Ending(ending) => &mut ending.armed,
        }
    }

    pub(crate) fn armed(&self) -> Timestamp {
        match self {
            Tenant::Online(session) => session.armed,
            Tenant::Dormant(dormant) => dormant.armed,
            Tenant::Ending(ending) => ending.armed,
        }
    }
}

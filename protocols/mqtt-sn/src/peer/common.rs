//! The common peer: what comes without a connection (QoS −1, §6.8) is published by one client for all.
//!
//! ```text
//!   Idle ──── PUBLISH ────▶ Connecting ──── admitted ────▶ Connected
//!    ▲                          │ refused                      │ the broker ends the connection
//!    └── time, nothing waits ── Resting ◀──────────────────────┘
//!         (something waits: Connecting)
//! ```
//!
//! It publishes with QoS 0 under the client id of the listener, so that authentication, authorization and limits are
//! those of that client. Nobody is told when a message is dropped: there is no answer to QoS −1.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use broker_core::{
    ClientId, ClientInfo, Connected, Effects, MessageParts, Publish, Request, Timestamp, random::Random,
};

use super::{Peer, state::State};
use crate::{
    Settings,
    codec::{self, Message, PublishQoS, Topic},
};

/// Messages that wait for the client to be admitted; more are dropped (counted).
const WAITING_MAX: usize = 64;

/// Time to the next attempt after a refusal; it doubles with each up to the maximum. Up to half as much is added at
/// random.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);

/// Says which settings a listener has now. The common peer lasts as long as the listener, and asks for every message.
pub type CurrentSettings = Arc<dyn Fn() -> Arc<Settings> + Send + Sync>;

pub(super) struct Common {
    current: CurrentSettings,
    client_id: Box<str>,
    stage: Stage,
    waiting: VecDeque<Waiting>,
    /// Attempts that failed in a row.
    failures: u32,
    random: Random,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Connecting,
    Connected(Arc<ClientInfo>),
    Resting { until: Timestamp },
}

/// A message that waits.
#[derive(Debug)]
struct Waiting {
    topic: Box<str>,
    retain: bool,
    payload: Box<[u8]>,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common")
            .field("client_id", &self.client_id)
            .field("stage", &self.stage)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Common {
    /// The broker knows of it.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Connected(_))
    }

    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        match self.stage {
            Stage::Resting { until } => Some(until),
            _ => None,
        }
    }

    fn rest(&mut self, now: Timestamp) {
        let rest = REST_MIN.saturating_mul(1 << self.failures.min(6)).min(REST_MAX);
        self.failures += 1;
        let extra = self.random.up_to(rest / 2);
        self.stage = Stage::Resting {
            until: now.after(rest + extra),
        };
    }
}

impl Peer {
    /// The peer of everybody who publishes without a connection. It never ends by itself.
    pub fn common(current: CurrentSettings, client_id: &str, seed: u64) -> Peer {
        let settings = current();
        let common = Common {
            current,
            client_id: client_id.into(),
            stage: Stage::Idle,
            waiting: VecDeque::new(),
            failures: 0,
            random: Random::new(seed),
        };
        Peer {
            settings,
            transport: None,
            state: State::Common(Box::new(common)),
            client_id: Some(ClientId::new(client_id)),
        }
    }

    pub(super) fn handle_common(&mut self, now: Timestamp, message: &Message<'_>, effects: &mut Effects<'_>) {
        let State::Common(common) = &mut self.state else {
            return;
        };
        self.settings = (common.current)();
        let settings = Arc::clone(&self.settings);
        let Message::Publish(publish) = message else {
            return settings.counters.received_unexpected.inc();
        };
        let Some(topic) = topic(publish, &settings, &common.client_id) else {
            return settings.counters.without_connection_invalid_topic.inc();
        };
        match &common.stage {
            Stage::Connected(client) => {
                if !publish_as(now, client, topic, publish.retain, publish.data, effects) {
                    settings.counters.without_connection_dropped.inc();
                }
            }
            Stage::Idle | Stage::Connecting | Stage::Resting { .. } => {
                if common.waiting.len() >= WAITING_MAX {
                    return settings.counters.without_connection_dropped.inc();
                }
                common.waiting.push_back(Waiting {
                    topic: topic.into(),
                    retain: publish.retain,
                    payload: publish.data.into(),
                });
                if matches!(common.stage, Stage::Idle) {
                    self.connect_common(effects);
                }
            }
        }
    }

    fn connect_common(&mut self, effects: &mut Effects<'_>) {
        let State::Common(common) = &mut self.state else {
            return;
        };
        common.stage = Stage::Connecting;
        let client_id = common.client_id.clone();
        let mut connect = self.connect_request(&client_id);
        connect.clean_start = true;
        connect.session_expiry_interval = 0;
        connect.may_sleep = false;
        effects.requests.push(Request::Connect(Box::new(connect)));
    }

    pub(super) fn common_connected(
        &mut self,
        now: Timestamp,
        mut common: Box<Common>,
        connected: Connected,
        effects: &mut Effects<'_>,
    ) {
        for message in std::mem::take(&mut common.waiting) {
            let is_published = publish_as(
                now,
                &connected.client,
                &message.topic,
                message.retain,
                &message.payload,
                effects,
            );
            if !is_published {
                self.settings.counters.without_connection_dropped.inc();
            }
        }
        common.failures = 0;
        common.stage = Stage::Connected(connected.client);
        self.state = State::Common(common);
    }

    /// It was refused, or its connection was ended.
    pub(super) fn common_refused(&mut self, now: Timestamp, mut common: Box<Common>) {
        common.rest(now);
        self.state = State::Common(common);
    }

    pub(super) fn fire_common(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        let State::Common(common) = &mut self.state else {
            return;
        };
        if common.next_timeout().is_none_or(|until| until > now) {
            return;
        }
        common.stage = Stage::Idle;
        if !common.waiting.is_empty() {
            self.connect_common(effects);
        }
    }
}

/// What it may publish to: topics that need no registration.
fn topic<'a>(publish: &'a codec::Publish<'_>, settings: &'a Settings, client_id: &str) -> Option<&'a str> {
    match (publish.qos, &publish.topic) {
        (PublishQoS::WithoutConnection, Topic::Predefined(id)) => settings.predefined.name(client_id, *id),
        (PublishQoS::WithoutConnection, Topic::Short(octets)) => std::str::from_utf8(octets).ok(),
        _ => None,
    }
}

/// False if its topic is too long with the mountpoint.
fn publish_as(
    now: Timestamp,
    client: &Arc<ClientInfo>,
    topic: &str,
    retain: bool,
    payload: &[u8],
    effects: &mut Effects<'_>,
) -> bool {
    let parts = MessageParts {
        retain,
        ..MessageParts::new(topic, payload)
    };
    let Some(message) = parts.publish(now, client) else {
        return false;
    };
    effects.requests.push(Request::Publish(Publish {
        message,
        packet_id: None,
        dup: false,
    }));
    true
}

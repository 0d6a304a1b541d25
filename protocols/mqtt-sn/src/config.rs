//! Settings of endpoints and peers. Plain values; the gateway reads them from its configuration.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broker_core::ConnectionInfo;

use crate::{codec::TopicId, peer::Counters};

/// Settings of one listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Protocol, version and listener, for the broker.
    pub connection: Arc<ConnectionInfo>,
    /// Template of the mountpoint; mostly empty.
    pub mountpoint: Arc<str>,
    /// Names this gateway in ADVERTISE and GWINFO.
    pub gateway_id: u8,
    /// Time between two ADVERTISE (T_ADV, §7.2), at most 65 535 s, the unit on the wire is a second; `None`: none.
    pub advertise_interval: Option<Duration>,
    /// GWINFO is sent after a random time up to this (T_GWINFO, §6.1), so that several gateways do not answer at once.
    pub gwinfo_delay_max: Duration,
    /// Take PUBLISH of QoS −1 (§6.8).
    pub enable_qos3: bool,
    /// How long a client may take for its CONNECT with all that belongs to it.
    pub idle_timeout: Duration,
    /// Time after which what was not answered is sent again (T_RETRY, §6.13, §7.2).
    pub retry_interval: Duration,
    /// How often it is sent again before the client counts as lost (N_RETRY, §7.2).
    pub retry_max: u32,
    /// Messages of QoS 1 and 2 that a client is sent before it acknowledges the first. Small devices take one.
    pub max_inflight: u16,
    /// Messages that wait for a client to accept their topic ids; at the bound, those of QoS 0 are dropped.
    pub max_waiting: usize,
    /// Topic ids registered in one session, both ways together.
    pub max_topic_ids: u16,
    /// Seconds that a session without the CleanSession flag outlives its connection.
    pub session_expiry_interval: u32,
    /// From where a sleeping client may wake.
    pub roaming: Roaming,
    /// Topics that both sides know.
    pub predefined: Arc<Predefined>,
    /// What stands in place of what an MQTT-SN client cannot say.
    pub clientinfo_override: ClientInfoOverride,
    /// What its peers count; the settings that take the place of these have the same.
    pub counters: Arc<Counters>,
}

/// From where a client that is asleep may wake (PINGREQ with its client id): on the listener where it fell asleep, and
/// from the addresses that this says. On a secured listener its identity must be the one it connected with in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Roaming {
    /// From any address: those of NAT and mobile networks change.
    #[default]
    Any,
    /// From any port of the address it connected from.
    Host,
    /// From the address and port it connected from.
    Never,
}

/// Predefined topic ids (§6.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predefined {
    /// For all clients.
    pub global: BTreeMap<TopicId, Arc<str>>,
    /// For one client, by its client id; before the global ones.
    pub clients: BTreeMap<Arc<str>, BTreeMap<TopicId, Arc<str>>>,
}

/// `clientinfo_override`: texts with the placeholders `${ConnInfo.peername}`, `${ConnInfo.peerhost}`,
/// `${ConnInfo.sockport}`, `${ConnInfo.node}` (of a forwarder, hexadecimal), `${ConnInfo.identity}` (of DTLS: PSK
/// identity or common name) and `${Packet.headers.clientid}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfoOverride {
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Client id.
    pub clientid: Option<String>,
}

//! The typed settings of the MQTT-SN gateway: `gateway.mqttsn.*`.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use driver::{ClientAuth, DtlsSettings, PskLookup};
use mqtt_sn::Roaming;

use super::{bind::Bind, listener::Enable, listener::Verify};

/// `gateway.mqttsn.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttSn {
    /// `enable`: off, no listener is opened.
    pub enable: bool,
    /// `gateway_id`, 1 to 255: names this gateway in ADVERTISE and GWINFO (§5.4.2, §5.4.4).
    pub gateway_id: u8,
    /// `broadcast`: where ADVERTISE goes.
    pub broadcast: Broadcast,
    /// `advertise_interval` (T_ADV), whole seconds up to 65 535.
    pub advertise_interval: Duration,
    /// `gwinfo_delay` (T_GWINFO): GWINFO is sent after a random time up to this.
    pub gwinfo_delay: Duration,
    /// `enable_qos3`: PUBLISH of QoS −1 is taken (§6.8).
    pub enable_qos3: bool,
    /// `idle_timeout`: for a CONNECT with all that belongs to it.
    pub idle_timeout: Duration,
    /// `retry_interval` (T_RETRY).
    pub retry_interval: Duration,
    /// `retry_max` (N_RETRY).
    pub retry_max: u32,
    /// `max_inflight`: messages of QoS 1 and 2 under way to one client.
    pub max_inflight: u16,
    /// `max_waiting`: messages that wait for a client to accept their topic ids.
    pub max_waiting: usize,
    /// `max_topic_ids`: registered in one session.
    pub max_topic_ids: u16,
    /// `session_expiry_interval`, whole seconds; `u32::MAX` of them: never.
    pub session_expiry_interval: Duration,
    /// `roaming`: from where a sleeping client may wake.
    pub roaming: Roaming,
    /// `mountpoint` of the listeners that have none; empty: none.
    pub mountpoint: String,
    /// `clientinfo_override.*`.
    pub clientinfo_override: ClientInfoOverride,
    /// `predefined.<id>` and `clients.<clientid>.predefined.<id>`, by client, the global ones first, then by id.
    pub predefined: Vec<PredefinedTopic>,
    /// `listeners.*`, by kind, then by name. Holds also those that are switched off.
    pub listeners: Vec<DatagramListener>,
}

/// `broadcast`: where ADVERTISE goes (§6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// `false`: there is none.
    Off,
    /// `true`: to every host of the local network, at the port of MQTT-SN.
    On,
    /// To this broadcast address or multicast group.
    To(SocketAddr),
}

/// `clientinfo_override.*`: templates; empty: as the client says, which in MQTT-SN is no user name and no password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfoOverride {
    /// `username`.
    pub username: String,
    /// `password`.
    pub password: String,
    /// `clientid`.
    pub clientid: String,
}

/// A topic id that both sides know (§6.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredefinedTopic {
    /// The client that it holds for; `None`: all for which it means nothing else.
    pub client: Option<String>,
    /// The id, 1 to 1024.
    pub id: u16,
    /// Its topic.
    pub topic: String,
}

/// One `listeners.<kind>.<name>` of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramListener {
    /// What carries the datagrams.
    pub kind: DatagramKind,
    /// Its name: lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// `bind`.
    pub bind: Bind,
    /// `enable`.
    pub enable: Enable,
    /// `max_connections`: peers at a time.
    pub max_connections: Option<usize>,
    /// `mountpoint`, with its placeholders; empty: that of the gateway.
    pub mountpoint: String,
    /// `zone`.
    pub zone: String,
    /// `udp_options.recbuf`, bytes; `None`: the system's default.
    pub recbuf: Option<usize>,
    /// `udp_options.sndbuf`, bytes; `None`: the system's default.
    pub sndbuf: Option<usize>,
    /// `dtls_options.*`; used by dtls only.
    pub dtls: DtlsOptions,
}

/// What carries the datagrams of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatagramKind {
    /// UDP.
    Udp,
    /// DTLS over UDP.
    Dtls,
}

/// `dtls_options.*` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtlsOptions {
    /// `certfile`: PEM, the server's certificate first, then its chain.
    pub certfile: Option<PathBuf>,
    /// `keyfile`: PEM.
    pub keyfile: Option<PathBuf>,
    /// `cacertfile`: PEM, the authorities of client certificates.
    pub cacertfile: Option<PathBuf>,
    /// `verify`.
    pub verify: Verify,
    /// `fail_if_no_peer_cert`: with [`Verify::Peer`], a client without a certificate is refused.
    pub fail_if_no_peer_cert: bool,
    /// `psk_file`: identities and their pre-shared keys.
    pub psk_file: Option<PathBuf>,
    /// `handshake_timeout`.
    pub handshake_timeout: Duration,
    /// `handshakes_max`: handshakes under way at a time.
    pub handshakes_max: usize,
    /// `idle_timeout`: an association without a datagram is forgotten after this.
    pub idle_timeout: Duration,
}

impl Default for MqttSn {
    fn default() -> MqttSn {
        MqttSn {
            enable: true,
            gateway_id: 1,
            broadcast: Broadcast::Off,
            advertise_interval: Duration::from_secs(15 * 60),
            gwinfo_delay: Duration::ZERO,
            enable_qos3: true,
            idle_timeout: Duration::from_secs(30),
            retry_interval: Duration::from_secs(10),
            retry_max: 3,
            max_inflight: 1,
            max_waiting: 100,
            max_topic_ids: 1024,
            session_expiry_interval: Duration::from_secs(7200),
            roaming: Roaming::Any,
            mountpoint: String::new(),
            clientinfo_override: ClientInfoOverride::default(),
            predefined: Vec::new(),
            listeners: DatagramKind::ALL
                .map(|kind| DatagramListener::new(kind, "default"))
                .to_vec(),
        }
    }
}

impl MqttSn {
    /// The listeners that are to be opened.
    pub fn enabled_listeners(&self) -> impl Iterator<Item = &DatagramListener> {
        let listeners = self.listeners.iter();
        listeners.filter(|listener| self.enable && listener.is_enabled())
    }

    /// Why `listener` is not to be opened, in words for the start-up line; `None`: it is.
    pub fn disabled_because(&self, listener: &DatagramListener) -> Option<String> {
        if !self.enable {
            return Some("gateway.mqttsn.enable is false".to_owned());
        }
        listener.disabled_because()
    }

    /// The mountpoint of the clients of `listener`.
    pub fn mountpoint_of<'a>(&'a self, listener: &'a DatagramListener) -> &'a str {
        match listener.mountpoint.as_str() {
            "" => &self.mountpoint,
            own => own,
        }
    }
}

impl DatagramListener {
    /// A listener with the defaults of its kind.
    pub fn new(kind: DatagramKind, name: &str) -> DatagramListener {
        DatagramListener {
            kind,
            name: name.to_owned(),
            bind: Bind {
                address: None,
                port: kind.default_port(),
            },
            enable: Enable::Auto,
            max_connections: Some(100_000),
            mountpoint: String::new(),
            zone: "default".to_owned(),
            recbuf: None,
            sndbuf: None,
            dtls: DtlsOptions {
                certfile: None,
                keyfile: None,
                cacertfile: None,
                verify: Verify::None,
                fail_if_no_peer_cert: false,
                psk_file: None,
                handshake_timeout: Duration::from_secs(15),
                handshakes_max: 1000,
                idle_timeout: Duration::from_secs(24 * 3600),
            },
        }
    }

    /// `mqttsn:kind:name`, as events and ACL rules name it: `mqttsn:udp:default`.
    pub fn id(&self) -> String {
        format!("mqttsn:{}:{}", self.kind.name(), self.name)
    }

    /// What its keys start with, without the dot.
    pub fn key(&self) -> String {
        format!("gateway.mqttsn.listeners.{}.{}", self.kind.name(), self.name)
    }

    /// What the driver needs for DTLS, with `psk` for the keys of `psk_file`; `None` for a udp listener.
    pub(crate) fn dtls_settings(&self, psk: Option<PskLookup>) -> Option<DtlsSettings> {
        if self.kind != DatagramKind::Dtls {
            return None;
        }
        let dtls = &self.dtls;
        Some(DtlsSettings {
            certificate: dtls.certfile.clone().zip(dtls.keyfile.clone()),
            ca_file: dtls.cacertfile.clone(),
            client_auth: match (dtls.verify, dtls.fail_if_no_peer_cert) {
                (Verify::None, _) => ClientAuth::None,
                (Verify::Peer, false) => ClientAuth::Optional,
                (Verify::Peer, true) => ClientAuth::Required,
            },
            psk,
            handshake_timeout: dtls.handshake_timeout,
            handshakes_max: dtls.handshakes_max,
            idle_timeout: dtls.idle_timeout,
        })
    }

    /// Whether it is to be opened, if MQTT-SN is enabled at all.
    pub fn is_enabled(&self) -> bool {
        match self.enable {
            Enable::On => true,
            Enable::Off => false,
            Enable::Auto => self.lacks().is_none(),
        }
    }

    fn disabled_because(&self) -> Option<String> {
        match (self.is_enabled(), self.lacks()) {
            (true, _) => None,
            (false, Some(Lacks::Credentials)) if self.enable == Enable::Auto => Some(format!(
                "neither {key}.dtls_options.certfile nor psk_file is set",
                key = self.key()
            )),
            (false, Some(Lacks::Key(missing))) if self.enable == Enable::Auto => {
                Some(format!("{}.dtls_options.{missing} is not set", self.key()))
            }
            (false, _) => Some("switched off".to_owned()),
        }
    }

    /// What a dtls listener cannot do without and has not.
    pub(super) fn lacks(&self) -> Option<Lacks> {
        if self.kind == DatagramKind::Udp {
            return None;
        }
        let dtls = &self.dtls;
        match (dtls.certfile.is_some(), dtls.keyfile.is_some()) {
            (true, false) => Some(Lacks::Key("keyfile")),
            (false, true) => Some(Lacks::Key("certfile")),
            (true, true) => None,
            (false, false) if dtls.psk_file.is_some() => None,
            (false, false) => Some(Lacks::Credentials),
        }
    }
}

/// What a dtls listener cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// A certificate with its key, or pre-shared keys.
    Credentials,
    /// This key of `dtls_options`: the other half of a certificate and its key is there.
    Key(&'static str),
}

impl DatagramKind {
    /// Every kind, in the order in which listeners are opened.
    pub const ALL: [DatagramKind; 2] = [DatagramKind::Udp, DatagramKind::Dtls];

    /// Its name in keys.
    pub const fn name(self) -> &'static str {
        match self {
            DatagramKind::Udp => "udp",
            DatagramKind::Dtls => "dtls",
        }
    }

    /// The port of its default listener.
    pub const fn default_port(self) -> u16 {
        match self {
            DatagramKind::Udp => Broadcast::PORT,
            DatagramKind::Dtls => 1885,
        }
    }
}

impl PredefinedTopic {
    /// An id whose topic is not known yet.
    pub(super) fn new(client: Option<String>, id: u16) -> PredefinedTopic {
        PredefinedTopic {
            client,
            id,
            topic: String::new(),
        }
    }
}

impl Broadcast {
    /// The port at which clients wait for ADVERTISE where `broadcast` names none.
    const PORT: u16 = 1884;

    /// Where to; `None`: nowhere.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Broadcast::Off => None,
            Broadcast::On => Some((Ipv4Addr::BROADCAST, Broadcast::PORT).into()),
            Broadcast::To(address) => Some(address),
        }
    }
}

impl FromStr for Broadcast {
    type Err = &'static str;

    /// `true`, `false`, or an address with its port.
    fn from_str(text: &str) -> Result<Broadcast, &'static str> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => return Ok(Broadcast::On),
            "false" | "off" | "0" => return Ok(Broadcast::Off),
            _ => {}
        }
        let bind = text.parse::<Bind>()?;
        match bind.address {
            Some(_) if bind.port == 0 => Err("has port 0"),
            Some(address) if address.is_unspecified() => Err("names nobody"),
            Some(address) => Ok(Broadcast::To(SocketAddr::new(address, bind.port))),
            None => Err("has no address"),
        }
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broadcast::Off => f.write_str("false"),
            Broadcast::On => f.write_str("true"),
            Broadcast::To(address) => address.fmt(f),
        }
    }
}

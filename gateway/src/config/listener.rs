//! The typed settings of listeners.

use std::{path::PathBuf, time::Duration};

use driver::{ClientAuth, TlsSettings};

use super::bind::Bind;

/// One `listeners.<kind>.<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What clients speak below MQTT.
    pub kind: ListenerKind,
    /// Its name: lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// `bind`.
    pub bind: Bind,
    /// `enable`.
    pub enable: Enable,
    /// `max_connections`; `None`: as many as there are descriptors.
    pub max_connections: Option<usize>,
    /// `mountpoint`, with its placeholders; empty: none.
    pub mountpoint: String,
    /// `zone`.
    pub zone: String,
    /// `tcp_options.*`.
    pub tcp: TcpOptions,
    /// `websocket.*`; used by ws and wss only.
    pub websocket: WebSocketOptions,
    /// `ssl_options.*`; used by ssl and wss only.
    pub tls: TlsOptions,
}

/// What clients of a listener speak below MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerKind {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Ssl,
    /// WebSocket (RFC 6455) over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

/// Whether a listener is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enable {
    /// A tcp or ws listener is; an ssl or wss listener is if it has a certificate and a key.
    Auto,
    /// It is.
    On,
    /// It is not.
    Off,
}

/// `tcp_options.*` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// `backlog`: connections that wait to be accepted.
    pub backlog: u32,
    /// `nodelay`: TCP_NODELAY.
    pub nodelay: bool,
    /// `send_timeout`: a peer that takes nothing for so long is closed; `None`: never.
    pub send_timeout: Option<Duration>,
    /// `high_watermark`, bytes: unsent data above which nothing more is taken for the connection.
    pub high_watermark: usize,
}

/// `websocket.*` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// `mqtt_path`.
    pub mqtt_path: String,
    /// `fail_if_no_subprotocol`: a client has to name one of `supported_subprotocols` [MQTT-6.0.0-3].
    pub fail_if_no_subprotocol: bool,
    /// `check_origin_enable`: a request with an `Origin` header must name one of `check_origins`.
    pub check_origin_enable: bool,
    /// `check_origins`.
    pub check_origins: Vec<String>,
    /// `supported_subprotocols`.
    pub supported_subprotocols: Vec<String>,
    /// `max_frame_size`, bytes of payload; `None`: only `mqtt.max_packet_size` bounds what is kept.
    pub max_frame_size: Option<usize>,
}

/// `ssl_options.*` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// `certfile`: PEM, the server's certificate first, then its chain.
    pub certfile: Option<PathBuf>,
    /// `keyfile`: PEM, PKCS#8, SEC1 or PKCS#1.
    pub keyfile: Option<PathBuf>,
    /// `cacertfile`: PEM, the authorities of client certificates.
    pub cacertfile: Option<PathBuf>,
    /// `verify`.
    pub verify: Verify,
    /// `fail_if_no_peer_cert`: with [`Verify::Peer`], a client without a certificate is refused.
    pub fail_if_no_peer_cert: bool,
    /// `versions`; at least one.
    pub versions: TlsVersions,
    /// `handshake_timeout`.
    pub handshake_timeout: Duration,
}

/// `ssl_options.verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// `verify_none`: no client certificate is asked for.
    None,
    /// `verify_peer`: one is asked for, and verified if it comes.
    Peer,
}

/// `ssl_options.versions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2 (RFC 5246).
    pub tls12: bool,
    /// TLS 1.3 (RFC 8446).
    pub tls13: bool,
}

impl Listener {
    /// A listener with the defaults of its kind.
    pub fn new(kind: ListenerKind, name: &str) -> Listener {
        let owned = |list: &[&str]| list.iter().map(|&item| item.to_owned()).collect();
        Listener {
            kind,
            name: name.to_owned(),
            bind: Bind {
                address: None,
                port: kind.default_port(),
            },
            enable: Enable::Auto,
            max_connections: None,
            mountpoint: String::new(),
            zone: "default".to_owned(),
            tcp: TcpOptions {
                backlog: 1024,
                nodelay: true,
                send_timeout: Some(Duration::from_secs(15)),
                high_watermark: 1 << 20,
            },
            websocket: WebSocketOptions {
                mqtt_path: "/mqtt".to_owned(),
                fail_if_no_subprotocol: true,
                check_origin_enable: false,
                check_origins: owned(&["http://localhost:18083", "http://127.0.0.1:18083"]),
                supported_subprotocols: owned(&["mqtt", "mqttv3.1", "mqtt-v3", "mqtt-v3.1.1", "mqtt-v5"]),
                max_frame_size: None,
            },
            tls: TlsOptions {
                certfile: None,
                keyfile: None,
                cacertfile: None,
                verify: Verify::None,
                fail_if_no_peer_cert: false,
                versions: TlsVersions {
                    tls12: true,
                    tls13: true,
                },
                handshake_timeout: Duration::from_secs(15),
            },
        }
    }

    /// `kind:name`, as events and ACL rules name it: `tcp:default`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind.name(), self.name)
    }

    /// Whether it is to be opened.
    pub fn is_enabled(&self) -> bool {
        match self.enable {
            Enable::On => true,
            Enable::Off => false,
            Enable::Auto => self.lacks_certificate().is_none(),
        }
    }

    /// Why it is not to be opened, in words for the start-up line; `None`: it is.
    pub fn disabled_because(&self) -> Option<String> {
        match (self.is_enabled(), self.lacks_certificate()) {
            (true, _) => None,
            (false, Some(missing)) if self.enable == Enable::Auto => Some(format!(
                "listeners.{}.{}.ssl_options.{missing} is not set",
                self.kind.name(),
                self.name
            )),
            (false, _) => Some("switched off".to_owned()),
        }
    }

    /// The key of `ssl_options` that a TLS listener cannot do without and that is not set.
    pub(super) fn lacks_certificate(&self) -> Option<&'static str> {
        if !self.kind.is_tls() {
            return None;
        }
        if self.tls.certfile.is_none() {
            return Some("certfile");
        }
        self.tls.keyfile.is_none().then_some("keyfile")
    }

    /// What the driver needs for TLS; `None` unless this is an ssl or wss listener that has its files.
    pub(crate) fn tls_settings(&self) -> Option<TlsSettings> {
        if !self.kind.is_tls() {
            return None;
        }
        let options = &self.tls;
        let mut settings = TlsSettings::new(options.certfile.as_ref()?, options.keyfile.as_ref()?);
        settings.ca_file.clone_from(&options.cacertfile);
        settings.client_auth = match (options.verify, options.fail_if_no_peer_cert) {
            (Verify::None, _) => ClientAuth::None,
            (Verify::Peer, false) => ClientAuth::Optional,
            (Verify::Peer, true) => ClientAuth::Required,
        };
        settings.tls12 = options.versions.tls12;
        settings.tls13 = options.versions.tls13;
        Some(settings)
    }
}

impl ListenerKind {
    /// Every kind, in the order in which listeners are opened.
    pub const ALL: [ListenerKind; 4] = [
        ListenerKind::Tcp,
        ListenerKind::Ssl,
        ListenerKind::Ws,
        ListenerKind::Wss,
    ];

    /// Its name in keys.
    pub const fn name(self) -> &'static str {
        match self {
            ListenerKind::Tcp => "tcp",
            ListenerKind::Ssl => "ssl",
            ListenerKind::Ws => "ws",
            ListenerKind::Wss => "wss",
        }
    }

    /// The port of its default listener.
    pub const fn default_port(self) -> u16 {
        match self {
            ListenerKind::Tcp => 1883,
            ListenerKind::Ssl => 8883,
            ListenerKind::Ws => 8083,
            ListenerKind::Wss => 8084,
        }
    }

    /// True for ssl and wss.
    pub const fn is_tls(self) -> bool {
        matches!(self, ListenerKind::Ssl | ListenerKind::Wss)
    }

    /// True for ws and wss.
    pub const fn is_websocket(self) -> bool {
        matches!(self, ListenerKind::Ws | ListenerKind::Wss)
    }
}

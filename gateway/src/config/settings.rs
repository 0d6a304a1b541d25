//! The typed configuration: plain values, no I/O. What a key means stands once, in [`super::schema`].

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use broker_core::{QoS, RetainHandling};

/// The whole configuration of a node. `Settings::default()` is the built-in default of every key.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Limits and switches of the broker core: `node.name`, `mqtt.*`, `broker.*`, `retainer.*`, `delayed.*`,
    /// `authorization.deny_action` and `allow_anonymous`.
    pub broker: broker_core::Config,
    /// The rest of `node.*`.
    pub node: Node,
    /// `listeners.*`, by kind, then by name. Holds also those that are switched off.
    pub listeners: Vec<Listener>,
    /// `mqtt.server_redirect.*`; see [`Settings::redirect`].
    pub server_redirect: ServerRedirect,
    /// `acl_file`; `None`: only `authorization.no_match` decides.
    pub acl_file: Option<PathBuf>,
    /// `authentication.*`.
    pub authentication: Authentication,
    /// `authorization.*` without `deny_action`, which the broker core carries out.
    pub authorization: Authorization,
    /// `sys_topics.*`.
    pub sys_topics: SysTopics,
    /// `rewrite.<n>.*`, in the order in which the rules apply.
    pub rewrite: Vec<RewriteRule>,
    /// `auto_subscribe.<n>.*`, by number.
    pub auto_subscribe: Vec<AutoSubscription>,
    /// `log.*`.
    pub log: Log,
}

/// `node.*`; the name is in [`broker_core::Config::node_name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `node.data_dir`.
    pub data_dir: PathBuf,
    /// `node.workers`, at least 1; `None`: one per core.
    pub workers: Option<u16>,
}

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

/// The address of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// `None`: every address of the machine, IPv4 and IPv6. `::` takes IPv4 clients too.
    pub address: Option<IpAddr>,
    /// Port; 0: the system chooses one.
    pub port: u16,
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

/// `mqtt.server_redirect.*`: CONNECT is answered by the address of another server (MQTT 5 §4.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRedirect {
    /// `reason`.
    pub reason: RedirectReason,
    /// `server_reference`: server addresses separated by blanks (§4.11), such as `a.example:1883 [2001:db8::1]`;
    /// empty: clients are served here.
    pub server_reference: String,
}

/// `mqtt.server_redirect.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectReason {
    /// `use_another_server`, 0x9C: for now.
    UseAnotherServer,
    /// `server_moved`, 0x9D: for good.
    ServerMoved,
}

/// `authentication.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// `users_file`; `None`: there is no authenticator, and `allow_anonymous` decides.
    pub users_file: Option<PathBuf>,
    /// `user_id_type`.
    pub user_id_type: UserIdType,
    /// `timeout`: a client whose authentication takes longer is refused as server busy.
    pub timeout: Duration,
}

/// `authentication.user_id_type`: what a user of the users file is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserIdType {
    /// The user name.
    Username,
    /// The client identifier.
    ClientId,
}

/// `authorization.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// `no_match`.
    pub no_match: NoMatch,
    /// `cache.enable`.
    pub cache_enable: bool,
    /// `cache.max_size`: decisions kept per client; the oldest goes.
    pub cache_max_size: usize,
    /// `cache.ttl`: how long one is kept.
    pub cache_ttl: Duration,
}

/// `authorization.no_match`: the answer where no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMatch {
    /// Permitted.
    Allow,
    /// Refused.
    Deny,
}

/// `sys_topics.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysTopics {
    /// `sys_msg_interval`: statistics and metrics; `None`: none.
    pub sys_msg_interval: Option<Duration>,
    /// `sys_heartbeat_interval`: uptime and date; `None`: none.
    pub sys_heartbeat_interval: Option<Duration>,
    /// `sys_event_messages.client_connected`.
    pub client_connected: bool,
    /// `sys_event_messages.client_disconnected`.
    pub client_disconnected: bool,
    /// `sys_event_messages.client_subscribed`.
    pub client_subscribed: bool,
    /// `sys_event_messages.client_unsubscribed`.
    pub client_unsubscribed: bool,
}

/// One `rewrite.<n>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteRule {
    /// Place in the order of the rules.
    pub number: u16,
    /// `action`.
    pub action: RewriteAction,
    /// `source_topic`: filter that the topic has to match.
    pub source_topic: String,
    /// `re`: regular expression that the topic has to match; its syntax was checked.
    pub re: String,
    /// `dest_topic`: the new topic; `$1` … `$9` stand for the groups of `re`.
    pub dest_topic: String,
}

/// `rewrite.<n>.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteAction {
    /// Topics of PUBLISH and wills.
    Publish,
    /// Filters of SUBSCRIBE and UNSUBSCRIBE.
    Subscribe,
    /// Both.
    All,
}

/// One `auto_subscribe.<n>`: a subscription that every client gets on connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSubscription {
    /// Place in the order.
    pub number: u16,
    /// `topic`: filter, with its placeholders (`broker_core::ClientInfo::expand`).
    pub topic: String,
    /// `qos`.
    pub qos: QoS,
    /// `nl`: no local (§3.8.3.1).
    pub no_local: bool,
    /// `rap`: retain as published (§3.8.3.1).
    pub retain_as_published: bool,
    /// `rh`: retain handling (§3.8.3.1).
    pub retain_handling: RetainHandling,
}

/// `log.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// `level`: this and what is more severe is logged.
    pub level: LogLevel,
    /// `format`.
    pub format: LogFormat,
}

/// `log.level`, the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed and stays failed.
    Error,
    /// Something was refused, dropped or limited.
    Warning,
    /// One line per connection, listener and change of state.
    Info,
    /// One line per packet or decision.
    Debug,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per event and line.
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            broker: broker_core::Config::default(),
            node: Node {
                data_dir: PathBuf::from("./data"),
                workers: None,
            },
            listeners: ListenerKind::ALL
                .map(|kind| Listener::new(kind, "default"))
                .to_vec(),
            server_redirect: ServerRedirect {
                reason: RedirectReason::UseAnotherServer,
                server_reference: String::new(),
            },
            acl_file: None,
            authentication: Authentication {
                users_file: None,
                user_id_type: UserIdType::Username,
                timeout: Duration::from_secs(5),
            },
            authorization: Authorization {
                no_match: NoMatch::Allow,
                cache_enable: true,
                cache_max_size: 32,
                cache_ttl: Duration::from_secs(60),
            },
            sys_topics: SysTopics {
                sys_msg_interval: Some(Duration::from_secs(60)),
                sys_heartbeat_interval: Some(Duration::from_secs(30)),
                client_connected: true,
                client_disconnected: true,
                client_subscribed: false,
                client_unsubscribed: false,
            },
            rewrite: Vec::new(),
            auto_subscribe: Vec::new(),
            log: Log {
                level: LogLevel::Info,
                format: LogFormat::Text,
            },
        }
    }
}

impl Settings {
    /// Where clients are sent instead of being served; `None`: they are served here.
    pub fn redirect(&self) -> Option<&ServerRedirect> {
        (!self.server_redirect.server_reference.is_empty()).then_some(&self.server_redirect)
    }

    /// The listeners that are to be opened.
    pub fn enabled_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| listener.is_enabled())
    }
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
                supported_subprotocols: owned(&["mqtt", "mqtt-v3", "mqtt-v3.1.1", "mqtt-v5"]),
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

impl Bind {
    /// The addresses to try, in order, until one can be bound. An IPv6 wildcard socket is to be opened for both
    /// families (`IPV6_V6ONLY` off, RFC 3493 §5.3); the IPv4 one stands in where the machine has no IPv6.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        match self.address {
            Some(address) => vec![SocketAddr::new(address, self.port)],
            None => vec![
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port),
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port),
            ],
        }
    }

    /// True if both cannot be bound at once. Port 0 never collides.
    pub fn collides_with(&self, other: &Bind) -> bool {
        let takes_all = |bind: &Bind| {
            bind.address
                .is_none_or(|address| address == Ipv6Addr::UNSPECIFIED)
        };
        let same_family = |a: IpAddr, b: IpAddr| a.is_ipv4() == b.is_ipv4();
        self.port == other.port
            && self.port != 0
            && match (self.address, other.address) {
                (Some(a), Some(b)) if !takes_all(self) && !takes_all(other) => {
                    a == b || (same_family(a, b) && (a.is_unspecified() || b.is_unspecified()))
                }
                _ => true,
            }
    }
}

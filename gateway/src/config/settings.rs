//! The typed configuration: plain values, no I/O. What a key means stands once, in [`super::schema`].

use std::{path::PathBuf, time::Duration};

use broker_core::{
    QoS, Redirect, RetainHandling, SubscribeOptions,
    admission::TopicFilterError,
    hooks::{self, AutoSubscribeTopic, RewriteAction, RewriteError},
    store::Durability,
};

use super::{
    listener::{Listener, ListenerKind},
    mqttsn::MqttSn,
};

/// The whole configuration of a node. `Settings::default()` is the built-in default of every key.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Limits and switches of the broker core: `node.name`, `mqtt.*`, `broker.*`, `retainer.*`, `delayed.*`,
    /// `authorization.deny_action` and `allow_anonymous`.
    pub broker: broker_core::Config,
    /// The rest of `node.*`.
    pub node: Node,
    /// `durability` and `store.*`.
    pub store: Store,
    /// `listeners.*`, by kind, then by name. Holds also those that are switched off.
    pub listeners: Vec<Listener>,
    /// `mqtt.server_redirect.*`; [`super::load`] gives it to the broker core as [`broker_core::Config::redirect`].
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
    /// `gateway.mqttsn.*`.
    pub mqttsn: MqttSn,
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

/// `durability` and `store.*`: what is kept on disk, in `node.data_dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `durability`; [`Durability::None`]: nothing is kept, and no file is touched.
    pub durability: Durability,
    /// `max_bytes` of messages; `None`: as many as fit the disk.
    pub max_bytes: Option<u64>,
    /// `max_age` of messages; `None`: as old as their readers allow.
    pub max_age: Option<Duration>,
    /// `segment_bytes`: size of one file of the log.
    pub segment_bytes: u64,
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
    /// `re`: regular expression that the topic has to match.
    pub re: String,
    /// `dest_topic`: the new topic; `$1` … `$99` stand for the groups of `re`.
    pub dest_topic: String,
}

/// One `auto_subscribe.<n>`: a subscription that every client gets on connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSubscription {
    /// Place in the order.
    pub number: u16,
    /// `topic`: filter, with its placeholders (`broker_core::admission::Template`).
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
            store: Store {
                durability: Durability::Sync,
                max_bytes: Some(10 << 30),
                max_age: None,
                segment_bytes: 64 << 20,
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
            mqttsn: MqttSn::default(),
            log: Log {
                level: LogLevel::Info,
                format: LogFormat::Text,
            },
        }
    }
}

impl Settings {
    /// `mqtt.server_redirect.*` in the broker core's words; `None`: clients are served here.
    pub(super) fn redirect(&self) -> Option<Redirect> {
        let ServerRedirect {
            reason,
            server_reference,
        } = &self.server_redirect;
        (!server_reference.is_empty()).then(|| Redirect {
            moved: *reason == RedirectReason::ServerMoved,
            server_reference: server_reference.clone(),
        })
    }

    /// The listeners that are to be opened.
    pub fn enabled_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| listener.is_enabled())
    }
}

impl RewriteRule {
    /// A rule of which nothing but its number is known.
    pub(super) fn new(number: u16) -> RewriteRule {
        RewriteRule {
            number,
            action: RewriteAction::All,
            source_topic: String::new(),
            re: String::new(),
            dest_topic: String::new(),
        }
    }

    /// The rule for the broker core's hook.
    ///
    /// # Errors
    ///
    /// What is wrong with it; never for a rule of [`super::load`].
    pub fn compile(&self) -> Result<hooks::RewriteRule, RewriteError> {
        hooks::RewriteRule::new(self.action, &self.source_topic, &self.re, &self.dest_topic)
    }
}

impl AutoSubscription {
    /// A subscription of which nothing but its number is known.
    pub(super) fn new(number: u16) -> AutoSubscription {
        AutoSubscription {
            number,
            topic: String::new(),
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    /// The subscription for the broker core's hook.
    ///
    /// # Errors
    ///
    /// What is wrong with its topic; never for a subscription of [`super::load`].
    pub fn compile(&self) -> Result<AutoSubscribeTopic, TopicFilterError> {
        let options = SubscribeOptions {
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling,
        };
        AutoSubscribeTopic::new(&self.topic, options)
    }
}

//! Fields of the settings as values of keys, and back.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use broker_core::{
    DefaultPriority, DenyAction, DenyCode, QoS, RetainHandling, SharedStrategy, hooks::RewriteAction,
    store::Durability, topic,
};

use mqtt_sn::Roaming;

use super::{
    bind::Bind,
    listener::{Enable, TlsVersions, Verify},
    mqttsn::Broadcast,
    settings::{LogFormat, LogLevel, NoMatch, RedirectReason, UserIdType},
    units,
    value::Value,
};

/// A type of field. `from_value` is `None` where the schema gives a key a kind that its field cannot hold.
pub(super) trait Field: Sized {
    fn to_value(&self) -> Value;
    fn from_value(value: Value) -> Option<Self>;
}

impl Field for bool {
    fn to_value(&self) -> Value {
        Value::Flag(*self)
    }
    fn from_value(value: Value) -> Option<bool> {
        match value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn to_value(&self) -> Value {
                u64::try_from(*self).map_or(Value::Keyword, Value::Number)
            }
            fn from_value(value: Value) -> Option<$type> {
                match value {
                    Value::Number(number) => number.try_into().ok(),
                    _ => None,
                }
            }
        }
    )+};
}
numbers!(u16, u32, usize);

impl Field for u64 {
    fn to_value(&self) -> Value {
        Value::Number(*self)
    }
    fn from_value(value: Value) -> Option<u64> {
        match value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }
}

impl Field for QoS {
    fn to_value(&self) -> Value {
        Value::Number(*self as u64)
    }
    fn from_value(value: Value) -> Option<QoS> {
        QoS::new(u8::from_value(value)?)
    }
}

impl Field for RetainHandling {
    fn to_value(&self) -> Value {
        Value::Number(*self as u64)
    }
    fn from_value(value: Value) -> Option<RetainHandling> {
        match u8::from_value(value)? {
            0 => Some(RetainHandling::Send),
            1 => Some(RetainHandling::SendIfNew),
            2 => Some(RetainHandling::DoNotSend),
            _ => None,
        }
    }
}
numbers!(u8);

impl Field for Duration {
    fn to_value(&self) -> Value {
        Value::Time(*self)
    }
    fn from_value(value: Value) -> Option<Duration> {
        match value {
            Value::Time(time) => Some(time),
            _ => None,
        }
    }
}

/// The keyword is `None`.
impl<T: Field> Field for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Keyword, T::to_value)
    }
    fn from_value(value: Value) -> Option<Option<T>> {
        match value {
            Value::Keyword => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl Field for String {
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
    fn from_value(value: Value) -> Option<String> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Field for PathBuf {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string_lossy().into_owned())
    }
    fn from_value(value: Value) -> Option<PathBuf> {
        String::from_value(value).map(PathBuf::from)
    }
}

impl Field for Vec<String> {
    fn to_value(&self) -> Value {
        Value::List(self.clone())
    }
    fn from_value(value: Value) -> Option<Vec<String>> {
        match value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
}

impl Field for Bind {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn from_value(value: Value) -> Option<Bind> {
        String::from_value(value)?.parse().ok()
    }
}

impl Field for Broadcast {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn from_value(value: Value) -> Option<Broadcast> {
        String::from_value(value)?.parse().ok()
    }
}

impl Field for TlsVersions {
    fn to_value(&self) -> Value {
        let versions = [(self.tls12, "tlsv1.2"), (self.tls13, "tlsv1.3")];
        let items = versions
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| (*name).to_owned());
        Value::List(items.collect())
    }
    fn from_value(value: Value) -> Option<TlsVersions> {
        let items = Vec::from_value(value)?;
        let has = |name: &str| items.iter().any(|item| item == name);
        Some(TlsVersions {
            tls12: has("tlsv1.2"),
            tls13: has("tlsv1.3"),
        })
    }
}

/// A path that may be left out, written as the empty text.
pub(super) struct OptionalPath;

impl OptionalPath {
    pub(super) fn to_value(path: &Option<PathBuf>) -> Value {
        path.as_ref().map_or(Value::Text(String::new()), Field::to_value)
    }
    pub(super) fn from_value(value: Value) -> Option<Option<PathBuf>> {
        PathBuf::from_value(value).map(|path| (!path.as_os_str().is_empty()).then_some(path))
    }
}

/// A limit of the broker core, where 0 is none.
pub(super) struct Limit;

impl Limit {
    pub(super) fn to_value(limit: &usize) -> Value {
        match limit {
            0 => Value::Keyword,
            limit => limit.to_value(),
        }
    }
    pub(super) fn from_value(value: Value) -> Option<usize> {
        Option::from_value(value).map(Option::unwrap_or_default)
    }
}

/// Session expiry, where `u32::MAX` seconds is never (§3.1.2.11.2).
pub(super) struct Expiry;

impl Expiry {
    const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

    pub(super) fn to_value(expiry: &Duration) -> Value {
        match *expiry {
            Expiry::NEVER => Value::Keyword,
            expiry => Value::Time(expiry),
        }
    }
    pub(super) fn from_value(value: Value) -> Option<Duration> {
        Option::from_value(value).map(|expiry| expiry.unwrap_or(Expiry::NEVER))
    }
}

/// Keep alive in seconds, written as a duration.
pub(super) struct Seconds;

impl Seconds {
    pub(super) fn to_value(seconds: &Option<u16>) -> Value {
        seconds.map_or(Value::Keyword, |seconds| {
            Value::Time(Duration::from_secs(seconds.into()))
        })
    }
    pub(super) fn from_value(value: Value) -> Option<Option<u16>> {
        let time: Option<Duration> = Option::from_value(value)?;
        time.map(|time| u16::try_from(time.as_secs())).transpose().ok()
    }
}

/// Priorities of topics, written as EMQX does: `a/b=10, c=8`.
pub(super) struct Priorities;

impl Priorities {
    /// In place of the empty list.
    const NONE: &str = "disabled";

    pub(super) fn to_value(priorities: &Arc<BTreeMap<Box<str>, u8>>) -> Value {
        let items: Vec<String> = priorities
            .iter()
            .map(|(topic, priority)| format!("{topic}={priority}"))
            .collect();
        Value::Text(if items.is_empty() {
            Priorities::NONE.to_owned()
        } else {
            items.join(", ")
        })
    }
    pub(super) fn from_value(value: Value) -> Option<Arc<BTreeMap<Box<str>, u8>>> {
        Priorities::parse(&String::from_value(value)?).ok().map(Arc::new)
    }

    /// The error completes the sentence "VALUE …".
    pub(super) fn parse(text: &str) -> Result<BTreeMap<Box<str>, u8>, String> {
        let mut priorities = BTreeMap::new();
        if text.eq_ignore_ascii_case(Priorities::NONE) {
            return Ok(priorities);
        }
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (topic, number) = item
                .split_once('=')
                .ok_or_else(|| format!("has `{item}`, which names no priority"))?;
            let (topic, number) = (topic.trim(), number.trim());
            if !topic::is_valid_name(topic) {
                return Err(format!("has `{topic}`, which is not a topic name"));
            }
            let priority = units::parse_digits(number).and_then(|number| u8::try_from(number).ok());
            let Some(priority @ 1..) = priority else {
                return Err(format!("has `{number}`, which is not a number from 1 to 255"));
            };
            if priorities.insert(topic.into(), priority).is_some() {
                return Err(format!("names `{topic}` twice"));
            }
        }
        Ok(priorities)
    }
}

/// An enumeration whose variants are words.
pub(super) trait Words {
    /// Every word, as [`super::value::Kind::Choice`] wants them.
    const WORDS: &'static [&'static str];
}

macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        impl Words for $type {
            const WORDS: &'static [&'static str] = &[$($word),+];
        }
        impl Field for $type {
            fn to_value(&self) -> Value {
                let word = match self {
                    $($type::$variant => $word),+
                };
                Value::Text(word.to_owned())
            }
            fn from_value(value: Value) -> Option<$type> {
                match String::from_value(value)?.as_str() {
                    $($word => Some($type::$variant),)+
                    _ => None,
                }
            }
        }
    )+};
}

words! {
    SharedStrategy {
        Random = "random",
        RoundRobin = "round_robin",
        RoundRobinPerGroup = "round_robin_per_group",
        Sticky = "sticky",
        Local = "local",
        HashClientId = "hash_clientid",
        HashTopic = "hash_topic",
    }
    DenyAction { Ignore = "ignore", Disconnect = "disconnect" }
    DenyCode { NotAuthorized = "not_authorized", UnspecifiedError = "unspecified_error" }
    DefaultPriority { Highest = "highest", Lowest = "lowest" }
    Durability { Sync = "sync", Async = "async", None = "none" }
    NoMatch { Allow = "allow", Deny = "deny" }
    UserIdType { Username = "username", ClientId = "clientid" }
    Verify { None = "verify_none", Peer = "verify_peer" }
    Enable { Auto = "auto", On = "true", Off = "false" }
    Roaming { Any = "any", Host = "host", Never = "never" }
    RedirectReason { UseAnotherServer = "use_another_server", ServerMoved = "server_moved" }
    RewriteAction { Publish = "publish", Subscribe = "subscribe", All = "all" }
    LogLevel { Error = "error", Warning = "warning", Info = "info", Debug = "debug" }
    LogFormat { Text = "text", Json = "json" }
}

//! The configuration: where it comes from, what it may say, and what it says.
//!
//! A file holds one `key = value` per line. Later wins: built-in default, file, included files, environment,
//! `--set`. One table (`schema`) says of every key what it may be, where it is kept and what it means; everything
//! else reads that table.

mod bind;
mod check;
mod error;
mod explain;
mod field;
mod listener;
mod load;
mod mqttsn;
mod schema;
mod settings;
mod syntax;
#[cfg(test)]
mod tests;
mod units;
mod validate;
mod value;

pub use bind::Bind;
pub use broker_core::hooks::RewriteAction;
pub use check::check_files;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use explain::{dump, explain};
pub use listener::{
    Enable, Listener, ListenerKind, TcpOptions, TlsOptions, TlsVersions, Verify, WebSocketOptions,
};
pub use load::{Loaded, Sources, load};
pub use mqttsn::{
    Broadcast, ClientInfoOverride, DatagramKind, DatagramListener, DtlsOptions, MqttSn, PredefinedTopic,
};
pub use settings::{
    Authentication, Authorization, AutoSubscription, Log, LogFormat, LogLevel, NoMatch, Node, RedirectReason,
    RewriteRule, ServerRedirect, Settings, Store, SysTopics, UserIdType,
};
pub(crate) use syntax::quote;

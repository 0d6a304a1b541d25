//! The configuration: where it comes from, what it may say, and what it says.
//!
//! Later wins: built-in default, file, included files, environment, `--set`.

mod settings;

pub use settings::{
    Authentication, Authorization, AutoSubscription, Bind, Enable, Listener, ListenerKind, Log, LogFormat,
    LogLevel, NoMatch, Node, RedirectReason, RewriteAction, RewriteRule, ServerRedirect, Settings, SysTopics,
    TcpOptions, TlsOptions, TlsVersions, UserIdType, Verify, WebSocketOptions,
};

//! What can go wrong between an application and its broker.

use broker_core::{Closing, ReasonCode};

use crate::{config::ConfigErrors, node};

/// Why an embedded broker does not start or does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration is wrong; everything that is wrong with it.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The node does not start, or a listener cannot be opened.
    #[error(transparent)]
    Start(#[from] node::StartError),
}

/// Why an operation of a client fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The broker refuses it, for this reason (0x80 and above).
    #[error("the broker refuses: {}", .0.text())]
    Refused(ReasonCode),
    /// The broker does not admit the client.
    #[error("the client is not admitted: {}", words(.0))]
    NotAdmitted(Closing),
    /// The connection is over.
    #[error(transparent)]
    Ended(#[from] End),
    /// Too much waits for the client's worker thread; try again later.
    #[error("the broker is busy")]
    Busy,
    /// Not a topic name: empty, longer than 65 535 bytes, with a wildcard or U+0000 (§4.7).
    #[error("{0:?} is not a topic name")]
    InvalidTopic(String),
    /// Not a topic filter (§4.7).
    #[error("{0:?} is not a topic filter")]
    InvalidFilter(String),
    /// A property cannot be encoded: longer than 65 535 bytes, or with U+0000 (§1.5.4); its name.
    #[error("the {0} cannot be encoded: longer than 65535 bytes, or with U+0000")]
    InvalidProperty(&'static str),
    /// The client has a subscription to this filter already; end that one first.
    #[error("the client has subscribed to {0:?} already")]
    AlreadySubscribed(String),
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The application disconnected.
    #[error("the client has disconnected")]
    Disconnected,
    /// The broker closed the connection: taken over, kicked, a limit.
    #[error("the broker has closed the connection: {}", words(.0))]
    Closed(Closing),
    /// The broker has ended.
    #[error("the broker has ended")]
    BrokerEnded,
}

fn words(closing: &Closing) -> &str {
    closing.text.as_deref().unwrap_or(closing.reason.text())
}

//! The MQTT message model and the broker, as pure state machines.
//!
//! Nothing here knows a wire protocol, a socket, a clock or a random source: bytes, events and the time come in as
//! values, and every effect goes out as a value. (Hash tables whose keys clients choose are keyed by the process; no
//! output depends on their order.)

pub mod admission;
mod client;
mod config;
mod endpoint;
pub mod filter_index;
pub mod hooks;
mod ids;
mod message;
pub mod metrics;
mod peer;
pub mod random;
mod reason;
mod request;
pub mod retained;
mod session;
pub mod shard;
pub mod store;
mod time;
pub mod timer;
pub mod topic;

pub use client::{CertificateInfo, ClientInfo, ConnectionInfo};
pub use config::{Config, DefaultPriority, DenyAction, DenyCode, MqttConfig, Redirect, SharedStrategy};
pub use endpoint::{Addressed, Destination, Endpoint, Identity, Remote, Stranger, Transmit, Verdict};
pub use ids::{ClientId, LinkId, PacketId, QoS, ShardId};
pub use message::{Message, MessageParts, Properties, PropertiesBuilder, Property};
pub use peer::{Close, Effects, Outbox, Peer};
pub use reason::ReasonCode;
pub use request::{
    AuthData, Closing, Connect, Connected, Delivery, Disconnect, DisconnectCause, Event, NOTE_BYTES,
    NOTES_BYTES_MAX, Publish, Request, RetainHandling, Subscribe, SubscribeOptions, SubscriptionIds,
    Unsubscribe, Will,
};
pub use time::Timestamp;

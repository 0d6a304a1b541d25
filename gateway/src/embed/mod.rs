//! The broker as a library: a program that starts a [`Broker`] publishes, subscribes and is called back inside its own
//! process, without a socket, and may open listeners for everybody else.
//!
//! ```
//! use tidegate::embed::{Broker, QoS, block_on};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::builder().set("node.workers", "1").start()?;
//! block_on(async {
//!     let client = broker.client("app").connect().await?;
//!     let mut levels = client.subscribe("plant/+/level", QoS::AtLeastOnce).await?;
//!     client.publish("plant/1/level", "42").qos(QoS::AtLeastOnce).await?;
//!     let received = levels.next().await.expect("the broker runs");
//!     assert_eq!((received.topic(), received.payload()), ("plant/1/level", &b"42"[..]));
//!     client.disconnect().await
//! })?;
//! broker.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! An embedded client is a client like any other: it passes authentication, authorization, hooks and limits, it has a
//! session, and a client on the network with its identifier takes it over. To hooks and rules its protocol is
//! `internal`, its listener `internal:default`, and it has no address.
//!
//! Everything works from any async runtime, and by [`block_on`] without one. The application never runs on the data
//! plane, except for its hooks and authenticators.
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | messages of QoS 1 and 2 not yet taken by the application | receive maximum, `mqtt.max_inflight` | they wait in the session, within `mqtt.max_mqueue_len` |
//! | messages of QoS 0 not yet taken, per stream | [`ClientBuilder::qos0_queue`] | the new one is dropped, counted by [`Subscription::dropped`] |
//! | own messages and subscriptions under way | the broker's Receive Maximum, at most 1024 | the future waits |
//!
//! A message of QoS 1 or 2 is acknowledged when it is taken from its stream, or when its callback has returned.

mod block_on;
mod broker;
mod callbacks;
mod client;
mod connect;
mod error;
mod peer;
mod publish;
mod queue;
mod received;
mod shared;
mod subscription;

pub use block_on::block_on;
pub(crate) use block_on::block_on_for;
pub use broker::{Broker, BrokerBuilder};
pub use broker_core::{
    ClientInfo, Closing, Connect, Message, MessageParts, Properties, PropertiesBuilder, Property, QoS,
    ReasonCode, RetainHandling, SubscribeOptions, Timestamp, Will, admission, hooks,
};
pub use client::Client;
pub use connect::ClientBuilder;
pub use error::{BrokerError, ClientError, End};
pub use publish::Publish;
pub use received::Received;
pub use subscription::{IntoSubscribeOptions, Subscription};

//! Messages as they stand in datagrams (§5), decoded from borrowed bytes and back.
//!
//! Decoding is strict: what comes out of it needs no further check of its form. What depends on the state of the
//! connection, or on which side speaks, is the peer's and the endpoint's.

mod connect;
mod connection;
mod discovery;
mod error;
mod fields;
mod header;
mod message;
mod node;
mod publish;
mod reader;
mod register;
mod subscribe;
mod will;

pub use connect::Connect;
pub use error::{DecodeError, Fault};
pub use fields::{MsgId, ReturnCode, TopicId};
pub use header::MESSAGE_LEN_MAX;
pub(crate) use message::Concern;
pub use message::Message;
pub use node::Node;
pub use publish::{Publish, PublishQoS, Topic};
pub use subscribe::{Subscribe, TopicName};
pub use will::Will;

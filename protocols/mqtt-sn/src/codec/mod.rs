//! Messages as they stand in datagrams (§5).

mod message;

pub use message::{
    Connect, Message, MsgId, Node, Publish, PublishQoS, ReturnCode, Subscribe, Topic, TopicId, TopicName,
    Will,
};

//! A message as the application gets it.

use broker_core::{Delivery, Message, QoS};

/// A message that a subscription delivers. A clone is one reference count.
#[derive(Clone, Debug)]
pub struct Received {
    message: Message,
    /// Bytes of the mountpoint in front of the topic.
    mountpoint_len: usize,
    qos: QoS,
    retain: bool,
    dup: bool,
}

impl Received {
    pub(super) fn new(delivery: Delivery, mountpoint: &str) -> Received {
        let is_below = delivery.message.topic().starts_with(mountpoint);
        Received {
            mountpoint_len: if is_below { mountpoint.len() } else { 0 },
            message: delivery.message,
            qos: delivery.qos,
            retain: delivery.retain,
            dup: delivery.dup,
        }
    }

    /// Topic name, in the client's words (without its mountpoint).
    pub fn topic(&self) -> &str {
        &self.message.topic()[self.mountpoint_len..]
    }

    /// The application's bytes.
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// Quality of service of this delivery: the lower of publisher's and subscription's (§3.8.4).
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// True for a message that was retained when the subscription was made, or with retain as published for one that
    /// was published so (§3.3.1.3).
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// True if an earlier connection of this session may have got it already (§3.3.1.1).
    pub fn dup(&self) -> bool {
        self.dup
    }

    /// Content type, if given (§3.3.2.3.9).
    pub fn content_type(&self) -> Option<&str> {
        self.message.properties().content_type()
    }

    /// Where an answer goes, if one is wanted (§3.3.2.3.5).
    pub fn response_topic(&self) -> Option<&str> {
        self.message.properties().response_topic()
    }

    /// What ties an answer to its request (§3.3.2.3.6).
    pub fn correlation_data(&self) -> Option<&[u8]> {
        self.message.properties().correlation_data()
    }

    /// User properties in their order (§3.3.2.3.7).
    pub fn user_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.message.properties().user()
    }

    /// The message itself: its publisher, its times, all its properties.
    pub fn message(&self) -> &Message {
        &self.message
    }
}

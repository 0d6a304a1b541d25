//! Newtypes for everything that is identified.

use std::{fmt, num::NonZeroU16, sync::Arc};

/// The MQTT client identifier (MQTT 5 §3.1.3.1): the key of a session.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// A client id; the caller has checked that it is valid UTF-8 without U+0000.
    pub fn new(id: &str) -> ClientId {
        ClientId(id.into())
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A packet identifier (MQTT 5 §2.2.1): never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The first packet identifier of a session.
    pub const FIRST: PacketId = PacketId(NonZeroU16::MIN);

    /// `None` for zero, which the protocol forbids.
    pub const fn new(id: u16) -> Option<PacketId> {
        match NonZeroU16::new(id) {
            Some(id) => Some(PacketId(id)),
            None => None,
        }
    }

    /// The identifier as it stands on the wire.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The identifier that follows, wrapping from 65 535 to 1.
    pub const fn next(self) -> PacketId {
        match PacketId::new(self.0.get().wrapping_add(1)) {
            Some(id) => id,
            None => PacketId::FIRST,
        }
    }
}

/// One connected peer of this worker. Made by the driver; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// One shard of this node, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Quality of service (MQTT 5 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum QoS {
    /// Delivered once or not at all.
    #[default]
    AtMostOnce = 0,
    /// Delivered, perhaps more than once.
    AtLeastOnce = 1,
    /// Delivered once.
    ExactlyOnce = 2,
}

impl QoS {
    /// `None` for 3, which is malformed [MQTT-3.3.1-4].
    pub const fn new(level: u8) -> Option<QoS> {
        match level {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

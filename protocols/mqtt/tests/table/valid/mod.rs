//! Packets that must be understood.

mod connection;
mod message;
mod subscription;

use broker_core::PacketId;
use mqtt::codec::{Packet, ProtocolVersion, Sender, UserProperties};

use super::wire;

pub(crate) struct Valid {
    pub(crate) name: &'static str,
    pub(crate) version: ProtocolVersion,
    pub(crate) sender: Sender,
    pub(crate) bytes: Vec<u8>,
    pub(crate) packet: Packet<'static>,
    /// The encoder writes exactly these bytes.
    pub(crate) canonical: bool,
}

pub(crate) const C: Sender = Sender::Client;
pub(crate) const S: Sender = Sender::Server;

pub(crate) fn all() -> Vec<Valid> {
    let mut all = connection::connects();
    all.extend(connection::connacks());
    all.extend(message::publishes());
    all.extend(message::acks());
    all.extend(subscription::subscribes());
    all.extend(connection::others());
    all
}

fn valid(
    name: &'static str,
    version: ProtocolVersion,
    sender: Sender,
    notation: &str,
    packet: Packet<'static>,
) -> Valid {
    Valid {
        name,
        version,
        sender,
        bytes: wire(notation),
        packet,
        canonical: true,
    }
}

impl Valid {
    fn also_valid(mut self) -> Valid {
        self.canonical = false;
        self
    }
}

pub(crate) fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

fn user(pairs: &[(&str, &str)]) -> UserProperties<'static> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    UserProperties::new(pairs.leak())
}

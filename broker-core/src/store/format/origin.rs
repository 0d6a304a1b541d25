//! Who published a message or has a session.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hashbrown::HashMap;

use super::{Decoder, Encoder, FormatError};
use crate::{ClientId, ClientInfo, ConnectionInfo};

/// Protocols and their names on the wire, by the number that stands for them in records: only ever appended to.
const PROTOCOLS: [(&str, &str); 8] = [
    ("unknown", "unknown"),
    ("mqtt", "MQTT"),
    ("mqtt", "MQIsdp"),
    ("mqtt-sn", "MQTT-SN"),
    ("coap", "CoAP"),
    ("lwm2m", "LwM2M"),
    ("stomp", "STOMP"),
    ("internal", "internal"),
];

/// Publishers that were read lately, so that a backlog of one publisher makes its [`ClientInfo`] once. Bounded: it
/// starts over when it is full.
#[derive(Debug, Default)]
pub struct Origins(HashMap<Box<[u8]>, Arc<ClientInfo>, foldhash::quality::RandomState>);

impl Origins {
    const MAX: usize = 1024;

    pub(super) fn get(&mut self, encoded: &[u8]) -> Result<Arc<ClientInfo>, FormatError> {
        if let Some(known) = self.0.get(encoded) {
            return Ok(Arc::clone(known));
        }
        let mut decoder = Decoder::new(encoded);
        let client = Arc::new(decode_client(&mut decoder)?);
        decoder.end()?;
        if self.0.len() >= Origins::MAX {
            self.0.clear();
        }
        self.0.insert(encoded.into(), Arc::clone(&client));
        Ok(client)
    }
}

/// What hooks and authorization ask of a publisher: not its local address, certificate, listener and zone.
pub(super) fn encode_client(client: &ClientInfo, to: &mut Encoder) {
    to.text(client.client_id.as_str());
    to.option(client.username.as_deref());
    to.text(&client.mountpoint);
    to.u8(u8::from(client.is_superuser));
    let connection = &client.connection;
    let known = PROTOCOLS
        .iter()
        .position(|(protocol, name)| *protocol == connection.protocol && *name == connection.proto_name);
    to.u8(u8::try_from(known.unwrap_or(0)).expect("a short table"));
    to.u8(connection.proto_ver);
    match client.peer.map(|peer| (peer.ip(), peer.port())) {
        None => to.u8(0),
        Some((IpAddr::V4(ip), port)) => {
            to.u8(4);
            to.raw(&ip.octets());
            to.u16(port);
        }
        Some((IpAddr::V6(ip), port)) => {
            to.u8(6);
            to.raw(&ip.octets());
            to.u16(port);
        }
    }
    to.u16(u16::try_from(client.attributes.len()).unwrap_or(u16::MAX));
    for (name, value) in client.attributes.iter().take(usize::from(u16::MAX)) {
        to.text(name);
        to.text(value);
    }
}

pub(super) fn decode_client(from: &mut Decoder<'_>) -> Result<ClientInfo, FormatError> {
    let client_id = ClientId::new(from.text()?);
    let username = from.option()?.map(Arc::from);
    let mountpoint = from.text()?.into();
    let is_superuser = from.flag()?;
    // One that a newer version knows is no reason to lose the message.
    let (protocol, proto_name) = *PROTOCOLS.get(usize::from(from.u8()?)).unwrap_or(&PROTOCOLS[0]);
    let proto_ver = from.u8()?;
    let ip = match from.u8()? {
        0 => None,
        4 => Some(IpAddr::from(
            <[u8; 4]>::try_from(from.raw(4)?).map_err(|_| FormatError)?,
        )),
        6 => Some(IpAddr::from(
            <[u8; 16]>::try_from(from.raw(16)?).map_err(|_| FormatError)?,
        )),
        _ => return Err(FormatError),
    };
    let peer = match ip {
        Some(ip) => Some(SocketAddr::new(ip, from.u16()?)),
        None => None,
    };
    let mut attributes = Vec::new();
    for _ in 0..from.u16()? {
        attributes.push((from.text()?.into(), from.text()?.into()));
    }
    Ok(ClientInfo {
        client_id,
        username,
        peer,
        local: None,
        connection: Arc::new(ConnectionInfo {
            protocol,
            proto_name,
            proto_ver,
            listener: "stored:default".into(),
            zone: "default".into(),
        }),
        certificate: None,
        attributes,
        mountpoint,
        is_superuser,
    })
}

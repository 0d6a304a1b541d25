//! Who a client says it is, and what the broker made of it.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use crate::ClientId;

/// An admitted client, whatever its protocol. Shared by its session and by the messages it published.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Key of its session.
    pub client_id: ClientId,
    /// User name, if it gave one.
    pub username: Option<Arc<str>>,
    /// Its address; `None` for a client inside the process.
    pub peer: Option<SocketAddr>,
    /// The address it connected to; `None` for a client inside the process.
    pub local: Option<SocketAddr>,
    /// Its protocol, version and listener.
    pub connection: Arc<ConnectionInfo>,
    /// What its certificate says, where it presented one.
    pub certificate: Option<Arc<CertificateInfo>>,
    /// Attributes that authentication attached, by name.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
    /// Stands before every topic of this client, placeholders already replaced; mostly empty.
    pub mountpoint: Arc<str>,
    /// Authorization does not apply to it.
    pub is_superuser: bool,
}

/// What all clients of one listener and protocol version have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Protocol as EMQX names it in events: `mqtt`, `mqtt-sn`, `coap`, `lwm2m`, `stomp`.
    pub protocol: &'static str,
    /// Name on the wire, such as `MQTT` or `MQIsdp`.
    pub proto_name: &'static str,
    /// Version on the wire: 3, 4 or 5 for MQTT.
    pub proto_ver: u8,
    /// Listener as `type:name`, such as `tcp:default`.
    pub listener: Arc<str>,
    /// Zone of the listener.
    pub zone: Arc<str>,
}

/// The parts of a verified client certificate that admission may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// The subject's distinguished name (RFC 4514).
    pub subject: String,
}

impl ClientInfo {
    /// The origin of messages that the gateway itself publishes.
    pub fn system() -> &'static Arc<ClientInfo> {
        static SYSTEM: LazyLock<Arc<ClientInfo>> =
            LazyLock::new(|| Arc::new(ClientInfo::internal("$system", true)));
        &SYSTEM
    }

    /// A client inside the process: no address, no mountpoint.
    pub fn internal(client_id: &str, is_superuser: bool) -> ClientInfo {
        ClientInfo {
            client_id: ClientId::new(client_id),
            username: None,
            peer: None,
            local: None,
            connection: Arc::new(ConnectionInfo {
                protocol: "internal",
                proto_name: "internal",
                proto_ver: 5,
                listener: "internal:default".into(),
                zone: "default".into(),
            }),
            certificate: None,
            attributes: Vec::new(),
            mountpoint: "".into(),
            is_superuser,
        }
    }

    /// The attribute `name`, if authentication attached it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }

    /// The certificate's common name, if there is one.
    pub fn common_name(&self) -> Option<&str> {
        self.certificate.as_ref()?.common_name.as_deref()
    }
}

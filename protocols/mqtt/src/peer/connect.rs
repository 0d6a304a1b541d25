//! CONNECT and what it is answered (MQTT 5 §3.1, §3.2), enhanced authentication (§4.12).

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use broker_core::{
    AuthData, CertificateInfo, Closing, Connect, Connected, ConnectionInfo, DisconnectCause, Effects,
    MqttConfig, QoS, ReasonCode, Request, Timestamp, Will,
};

use super::{Admission, Connection, IncomingAliases, OutgoingAliases, Peer, State, put, put_within};
use crate::codec::{
    self, Auth, ConnAck, ConnAckProperties, Packet, PacketType, ProtocolVersion, closest_reason,
};

/// What all MQTT clients of one listener have in common.
#[derive(Debug)]
pub struct PeerSettings {
    /// `mqtt.*`.
    pub config: MqttConfig,
    /// Template of the listener's mountpoint; mostly empty.
    pub mountpoint: Arc<str>,
    /// For 3.1, 3.1.1 and 5, so that clients share them.
    connections: [Arc<ConnectionInfo>; 3],
}

impl PeerSettings {
    /// Settings of the listener `listener` (such as `tcp:default`) in `zone`.
    pub fn new(config: MqttConfig, mountpoint: &str, listener: &str, zone: &str) -> PeerSettings {
        let (listener, zone): (Arc<str>, Arc<str>) = (listener.into(), zone.into());
        let connections = [ProtocolVersion::V3, ProtocolVersion::V4, ProtocolVersion::V5].map(|version| {
            Arc::new(ConnectionInfo {
                protocol: "mqtt",
                proto_name: version.name(),
                proto_ver: version as u8,
                listener: Arc::clone(&listener),
                zone: Arc::clone(&zone),
            })
        });
        PeerSettings {
            config,
            mountpoint: mountpoint.into(),
            connections,
        }
    }

    fn connection(&self, version: ProtocolVersion) -> &Arc<ConnectionInfo> {
        match version {
            ProtocolVersion::V3 => &self.connections[0],
            ProtocolVersion::V4 => &self.connections[1],
            ProtocolVersion::V5 => &self.connections[2],
        }
    }
}

/// What the transport knows of the client.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// Its verified certificate, if any.
    pub certificate: Option<Arc<CertificateInfo>>,
}

impl Peer {
    pub(super) fn handle_connect(&mut self, connect: &codec::Connect<'_>, effects: &mut Effects<'_>) {
        let version = connect.version;
        let transport = match &mut self.state {
            State::AwaitConnect { transport, .. } => std::mem::take(&mut **transport),
            _ => return,
        };
        let admission = self.admission(connect);
        // 3.1 demands an identifier [MQTT 3.1 §3.1]; 3.1.1 allows none only to clean sessions [MQTT3-3.1.3-8].
        let needs_id =
            version == ProtocolVersion::V3 || (version == ProtocolVersion::V4 && !connect.clean_start);
        if connect.client_id.is_empty() && needs_id {
            put(
                effects,
                version,
                &Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::ClientIdentifierNotValid))),
            );
            let detail = "a client identifier is needed [MQTT3-3.1.3-8]".to_owned();
            return self.close("client_identifier_not_valid", detail, effects);
        }
        let auth = connect.properties.authentication_method.map(|method| AuthData {
            reason: ReasonCode::ContinueAuthentication,
            method: method.to_owned(),
            data: connect.properties.authentication_data.map(<[u8]>::to_vec),
        });
        let request = Connect {
            client_id: connect.client_id.to_owned(),
            username: connect.username.map(str::to_owned),
            password: connect.password.map(<[u8]>::to_vec),
            peer: transport.peer,
            local: transport.local,
            connection: Arc::clone(self.settings.connection(version)),
            certificate: transport.certificate,
            mountpoint: Arc::clone(&self.settings.mountpoint),
            clean_start: connect.clean_start,
            session_expiry_interval: admission.session_expiry_interval,
            keep_alive: connect.keep_alive,
            receive_maximum: connect
                .properties
                .receive_maximum
                .map_or(u16::MAX, NonZeroU16::get),
            auth,
            will: connect.will.as_ref().map(will),
            user_properties: connect.properties.user.to_vec(),
            is_bridge: connect.is_bridge,
            keeps_will: false,
            may_sleep: false,
            wake: None,
        };
        self.request_connect(admission, request, effects);
    }

    fn admission(&self, connect: &codec::Connect<'_>) -> Admission {
        let properties = &connect.properties;
        let session_expiry_interval = match connect.version {
            ProtocolVersion::V5 => properties.session_expiry_interval.unwrap_or(0),
            // Clean session 1 is a session that ends with its connection, 0 one that is kept: the broker limits it.
            _ if connect.clean_start => 0,
            _ => u32::MAX,
        };
        Admission {
            version: connect.version,
            keep_alive: connect.keep_alive,
            max_packet_size: properties.maximum_packet_size.map_or(u32::MAX, NonZeroU32::get),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            session_expiry_interval,
            method: properties.authentication_method.map(str::to_owned),
            who: who(connect),
        }
    }

    /// The client is admitted: CONNACK.
    pub(super) fn handle_connected(
        &mut self,
        now: Timestamp,
        connected: &Connected,
        effects: &mut Effects<'_>,
    ) {
        let admission = match std::mem::replace(&mut self.state, State::Closed) {
            State::Connecting(admission) | State::Authenticating { admission, .. } => *admission,
            state => {
                self.state = state;
                return;
            }
        };
        let mut connack = ConnAck::new(ReasonCode::Success);
        connack.session_present = connected.session_present;
        if admission.version == ProtocolVersion::V5 {
            connack.properties = self.terms(&admission, connected);
        }
        let packet = Packet::ConnAck(Box::new(connack));
        if !put_within(effects, admission.version, admission.max_packet_size, &packet) {
            // It would wait for ever for what it forbids to send [MQTT-3.1.2-24].
            self.state = State::Connecting(Box::new(admission));
            self.leave(DisconnectCause::ByServer(ReasonCode::PacketTooLarge), effects);
            let detail = "the client takes no packet as large as its CONNACK".to_owned();
            return self.close("packet_too_large", detail, effects);
        }
        let keep_alive = connected
            .server_keep_alive
            .filter(|_| admission.version == ProtocolVersion::V5);
        let keep_alive = u64::from(keep_alive.unwrap_or(admission.keep_alive));
        self.client_id = Some(connected.client.client_id.clone());
        self.state = State::Connected(Box::new(Connection {
            version: admission.version,
            client: Arc::clone(&connected.client),
            // Percent of seconds times ten are milliseconds.
            silence_max_ms: keep_alive * u64::from(self.config().keepalive_percent) * 10,
            last_packet: now,
            max_packet_size: admission.max_packet_size,
            session_expiry_interval: admission.session_expiry_interval,
            awaited: None,
            incoming_aliases: IncomingAliases::default(),
            outgoing_aliases: OutgoingAliases::new(admission.topic_alias_maximum),
        }));
    }

    /// The properties of CONNACK: only what differs from the defaults (§3.2.2.3).
    fn terms<'a>(&'a self, admission: &Admission, connected: &'a Connected) -> ConnAckProperties<'a> {
        let config = self.config();
        let expiry = connected.session_expiry_interval;
        let receive_maximum = config.effective_receive_maximum();
        ConnAckProperties {
            session_expiry_interval: (expiry != admission.session_expiry_interval).then_some(expiry),
            receive_maximum: NonZeroU16::new(receive_maximum).filter(|maximum| *maximum != NonZeroU16::MAX),
            maximum_qos: (config.max_qos_allowed < QoS::ExactlyOnce).then_some(config.max_qos_allowed),
            retain_available: (!config.retain_available).then_some(false),
            maximum_packet_size: NonZeroU32::new(config.max_packet_size),
            assigned_client_identifier: connected
                .client_id_assigned
                .then_some(connected.client.client_id.as_str()),
            topic_alias_maximum: (config.max_topic_alias > 0).then_some(config.max_topic_alias),
            wildcard_subscription_available: (!config.wildcard_subscription).then_some(false),
            shared_subscription_available: (!config.shared_subscription).then_some(false),
            server_keep_alive: connected.server_keep_alive,
            authentication_method: connected.auth.as_ref().map(|auth| auth.method.as_str()),
            authentication_data: connected.auth.as_ref().and_then(|auth| auth.data.as_deref()),
            user: codec::UserProperties::new(&connected.user_properties),
            ..ConnAckProperties::default()
        }
    }

    /// The client is not admitted: CONNACK with the reason, and the end.
    pub(super) fn handle_refused(&mut self, closing: &Closing, effects: &mut Effects<'_>) {
        let (State::Connecting(admission) | State::Authenticating { admission, .. }) = &self.state else {
            return;
        };
        // Whatever a hook gave as its reason, it is no success.
        let reason = match closest_reason(PacketType::ConnAck, closing.reason) {
            ReasonCode::Success => ReasonCode::UnspecifiedError,
            reason => reason,
        };
        let mut connack = ConnAck::new(reason);
        connack.properties.reason_string = closing.text.as_deref();
        connack.properties.server_reference = closing.server_reference.as_deref();
        let packet = Packet::ConnAck(Box::new(connack));
        put_within(effects, admission.version, admission.max_packet_size, &packet);
        let mut detail = closing.reason.text().to_owned();
        for part in [closing.text.as_deref(), Some(&*admission.who)]
            .into_iter()
            .flatten()
        {
            detail.push_str(": ");
            detail.push_str(part);
        }
        self.close("refused", detail, effects);
    }

    /// The broker's step of enhanced authentication.
    pub(super) fn handle_auth_event(&mut self, now: Timestamp, auth: &AuthData, effects: &mut Effects<'_>) {
        let packet = Packet::Auth(Auth::new(auth.reason, &auth.method, auth.data.as_deref()));
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Connecting(admission) => {
                put_within(effects, admission.version, admission.max_packet_size, &packet);
                let until = now.after(self.config().idle_timeout);
                self.state = State::Authenticating { admission, until };
            }
            State::Connected(connection) => {
                connection.put(effects, &packet);
                self.state = State::Connected(connection);
            }
            state => self.state = state,
        }
    }

    /// The client's step of enhanced authentication.
    pub(super) fn handle_auth(&mut self, auth: &Auth<'_>, effects: &mut Effects<'_>) {
        let method = auth.properties.authentication_method;
        let request = |known: &str| AuthData {
            reason: auth.reason,
            method: method.unwrap_or(known).to_owned(),
            data: auth.properties.authentication_data.map(<[u8]>::to_vec),
        };
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Authenticating { admission, .. } => {
                let data = request(admission.method.as_deref().unwrap_or_default());
                self.state = State::Connecting(admission);
                effects.requests.push(Request::Auth(Box::new(data)));
            }
            state => {
                self.state = state;
                effects.requests.push(Request::Auth(Box::new(request(""))));
            }
        }
    }
}

/// Who a client says it is, for the log line that tells of its refusal; long names are cut.
fn who(connect: &codec::Connect<'_>) -> Box<str> {
    const CHARS_MAX: usize = 64;
    let cut = |name: &str| name.chars().take(CHARS_MAX).collect::<String>();
    let client = cut(connect.client_id);
    match connect.username {
        Some(user) => format!("client {client}, user {}", cut(user)).into(),
        None => format!("client {client}").into(),
    }
}

fn will(will: &codec::Will<'_>) -> Will {
    Will {
        topic: will.topic.to_owned(),
        payload: will.payload.to_vec(),
        qos: will.qos,
        retain: will.retain,
        delay_interval: will.delay_interval,
        expiry_interval: will.expiry_interval,
        properties: will.properties.to_vec(),
    }
}

//! One MQTT client as the gateway sees it: from its bytes to requests, from events to its bytes.
//!
//! ```text
//!                CONNECT              admitted
//! AwaitConnect ──────────▶ Connecting ────────▶ Connected ──▶ Closed
//!      │ time, not MQTT     │    ▲ AUTH            │ DISCONNECT, keep alive, fault, end of transport
//!      ▼                    ▼    │                 ▼
//!    Closed            Authenticating           Closed
//! ```
//!
//! While an answer of the broker is awaited (Connecting, and Connected with a SUBSCRIBE or UNSUBSCRIBE under way)
//! the peer is parked: the driver stops reading, so a client cannot run ahead of the broker.

mod alias;
mod connect;
mod deliver;
mod receive;

use std::sync::Arc;

use broker_core::{
    ClientId, ClientInfo, Close, Closing, Connect, Disconnect, DisconnectCause, Effects, Event, MqttConfig,
    PacketId, Request, Timestamp,
};
use bytes::BytesMut;

use crate::codec::{
    self, Answer, ConnAck, DecodeError, Decoder, Packet, PacketType, ProtocolVersion, Sender, closest_reason,
    decode_connect,
};
use alias::{IncomingAliases, OutgoingAliases};

pub use connect::{PeerSettings, Transport};

/// One MQTT client. Performs no I/O and reads no clock.
#[derive(Debug)]
pub struct Peer {
    settings: Arc<PeerSettings>,
    state: State,
    /// Outlives the state, for the log line of the connection's end.
    client_id: Option<ClientId>,
}

#[derive(Debug)]
enum State {
    /// The first packet must be a CONNECT [MQTT-3.1.0-1], until this time.
    AwaitConnect {
        transport: Box<Transport>,
        until: Timestamp,
    },
    /// The broker decides about the CONNECT.
    Connecting(Box<Admission>),
    /// The client owes the next step of enhanced authentication, until this time.
    Authenticating {
        admission: Box<Admission>,
        until: Timestamp,
    },
    Connected(Box<Connection>),
    /// Nothing comes in or goes out any more.
    Closed,
}

/// What a CONNECT said that matters once the client is admitted.
#[derive(Debug)]
struct Admission {
    version: ProtocolVersion,
    keep_alive: u16,
    max_packet_size: u32,
    topic_alias_maximum: u16,
    session_expiry_interval: u32,
    method: Option<String>,
    /// For the log, if it is refused.
    who: Box<str>,
}

/// An admitted client.
#[derive(Debug)]
struct Connection {
    version: ProtocolVersion,
    client: Arc<ClientInfo>,
    /// Milliseconds of silence after which the client counts as gone; 0: never (§3.1.2.10).
    silence_max_ms: u64,
    last_packet: Timestamp,
    /// Largest packet that the client takes.
    max_packet_size: u32,
    /// Of the CONNECT: a DISCONNECT must not raise it from 0 [MQTT-3.14.2-2].
    session_expiry_interval: u32,
    /// The SUBSCRIBE or UNSUBSCRIBE that the broker has not answered.
    awaited: Option<PacketId>,
    incoming_aliases: IncomingAliases,
    outgoing_aliases: OutgoingAliases,
}

impl Peer {
    /// A client whose transport has just opened.
    pub fn new(now: Timestamp, settings: Arc<PeerSettings>, transport: Transport) -> Peer {
        let until = now.after(settings.config.idle_timeout);
        Peer {
            settings,
            state: State::AwaitConnect {
                transport: Box::new(transport),
                until,
            },
            client_id: None,
        }
    }

    fn config(&self) -> &MqttConfig {
        &self.settings.config
    }

    /// The version, once the client was admitted.
    fn version(&self) -> Option<ProtocolVersion> {
        match &self.state {
            State::Connected(connection) => Some(connection.version),
            _ => None,
        }
    }

    /// Bytes that are no packet, or a packet that the state does not allow.
    fn fault(&mut self, error: &DecodeError, effects: &mut Effects<'_>) {
        let answer = match &self.state {
            State::Connecting(admission) | State::Authenticating { admission, .. } => {
                refusal(admission.version, error.reason)
            }
            _ => error.answer(self.version()),
        };
        match answer {
            Answer::Close => {}
            Answer::ConnAck(version, reason) => {
                put(effects, version, &Packet::ConnAck(Box::new(ConnAck::new(reason))))
            }
            Answer::Disconnect(reason) => self.put_disconnect(&Closing::new(reason), effects),
        }
        self.leave(DisconnectCause::ByServer(error.reason), effects);
        self.close(error.word(), error.to_string(), effects);
    }

    /// A fault that only the state of the connection reveals.
    fn violation(
        &mut self,
        reason: broker_core::ReasonCode,
        clause: &str,
        text: &str,
        effects: &mut Effects<'_>,
    ) {
        match &self.state {
            State::Connecting(admission) | State::Authenticating { admission, .. } => {
                if let Answer::ConnAck(version, reason) = refusal(admission.version, reason) {
                    put(effects, version, &Packet::ConnAck(Box::new(ConnAck::new(reason))));
                }
            }
            _ => self.put_disconnect(&Closing::new(reason), effects),
        }
        self.leave(DisconnectCause::ByServer(reason), effects);
        self.close(word(reason), format!("{text} [{clause}]"), effects);
    }

    /// Tells the broker that the connection ends, if the broker knows of it.
    fn leave(&mut self, cause: DisconnectCause, effects: &mut Effects<'_>) {
        if !matches!(self.state, State::AwaitConnect { .. } | State::Closed) {
            let disconnect = Disconnect {
                cause,
                session_expiry_interval: None,
                keeps_will: false,
                user_properties: Vec::new(),
            };
            effects.requests.push(Request::Disconnect(Box::new(disconnect)));
        }
    }

    fn close(&mut self, reason: &'static str, detail: String, effects: &mut Effects<'_>) {
        self.state = State::Closed;
        *effects.close = Some(Close { reason, detail });
    }

    /// DISCONNECT, for those who know it: MQTT 5 clients that are connected.
    fn put_disconnect(&self, closing: &Closing, effects: &mut Effects<'_>) {
        let State::Connected(connection) = &self.state else {
            return;
        };
        if connection.version != ProtocolVersion::V5 {
            return;
        }
        let mut disconnect = codec::Disconnect::new(closest_reason(PacketType::Disconnect, closing.reason));
        disconnect.properties.reason_string = closing.text.as_deref();
        disconnect.properties.server_reference = closing.server_reference.as_deref();
        connection.put(effects, &Packet::Disconnect(disconnect));
    }
}

impl Connection {
    /// Writes a packet unless the client cannot take one of that size: then the packet is left out, as §3.1.2.11.4
    /// demands, and for acknowledgements the client will time out by its own fault.
    fn put(&self, effects: &mut Effects<'_>, packet: &Packet<'_>) {
        put_within(effects, self.version, self.max_packet_size, packet);
    }
}

fn put(effects: &mut Effects<'_>, version: ProtocolVersion, packet: &Packet<'_>) {
    put_within(effects, version, u32::MAX, packet);
}

/// False if the packet does not fit: then nothing is written.
fn put_within(
    effects: &mut Effects<'_>,
    version: ProtocolVersion,
    max_packet_size: u32,
    packet: &Packet<'_>,
) -> bool {
    let mut is_written = false;
    effects.wire.put_with(|tail: &mut BytesMut| {
        is_written = packet.encode(version, max_packet_size, tail).is_ok();
    });
    is_written
}

/// How a client that is not admitted yet is told of a fault: MQTT 5 has a CONNACK for it.
fn refusal(version: ProtocolVersion, reason: broker_core::ReasonCode) -> Answer {
    match version {
        ProtocolVersion::V5 => Answer::ConnAck(version, closest_reason(PacketType::ConnAck, reason)),
        _ => Answer::Close,
    }
}

/// A stable word for counters and logs.
fn word(reason: broker_core::ReasonCode) -> &'static str {
    use broker_core::ReasonCode;
    match reason {
        ReasonCode::Success => "normal",
        ReasonCode::ProtocolError => "protocol_error",
        ReasonCode::TopicAliasInvalid => "topic_alias_invalid",
        ReasonCode::TopicNameInvalid => "topic_name_invalid",
        ReasonCode::KeepAliveTimeout => "keepalive_timeout",
        ReasonCode::SessionTakenOver => "takenover",
        ReasonCode::ServerShuttingDown => "server_shutting_down",
        ReasonCode::AdministrativeAction => "kicked",
        ReasonCode::NotAuthorized => "not_authorized",
        ReasonCode::ReceiveMaximumExceeded => "receive_maximum_exceeded",
        ReasonCode::QoSNotSupported => "qos_not_supported",
        ReasonCode::RetainNotSupported => "retain_not_supported",
        ReasonCode::PayloadFormatInvalid => "payload_format_invalid",
        _ => "closed_by_broker",
    }
}

impl broker_core::Peer for Peer {
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        let mut used = 0;
        while used < input.len() && !self.is_parked() && !matches!(self.state, State::Closed) {
            match self.handle_packet(now, &input[used..], effects) {
                Ok(Some(len)) => used += len,
                Ok(None) => break,
                Err(error) => {
                    self.fault(&error, effects);
                    return input.len();
                }
            }
        }
        // Nobody reads what follows a goodbye.
        if matches!(self.state, State::Closed) {
            input.len()
        } else {
            used
        }
    }

    fn handle_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        self.handle_broker_event(now, event, effects);
    }

    fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match &self.state {
            State::AwaitConnect { .. } => {
                self.close(
                    "connect_timeout",
                    "no CONNECT within mqtt.idle_timeout".to_owned(),
                    effects,
                );
            }
            State::Authenticating { .. } => {
                let text = "no AUTH within mqtt.idle_timeout";
                self.violation(
                    broker_core::ReasonCode::NotAuthorized,
                    "MQTT 5 §4.12",
                    text,
                    effects,
                );
            }
            State::Connected(_) => {
                let text = "no packet within one and a half keep alive periods";
                self.violation(
                    broker_core::ReasonCode::KeepAliveTimeout,
                    "MQTT-3.1.2-22",
                    text,
                    effects,
                );
            }
            State::Connecting(_) | State::Closed => {}
        }
    }

    fn handle_closed(&mut self, _now: Timestamp, effects: &mut Effects<'_>) {
        self.leave(DisconnectCause::ConnectionLost, effects);
        self.state = State::Closed;
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::AwaitConnect { until, .. } | State::Authenticating { until, .. } => Some(*until),
            // Parked, the driver does not read: silence is not the client's.
            State::Connected(connection) if connection.silence_max_ms > 0 && connection.awaited.is_none() => {
                Some(Timestamp::from_millis(
                    connection.last_packet.as_millis() + connection.silence_max_ms,
                ))
            }
            State::Connected(_) | State::Connecting(_) | State::Closed => None,
        }
    }

    fn client_id(&self) -> Option<&str> {
        self.client_id.as_ref().map(ClientId::as_str)
    }

    fn is_parked(&self) -> bool {
        match &self.state {
            State::Connecting(_) => true,
            State::Connected(connection) => connection.awaited.is_some(),
            State::AwaitConnect { .. } | State::Authenticating { .. } | State::Closed => false,
        }
    }
}

impl Peer {
    /// One packet from the front of `input`; `None` if it is not complete.
    fn handle_packet(
        &mut self,
        now: Timestamp,
        input: &[u8],
        effects: &mut Effects<'_>,
    ) -> Result<Option<usize>, DecodeError> {
        let max_packet_size = self.config().max_packet_size;
        let version = match &self.state {
            State::AwaitConnect { .. } => {
                let Some((connect, len)) = decode_connect(input, max_packet_size)? else {
                    return Ok(None);
                };
                self.handle_connect(&connect, effects);
                return Ok(Some(len));
            }
            State::Connected(connection) => connection.version,
            State::Authenticating { admission, .. } | State::Connecting(admission) => admission.version,
            State::Closed => return Ok(None),
        };
        let decoder = Decoder {
            version,
            sender: Sender::Client,
            max_packet_size,
        };
        let Some((packet, len)) = decoder.decode(input)? else {
            return Ok(None);
        };
        if let State::Connected(connection) = &mut self.state {
            // Only a whole packet is a sign of life [MQTT-3.1.2-22].
            connection.last_packet = now;
        }
        match packet {
            Packet::Publish(publish) if matches!(self.state, State::Connected(_)) => {
                self.handle_publish(now, &publish, effects);
            }
            packet => self.handle_other(packet, effects),
        }
        Ok(Some(len))
    }

    fn request_connect(&mut self, admission: Admission, connect: Connect, effects: &mut Effects<'_>) {
        self.state = State::Connecting(Box::new(admission));
        effects.requests.push(Request::Connect(Box::new(connect)));
    }
}

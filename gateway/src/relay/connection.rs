//! One connection to the broker, as an MQTT 3.1.1 client sees it: CONNECT, packets, keep alive.

use std::time::Duration;

use broker_core::{ClientInfo, Message, MessageParts, PacketId, QoS, ReasonCode, Timestamp};
use bytes::{Buf, BytesMut};
use mqtt::codec::{Ack, DecodeError, Decoder, EncodeError, Packet, ProtocolVersion, Publish, Sender};

use super::upstream::{Command, ConnId, Output};

/// Largest packet of the broker that is looked at, bytes: a datagram's payload, and a topic. A larger PUBLISH is skipped;
/// anything else of that size ends the connection.
pub(crate) const PACKET_BYTES_MAX: u32 = 160 << 10;

/// Limits of time of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Something is sent at least this often (MQTT 3.1.1 §3.1.2.10); what was sent is heard of within the same time.
    pub(crate) keep_alive: Duration,
    /// From the first packet of TCP to CONNACK.
    pub(crate) connect_timeout: Duration,
}

impl Timing {
    /// The keep alive as CONNECT says it. A broker waits half as long again.
    pub(crate) fn keep_alive_secs(self) -> u16 {
        u16::try_from(self.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX)
    }
}

/// A packet from the broker.
#[derive(Debug)]
pub(crate) enum Incoming {
    ConnAck {
        session_present: bool,
        reason: ReasonCode,
    },
    Publish {
        message: Message,
        packet_id: Option<PacketId>,
    },
    /// A PUBLISH that is larger than any datagram.
    TooLarge(QoS, Option<PacketId>),
    PubAck(PacketId),
    PubRec(PacketId),
    PubRel(PacketId),
    PubComp(PacketId),
    SubAck(PacketId, Vec<ReasonCode>),
    UnsubAck(PacketId),
    PingResp,
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The broker sends what is not MQTT 3.1.1.
    #[error("the broker sends what cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// No CONNACK.
    #[error("the broker does not answer CONNECT")]
    ConnectTimeout,
    /// No PINGRESP.
    #[error("the broker does not answer PINGREQ")]
    PingTimeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until CONNACK, at most until then.
    Joining(Timestamp),
    Open,
    /// Nothing more is sent.
    Closed,
}

/// A connection that was asked for, is open, or is being closed.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnId,
    timing: Timing,
    phase: Phase,
    /// The CONNECT, sent once the transport is open.
    connect: BytesMut,
    input: BytesMut,
    /// Bytes of a packet that is skipped, still to come.
    skip: usize,
    last_sent: Timestamp,
    /// PINGREQ that are not answered; since when.
    pings: u32,
    pinged: Timestamp,
    is_paused: bool,
}

impl Connection {
    /// Asks for the transport.
    ///
    /// # Errors
    ///
    /// If a text of the CONNECT is longer than 65 535 bytes.
    pub(crate) fn open(
        now: Timestamp,
        id: ConnId,
        timing: Timing,
        connect: mqtt::codec::Connect<'_>,
        out: &mut Output,
    ) -> Result<Connection, EncodeError> {
        let mut bytes = BytesMut::new();
        Packet::Connect(Box::new(connect)).encode(ProtocolVersion::V4, u32::MAX, &mut bytes)?;
        out.commands.push(Command::Open(id));
        Ok(Connection {
            id,
            timing,
            phase: Phase::Joining(now.after(timing.connect_timeout)),
            connect: bytes,
            input: BytesMut::new(),
            skip: 0,
            last_sent: now,
            pings: 0,
            pinged: now,
            is_paused: false,
        })
    }

    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    /// The transport has been open.
    pub(crate) fn was_opened(&self) -> bool {
        self.connect.is_empty()
    }

    /// The broker has accepted the CONNECT.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn handle_opened(&mut self, now: Timestamp, out: &mut Output) {
        let connect = std::mem::take(&mut self.connect);
        self.last_sent = now;
        out.commands.push(Command::Send(self.id, connect));
    }

    /// Sends a packet. False, if it cannot be written: a topic longer than 65 535 bytes.
    pub(crate) fn send(&mut self, now: Timestamp, packet: &Packet<'_>, out: &mut Output) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        // Packets of one turn travel together.
        let is_same = |command: &Command| matches!(command, Command::Send(id, _) if *id == self.id);
        if !out.commands.last().is_some_and(is_same) {
            out.commands.push(Command::Send(self.id, BytesMut::new()));
        }
        let Some(Command::Send(_, bytes)) = out.commands.last_mut() else {
            return false;
        };
        let is_written = packet.encode(ProtocolVersion::V4, u32::MAX, bytes).is_ok();
        if is_written {
            self.last_sent = now;
        }
        is_written
    }

    /// An application message.
    pub(crate) fn publish(
        &mut self,
        now: Timestamp,
        message: &Message,
        packet_id: Option<PacketId>,
        dup: bool,
        out: &mut Output,
    ) -> bool {
        let mut publish = Publish::new(message.topic(), message.payload());
        publish.qos = message.qos();
        publish.retain = message.retain();
        publish.dup = dup && message.qos() != QoS::AtMostOnce;
        publish.packet_id = packet_id;
        self.send(now, &Packet::Publish(publish), out)
    }

    pub(crate) fn pub_ack(&mut self, now: Timestamp, id: PacketId, out: &mut Output) {
        self.send(now, &Packet::PubAck(Ack::new(id, ReasonCode::Success)), out);
    }

    pub(crate) fn pub_rec(&mut self, now: Timestamp, id: PacketId, out: &mut Output) {
        self.send(now, &Packet::PubRec(Ack::new(id, ReasonCode::Success)), out);
    }

    pub(crate) fn pub_rel(&mut self, now: Timestamp, id: PacketId, out: &mut Output) {
        self.send(now, &Packet::PubRel(Ack::new(id, ReasonCode::Success)), out);
    }

    pub(crate) fn pub_comp(&mut self, now: Timestamp, id: PacketId, out: &mut Output) {
        self.send(now, &Packet::PubComp(Ack::new(id, ReasonCode::Success)), out);
    }

    pub(crate) fn ping(&mut self, now: Timestamp, out: &mut Output) {
        if self.send(now, &Packet::PingReq, out) {
            self.pings += 1;
            if self.pings == 1 {
                self.pinged = now;
            }
        }
    }

    /// With a DISCONNECT the broker discards the Will; without, it publishes it (MQTT 3.1.1 §3.14.4).
    pub(crate) fn close(&mut self, now: Timestamp, with_goodbye: bool, out: &mut Output) {
        if with_goodbye && self.was_opened() && self.phase != Phase::Closed {
            self.phase = Phase::Open;
            let goodbye = mqtt::codec::Disconnect::new(ReasonCode::Success);
            self.send(now, &Packet::Disconnect(goodbye), out);
        }
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            out.commands.push(Command::Close(self.id));
        }
    }

    /// Stops reading, or reads on.
    pub(crate) fn pause(&mut self, now: Timestamp, is_paused: bool, out: &mut Output) {
        if self.is_paused == is_paused || self.phase == Phase::Closed {
            return;
        }
        self.is_paused = is_paused;
        // While it is not read, no answer to a PINGREQ is seen: the time begins anew.
        self.pinged = now;
        out.commands.push(match is_paused {
            true => Command::Pause(self.id),
            false => Command::Resume(self.id),
        });
    }

    /// A PINGREQ is not answered yet.
    pub(crate) fn is_pinging(&self) -> bool {
        self.pings > 0
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Bytes have come in; [`Connection::next`] makes packets of them.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.phase != Phase::Closed {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            self.input.extend_from_slice(&bytes[skipped..]);
        }
    }

    /// The next packet, if it is complete.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, Fault> {
        if self.phase == Phase::Closed {
            return Ok(None);
        }
        if let Some(large) = oversized(&self.input) {
            let Some(large) = large else {
                return Ok(None);
            };
            let here = large.len.min(self.input.len());
            self.input.advance(here);
            self.skip = large.len - here;
            return Ok(Some(Incoming::TooLarge(large.qos, large.packet_id)));
        }
        let decoder = Decoder {
            version: ProtocolVersion::V4,
            sender: Sender::Server,
            max_packet_size: PACKET_BYTES_MAX,
        };
        let Some((packet, len)) = decoder.decode(&self.input)? else {
            return Ok(None);
        };
        let incoming = owned(packet);
        self.input.advance(len);
        match &incoming {
            Some(Incoming::ConnAck { reason, .. }) if !reason.is_error() => self.phase = Phase::Open,
            Some(Incoming::PingResp) => self.pings = self.pings.saturating_sub(1),
            _ => {}
        }
        // Nothing else may come from a server in MQTT 3.1.1: the decoder refuses it.
        Ok(Some(incoming.unwrap_or(Incoming::PingResp)))
    }

    /// When [`Connection::handle_timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Timestamp {
        match self.phase {
            Phase::Joining(until) => until,
            Phase::Closed => Timestamp::NEVER,
            Phase::Open => {
                let ping = self.last_sent.after(self.timing.keep_alive);
                match self.pings > 0 && !self.is_paused {
                    true => ping.min(self.pinged.after(self.timing.keep_alive)),
                    false => ping,
                }
            }
        }
    }

    /// Keeps the connection alive.
    ///
    /// # Errors
    ///
    /// If the broker has not answered in time.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, out: &mut Output) -> Result<(), Fault> {
        match self.phase {
            Phase::Joining(until) if until <= now => return Err(Fault::ConnectTimeout),
            Phase::Joining(_) | Phase::Closed => return Ok(()),
            Phase::Open => {}
        }
        if self.pings > 0 && !self.is_paused && self.pinged.after(self.timing.keep_alive) <= now {
            return Err(Fault::PingTimeout);
        }
        if self.last_sent.after(self.timing.keep_alive) <= now {
            self.ping(now, out);
        }
        Ok(())
    }
}

fn owned(packet: Packet<'_>) -> Option<Incoming> {
    Some(match packet {
        Packet::ConnAck(connack) => Incoming::ConnAck {
            session_present: connack.session_present,
            reason: connack.reason,
        },
        Packet::Publish(publish) => {
            let parts = MessageParts {
                qos: publish.qos,
                retain: publish.retain,
                ..MessageParts::new(publish.topic, publish.payload)
            };
            // Neither a queue nor a peer asks when it was created.
            let message = parts.publish_absolute(Timestamp::from_millis(0), ClientInfo::system())?;
            Incoming::Publish {
                message,
                packet_id: publish.packet_id,
            }
        }
        Packet::PubAck(ack) => Incoming::PubAck(ack.packet_id),
        Packet::PubRec(ack) => Incoming::PubRec(ack.packet_id),
        Packet::PubRel(ack) => Incoming::PubRel(ack.packet_id),
        Packet::PubComp(ack) => Incoming::PubComp(ack.packet_id),
        Packet::SubAck(suback) => Incoming::SubAck(suback.packet_id, suback.reasons.iter().collect()),
        Packet::UnsubAck(unsuback) => Incoming::UnsubAck(unsuback.packet_id),
        Packet::PingResp => Incoming::PingResp,
        _ => return None,
    })
}

struct Oversized {
    qos: QoS,
    packet_id: Option<PacketId>,
    /// Of the whole packet.
    len: usize,
}

/// A PUBLISH at the front of `input` that is too large to be kept; `Some(None)`, if its packet identifier is not there yet.
fn oversized(input: &[u8]) -> Option<Option<Oversized>> {
    let (&first, rest) = input.split_first()?;
    if first >> 4 != mqtt::codec::PacketType::Publish as u8 {
        return None;
    }
    // MQTT 3.1.1 §2.2.3.
    let mut remaining = 0;
    let mut bytes = rest.iter().take(4).enumerate();
    let digits = loop {
        let (at, &byte) = bytes.next()?;
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break at + 1;
        }
    };
    let len = 1 + digits + remaining;
    if len <= PACKET_BYTES_MAX as usize {
        return None;
    }
    let qos = QoS::new(first >> 1 & 0x03)?;
    let body = &rest[digits..];
    let Some((topic_len, after)) = body.split_first_chunk() else {
        return Some(None);
    };
    let packet_id = after.get(usize::from(u16::from_be_bytes(*topic_len))..);
    let Some(packet_id) = packet_id.and_then(|bytes| bytes.first_chunk()) else {
        return Some(None);
    };
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        _ => PacketId::new(u16::from_be_bytes(*packet_id)),
    };
    Some(Some(Oversized { qos, packet_id, len }))
}

//! A broker and clients that follow a script, in virtual time: for unit tests. Everything is told in words.

use std::{sync::Arc, time::Duration};

use broker_core::{
    Connect, ConnectionInfo, Disconnect, DisconnectCause, Event, LinkId, MessageParts, PacketId, Publish,
    QoS, ReasonCode, Request, Subscribe, SubscribeOptions, Timestamp, Unsubscribe, Will,
};
use bytes::{Bytes, BytesMut};
use mqtt::codec::{
    self, Ack, ConnAck, Decoder, Packet, ProtocolVersion, ReasonCodes, Sender, SubAck, UnsubAck,
};

use super::{
    client::Credentials,
    connection::Timing,
    deliveries::QueueLimits,
    upstream::{Command, ConnId, Output, Terms, Transport, Upstream},
};

pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(60);

pub(crate) fn terms() -> Terms {
    Terms {
        timing: Timing {
            keep_alive: KEEP_ALIVE,
            connect_timeout: Duration::from_secs(30),
        },
        queue: QueueLimits {
            messages: 4,
            bytes: 1 << 20,
        },
        credentials: Credentials {
            username: Some("gw".to_owned()),
            password: Some(b"secret".to_vec()),
        },
        sessions_max: 3,
        seed: 1,
    }
}

/// A state machine on the bench.
pub(crate) struct Bench<U> {
    pub(crate) upstream: U,
    pub(crate) now: Timestamp,
    out: Output,
}

impl<U: Upstream> Bench<U> {
    pub(crate) fn new(upstream: U) -> Bench<U> {
        let mut bench = Bench {
            upstream,
            now: Timestamp::from_millis(1_000_000),
            out: Output::default(),
        };
        bench.upstream.start(bench.now, &mut bench.out);
        bench
    }

    /// What was done since the last call: commands, then events.
    pub(crate) fn seen(&mut self) -> Vec<String> {
        let out = std::mem::take(&mut self.out);
        let commands = out.commands.iter().flat_map(command);
        let events = out
            .events
            .iter()
            .map(|(link, event)| format!("{}: {}", link.0, told(event)));
        commands.chain(events).collect()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.seen(), expected);
    }

    pub(crate) fn request(&mut self, link: u64, request: Request) -> &mut Bench<U> {
        self.upstream
            .handle_request(self.now, LinkId(link), request, &mut self.out);
        self
    }

    fn transport(&mut self, conn: u64, happening: Transport<'_>) -> &mut Bench<U> {
        self.upstream
            .handle_transport(self.now, ConnId(conn), happening, &mut self.out);
        self
    }

    pub(crate) fn opened(&mut self, conn: u64) -> &mut Bench<U> {
        self.transport(conn, Transport::Opened)
    }

    pub(crate) fn closed(&mut self, conn: u64) -> &mut Bench<U> {
        self.transport(conn, Transport::Closed("closed by the broker"))
    }

    pub(crate) fn bytes(&mut self, conn: u64, bytes: &[u8]) -> &mut Bench<U> {
        self.transport(conn, Transport::Input(bytes))
    }

    pub(crate) fn packet(&mut self, conn: u64, packet: &Packet<'_>) -> &mut Bench<U> {
        let mut bytes = BytesMut::new();
        packet.encode(ProtocolVersion::V4, u32::MAX, &mut bytes).unwrap();
        // However it is cut.
        let (front, back) = bytes.split_at(bytes.len() / 2);
        self.bytes(conn, front).bytes(conn, back)
    }

    pub(crate) fn connack(&mut self, conn: u64, session_present: bool) -> &mut Bench<U> {
        let mut connack = ConnAck::new(ReasonCode::Success);
        connack.session_present = session_present;
        self.packet(conn, &Packet::ConnAck(Box::new(connack)))
    }

    pub(crate) fn publish(
        &mut self,
        conn: u64,
        topic: &str,
        qos: u8,
        id: u16,
        payload: &str,
    ) -> &mut Bench<U> {
        let mut publish = codec::Publish::new(topic, payload.as_bytes());
        publish.qos = QoS::new(qos).unwrap();
        publish.packet_id = PacketId::new(id);
        self.packet(conn, &Packet::Publish(publish))
    }

    pub(crate) fn retained(&mut self, conn: u64, topic: &str, payload: &str) -> &mut Bench<U> {
        let mut publish = codec::Publish::new(topic, payload.as_bytes());
        publish.retain = true;
        self.packet(conn, &Packet::Publish(publish))
    }

    pub(crate) fn suback(&mut self, conn: u64, number: u16, code: ReasonCode) -> &mut Bench<U> {
        self.packet(
            conn,
            &Packet::SubAck(SubAck::new(id(number), ReasonCodes::new(&[code]))),
        )
    }

    pub(crate) fn unsuback(&mut self, conn: u64, number: u16) -> &mut Bench<U> {
        let codes = [ReasonCode::Success];
        self.packet(
            conn,
            &Packet::UnsubAck(UnsubAck::new(id(number), ReasonCodes::new(&codes))),
        )
    }

    pub(crate) fn wait(&mut self, time: Duration) -> &mut Bench<U> {
        let end = self.now.after(time);
        while let Some(at) = self.upstream.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.upstream.handle_timeout(self.now, &mut self.out);
        }
        self.now = end;
        self
    }
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub(crate) fn ack(number: u16) -> Ack<'static> {
    Ack::new(id(number), ReasonCode::Success)
}

/// CONNECT of a client with CleanSession, to be varied.
pub(crate) fn client(client_id: &str) -> Connect {
    Connect {
        client_id: client_id.to_owned(),
        username: None,
        password: None,
        peer: None,
        local: None,
        connection: Arc::new(ConnectionInfo {
            protocol: "mqtt-sn",
            proto_name: "MQTT-SN",
            proto_ver: 1,
            listener: "mqttsn:udp:default".into(),
            zone: "default".into(),
        }),
        certificate: None,
        mountpoint: "".into(),
        clean_start: true,
        session_expiry_interval: 0,
        keep_alive: 60,
        receive_maximum: 1,
        auth: None,
        will: None,
        keeps_will: false,
        user_properties: Vec::new(),
        is_bridge: false,
        may_sleep: true,
        wake: None,
    }
}

/// The same with a session that stays for so many seconds.
pub(crate) fn lasting(client_id: &str, seconds: u32) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_interval: seconds,
        keeps_will: true,
        ..client(client_id)
    }
}

pub(crate) fn connect(connect: Connect) -> Request {
    Request::Connect(Box::new(connect))
}

pub(crate) fn wake(client_id: &str, guard: &'static str) -> Request {
    connect(Connect {
        wake: Some(Bytes::from_static(guard.as_bytes())),
        ..lasting(client_id, 1)
    })
}

pub(crate) fn guard(guard: &'static str) -> Request {
    Request::Note(0, Some(Bytes::from_static(guard.as_bytes())))
}

pub(crate) fn leave(cause: DisconnectCause) -> Request {
    Request::Disconnect(Box::new(Disconnect {
        cause,
        session_expiry_interval: None,
        keeps_will: false,
        user_properties: Vec::new(),
    }))
}

pub(crate) fn will(topic: &str, qos: QoS) -> Will {
    Will {
        topic: topic.to_owned(),
        payload: b"gone".to_vec(),
        qos,
        retain: false,
        delay_interval: 0,
        expiry_interval: None,
        properties: Vec::new(),
    }
}

pub(crate) fn publish(topic: &str, qos: u8, number: u16, payload: &str) -> Request {
    let parts = MessageParts {
        qos: QoS::new(qos).unwrap(),
        ..MessageParts::new(topic, payload.as_bytes())
    };
    let now = Timestamp::from_millis(0);
    Request::Publish(Publish {
        message: parts.publish(now, broker_core::ClientInfo::system()).unwrap(),
        packet_id: PacketId::new(number),
        dup: false,
    })
}

pub(crate) fn subscribe(number: u16, filter: &str, qos: u8) -> Request {
    let options = SubscribeOptions {
        qos: QoS::new(qos).unwrap(),
        ..SubscribeOptions::default()
    };
    Request::Subscribe(Box::new(Subscribe {
        packet_id: id(number),
        filters: vec![(filter.to_owned(), options)],
        subscription_id: None,
        user_properties: Vec::new(),
    }))
}

pub(crate) fn unsubscribe(number: u16, filter: &str) -> Request {
    Request::Unsubscribe(Box::new(Unsubscribe {
        packet_id: id(number),
        filters: vec![filter.to_owned()],
        user_properties: Vec::new(),
    }))
}

fn command(command: &Command) -> Vec<String> {
    match command {
        Command::Open(ConnId(conn)) => vec![format!("open {conn}")],
        Command::Pause(ConnId(conn)) => vec![format!("pause {conn}")],
        Command::Resume(ConnId(conn)) => vec![format!("resume {conn}")],
        Command::Close(ConnId(conn)) => vec![format!("close {conn}")],
        Command::Send(ConnId(conn), bytes) => {
            let decoder = Decoder {
                version: ProtocolVersion::V4,
                sender: Sender::Client,
                max_packet_size: u32::MAX,
            };
            let (mut rest, mut packets) = (&bytes[..], Vec::new());
            while let Some((packet, len)) = decoder.decode(rest).unwrap() {
                packets.push(format!("{conn} < {}", sent(&packet)));
                rest = &rest[len..];
            }
            assert!(rest.is_empty(), "whole packets are sent");
            packets
        }
    }
}

fn sent(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(connect) => {
            let clean = if connect.clean_start { " clean" } else { "" };
            let user = connect.username.unwrap_or("-");
            let will = connect.will.as_ref().map(|will| format!(" will={}", will.topic));
            format!(
                "CONNECT {} {user}{clean}{}",
                connect.client_id,
                will.unwrap_or_default()
            )
        }
        Packet::Publish(publish) => {
            let id = publish.packet_id.map_or(0, PacketId::get);
            let dup = if publish.dup { " dup" } else { "" };
            let payload = String::from_utf8_lossy(publish.payload);
            format!(
                "PUBLISH {} {} {id}{dup} {payload}",
                publish.topic, publish.qos as u8
            )
        }
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.subscriptions.iter();
            let list: Vec<_> = filters
                .map(|one| format!(" {} {}", one.filter, one.options.qos as u8))
                .collect();
            format!("SUBSCRIBE {}{}", subscribe.packet_id.get(), list.concat())
        }
        Packet::Unsubscribe(unsubscribe) => {
            let list: Vec<_> = unsubscribe.filters.iter().collect();
            format!("UNSUBSCRIBE {} {}", unsubscribe.packet_id.get(), list.join(" "))
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            format!("{} {}", packet.packet_type().name(), ack.packet_id.get())
        }
        other => other.packet_type().name().to_owned(),
    }
}

fn told(event: &Event) -> String {
    let ack = |name, id: &PacketId, reason: &ReasonCode| match reason {
        ReasonCode::Success => format!("{name} {}", id.get()),
        reason => format!("{name} {} {}", id.get(), reason.text()),
    };
    match event {
        Event::Connected(connected) => {
            let mut text = "connected".to_owned();
            if connected.session_present {
                text.push_str(" present");
            }
            if !connected.notes.is_empty() {
                text.push_str(&format!(" notes={}", connected.notes.len()));
            }
            if let Some(will) = &connected.will {
                text.push_str(&format!(" will={}", will.topic));
            }
            text
        }
        Event::Refused(closing) => format!("refused {}", closing.reason.text()),
        Event::Close(closing) => format!("close {}", closing.reason.text()),
        Event::Deliver(delivery) => {
            let message = &delivery.message;
            let id = delivery.packet_id.map_or(0, PacketId::get);
            let dup = if delivery.dup { " dup" } else { "" };
            let retain = if delivery.retain { " retain" } else { "" };
            let payload = String::from_utf8_lossy(message.payload());
            format!(
                "deliver {} {} {id}{dup}{retain} {payload}",
                message.topic(),
                delivery.qos as u8
            )
        }
        Event::PubAck(id, reason) => ack("puback", id, reason),
        Event::PubRec(id, reason) => ack("pubrec", id, reason),
        Event::PubRel(id, reason) => ack("pubrel", id, reason),
        Event::PubComp(id, reason) => ack("pubcomp", id, reason),
        Event::SubAck(id, codes) => format!("suback {} {}", id.get(), codes[0].text()),
        Event::UnsubAck(id, codes) => format!("unsuback {} {}", id.get(), codes[0].text()),
        Event::Noted(number, reason) => format!("noted {number} {}", reason.text()),
        Event::WillSet(reason) => format!("will set {}", reason.text()),
        Event::Asleep => "asleep".to_owned(),
        Event::Drained => "drained".to_owned(),
        Event::Auth(_) => "auth".to_owned(),
    }
}

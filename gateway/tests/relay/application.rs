//! An application: an MQTT 3.1.1 client of the broker.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use broker_core::{PacketId, QoS, ReasonCode, SubscribeOptions};
use bytes::{Buf as _, BytesMut};
use mqtt::codec::{
    Ack, Connect, Decoder, Packet, PacketType, ProtocolVersion, Publish, Sender, Subscribe, Subscription,
};

use crate::process::PATIENCE;

/// A message: topic, quality of service, retain flag, payload.
pub(crate) type Received = (String, u8, bool, String);

pub(crate) struct Application {
    stream: TcpStream,
    input: BytesMut,
    messages: VecDeque<Received>,
}

const FIRST: PacketId = PacketId::FIRST;

impl Application {
    pub(crate) fn connect(address: &str, client_id: &str) -> Application {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut application = Application {
            stream,
            input: BytesMut::new(),
            messages: VecDeque::new(),
        };
        application.send(&Packet::Connect(Box::new(Connect::new(
            ProtocolVersion::V4,
            client_id,
        ))));
        assert_eq!(application.next(), PacketType::ConnAck);
        application
    }

    /// One that has subscribed to `filter` with QoS 2.
    pub(crate) fn subscribed(address: &str, filter: &str) -> Application {
        let mut application = Application::connect(address, "application");
        let options = SubscribeOptions {
            qos: QoS::ExactlyOnce,
            ..SubscribeOptions::default()
        };
        let list = [Subscription { filter, options }];
        application.send(&Packet::Subscribe(Subscribe::new(FIRST, &list)));
        while application.next() != PacketType::SubAck {}
        application
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = BytesMut::new();
        packet.encode(ProtocolVersion::V4, u32::MAX, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The type of the next packet, which is acknowledged. A message waits to be asked for.
    fn next(&mut self) -> PacketType {
        let decoder = Decoder {
            version: ProtocolVersion::V4,
            sender: Sender::Server,
            max_packet_size: u32::MAX,
        };
        loop {
            let bytes = self.input.clone();
            if let Some((packet, len)) = decoder.decode(&bytes).unwrap() {
                self.input.advance(len);
                self.answer(&packet);
                if let Packet::Publish(publish) = &packet {
                    let payload = String::from_utf8_lossy(publish.payload).into_owned();
                    let received = (
                        publish.topic.to_owned(),
                        publish.qos as u8,
                        publish.retain,
                        payload,
                    );
                    self.messages.push_back(received);
                }
                return packet.packet_type();
            }
            let mut buffer = [0; 4096];
            let len = match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            assert!(len > 0, "the broker has closed the connection");
            self.input.extend_from_slice(&buffer[..len]);
        }
    }

    fn answer(&mut self, packet: &Packet<'_>) {
        let ack = |id: PacketId| Ack::new(id, ReasonCode::Success);
        match packet {
            Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::PubAck(ack(id))),
                (QoS::ExactlyOnce, Some(id)) => self.send(&Packet::PubRec(ack(id))),
                _ => {}
            },
            Packet::PubRel(this) => self.send(&Packet::PubComp(ack(this.packet_id))),
            Packet::PubRec(this) => self.send(&Packet::PubRel(ack(this.packet_id))),
            _ => {}
        }
    }

    /// The next message.
    pub(crate) fn message(&mut self) -> Received {
        loop {
            if let Some(received) = self.messages.pop_front() {
                return received;
            }
            self.next();
        }
    }

    /// Publishes, and waits until the broker has taken it.
    pub(crate) fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: &str) {
        let mut publish = Publish::new(topic, payload.as_bytes());
        publish.qos = QoS::new(qos).unwrap();
        publish.retain = retain;
        publish.packet_id = (qos > 0).then_some(FIRST);
        self.send(&Packet::Publish(publish));
        let last = match qos {
            0 => {
                self.send(&Packet::PingReq);
                PacketType::PingResp
            }
            1 => PacketType::PubAck,
            _ => PacketType::PubComp,
        };
        while self.next() != last {}
    }
}

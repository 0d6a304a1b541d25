//! Clients that talk to a node packet by packet.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use broker_core::{Config, LinkId, PacketId, QoS, ReasonCode, SubscribeOptions, shard::Common};
use bytes::{Bytes, BytesMut};
use mqtt::{
    codec::{
        Ack, ConnAck, Connect, Decoder, Disconnect, Packet, ProtocolVersion, Publish, ReasonCodes, Sender,
        SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe,
    },
    peer::{Peer, PeerSettings, Transport},
};
use testkit::Node;

pub(crate) use ProtocolVersion::{V3, V4, V5};
pub(crate) use QoS::{AtLeastOnce as Q1, AtMostOnce as Q0, ExactlyOnce as Q2};

/// One client's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) link: LinkId,
    pub(crate) version: ProtocolVersion,
}

/// A node and what clients do with it.
pub(crate) struct Net {
    pub(crate) node: Node,
    settings: Arc<PeerSettings>,
}

impl Net {
    /// One shard, default settings.
    pub(crate) fn new() -> Net {
        Net::with(|_| {})
    }

    /// One shard.
    pub(crate) fn with(configure: impl FnOnce(&mut Config)) -> Net {
        Net::with_shards(1, configure)
    }

    pub(crate) fn with_shards(shards: u16, configure: impl FnOnce(&mut Config)) -> Net {
        let mut common = anonymous();
        configure(&mut common.config);
        Net::with_common(shards, common, "")
    }

    pub(crate) fn with_common(shards: u16, common: Common, mountpoint: &str) -> Net {
        let config = common.config.mqtt.clone();
        Net {
            node: Node::new(shards, common),
            settings: Arc::new(PeerSettings::new(config, mountpoint, "tcp:default", "default")),
        }
    }

    /// A transport without a CONNECT.
    pub(crate) fn open(&mut self, version: ProtocolVersion) -> Client {
        let transport = Transport {
            peer: Some(([10, 0, 0, 1], 50_000).into()),
            ..Transport::default()
        };
        let peer = Peer::new(self.node.now(), Arc::clone(&self.settings), transport);
        let link = self.node.open(peer);
        Client { link, version }
    }

    /// A transport with this CONNECT sent.
    pub(crate) fn dial(&mut self, connect: Connect<'_>) -> Client {
        let client = self.open(connect.version);
        self.send(client, Packet::Connect(Box::new(connect)));
        client
    }

    /// An admitted client that had no session.
    pub(crate) fn connect(&mut self, connect: Connect<'_>) -> Client {
        let client = self.dial(connect);
        let connack = self.connack(client);
        assert_eq!(
            (connack.reason, connack.session_present),
            (ReasonCode::Success, false)
        );
        client
    }

    /// An admitted client that had a session.
    pub(crate) fn resume(&mut self, connect: Connect<'_>) -> Client {
        let client = self.dial(connect);
        let connack = self.connack(client);
        assert_eq!(
            (connack.reason, connack.session_present),
            (ReasonCode::Success, true)
        );
        client
    }

    /// A client with a clean session.
    pub(crate) fn client(&mut self, version: ProtocolVersion, client_id: &str) -> Client {
        self.connect(Connect::new(version, client_id))
    }

    /// A client with a clean session and subscriptions that nothing is retained for.
    pub(crate) fn subscriber(
        &mut self,
        version: ProtocolVersion,
        client_id: &str,
        filters: &[(&str, QoS)],
    ) -> Client {
        let client = self.client(version, client_id);
        self.subscribe(client, filters);
        client
    }

    /// SUBSCRIBE (packet identifier 1000) and its SUBACK: everything granted.
    pub(crate) fn subscribe(&mut self, client: Client, filters: &[(&str, QoS)]) {
        let filters: Vec<_> = filters.iter().map(|&(filter, qos)| sub(filter, qos)).collect();
        let codes: Vec<_> = filters
            .iter()
            .map(|filter| ReasonCode::granted(filter.options.qos))
            .collect();
        self.send(client, subscribe(1000, &filters));
        self.expect(client, suback(1000, &codes));
    }

    pub(crate) fn send(&mut self, client: Client, packet: Packet<'_>) {
        let bytes = encode(client.version, &packet);
        self.node.input(client.link, &bytes);
    }

    pub(crate) fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        self.node.input(client.link, bytes);
    }

    /// Everything that came for the client. Leaked, since packets borrow from it and a test is short.
    pub(crate) fn take(&mut self, client: Client) -> Vec<Packet<'static>> {
        let mut bytes = Vec::new();
        while self.node.output_len(client.link) > 0 {
            bytes.extend_from_slice(&self.node.output(client.link));
        }
        decode_all(client.version, bytes.leak())
    }

    /// Exactly this packet has come.
    #[track_caller]
    pub(crate) fn expect(&mut self, client: Client, packet: Packet<'_>) {
        self.expect_all(client, &[packet]);
    }

    /// Exactly these packets have come, in this order.
    #[track_caller]
    pub(crate) fn expect_all(&mut self, client: Client, packets: &[Packet<'_>]) {
        let received = self.take(client);
        assert_eq!(received, packets);
    }

    /// Nothing has come.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self, client: Client) {
        self.expect_all(client, &[]);
    }

    /// Only a CONNACK has come.
    #[track_caller]
    pub(crate) fn connack(&mut self, client: Client) -> ConnAck<'static> {
        let mut packets = self.take(client);
        assert_eq!(packets.len(), 1, "{packets:?}");
        match packets.remove(0) {
            Packet::ConnAck(connack) => *connack,
            other => panic!("{other:?} instead of a CONNACK"),
        }
    }

    /// Only PUBLISH packets have come.
    #[track_caller]
    pub(crate) fn publishes(&mut self, client: Client) -> Vec<Publish<'static>> {
        let packets = self.take(client).into_iter();
        packets
            .map(|packet| match packet {
                Packet::Publish(publish) => publish,
                other => panic!("{other:?} instead of a PUBLISH"),
            })
            .collect()
    }

    /// The broker ends the connection; MQTT 5 clients are told `reason` first, others nothing.
    #[track_caller]
    pub(crate) fn expect_end(&mut self, client: Client, reason: ReasonCode) {
        match client.version {
            V5 => self.expect(client, Packet::Disconnect(Disconnect::new(reason))),
            _ => self.expect_nothing(client),
        }
        self.expect_closed(client);
    }

    #[track_caller]
    pub(crate) fn expect_closed(&mut self, client: Client) {
        assert!(self.node.closed(client.link).is_some(), "the connection is open");
    }

    #[track_caller]
    pub(crate) fn expect_open(&mut self, client: Client) {
        assert_eq!(self.node.closed(client.link), None);
    }

    /// The transport of the client breaks.
    pub(crate) fn cut(&mut self, client: Client) {
        self.node.cut(client.link);
    }

    /// DISCONNECT, and the connection is closed without an answer.
    #[track_caller]
    pub(crate) fn disconnect(&mut self, client: Client) {
        self.send(client, Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        self.expect_nothing(client);
        self.expect_closed(client);
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.node.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn pass_ms(&mut self, millis: u64) {
        self.node.advance(Duration::from_millis(millis));
    }

    /// The time that a shard's timer may be late by passes, and what falls due in it happens.
    pub(crate) fn pass_slot(&mut self) {
        self.pass_ms(64);
    }
}

/// Everybody may come in.
pub(crate) fn anonymous() -> Common {
    let mut common = Common::default();
    common.admission.authentication = broker_core::admission::AuthenticationChain::new(true);
    common
}

pub(crate) fn encode(version: ProtocolVersion, packet: &Packet<'_>) -> Bytes {
    let mut bytes = BytesMut::new();
    packet
        .encode(version, u32::MAX, &mut bytes)
        .expect("a valid packet");
    bytes.freeze()
}

pub(crate) fn decode_all(version: ProtocolVersion, mut bytes: &'static [u8]) -> Vec<Packet<'static>> {
    let decoder = Decoder {
        version,
        sender: Sender::Server,
        max_packet_size: u32::MAX,
    };
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let (packet, len) = decoder
            .decode(bytes)
            .expect("the broker sends valid packets")
            .expect("the broker sends whole packets");
        packets.push(packet);
        bytes = &bytes[len..];
    }
    packets
}

pub(crate) fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

/// CONNECT with a session that is kept: for an hour with MQTT 5.
pub(crate) fn kept(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(version, client_id);
    connect.clean_start = false;
    if version == V5 {
        connect.properties.session_expiry_interval = Some(3600);
    }
    connect
}

/// CONNECT with a Will of QoS 0.
pub(crate) fn with_will<'a>(mut connect: Connect<'a>, topic: &'a str) -> Connect<'a> {
    connect.will = Some(mqtt::codec::Will::new(topic, b"will"));
    connect
}

pub(crate) fn sub(filter: &str, qos: QoS) -> Subscription<'_> {
    let options = SubscribeOptions {
        qos,
        ..SubscribeOptions::default()
    };
    Subscription { filter, options }
}

pub(crate) fn subscribe<'a>(packet_id: u16, filters: &'a [Subscription<'a>]) -> Packet<'a> {
    Packet::Subscribe(Subscribe::new(id(packet_id), filters))
}

pub(crate) fn suback(packet_id: u16, codes: &[ReasonCode]) -> Packet<'_> {
    Packet::SubAck(SubAck::new(id(packet_id), ReasonCodes::new(codes)))
}

pub(crate) fn unsubscribe<'a>(packet_id: u16, filters: &'a [&'a str]) -> Packet<'a> {
    Packet::Unsubscribe(Unsubscribe::new(id(packet_id), filters))
}

pub(crate) fn unsuback(packet_id: u16, codes: &[ReasonCode]) -> Packet<'_> {
    Packet::UnsubAck(UnsubAck::new(id(packet_id), ReasonCodes::new(codes)))
}

/// A message of QoS 0.
pub(crate) fn message<'a>(topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish::new(topic, payload.as_bytes())
}

/// A message of QoS 1 or 2.
pub(crate) fn acked<'a>(topic: &'a str, payload: &'a str, qos: QoS, packet_id: u16) -> Publish<'a> {
    Publish {
        qos,
        packet_id: Some(id(packet_id)),
        ..message(topic, payload)
    }
}

pub(crate) fn retained(publish: Publish<'_>) -> Publish<'_> {
    Publish {
        retain: true,
        ..publish
    }
}

pub(crate) fn dup(publish: Publish<'_>) -> Publish<'_> {
    Publish { dup: true, ..publish }
}

pub(crate) fn expiring(publish: Publish<'_>, seconds: u32) -> Publish<'_> {
    Publish {
        expiry_interval: Some(seconds),
        ..publish
    }
}

pub(crate) fn aliased(publish: Publish<'_>, alias: u16) -> Publish<'_> {
    Publish {
        topic_alias: NonZeroU16::new(alias),
        ..publish
    }
}

pub(crate) fn puback(packet_id: u16) -> Packet<'static> {
    Packet::PubAck(Ack::new(id(packet_id), ReasonCode::Success))
}

pub(crate) fn pubrec(packet_id: u16) -> Packet<'static> {
    Packet::PubRec(Ack::new(id(packet_id), ReasonCode::Success))
}

pub(crate) fn pubrel(packet_id: u16) -> Packet<'static> {
    Packet::PubRel(Ack::new(id(packet_id), ReasonCode::Success))
}

pub(crate) fn pubcomp(packet_id: u16) -> Packet<'static> {
    Packet::PubComp(Ack::new(id(packet_id), ReasonCode::Success))
}

/// `packet`, an acknowledgement, with this reason.
pub(crate) fn because(packet: Packet<'static>, reason: ReasonCode) -> Packet<'static> {
    let with = |ack: Ack<'static>| Ack { reason, ..ack };
    match packet {
        Packet::PubAck(ack) => Packet::PubAck(with(ack)),
        Packet::PubRec(ack) => Packet::PubRec(with(ack)),
        Packet::PubRel(ack) => Packet::PubRel(with(ack)),
        Packet::PubComp(ack) => Packet::PubComp(with(ack)),
        other => other,
    }
}

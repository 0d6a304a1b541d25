//! A node with one MQTT-SN listener, and its clients.

use std::{sync::Arc, time::Duration};

use broker_core::{
    Addressed, ConnectionInfo, Effects, Endpoint as _, Event, LinkId, Peer, QoS, Remote, Stranger, Timestamp,
    Verdict, admission::AuthenticationChain, shard::Common,
};
use bytes::{Bytes, BytesMut};
use mqtt_sn::{
    Predefined, Roaming, Settings,
    codec::{Connect, Message, MsgId, Publish, PublishQoS, ReturnCode, Subscribe, Topic, TopicId, TopicName},
    endpoint::Endpoint,
};
use testkit::Node;

use crate::probe::Probe;

pub(crate) const Q0: QoS = QoS::AtMostOnce;
pub(crate) const Q1: QoS = QoS::AtLeastOnce;
pub(crate) const Q2: QoS = QoS::ExactlyOnce;
pub(crate) use ReturnCode::{Accepted, Congestion, InvalidTopicId, NotSupported};

pub(crate) const SHARDS: u16 = 2;

/// A listener as a driver would serve it: one endpoint, and a link for every peer.
pub(crate) struct Net {
    pub(crate) node: Node,
    pub(crate) settings: Arc<Settings>,
    endpoint: Endpoint,
    lines: Vec<(Remote, LinkId)>,
    /// Datagrams that nobody has looked at.
    out: Vec<(Remote, Bytes)>,
}

/// A client's address.
pub(crate) fn at(port: u16) -> Remote {
    Remote {
        address: ([10, 0, 0, 1], port).into(),
        node: None,
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        connection: Arc::new(ConnectionInfo {
            protocol: "mqtt-sn",
            proto_name: "MQTT-SN",
            proto_ver: 1,
            listener: "udp:default".into(),
            zone: "default".into(),
        }),
        mountpoint: "".into(),
        gateway_id: 1,
        advertise_interval: None,
        gwinfo_delay_max: Duration::ZERO,
        enable_qos3: true,
        idle_timeout: Duration::from_secs(30),
        retry_interval: Duration::from_secs(10),
        retry_max: 3,
        max_inflight: 1,
        max_waiting: 10,
        max_topic_ids: 100,
        session_expiry_interval: 7200,
        roaming: Roaming::Any,
        predefined: Arc::new(Predefined {
            global: [(TopicId(7), Arc::from("predefined/seven"))].into(),
            clients: [("own".into(), [(TopicId(7), Arc::from("predefined/own"))].into())].into(),
        }),
        clientinfo_override: Default::default(),
        counters: Arc::default(),
    }
}

/// Everybody may come in.
pub(crate) fn anonymous() -> Common {
    let mut common = Common::default();
    common.admission.authentication = AuthenticationChain::new(true);
    common
}

impl Net {
    pub(crate) fn new() -> Net {
        Net::with(|_| {}, |_| {})
    }

    pub(crate) fn with(set: impl FnOnce(&mut Settings), configure: impl FnOnce(&mut Common)) -> Net {
        let mut settings = settings();
        set(&mut settings);
        let mut common = anonymous();
        configure(&mut common);
        let settings = Arc::new(settings);
        Net {
            node: Node::new(SHARDS, common),
            endpoint: endpoint(&settings),
            settings,
            lines: Vec::new(),
            out: Vec::new(),
        }
    }

    /// One datagram comes in, as the driver passes it on.
    pub(crate) fn datagram(
        &mut self,
        from: &Remote,
        identity: Option<&broker_core::Identity>,
        datagram: &[u8],
    ) {
        let mut remote = from.clone();
        let datagram = match self.endpoint.address(datagram) {
            Addressed::Sender(datagram) => datagram,
            Addressed::Node { node, inner } => {
                remote.node = Some(node.into());
                inner
            }
            Addressed::Common(datagram) => return self.common(datagram),
            Addressed::Endpoint(_) | Addressed::Garbage(_) => return,
        };
        if let Some((_, link)) = self.lines.iter().find(|(other, _)| *other == remote) {
            let link = *link;
            self.node.datagram(link, datagram);
            return self.collect();
        }
        let stranger = Stranger {
            remote: &remote,
            local: ([10, 0, 0, 9], 1884).into(),
            identity,
        };
        let mut transmits = Vec::new();
        let verdict = self
            .endpoint
            .handle_stranger(self.node.now(), &stranger, datagram, &mut transmits);
        for transmit in transmits {
            self.out.push((remote.clone(), transmit.datagram));
        }
        if let Verdict::Open(peer) = verdict {
            let link = self.node.open(Boxed(peer));
            self.lines.push((remote, link));
            self.node.datagram(link, datagram);
        }
        self.collect();
    }

    fn common(&mut self, datagram: &[u8]) {
        let remote = at(0);
        if !self.lines.iter().any(|(other, _)| *other == remote) {
            let peer = self.endpoint.common_peer(self.node.now());
            let link = self.node.open(Boxed(peer));
            self.lines.push((remote.clone(), link));
        }
        let link = self.link(&remote).expect("just opened");
        self.node.datagram(link, datagram);
        self.collect();
    }

    /// Gathers what goes out, and forgets peers that have ended.
    pub(crate) fn collect(&mut self) {
        for (remote, link) in &self.lines {
            for datagram in self.node.datagrams(*link) {
                self.out.push((remote.clone(), datagram));
            }
        }
        let node = &self.node;
        self.lines.retain(|(_, link)| node.closed(*link).is_none());
    }

    pub(crate) fn link(&self, remote: &Remote) -> Option<LinkId> {
        let line = self.lines.iter().find(|(other, _)| other == remote);
        line.map(|(_, link)| *link)
    }

    pub(crate) fn send(&mut self, from: &Remote, message: Message<'_>) {
        self.datagram(from, None, &encode(&message));
    }

    /// What has come for this client. Leaked, since messages borrow from it and a test is short.
    pub(crate) fn take(&mut self, to: &Remote) -> Vec<Message<'static>> {
        self.collect();
        let mut messages = Vec::new();
        self.out.retain(|(remote, datagram)| {
            if remote == to {
                messages.push(datagram.clone());
            }
            remote != to
        });
        let decode =
            |datagram: Bytes| Message::decode(datagram.to_vec().leak()).expect("a gateway's message");
        messages.into_iter().map(decode).collect()
    }

    /// All datagrams, with whom they are for.
    pub(crate) fn take_all(&mut self) -> Vec<(Remote, Bytes)> {
        self.collect();
        std::mem::take(&mut self.out)
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, to: &Remote, messages: &[Message<'_>]) {
        assert_eq!(self.take(to), messages);
    }

    /// Sends, and expects exactly these answers.
    #[track_caller]
    pub(crate) fn ask(&mut self, from: &Remote, message: Message<'_>, answers: &[Message<'_>]) {
        self.send(from, message);
        self.expect(from, answers);
    }

    #[track_caller]
    pub(crate) fn expect_gone(&mut self, remote: &Remote) {
        self.collect();
        assert_eq!(self.link(remote), None, "the peer is there");
    }

    #[track_caller]
    pub(crate) fn connect(&mut self, from: &Remote, connect: Connect<'_>) {
        self.ask(from, Message::Connect(connect), &[Message::ConnAck(Accepted)]);
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.pass_ms(seconds * 1000);
    }

    pub(crate) fn pass_ms(&mut self, millis: u64) {
        self.node.advance(Duration::from_millis(millis));
        self.collect();
    }

    pub(crate) fn probe(&mut self) -> Probe {
        Probe::new(&mut self.node, "probe")
    }

    /// From here on those who are not known yet come to this listener.
    pub(crate) fn listen_as(&mut self, listener: &str) {
        let mut settings = Settings::clone(&self.settings);
        settings.connection = Arc::new(ConnectionInfo {
            listener: listener.into(),
            ..ConnectionInfo::clone(&settings.connection)
        });
        self.settings = Arc::new(settings);
        self.endpoint = endpoint(&self.settings);
    }

    /// The process is killed and starts again at once. What waits to be committed is lost.
    pub(crate) fn crash(&mut self) {
        self.collect();
        self.node.crash(0);
        self.lines.clear();
        self.endpoint = endpoint(&self.settings);
        self.node.restart(SHARDS);
    }
}

fn endpoint(settings: &Arc<Settings>) -> Endpoint {
    Endpoint::new(Arc::clone(settings), true, 1)
}

struct Boxed(Box<dyn Peer>);

impl Peer for Boxed {
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        self.0.handle_input(now, input, effects)
    }

    fn handle_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        self.0.handle_event(now, event, effects);
    }

    fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.0.handle_timeout(now, effects);
    }

    fn handle_closed(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.0.handle_closed(now, effects);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.0.poll_timeout()
    }

    fn client_id(&self) -> Option<&str> {
        self.0.client_id()
    }
}

pub(crate) fn encode(message: &Message<'_>) -> Bytes {
    let mut to = BytesMut::new();
    message.encode(&mut to);
    to.freeze()
}

/// CONNECT with CleanSession and a keep alive of a minute.
pub(crate) fn clean(client_id: &str) -> Connect<'_> {
    Connect {
        will: false,
        clean_session: true,
        duration: 60,
        client_id,
    }
}

/// CONNECT to a session that is kept.
pub(crate) fn kept(client_id: &str) -> Connect<'_> {
    Connect {
        clean_session: false,
        ..clean(client_id)
    }
}

pub(crate) fn publish(topic: Topic, qos: QoS, msg_id: u16, data: &str) -> Message<'_> {
    Message::Publish(Publish {
        dup: false,
        qos: PublishQoS::Level(qos),
        retain: false,
        topic,
        msg_id: MsgId(msg_id),
        data: data.as_bytes(),
    })
}

pub(crate) fn dup(message: Message<'_>) -> Message<'_> {
    match message {
        Message::Publish(publish) => Message::Publish(Publish { dup: true, ..publish }),
        other => other,
    }
}

pub(crate) fn normal(id: u16) -> Topic {
    Topic::Normal(TopicId(id))
}

pub(crate) fn puback(topic_id: u16, msg_id: u16, return_code: ReturnCode) -> Message<'static> {
    Message::PubAck {
        topic_id: TopicId(topic_id),
        msg_id: MsgId(msg_id),
        return_code,
    }
}

pub(crate) fn register(topic_id: u16, msg_id: u16, topic_name: &str) -> Message<'_> {
    Message::Register {
        topic_id: TopicId(topic_id),
        msg_id: MsgId(msg_id),
        topic_name,
    }
}

pub(crate) fn regack(topic_id: u16, msg_id: u16, return_code: ReturnCode) -> Message<'static> {
    Message::RegAck {
        topic_id: TopicId(topic_id),
        msg_id: MsgId(msg_id),
        return_code,
    }
}

pub(crate) fn subscribe(msg_id: u16, qos: QoS, topic: TopicName<'_>) -> Message<'_> {
    Message::Subscribe(Subscribe {
        dup: false,
        qos,
        msg_id: MsgId(msg_id),
        topic,
    })
}

pub(crate) fn suback(topic_id: u16, msg_id: u16, qos: QoS, return_code: ReturnCode) -> Message<'static> {
    Message::SubAck {
        qos,
        topic_id: TopicId(topic_id),
        msg_id: MsgId(msg_id),
        return_code,
    }
}

/// PUBLISH of QoS −1.
pub(crate) fn without_connection(topic: Topic, data: &str) -> Message<'_> {
    Message::Publish(Publish {
        dup: false,
        qos: PublishQoS::WithoutConnection,
        retain: false,
        topic,
        msg_id: MsgId(0),
        data: data.as_bytes(),
    })
}

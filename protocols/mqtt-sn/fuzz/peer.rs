//! What the fuzz target of the peer checks: hostile clients on a node, and one that minds its own business; and a
//! peer alone with a broker that talks nonsense. The test `fuzz_peer` shares it.

use std::{sync::Arc, time::Duration};

use broker_core::{
    ClientId, ClientInfo, Closing, Connected, ConnectionInfo, Delivery, Effects, Event, LinkId, MessageParts,
    Outbox, PacketId, Peer, QoS, ReasonCode, Remote, Request, SubscriptionIds, Timestamp,
    admission::AuthenticationChain, shard::Common,
};
use bytes::{Bytes, BytesMut};
use mqtt_sn::{
    Predefined, Roaming, Settings, Transport,
    codec::{Connect, Message, MsgId, Publish, PublishQoS, Subscribe, Topic, TopicId, TopicName},
};
use testkit::Node;

const LINES: usize = 3;
const SHARDS: u16 = 2;
/// No step makes a peer say more datagrams than this: what may wait for the client, and repetitions.
const SAID_MAX: usize = 256;
const TOPICS: [&str; 6] = ["a", "ab", "a/b", "predefined/seven", "predefined/own", "a/b/c"];

/// Runs the steps that `data` spells:
///
/// ```text
/// bits 0-2   0-3 a datagram: its length in one byte, then it · 4 time: one byte · 5 the transport breaks, a new one opens;
///            with bit 7 the process is killed · 6 somebody publishes · 7 commits wait, or complete
/// bits 3-4   which client
/// bits 5-6   quality of service
/// ```
///
/// Nothing panics; what clients are sent are messages of a gateway, and not too many; a peer that has ended is still;
/// and a client elsewhere notices nothing.
pub fn run(data: &[u8]) {
    let mut hostile = Hostile::new();
    let mut rest = data;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        let at = usize::from(step >> 3 & 3) % LINES;
        let byte = rest.first().copied().unwrap_or_default();
        match step & 7 {
            0..=3 => {
                let len = usize::from(byte).min(rest.len().saturating_sub(1));
                let (datagram, after) = rest.get(1..).unwrap_or_default().split_at(len);
                rest = after;
                let link = hostile.lines[at];
                hostile.node.datagram(link, datagram);
            }
            4 => {
                rest = rest.get(1..).unwrap_or_default();
                let millis = u64::from(byte) * u64::from(byte) * 10;
                hostile.node.advance(Duration::from_millis(millis));
            }
            5 if step & 0x80 != 0 => hostile.crash(),
            5 => hostile.reopen(at),
            6 => {
                rest = rest.get(1..).unwrap_or_default();
                let qos = QoS::new(step >> 5 & 3).unwrap_or_default();
                hostile.publish(TOPICS[usize::from(byte) % TOPICS.len()], qos);
            }
            _ => hostile.node.hold_commits(step & 0x80 != 0),
        }
        hostile.check();
    }
    hostile.end();
}

struct Hostile {
    node: Node,
    settings: Arc<Settings>,
    lines: Vec<LinkId>,
    bystander: LinkId,
}

impl Hostile {
    fn new() -> Hostile {
        let mut common = Common::default();
        common.admission.authentication = AuthenticationChain::new(true);
        common.config.mqtt.max_mqueue_len = 16;
        let node = Node::new(SHARDS, common);
        let settings = Arc::new(settings("hostile/"));
        let mut hostile = Hostile {
            node,
            settings,
            lines: Vec::new(),
            bystander: LinkId(0),
        };
        hostile.populate();
        hostile
    }

    /// Everybody comes in.
    fn populate(&mut self) {
        self.bystander = self.open(Arc::new(settings("")), 9);
        self.lines = (0..LINES)
            .map(|at| self.open(Arc::clone(&self.settings), at))
            .collect();
        let connect = Connect {
            will: false,
            clean_session: true,
            duration: 0,
            client_id: "",
        };
        let subscribe = Subscribe {
            dup: false,
            qos: QoS::AtLeastOnce,
            msg_id: MsgId(1),
            topic: TopicName::Name("own/topic"),
        };
        self.say(&Message::Connect(connect));
        self.say(&Message::Subscribe(subscribe));
        assert_eq!(self.node.datagrams(self.bystander).len(), 2);
    }

    fn open(&mut self, settings: Arc<Settings>, at: usize) -> LinkId {
        let peer = mqtt_sn::Peer::new(self.node.now(), settings, transport(at));
        self.node.open(Watched {
            peer,
            is_closed: false,
        })
    }

    fn reopen(&mut self, at: usize) {
        self.node.cut(self.lines[at]);
        self.check();
        self.lines[at] = self.open(Arc::clone(&self.settings), at);
    }

    fn crash(&mut self) {
        self.check();
        self.node.crash(0);
        self.node.restart(SHARDS);
        self.populate();
    }

    fn publish(&mut self, topic: &str, qos: QoS) {
        let parts = MessageParts {
            qos,
            ..MessageParts::new(topic, b"payload")
        };
        let origin = ClientInfo {
            mountpoint: "hostile/".into(),
            ..ClientInfo::internal("other", true)
        };
        let message = parts
            .publish(self.node.now(), &Arc::new(origin))
            .expect("a short topic");
        // A store that is full refuses it.
        let _ = self.node.publish(0, message);
    }

    /// Looks at what every client was sent.
    fn check(&mut self) {
        for at in 0..LINES {
            let datagrams = self.node.datagrams(self.lines[at]);
            assert!(
                datagrams.len() <= SAID_MAX,
                "{} datagrams in one step",
                datagrams.len()
            );
            datagrams.iter().for_each(|datagram| check_datagram(datagram));
            // Whoever has ended comes again.
            if self.node.closed(self.lines[at]).is_some() {
                self.lines[at] = self.open(Arc::clone(&self.settings), at);
            }
        }
        if self.node.closed(self.bystander).is_none() {
            assert_eq!(self.node.output_len(self.bystander), 0);
        }
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut datagram = BytesMut::new();
        message.encode(&mut datagram);
        self.node.datagram(self.bystander, &datagram);
    }

    /// The bystander still is where it was, unless it was silent for a day.
    fn end(&mut self) {
        self.node.hold_commits(false);
        self.check();
        self.say(&Message::Publish(Publish {
            dup: false,
            qos: PublishQoS::Level(QoS::AtLeastOnce),
            retain: false,
            topic: Topic::Normal(TopicId(1025)),
            msg_id: MsgId(1),
            data: b"still here",
        }));
        let heard = self.node.datagrams(self.bystander);
        let is_it = |datagram: &&Bytes| matches!(Message::decode(datagram), Ok(Message::Publish(publish)) if publish.data == b"still here");
        let is_gone = self.node.closed(self.bystander).is_some();
        assert!(
            is_gone || heard.iter().any(|datagram| is_it(&datagram)),
            "{heard:?}"
        );
        for _ in 0..2 {
            for at in 0..LINES {
                self.node.cut(self.lines[at]);
                self.node.datagrams(self.lines[at]);
            }
            self.node.advance(Duration::from_secs(3 * 24 * 3600));
            self.node.datagrams(self.bystander);
        }
        for shard in 0..SHARDS {
            let sessions = self.node.shard(shard).stats().sessions.get();
            assert_eq!(sessions, 0, "sessions of clients that are gone have ended");
        }
    }
}

/// A message that a gateway sends to a client.
fn check_datagram(datagram: &[u8]) {
    let message = Message::decode(datagram).expect("a message");
    assert!(!matches!(
        message,
        Message::Connect(_)
            | Message::WillTopic(_)
            | Message::WillMsg(_)
            | Message::Subscribe(_)
            | Message::Unsubscribe { .. }
            | Message::PingReq(_)
            | Message::WillTopicUpd(_)
            | Message::WillMsgUpd(_)
            | Message::Advertise { .. }
            | Message::SearchGw { .. }
            | Message::GwInfo { .. }
            | Message::Disconnect(Some(_))
    ));
}

fn transport(at: usize) -> Transport {
    let port = u16::try_from(at).expect("few") + 1;
    Transport {
        remote: Remote {
            address: ([10, 0, 0, 1], port).into(),
            node: None,
        },
        local: None,
        identity: None,
        seed: 1,
    }
}

fn settings(mountpoint: &str) -> Settings {
    Settings {
        connection: Arc::new(ConnectionInfo {
            protocol: "mqtt-sn",
            proto_name: "MQTT-SN",
            proto_ver: 1,
            listener: "udp:default".into(),
            zone: "default".into(),
        }),
        mountpoint: mountpoint.into(),
        gateway_id: 1,
        advertise_interval: None,
        gwinfo_delay_max: Duration::ZERO,
        enable_qos3: true,
        idle_timeout: Duration::from_secs(30),
        retry_interval: Duration::from_secs(10),
        retry_max: 3,
        max_inflight: 2,
        max_waiting: 4,
        max_topic_ids: 20,
        session_expiry_interval: 7200,
        roaming: Roaming::Any,
        predefined: Arc::new(Predefined {
            global: [(TopicId(7), Arc::from("predefined/seven"))].into(),
            clients: [("c".into(), [(TopicId(7), Arc::from("predefined/own"))].into())].into(),
        }),
        clientinfo_override: mqtt_sn::ClientInfoOverride::default(),
        counters: Arc::default(),
    }
}

/// Holds a peer to the contract of [`Peer`].
struct Watched {
    peer: mqtt_sn::Peer,
    is_closed: bool,
}

impl Watched {
    /// A peer that has ended its connection does nothing more, whatever comes.
    fn after(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        if effects.close.is_none() || std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        let (mut wire, mut requests, mut close) = (Outbox::new(), Vec::new(), None);
        let mut effects = Effects {
            wire: &mut wire,
            requests: &mut requests,
            close: &mut close,
        };
        assert_eq!(self.peer.handle_input(now, &[2, 0x16], &mut effects), 2);
        self.peer.handle_event(now, Event::Drained, &mut effects);
        self.peer.handle_timeout(now.after_secs(1_000_000), &mut effects);
        self.peer.handle_closed(now, &mut effects);
        assert_eq!(self.peer.poll_timeout(), None);
        assert!(wire.is_empty() && requests.is_empty() && close.is_none());
    }
}

impl Peer for Watched {
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        let used = self.peer.handle_input(now, input, effects);
        self.after(now, effects);
        used
    }

    fn handle_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        self.peer.handle_event(now, event, effects);
        self.after(now, effects);
    }

    fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.peer.handle_timeout(now, effects);
        self.after(now, effects);
    }

    fn handle_closed(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.peer.handle_closed(now, effects);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.peer.poll_timeout()
    }

    fn is_parked(&self) -> bool {
        assert!(!self.peer.is_parked(), "datagrams cannot be made to wait");
        false
    }
}

/// A peer alone, told whatever `data` spells by its client and its broker, in any order:
///
/// ```text
/// a byte below 128   a datagram of so many bytes
/// otherwise          bits 0-3 which event, bits 4-6 and the next byte its numbers; 15: time
/// ```
///
/// Nothing panics, what it says are messages, and its requests come in an order that a shard takes: nothing but CONNECT
/// without a connection.
pub fn run_alone(data: &[u8]) {
    let mut alone = Alone {
        peer: Watched {
            peer: mqtt_sn::Peer::new(Node::START, Arc::new(settings("")), transport(0)),
            is_closed: false,
        },
        now: Node::START,
        is_known: false,
    };
    let mut rest = data;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        if step < 128 {
            let (datagram, after) = rest.split_at(usize::from(step).min(rest.len()));
            rest = after;
            alone.call(|peer, now, effects| {
                assert_eq!(peer.handle_input(now, datagram, effects), datagram.len());
            });
            continue;
        }
        let number = u16::from(rest.first().copied().unwrap_or_default());
        rest = rest.get(1..).unwrap_or_default();
        if step & 15 == 15 {
            alone.now = alone.now.after_secs(u64::from(number));
            if alone.peer.poll_timeout().is_some_and(|at| at <= alone.now) {
                alone.call(|peer, now, effects| peer.handle_timeout(now, effects));
            }
        } else {
            let event = event(step & 15, step >> 4 & 7, number);
            alone.call(|peer, now, effects| peer.handle_event(now, event, effects));
        }
        if alone.peer.is_closed {
            return;
        }
    }
}

struct Alone {
    peer: Watched,
    now: Timestamp,
    /// A CONNECT was sent, and no DISCONNECT since.
    is_known: bool,
}

impl Alone {
    fn call(&mut self, call: impl FnOnce(&mut Watched, Timestamp, &mut Effects<'_>)) {
        let (mut wire, mut requests, mut close) = (Outbox::new(), Vec::new(), None);
        let mut effects = Effects {
            wire: &mut wire,
            requests: &mut requests,
            close: &mut close,
        };
        call(&mut self.peer, self.now, &mut effects);
        while let Some(datagram) = wire.datagram() {
            check_datagram(datagram);
            wire.pop_datagram();
        }
        for request in requests {
            match request {
                Request::Connect(_) => self.is_known = true,
                Request::Disconnect(_) => self.is_known = false,
                request => assert!(self.is_known, "{request:?} without a connection"),
            }
        }
    }
}

fn event(kind: u8, detail: u8, number: u16) -> Event {
    let id = PacketId::new(number % 8 + 1).expect("not zero");
    let reason = match detail {
        0..=3 => ReasonCode::Success,
        4 => ReasonCode::QuotaExceeded,
        5 => ReasonCode::SessionTakenOver,
        6 => ReasonCode::ServerBusy,
        _ => ReasonCode::NotAuthorized,
    };
    match kind {
        0 | 1 => Event::Connected(Box::new(connected(detail, number))),
        2 => Event::Refused(Box::new(Closing::new(reason))),
        3 | 4 => Event::Deliver(delivery(detail, number, id)),
        5 => Event::PubAck(id, reason),
        6 => Event::PubRec(id, reason),
        7 => Event::PubRel(id, reason),
        8 => Event::PubComp(id, reason),
        9 => Event::SubAck(id, vec![reason; usize::from(detail & 1)]),
        10 => Event::UnsubAck(id, Vec::new()),
        11 => Event::Noted(number % 4, reason),
        12 => Event::Drained,
        13 => match detail & 1 {
            0 => Event::Asleep,
            _ => Event::WillSet(reason),
        },
        _ => Event::Close(Box::new(Closing::new(reason))),
    }
}

fn connected(detail: u8, number: u16) -> Connected {
    let mut notes = Vec::new();
    if detail & 1 != 0 {
        notes.push((1, Bytes::copy_from_slice(&number.to_be_bytes())));
    }
    if detail & 2 != 0 {
        notes.push((2, Bytes::from_static(&[1, 0, 1, b'a', 0, 0, 3, b'a', b'/', b'b'])));
    }
    if detail & 4 != 0 {
        notes.push((number % 4, Bytes::copy_from_slice(&number.to_be_bytes())));
    }
    Connected {
        client: Arc::new(ClientInfo {
            client_id: ClientId::new("c"),
            ..ClientInfo::internal("c", false)
        }),
        session_present: detail & 1 != 0,
        client_id_assigned: false,
        session_expiry_interval: 0,
        server_keep_alive: None,
        auth: None,
        user_properties: Vec::new(),
        notes,
        will: None,
    }
}

fn delivery(detail: u8, number: u16, id: PacketId) -> Delivery {
    let qos = QoS::new(detail & 3).unwrap_or_default();
    let topic = TOPICS[usize::from(number) % TOPICS.len()];
    Delivery {
        message: MessageParts::new(topic, b"payload")
            .publish(Node::START, ClientInfo::system())
            .expect("a short topic"),
        packet_id: (qos > QoS::AtMostOnce).then_some(id),
        qos,
        dup: false,
        retain: false,
        subscription_ids: SubscriptionIds::new(),
    }
}

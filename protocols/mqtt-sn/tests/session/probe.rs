//! A client of the broker without a protocol, which takes everything that it is sent.

use std::sync::{Arc, Mutex, MutexGuard};

use broker_core::{
    Connect, ConnectionInfo, Delivery, Effects, Event, LinkId, MessageParts, PacketId, Peer, Publish, QoS,
    ReasonCode, Request, Subscribe, SubscribeOptions, Timestamp,
};
use testkit::Node;

/// A message that somebody was delivered: topic, payload, quality of service, retain.
pub(crate) type Got = (String, String, QoS, bool);

/// Publishes and subscribes.
pub(crate) struct Probe {
    link: LinkId,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    client: Option<Arc<broker_core::ClientInfo>>,
    requests: Vec<Request>,
    got: Vec<Got>,
    next: u16,
}

impl Probe {
    /// An admitted client.
    pub(crate) fn new(node: &mut Node, client_id: &str) -> Probe {
        let state: Arc<Mutex<State>> = Arc::default();
        let link = node.open(Wire(Arc::clone(&state)));
        let mut probe = Probe { link, state };
        let connect = Connect {
            client_id: client_id.to_owned(),
            username: None,
            password: None,
            peer: None,
            local: None,
            connection: Arc::new(ConnectionInfo {
                protocol: "test",
                proto_name: "test",
                proto_ver: 5,
                listener: "test:default".into(),
                zone: "default".into(),
            }),
            certificate: None,
            mountpoint: "".into(),
            clean_start: true,
            session_expiry_interval: 0,
            keep_alive: 0,
            receive_maximum: u16::MAX,
            auth: None,
            will: None,
            keeps_will: false,
            user_properties: Vec::new(),
            is_bridge: false,
            may_sleep: false,
            wake: None,
        };
        probe.ask(node, Request::Connect(Box::new(connect)));
        assert!(lock(&probe.state).client.is_some(), "the probe is admitted");
        probe
    }

    fn ask(&mut self, node: &mut Node, request: Request) {
        lock(&self.state).requests.push(request);
        node.datagram(self.link, &[]);
    }

    pub(crate) fn subscribe(&mut self, node: &mut Node, filter: &str) {
        let options = SubscribeOptions {
            qos: QoS::ExactlyOnce,
            ..SubscribeOptions::default()
        };
        let subscribe = Subscribe {
            packet_id: PacketId::FIRST,
            filters: vec![(filter.to_owned(), options)],
            subscription_id: None,
            user_properties: Vec::new(),
        };
        self.ask(node, Request::Subscribe(Box::new(subscribe)));
    }

    pub(crate) fn publish(&mut self, node: &mut Node, topic: &str, payload: &str, qos: QoS) {
        self.say(node, topic, payload, qos, false);
    }

    pub(crate) fn retain(&mut self, node: &mut Node, topic: &str, payload: &str) {
        self.say(node, topic, payload, QoS::AtLeastOnce, true);
    }

    fn say(&mut self, node: &mut Node, topic: &str, payload: &str, qos: QoS, retain: bool) {
        let mut state = lock(&self.state);
        let parts = MessageParts {
            qos,
            retain,
            ..MessageParts::new(topic, payload.as_bytes())
        };
        let client = state.client.clone().expect("the probe is admitted");
        state.next += 1;
        let packet_id = PacketId::new(state.next).filter(|_| qos > QoS::AtMostOnce);
        drop(state);
        let publish = Publish {
            message: parts.publish(node.now(), &client).expect("a short topic"),
            packet_id,
            dup: false,
        };
        self.ask(node, Request::Publish(publish));
    }

    /// What it was delivered since the last time.
    pub(crate) fn take(&mut self) -> Vec<Got> {
        std::mem::take(&mut lock(&self.state).got)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("one thread")
}

struct Wire(Arc<Mutex<State>>);

impl Wire {
    fn deliver(&mut self, delivery: &Delivery, effects: &mut Effects<'_>) {
        lock(&self.0).got.push((
            delivery.message.topic().to_owned(),
            String::from_utf8_lossy(delivery.message.payload()).into_owned(),
            delivery.qos,
            delivery.retain,
        ));
        if let Some(id) = delivery.packet_id {
            effects.requests.push(match delivery.qos {
                QoS::ExactlyOnce => Request::PubRec(id, ReasonCode::Success),
                _ => Request::PubAck(id, ReasonCode::Success),
            });
        }
    }
}

impl Peer for Wire {
    fn handle_input(&mut self, _: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        effects.requests.append(&mut lock(&self.0).requests);
        input.len()
    }

    fn handle_event(&mut self, _: Timestamp, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Connected(connected) => lock(&self.0).client = Some(connected.client),
            Event::Deliver(delivery) => self.deliver(&delivery, effects),
            Event::PubRel(id, _) => effects.requests.push(Request::PubComp(id, ReasonCode::Success)),
            Event::PubRec(id, reason) if !reason.is_error() => {
                effects.requests.push(Request::PubRel(id, ReasonCode::Success));
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

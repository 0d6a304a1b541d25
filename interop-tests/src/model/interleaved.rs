//! The loose check: requests come in while batches, questions and timers are still under way, in an order that the
//! seed chooses. What must hold whatever the order:
//!
//! - a message of QoS 1 or 2 that was sent after a subscriber had its SUBACK, and that was acknowledged, reaches that
//!   subscriber in the end, however often it was away; of QoS 2 once, in the order of its publisher, topic and QoS;
//! - it reaches every shared group that had a member, and of QoS 2 not more often than there can be groups;
//! - an exclusive topic has one holder at most;
//! - once all sessions have ended, nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use broker_core::{
    ClientInfo, Config, Connect, ConnectionInfo, Delivery, Disconnect, DisconnectCause, Event, LinkId,
    MessageParts, Publish, QoS, ReasonCode, Request, Subscribe, SubscribeOptions, Timestamp, Unsubscribe,
    topic,
};

use super::{Failure, Report, common, nothing_left, packet_id, script};
use testkit::Random;

use crate::{reference::number_of, sim::Node};

const CLIENTS: usize = 6;
const TOPICS: &[&str] = &["a", "a/b", "b", "b/c"];
const FILTERS: &[&str] = &[
    "a",
    "a/b",
    "#",
    "a/#",
    "+",
    "b/+",
    "$share/g/a/#",
    "$share/g/#",
    "$queue/b",
];

/// None of them is a plain filter as well: that would be the same subscription.
const EXCLUSIVE: [&str; 2] = ["b", "b/c"];

#[derive(Debug, Default)]
struct Client {
    link: Option<LinkId>,
    info: Option<Arc<ClientInfo>>,
    /// Filters with the time of their SUBACK, as a position among all publishes.
    subscribed: BTreeMap<String, u64>,
    /// SUBSCRIBEs whose SUBACK has not come.
    subscribing: BTreeMap<u16, Vec<String>>,
    /// Exclusive topics that it was granted and has not given back.
    exclusive: BTreeSet<String>,
    /// QoS 1 and 2 messages sent and not acknowledged, by packet identifier.
    publishing: BTreeMap<u16, Sent>,
    /// QoS 2 deliveries that are not released: a repetition of one is no new message.
    receiving: BTreeMap<u16, u64>,
    /// Messages got, in order, without repetitions.
    got: Vec<Got>,
    last_id: u16,
}

#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    topic: &'static str,
    qos: QoS,
    publisher: usize,
}

#[derive(Clone, Debug)]
struct Got {
    number: u64,
    qos: QoS,
    is_shared: bool,
    dup: bool,
}

/// One run.
#[derive(Debug)]
struct Interleaved {
    node: Node,
    random: Random,
    clients: Vec<Client>,
    owners: BTreeMap<LinkId, usize>,
    /// Acknowledged messages.
    accepted: Vec<Sent>,
    number: u64,
    report: Report,
}

/// Runs `steps` random steps from `seed`, lets everybody come back and get what is left, and sees that nothing is lost.
///
/// # Errors
/// What the broker did wrong first.
pub fn run(seed: u64, steps: u64) -> Result<Report, Box<Failure>> {
    let mut random = Random::new(seed);
    let mut config = Config::default();
    config.mqtt.max_mqueue_len = 0;
    config.mqtt.max_inflight = [1, 3, 32][random.below(3)];
    let shards = u16::try_from(2 + random.below(6)).expect("at most 7");
    let now = Timestamp::from_millis(1_000_000_000);
    let mut model = Interleaved {
        node: Node::new(shards, common(&config), now, random.bits()),
        random,
        clients: (0..CLIENTS).map(|_| Client::default()).collect(),
        owners: BTreeMap::new(),
        accepted: Vec::new(),
        number: 0,
        report: Report::default(),
    };
    model.run(steps).map_err(|what| {
        Box::new(Failure {
            what,
            step: model.report.steps,
            history: Vec::new(),
        })
    })?;
    Ok(model.report)
}

impl Interleaved {
    fn run(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            self.step()?;
            self.report.steps += 1;
            for _ in 0..self.random.below(4) {
                self.node.step();
                self.events()?;
            }
        }
        for at in 0..CLIENTS {
            if self.clients[at].link.is_none() {
                self.connect(at);
            }
        }
        self.settle()?;
        for at in 0..CLIENTS {
            self.verify(at)?;
        }
        self.verify_groups()?;
        self.end()
    }

    fn step(&mut self) -> Result<(), String> {
        let at = self.random.below(CLIENTS);
        let Some(link) = self.clients[at].link else {
            self.connect(at);
            return self.events();
        };
        match self.random.below(100) {
            0..=5 => self.lose(at, link),
            6..=8 => self.connect(at),
            9..=22 => self.subscribe(at, link),
            23..=26 => self.unsubscribe(at, link),
            27..=29 => {
                let congested = self.random.chance(30);
                self.node.congest(link, congested);
            }
            30..=34 => {
                let now = self.node.now().as_millis() + u64::from(self.random.between(1, 50));
                self.node.set_clock(Timestamp::from_millis(now));
                self.node.fire();
            }
            _ => self.publish(at, link),
        }
        self.events()
    }

    fn connect(&mut self, at: usize) {
        // Of two connections that wait for the control plane the one answered last wins: the client gives up the first.
        if self.clients[at].info.is_none()
            && let Some(link) = self.clients[at].link
        {
            self.lose(at, link);
        }
        let link = LinkId(self.node.links() + 1);
        let client = &mut self.clients[at];
        client.link = Some(link);
        client.info = None;
        client.subscribing.clear();
        self.owners.insert(link, at);
        let connect = Connect {
            client_id: format!("c{at}"),
            clean_start: false,
            session_expiry_interval: u32::MAX,
            receive_maximum: [1, 2, 10][self.random.below(3)],
            ..blank()
        };
        self.node.connect(connect);
    }

    fn lose(&mut self, at: usize, link: LinkId) {
        self.clients[at].link = None;
        self.node.handle(link, lost(None));
    }

    fn next_id(&mut self, at: usize) -> u16 {
        let client = &mut self.clients[at];
        loop {
            client.last_id = client.last_id % 60_000 + 1;
            if !client.publishing.contains_key(&client.last_id) {
                return client.last_id;
            }
        }
    }

    fn subscribe(&mut self, at: usize, link: LinkId) {
        let id = self.next_id(at);
        let filter = if self.random.chance(25) {
            format!("$exclusive/{}", self.random.pick(&EXCLUSIVE))
        } else {
            self.random.pick(FILTERS).to_owned()
        };
        let options = SubscribeOptions {
            qos: QoS::ExactlyOnce,
            ..SubscribeOptions::default()
        };
        let client = &mut self.clients[at];
        client.subscribing.insert(id, vec![filter.clone()]);
        let subscribe = Subscribe {
            packet_id: packet_id(id),
            // The identifier tells deliveries of shared groups apart.
            subscription_id: Some(if filter.starts_with("$share") || filter.starts_with("$queue") {
                2
            } else {
                1
            }),
            filters: vec![(filter, options)],
            user_properties: Vec::new(),
        };
        self.node.handle(link, Request::Subscribe(Box::new(subscribe)));
    }

    /// Only exclusive subscriptions end: the others stay, so that what is due to them is simple.
    fn unsubscribe(&mut self, at: usize, link: LinkId) {
        let id = packet_id(self.next_id(at));
        // A SUBACK under way could be older or newer than the answer to this.
        if !self.clients[at].subscribing.is_empty() {
            return;
        }
        let Some(filter) = self.clients[at].exclusive.pop_first() else {
            return;
        };
        let unsubscribe = Unsubscribe {
            packet_id: id,
            filters: vec![filter],
            user_properties: Vec::new(),
        };
        self.node
            .handle(link, Request::Unsubscribe(Box::new(unsubscribe)));
    }

    fn publish(&mut self, at: usize, link: LinkId) {
        let id = self.next_id(at);
        let Some(info) = self.clients[at].info.clone() else {
            return;
        };
        self.number += 1;
        let qos = script::any_qos(&mut self.random);
        let topic = TOPICS[self.random.below(TOPICS.len())];
        let properties = script::identity(self.number);
        let parts = MessageParts {
            qos,
            properties: properties.as_properties(),
            ..MessageParts::new(topic, b"payload")
        };
        let message = parts.publish(self.node.now(), &info).expect("a short topic");
        if qos > QoS::AtMostOnce {
            let sent = Sent {
                number: self.number,
                topic,
                qos,
                publisher: at,
            };
            self.clients[at].publishing.insert(id, sent);
        }
        let publish = Publish {
            message,
            packet_id: (qos > QoS::AtMostOnce).then(|| packet_id(id)),
            dup: false,
        };
        self.node.handle(link, Request::Publish(publish));
    }

    fn settle(&mut self) -> Result<(), String> {
        loop {
            let links: Vec<LinkId> = self.clients.iter().filter_map(|client| client.link).collect();
            for link in links {
                self.node.congest(link, false);
            }
            self.events()?;
            if !self.node.step() {
                return Ok(());
            }
        }
    }

    fn events(&mut self) -> Result<(), String> {
        while let Some((link, event)) = self.node.poll_event() {
            let Some(&at) = self.owners.get(&link) else {
                return Err(format!("{event:?} for {link:?}, which does not exist"));
            };
            let is_current = self.clients[at].link == Some(link);
            match event {
                // A connection that is lost takes with it what was on its way.
                _ if !is_current => {}
                Event::Deliver(delivery) => self.deliver(at, link, &delivery)?,
                event => self.answer(at, link, event)?,
            }
        }
        Ok(())
    }

    fn answer(&mut self, at: usize, link: LinkId, event: Event) -> Result<(), String> {
        let number = self.number;
        let client = &mut self.clients[at];
        match event {
            Event::Connected(connected) => client.info = Some(connected.client),
            Event::Refused(closing) => return Err(format!("client {at} refused: {closing:?}")),
            Event::Close(_) => client.link = None,
            Event::PubAck(id, reason) if !reason.is_error() => {
                self.accepted.extend(client.publishing.remove(&id.get()));
            }
            Event::PubRec(id, reason) if !reason.is_error() => {
                self.accepted.extend(client.publishing.remove(&id.get()));
                self.node.handle(link, Request::PubRel(id, ReasonCode::Success));
            }
            Event::PubRel(id, _) => {
                client.receiving.remove(&id.get());
                self.node.handle(link, Request::PubComp(id, ReasonCode::Success));
            }
            Event::SubAck(id, codes) => {
                for (filter, code) in client
                    .subscribing
                    .remove(&id.get())
                    .into_iter()
                    .flatten()
                    .zip(codes)
                {
                    if filter.starts_with("$exclusive/") {
                        self.granted(at, filter, code)?;
                    } else {
                        self.clients[at].subscribed.entry(filter).or_insert(number);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn granted(&mut self, at: usize, filter: String, code: ReasonCode) -> Result<(), String> {
        if code.is_error() {
            return Ok(());
        }
        let mut others = self.clients.iter().enumerate().filter(|(other, _)| *other != at);
        if let Some((other, _)) = others.find(|(_, client)| client.exclusive.contains(&filter)) {
            return Err(format!(
                "client {at} was granted {filter}, which client {other} holds"
            ));
        }
        self.clients[at].exclusive.insert(filter);
        Ok(())
    }

    fn deliver(&mut self, at: usize, link: LinkId, delivery: &Delivery) -> Result<(), String> {
        self.report.deliveries += 1;
        self.report.repetitions += u64::from(delivery.dup);
        let number = number_of(&delivery.message).unwrap_or_default();
        let client = &mut self.clients[at];
        let got = Got {
            number,
            qos: delivery.qos,
            is_shared: delivery.subscription_ids.contains(&2),
            dup: delivery.dup,
        };
        match (delivery.qos, delivery.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => {
                client.got.push(got);
                self.node.handle(link, Request::PubAck(id, ReasonCode::Success));
            }
            (QoS::ExactlyOnce, Some(id)) => {
                match client.receiving.insert(id.get(), number) {
                    Some(before) if before != number => {
                        return Err(format!("client {at}: {id:?} was {before} and is {number}"));
                    }
                    Some(_) => {}
                    None => client.got.push(got),
                }
                self.node.handle(link, Request::PubRec(id, ReasonCode::Success));
            }
            _ => {}
        }
        Ok(())
    }

    /// What one client got through its own subscriptions: all of it, QoS 2 once, in order.
    fn verify(&self, at: usize) -> Result<(), String> {
        let client = &self.clients[at];
        let own = || client.got.iter().filter(|got| !got.is_shared);
        for sent in &self.accepted {
            let count = own().filter(|got| got.number == sent.number).count();
            let is_due = client.subscribed.iter().any(|(filter, since)| {
                !filter.starts_with('$') && *since < sent.number && topic::matches(filter, sent.topic)
            });
            if is_due && count == 0 {
                return Err(format!("client {at}, {:?}, lost {sent:?}", client.subscribed));
            }
            if sent.qos == QoS::ExactlyOnce && count > 1 {
                return Err(format!("client {at} got {sent:?} {count} times"));
            }
        }
        let mut last: BTreeMap<(usize, &str, QoS), u64> = BTreeMap::new();
        let first_time = own().filter(|got| !got.dup);
        for got in first_time {
            let Some(sent) = self.accepted.iter().find(|sent| sent.number == got.number) else {
                continue;
            };
            let key = (sent.publisher, sent.topic, got.qos);
            if let Some(before) = last.insert(key, got.number).filter(|before| *before > got.number) {
                return Err(format!("client {at} got {before} before {got:?} of {sent:?}"));
            }
        }
        Ok(())
    }

    fn verify_groups(&self) -> Result<(), String> {
        for sent in &self.accepted {
            let subscribed = self.clients.iter().flat_map(|client| &client.subscribed);
            let groups: BTreeSet<&str> = subscribed
                .filter(|(_, since)| **since < sent.number)
                .filter_map(|(filter, _)| {
                    let rest = filter
                        .strip_prefix("$share/g/")
                        .or(filter.strip_prefix("$queue/"))?;
                    topic::matches(rest, sent.topic).then_some(filter.as_str())
                })
                .collect();
            let known = self.clients.iter().flat_map(|client| &client.got);
            let count = known
                .filter(|got| got.is_shared && got.number == sent.number)
                .count();
            if count < groups.len() {
                return Err(format!("{groups:?} got {sent:?} {count} times"));
            }
            // A SUBACK may be lost with its connection: any group that clients may ask for can be there.
            let possible = FILTERS.iter().filter(|filter| {
                let rest = filter
                    .strip_prefix("$share/g/")
                    .or(filter.strip_prefix("$queue/"));
                rest.is_some_and(|rest| topic::matches(rest, sent.topic))
            });
            let most = possible.count();
            if sent.qos == QoS::ExactlyOnce && count > most {
                return Err(format!("{most} groups at most got {sent:?} {count} times"));
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        for at in 0..CLIENTS {
            if let Some(link) = self.clients[at].link.take() {
                self.node.handle(link, lost(Some(0)));
            }
        }
        self.settle()?;
        nothing_left(&self.node)
    }
}

fn lost(session_expiry_interval: Option<u32>) -> Request {
    Request::Disconnect(Box::new(Disconnect {
        cause: DisconnectCause::ConnectionLost,
        session_expiry_interval,
        keeps_will: false,
        user_properties: Vec::new(),
    }))
}

fn blank() -> Connect {
    Connect {
        client_id: String::new(),
        username: None,
        password: None,
        peer: None,
        local: None,
        connection: Arc::new(ConnectionInfo {
            protocol: "mqtt",
            proto_name: "MQTT",
            proto_ver: 5,
            listener: "tcp:default".into(),
            zone: "default".into(),
        }),
        certificate: None,
        mountpoint: "".into(),
        clean_start: true,
        session_expiry_interval: 0,
        keep_alive: 0,
        receive_maximum: 65_535,
        auth: None,
        will: None,
        user_properties: Vec::new(),
        is_bridge: false,
        keeps_will: false,
        may_sleep: false,
        wake: None,
    }
}

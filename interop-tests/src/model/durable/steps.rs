//! What clients, time and the store do next.

use broker_core::{
    LinkId, MessageParts, Publish, QoS, ReasonCode, Request, RetainHandling, Subscribe, SubscribeOptions,
    Unsubscribe, store::Fault,
};

use super::{
    CLIENTS, Durable,
    client::Publishing,
    ledger::{Kind, Note},
    subscriptions::is_shared,
};
use crate::model::{packet_id, script};

const TOPICS: &[&str] = &["a", "a/b", "b", "b/c"];
/// Only messages of these topics are retained.
pub(super) const RETAINED: &[&str] = &["r/1", "r/2", "r/3"];
const LATE: &[&str] = &["late/1", "late/2"];
const FILTERS: &[&str] = &[
    "a", "a/b", "#", "a/#", "+", "b/+", "+/+", "r/#", "r/1", "r/+", "late/#", "late/1", "will/#", "will/+",
];
/// With the subscription identifiers by which their deliveries are known.
pub(super) const GROUPS: &[(&str, u32)] = &[
    ("$share/g/a/#", 1000),
    ("$share/g/#", 1001),
    ("$share/h/#", 1002),
    ("$queue/b", 1003),
];
/// Messages of a client that are not complete; the broker's Receive Maximum is 100.
const PUBLISHING_MAX: usize = 90;

impl Durable {
    pub(super) fn step(&mut self) -> Result<(), String> {
        let pick = self.random.below(200);
        match pick {
            0..=4 => return self.crash(),
            5..=8 => {
                let is_stalled = !self.is_stalled && self.random.chance(60);
                self.stall(is_stalled);
                return Ok(());
            }
            9..=12 if self.world.has_faults => {
                let fault = [None, Some(Fault::Full), Some(Fault::Unavailable)][self.random.below(3)].clone();
                self.set_fault(fault);
                return Ok(());
            }
            13..=24 => {
                let most = [300, 1000, 5000, 70_000][self.random.below(4)];
                let millis = u64::from(self.random.between(1, most));
                self.log(|_| format!("time passes: {millis} ms"));
                return self.pass(millis);
            }
            25..=34 => return self.settle(),
            _ => {}
        }
        let at = self.random.below(CLIENTS);
        if !self.clients[at].is_online() {
            let chance = if self.world.is_long { 8 } else { 40 };
            if self.random.chance(chance) {
                self.connect(at)?;
            }
            return self.events();
        }
        let link = self.clients[at].link.expect("it is online");
        let pick = self.random.below(100);
        match pick {
            0..=6 => return self.lose(at),
            7..=8 => self.connect(at)?,
            9..=10 => {
                let congested = self.random.chance(40);
                self.log(|_| format!("{link:?} congested: {congested}"));
                self.node.congest(link, congested);
            }
            // Its socket is not read.
            _ if self.node.is_held(link) => {}
            11..=25 => self.subscribe(at, link),
            26..=31 => self.unsubscribe(at, link),
            32..=50 => self.acknowledge(at, link),
            51..=53 if self.world.is_long => self.burst(at, link)?,
            // More waits for the store than it should.
            54..=63 if self.is_stalled && self.world.payload > 1000 => self.burst(at, link)?,
            _ => self.publish(at, link),
        }
        self.events()
    }

    pub(super) fn stall(&mut self, is_stalled: bool) {
        if self.is_stalled != is_stalled {
            self.log(|_| format!("stalled: {is_stalled}"));
        }
        self.is_stalled = is_stalled;
        self.node.stall(is_stalled);
    }

    pub(super) fn set_fault(&mut self, fault: Option<Fault>) {
        if fault != self.fault {
            self.log(|_| format!("commits fail: {fault:?}"));
        }
        if fault.is_some() {
            self.faulty_at = Some(self.ledger.tick);
            self.ledger.shake();
        }
        self.fault.clone_from(&fault);
        self.node.store().fail(fault);
    }

    fn subscribe(&mut self, at: usize, link: LinkId) {
        let is_v5 = self.clients[at].is_v5;
        let is_shared = is_v5 && self.random.chance(25);
        let (mut filters, mut id) = (Vec::new(), None);
        if is_shared {
            let (filter, number) = GROUPS[self.random.below(GROUPS.len())];
            id = Some(number);
            filters.push(filter.to_owned());
        } else {
            if is_v5 && self.random.chance(50) {
                id = Some(self.random.between(1, 9));
            }
            for _ in 0..=self.random.below(2) {
                let filter = self.random.pick(FILTERS).to_owned();
                if !filters.contains(&filter) {
                    filters.push(filter);
                }
            }
        }
        let options = SubscribeOptions {
            qos: [
                QoS::AtMostOnce,
                QoS::AtLeastOnce,
                QoS::ExactlyOnce,
                QoS::ExactlyOnce,
            ][self.random.below(4)],
            no_local: is_v5 && !is_shared && self.random.chance(15),
            retain_as_published: is_v5 && self.random.chance(30),
            retain_handling: match self.random.below(if is_v5 { 4 } else { 1 }) {
                0 | 1 => RetainHandling::Send,
                2 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
        };
        self.subscribe_to(at, link, &filters, options, id);
    }

    pub(super) fn subscribe_to(
        &mut self,
        at: usize,
        link: LinkId,
        filters: &[String],
        options: SubscribeOptions,
        id: Option<u32>,
    ) {
        self.ledger.tick += 1;
        let tick = self.ledger.tick;
        let client = &mut self.clients[at];
        let number = client.next_id();
        for filter in filters {
            client.subscriptions.ask(tick, filter, Some((options, id)));
        }
        client.asking.insert(number, (filters.to_vec(), tick));
        client.replays += 1;
        let subscribe = Subscribe {
            packet_id: packet_id(number),
            filters: filters.iter().map(|filter| (filter.clone(), options)).collect(),
            subscription_id: id,
            user_properties: Vec::new(),
        };
        self.request(link, Request::Subscribe(Box::new(subscribe)));
    }

    fn unsubscribe(&mut self, at: usize, link: LinkId) {
        let held = self.clients[at].subscriptions.held();
        if held.is_empty() {
            return;
        }
        let filter = held[self.random.below(held.len())].clone();
        self.ledger.tick += 1;
        let tick = self.ledger.tick;
        if is_shared(&filter) {
            self.left.insert(filter.clone(), u64::MAX);
        }
        let client = &mut self.clients[at];
        let number = client.next_id();
        client.subscriptions.ask(tick, &filter, None);
        client.asking.insert(number, (vec![filter.clone()], tick));
        let unsubscribe = Unsubscribe {
            packet_id: packet_id(number),
            filters: vec![filter],
            user_properties: Vec::new(),
        };
        self.request(link, Request::Unsubscribe(Box::new(unsubscribe)));
    }

    /// The client catches up with what it owes.
    fn acknowledge(&mut self, at: usize, link: LinkId) {
        if self.clients[at].acks == super::Acks::Never {
            return;
        }
        for _ in 0..=self.random.below(4) {
            let Some((request, number)) = self.clients[at].owed.pop_front() else {
                return;
            };
            self.answer(at, link, request, number);
        }
    }

    fn burst(&mut self, at: usize, link: LinkId) -> Result<(), String> {
        let topic = *self.random.pick(&[&"a", &"a/b"]);
        for _ in 0..self.random.between(50, 400) {
            if self.clients[at].link != Some(link)
                || self.clients[at].publishing.len() >= PUBLISHING_MAX
                || self.node.is_held(link)
            {
                break;
            }
            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][self.random.below(2)];
            self.send_new(at, link, topic, qos, Kind::Plain, (false, false), None);
            if self.random.chance(60) {
                self.node.step();
            }
            self.events()?;
        }
        Ok(())
    }

    fn publish(&mut self, at: usize, link: LinkId) {
        let qos = script::any_qos(&mut self.random);
        let now = self.now();
        match self.random.below(100) {
            0..=17 => {
                let topic = self.random.pick(RETAINED);
                let retain = self.random.chance(80);
                let is_empty = self.random.chance(20);
                let expiry = self.random.chance(15).then_some(30);
                self.send_new(at, link, topic, qos, Kind::Plain, (retain, is_empty), expiry);
            }
            18..=25 => {
                let seconds = [0, 1, 4, 30][self.random.below(4)];
                let topic = self.random.pick(LATE);
                let due = now + seconds * 1000;
                self.send_new(at, link, topic, qos, Kind::Delayed(due), (false, false), None);
            }
            _ => {
                let topic = self.random.pick(TOPICS);
                let expiry = self.random.chance(10).then(|| [1, 10][self.random.below(2)]);
                self.send_new(at, link, topic, qos, Kind::Plain, (false, false), expiry);
            }
        }
    }

    /// Sends a new message.
    #[expect(clippy::too_many_arguments, reason = "what a message is made of")]
    pub(super) fn send_new(
        &mut self,
        at: usize,
        link: LinkId,
        topic: &str,
        qos: QoS,
        kind: Kind,
        (retain, is_empty): (bool, bool),
        expiry: Option<u32>,
    ) {
        if qos > QoS::AtMostOnce && self.clients[at].publishing.len() >= PUBLISHING_MAX {
            return;
        }
        self.ledger.tick += 1;
        let number = self.ledger.next_number();
        let now = self.now();
        self.ledger.add(Note {
            topic: topic.to_owned(),
            qos,
            retain,
            is_empty,
            // A fault may hit it. A delayed one is not known to be stored before its acknowledgement.
            is_shaky: self.fault.is_some() || matches!(kind, Kind::Delayed(_)),
            expires: expiry.map_or(u64::MAX, |seconds| now + u64::from(seconds) * 1000),
            kind,
            ..self.blank_note(at)
        });
        let mut id = 0;
        if qos > QoS::AtMostOnce {
            let client = &mut self.clients[at];
            id = client.next_id();
            client.publishing.push_back(Publishing {
                id,
                number,
                is_released: false,
            });
        }
        self.send(at, link, number, id, false);
    }

    pub(super) fn blank_note(&self, publisher: usize) -> Note {
        Note {
            number: self.ledger.next_number(),
            publisher,
            topic: String::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            is_empty: false,
            begin: 0,
            end: u64::MAX,
            sure: None,
            attempts: 1,
            is_shaky: false,
            expires: u64::MAX,
            kind: Kind::Plain,
        }
    }

    fn send(&mut self, at: usize, link: LinkId, number: u64, id: u16, dup: bool) {
        let now = self.now();
        let note = self.ledger.note(number);
        let seconds =
            |until: u64| u32::try_from(until.saturating_sub(now).div_ceil(1000)).unwrap_or(u32::MAX);
        let topic = match note.kind {
            Kind::Delayed(due) => format!("$delayed/{}/{}", due.saturating_sub(now) / 1000, note.topic),
            _ => note.topic.clone(),
        };
        let properties = script::identity(number);
        let payload = vec![b'x'; if note.is_empty { 0 } else { self.world.payload }];
        let parts = MessageParts {
            topic: &topic,
            qos: note.qos,
            retain: note.retain,
            expiry_interval: (note.expires < u64::MAX).then(|| seconds(note.expires).max(1)),
            properties: properties.as_properties(),
            payload: &payload,
        };
        let info = self.clients[at].info.as_ref().expect("it is online");
        let message = parts.publish(self.node.now(), info).expect("a short topic");
        let publish = Publish {
            message,
            packet_id: (id > 0).then(|| packet_id(id)),
            dup,
        };
        self.ledger.tick += 1;
        self.log(|_| {
            format!(
                "{link:?} > PUBLISH {number} {topic} {:?} {id} dup {dup}",
                publish.message.qos()
            )
        });
        self.node.handle(link, Request::Publish(publish));
    }

    /// The session is there: what was not acknowledged is sent again, in its order [MQTT-4.4.0-1].
    pub(super) fn resend(&mut self, at: usize, link: LinkId) {
        let publishing: Vec<Publishing> = self.clients[at].publishing.iter().copied().collect();
        for one in publishing {
            if one.is_released {
                self.request(link, Request::PubRel(packet_id(one.id), ReasonCode::Success));
            } else {
                self.ledger.resent(one.number, self.now());
                self.send(at, link, one.number, one.id, true);
            }
        }
    }
}

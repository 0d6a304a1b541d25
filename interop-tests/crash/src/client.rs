//! A client that keeps its session as the specification wants it: over reconnects it sends again what is not
//! acknowledged, in order and with the same packet identifiers, and remembers the QoS 2 identifiers that it has received.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, ErrorKind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    history::{ClientNo, Delivery, Fault, Kind, TextNo, What},
    link::Link,
    load::Shared,
    payload,
    random::Random,
    wire::{self, Ack, Connect, Packet, Publish, Version, Will},
};

/// How long CONNACK may take.
const CONNACK_WAIT: Duration = Duration::from_secs(30);
/// How long one read waits.
const READ_WAIT: Duration = Duration::from_millis(8);
/// Reason codes of a broker that says that this client broke the rules.
const ACCUSATIONS: [u8; 5] = [0x81, 0x82, 0x93, 0x94, 0x95];

/// A message under way to the broker.
#[derive(Debug)]
struct Outgoing {
    number: u32,
    publish: Publish,
    /// PUBREL was sent on an earlier connection.
    was_released: bool,
    is_released: bool,
}

/// A message to be published.
#[derive(Debug)]
pub(crate) struct Outgo {
    /// What is sent, with the prefix of delayed messages.
    pub(crate) sent_to: String,
    pub(crate) topic: TextNo,
    pub(crate) qos: u8,
    pub(crate) kind: Kind,
    pub(crate) padding: usize,
}

/// What a client does when a packet calls for an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// Longest delay of an acknowledgement.
    pub(crate) ack_delay_ms: u64,
    /// The connection is torn once in so many QoS 1 and 2 messages, before or after the acknowledgement; 0: never.
    pub(crate) tear_once_in: u64,
}

/// Client, session and connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) no: ClientNo,
    name: String,
    version: Version,
    expiry: u64,
    pub(crate) manners: Manners,
    pub(crate) random: Random,
    link: Option<Link>,
    next_id: u16,
    numbers: u32,
    outgoing: VecDeque<Outgoing>,
    /// QoS 2 identifiers received and not released, and what they carried.
    held: BTreeMap<u16, (ClientNo, u32)>,
    /// QoS 1 identifiers of this connection that are not acknowledged.
    unacked: BTreeMap<u16, (ClientNo, u32)>,
    acks: VecDeque<(Instant, Ack, u16)>,
    /// SUBSCRIBE and UNSUBSCRIBE that wait for their answers.
    asked: BTreeMap<u16, (TextNo, bool)>,
    /// Topics of what came on this connection.
    seen: BTreeSet<TextNo>,
    /// Filters whose SUBACK was seen.
    pub(crate) subscribed: BTreeSet<TextNo>,
    last_publish: Instant,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, no: ClientNo, manners: Manners) -> Client {
        let info = shared.recorder.lock().clients[usize::from(no)].clone();
        Client {
            random: Random::named(shared.seed, &info.name),
            shared,
            no,
            name: info.name,
            version: info.version,
            expiry: info.expiry,
            manners,
            link: None,
            next_id: 0,
            numbers: 0,
            outgoing: VecDeque::new(),
            held: BTreeMap::new(),
            unacked: BTreeMap::new(),
            acks: VecDeque::new(),
            asked: BTreeMap::new(),
            seen: BTreeSet::new(),
            subscribed: BTreeSet::new(),
            last_publish: Instant::now(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Messages that are not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether no exchange is under way in either direction.
    pub(crate) fn is_idle(&self) -> bool {
        self.outgoing.is_empty() && self.held.is_empty() && self.acks.is_empty() && self.asked.is_empty()
    }

    /// How long no message has come.
    pub(crate) fn quiet(&self) -> Duration {
        self.last_publish.elapsed()
    }

    /// Number of topics from which something came on this connection.
    pub(crate) fn topics_seen(&self) -> usize {
        self.seen.len()
    }

    /// What is under way, for people.
    pub(crate) fn unfinished(&self) -> String {
        let outgoing: Vec<_> = self
            .outgoing
            .iter()
            .map(|it| (it.publish.id, it.number))
            .collect();
        format!(
            "outgoing {outgoing:?}, held {:?}, requests {:?}",
            self.held, self.asked
        )
    }

    fn record(&self, what: What) {
        self.shared.recorder.record(self.no, what);
    }

    fn notice(&self, fault: Fault, text: String) {
        self.shared.recorder.notice(self.no, fault, text);
    }

    fn id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let id = self.next_id;
            if !self.asked.contains_key(&id) && self.outgoing.iter().all(|it| it.publish.id != id) {
                return id;
            }
        }
    }

    /// One attempt to connect. `will`: topic, QoS, delay in seconds.
    pub(crate) fn connect(&mut self, clean: bool, will: Option<(TextNo, u8, u8)>) -> bool {
        let Ok(mut link) = Link::open(self.shared.address, self.version, READ_WAIT) else {
            return false;
        };
        let will = will.map(|(topic, qos, delay)| self.will(topic, qos, delay));
        let number = if will.is_some() { self.numbers } else { 0 };
        self.record(What::Connecting { clean, will: number });
        let connect = Connect {
            version: self.version,
            client_id: self.name.clone(),
            clean,
            expiry: u32::try_from(self.expiry / 1000).unwrap_or(u32::MAX),
            will,
        };
        let answer = link
            .send(&wire::connect(&connect))
            .and_then(|()| connack(&mut link));
        match answer {
            Ok(present) => {
                self.record(What::Connected { present });
                self.link = Some(link);
                self.last_publish = Instant::now();
                self.resume(present);
                true
            }
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    self.notice(Fault::Protocol, format!("CONNACK: {error}"));
                }
                self.record(What::Ended { orderly: false });
                false
            }
        }
    }

    fn will(&mut self, topic: TextNo, qos: u8, delay: u8) -> Will {
        self.numbers += 1;
        let number = self.numbers;
        let kind = Kind::Will(delay);
        self.record(What::Publishing {
            number,
            topic,
            qos,
            kind,
        });
        Will {
            topic: self.shared.topics[usize::from(topic)].clone(),
            payload: payload::make(self.no, number, 16),
            qos,
            delay: u32::from(delay),
        }
    }

    /// MQTT 5 §4.4: what is not acknowledged is sent again. Without a session on the other side there is nothing to resume.
    fn resume(&mut self, present: bool) {
        self.unacked.clear();
        self.seen.clear();
        self.acks.clear();
        if !present {
            self.outgoing.clear();
            self.held.clear();
            self.subscribed.clear();
            return;
        }
        let mut packets = Vec::new();
        for at in 0..self.outgoing.len() {
            let it = &mut self.outgoing[at];
            if it.is_released {
                it.was_released = true;
                packets.extend(wire::ack(Ack::Pubrel, it.publish.id));
                continue;
            }
            it.publish.dup = true;
            packets.extend(wire::publish(self.version, &it.publish));
            let number = it.number;
            self.record(What::Resending { number });
        }
        self.send(&packets);
    }

    fn send(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let sent = self.link.as_mut().map(|link| link.send(bytes));
        if let Some(Err(_)) = sent {
            self.drop_link();
        }
    }

    /// Closes the socket without a word.
    pub(crate) fn drop_link(&mut self) {
        // Recorded first: once the broker sees it, what follows from it may reach others.
        if self.link.is_some() {
            self.ended(false);
            self.link = None;
        }
    }

    fn ended(&mut self, orderly: bool) {
        self.asked.clear();
        self.record(What::Ended { orderly });
    }

    /// Leaves with DISCONNECT and waits until the broker has closed.
    pub(crate) fn leave(&mut self) {
        self.send(&wire::disconnect());
        let Some(mut link) = self.link.take() else { return };
        let deadline = Instant::now() + Duration::from_secs(5);
        let orderly = loop {
            match link.receive() {
                // A reset says as little as silence about whether DISCONNECT was read.
                Err(error) => break error.kind() == ErrorKind::UnexpectedEof,
                Ok(_) if Instant::now() > deadline => break false,
                // What still comes stays unacknowledged.
                Ok(_) => {}
            }
        };
        self.ended(orderly);
    }

    pub(crate) fn subscribe(&mut self, filter: TextNo, qos: u8) {
        let id = self.id();
        self.asked.insert(id, (filter, true));
        self.record(What::Subscribing { filter });
        let text = self.shared.filters[usize::from(filter)].clone();
        self.send(&wire::subscribe(self.version, id, &text, qos));
    }

    pub(crate) fn unsubscribe(&mut self, filter: TextNo) {
        let id = self.id();
        self.asked.insert(id, (filter, false));
        self.record(What::Unsubscribing { filter });
        let text = self.shared.filters[usize::from(filter)].clone();
        self.send(&wire::unsubscribe(self.version, id, &text));
    }

    /// Whether a SUBSCRIBE or UNSUBSCRIBE of this filter waits for its answer.
    pub(crate) fn is_asking(&self, filter: TextNo) -> bool {
        self.asked.values().any(|(asked, _)| *asked == filter)
    }

    pub(crate) fn ping(&mut self) {
        self.send(&wire::pingreq());
    }

    pub(crate) fn publish(&mut self, out: &Outgo) {
        self.numbers += 1;
        let number = self.numbers;
        let id = if out.qos > 0 { self.id() } else { 0 };
        let payload = match out.kind {
            Kind::Clear => Vec::new(),
            _ => payload::make(self.no, number, out.padding),
        };
        let publish = Publish {
            topic: out.sent_to.clone(),
            payload,
            qos: out.qos,
            dup: false,
            retain: matches!(out.kind, Kind::Retained | Kind::Clear),
            id,
        };
        self.record(What::Publishing {
            number,
            topic: out.topic,
            qos: out.qos,
            kind: out.kind,
        });
        let bytes = wire::publish(self.version, &publish);
        if out.qos > 0 {
            self.outgoing.push_back(Outgoing {
                number,
                publish,
                was_released: false,
                is_released: false,
            });
        }
        self.send(&bytes);
    }

    /// Sends due acknowledgements, and handles what comes within one wait.
    pub(crate) fn turn(&mut self) {
        self.send_acks();
        let mut next = match &mut self.link {
            Some(link) => link.receive(),
            None => return,
        };
        for _ in 0..256 {
            match next {
                Ok(None) => break,
                Ok(Some(packet)) => {
                    self.handle(packet);
                }
                Err(error) => {
                    self.broken(&error);
                    return;
                }
            }
            next = match &mut self.link {
                Some(link) => link.buffered(),
                None => return,
            };
        }
        self.send_acks();
    }

    fn broken(&mut self, error: &io::Error) {
        if error.kind() == ErrorKind::InvalidData {
            self.notice(Fault::Protocol, format!("malformed packet: {error}"));
        }
        self.drop_link();
    }

    fn send_acks(&mut self) {
        let now = Instant::now();
        let mut packets = Vec::new();
        // In the order in which the messages came (§4.6), so a slow one holds up those behind it.
        while let Some((due, ack, id)) = self.acks.front().copied() {
            if due > now {
                break;
            }
            self.acks.pop_front();
            packets.extend(wire::ack(ack, id));
            if ack == Ack::Puback {
                self.unacked.remove(&id);
            } else {
                self.record(What::Handshake { ack, id });
            }
        }
        self.send(&packets);
    }

    fn answer(&mut self, ack: Ack, id: u16) {
        let delay = Duration::from_millis(self.random.below(self.manners.ack_delay_ms + 1));
        self.acks.push_back((Instant::now() + delay, ack, id));
        if self.tears() {
            if self.random.once_in(2) {
                self.send_acks();
            }
            self.drop_link();
        }
    }

    fn tears(&mut self) -> bool {
        self.manners.tear_once_in > 0 && self.random.once_in(self.manners.tear_once_in)
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.incoming(&publish),
            Packet::Ack { ack, id, code } => match ack {
                Ack::Pubrel => self.released(id),
                _ => self.acknowledged(ack, id, code),
            },
            Packet::Suback { id, codes } => self.suback(id, &codes),
            Packet::Unsuback { id, codes } => {
                if let Some((filter, _)) = self.asked.remove(&id) {
                    let existed = codes.first() != Some(&0x11);
                    self.subscribed.remove(&filter);
                    self.record(What::Unsubscribed { filter, existed });
                }
            }
            Packet::Disconnect { code } => {
                if ACCUSATIONS.contains(&code) {
                    self.notice(Fault::Protocol, format!("DISCONNECT {code:#x}"));
                }
                self.drop_link();
            }
            Packet::Pingresp => {}
            Packet::Connack { .. } => {
                self.notice(Fault::Protocol, "a second CONNACK".into());
                self.drop_link();
            }
        }
    }

    fn suback(&mut self, id: u16, codes: &[u8]) {
        let Some((filter, true)) = self.asked.remove(&id) else {
            return self.notice(Fault::Protocol, format!("SUBACK {id} that nothing asked for"));
        };
        // A refusal is tried again by the caller.
        if let &[qos @ 0..=2] = codes {
            self.subscribed.insert(filter);
            self.record(What::Subscribed { filter, qos });
        }
    }

    fn acknowledged(&mut self, ack: Ack, id: u16, code: u8) {
        let Some(at) = self.outgoing.iter().position(|it| it.publish.id == id) else {
            return self.notice(Fault::Protocol, format!("{ack:?} {id} is not under way"));
        };
        let it = &mut self.outgoing[at];
        let number = it.number;
        let expected = match (it.publish.qos, it.is_released) {
            (1, _) => Ack::Puback,
            (_, false) => Ack::Pubrec,
            // PUBREC may come again for a PUBLISH that was sent again.
            (_, true) if ack == Ack::Pubrec => return self.send(&wire::ack(Ack::Pubrel, id)),
            (_, true) => Ack::Pubcomp,
        };
        if ack != expected {
            return self.notice(Fault::Protocol, format!("{ack:?} {id} instead of {expected:?}"));
        }
        if ack == Ack::Pubcomp {
            if code >= 0x80 && !it.was_released {
                let text = format!("PUBCOMP {code:#x} for {number} with identifier {id}, released once");
                self.notice(Fault::PacketIdentifier, text);
            }
            self.outgoing.remove(at);
            return;
        }
        if code >= 0x80 {
            self.outgoing.remove(at);
            return self.record(What::Refused { number });
        }
        if ack == Ack::Pubrec {
            it.is_released = true;
        }
        self.record(What::Acknowledged { number });
        self.shared.progress[usize::from(self.no)].fetch_add(1, Ordering::Relaxed);
        if ack == Ack::Puback {
            self.outgoing.remove(at);
        } else if self.tears() {
            self.drop_link();
        } else {
            self.send(&wire::ack(Ack::Pubrel, id));
        }
    }

    fn released(&mut self, id: u16) {
        let ack = Ack::Pubrel;
        self.record(What::Handshake { ack, id });
        self.held.remove(&id);
        self.answer(Ack::Pubcomp, id);
    }

    fn incoming(&mut self, publish: &Publish) {
        if publish.topic.starts_with("$SYS/") {
            let text = String::from_utf8_lossy(&publish.payload).into_owned();
            return self.shared.told(&publish.topic, text);
        }
        self.last_publish = Instant::now();
        if publish.payload.is_empty() {
            self.answer_publish(publish);
            return;
        }
        let known = self
            .shared
            .topics
            .iter()
            .position(|topic| *topic == publish.topic);
        let (Some(topic), Some((publisher, number))) = (known, payload::read(&publish.payload)) else {
            let text =
                String::from_utf8_lossy(&publish.payload[..publish.payload.len().min(40)]).into_owned();
            return self.notice(Fault::Protocol, format!("{} carries {text:?}", publish.topic));
        };
        let delivery = Delivery {
            publisher,
            number,
            topic: TextNo::try_from(topic).unwrap_or(TextNo::MAX),
            id: publish.id,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
        };
        self.seen.insert(delivery.topic);
        self.check_identifier(&delivery);
        let is_repeated = publish.qos == 2 && self.held.contains_key(&publish.id);
        if is_repeated {
            self.record(What::Repeated(delivery));
        } else {
            self.record(What::Delivered(delivery));
            self.shared.progress[usize::from(self.no)].fetch_add(1, Ordering::Relaxed);
        }
        match publish.qos {
            1 => self.unacked.insert(publish.id, (publisher, number)),
            2 => self.held.insert(publish.id, (publisher, number)),
            _ => None,
        };
        self.answer_publish(publish);
    }

    fn answer_publish(&mut self, publish: &Publish) {
        match publish.qos {
            1 => self.answer(Ack::Puback, publish.id),
            2 => {
                // Also of one without content, which nothing else keeps.
                self.held.entry(publish.id).or_insert((ClientNo::MAX, 0));
                self.answer(Ack::Pubrec, publish.id);
            }
            _ => {}
        }
    }

    fn check_identifier(&self, delivery: &Delivery) {
        if delivery.qos == 0 {
            return;
        }
        let message = (delivery.publisher, delivery.number);
        if self
            .acks
            .iter()
            .any(|(_, ack, id)| (*ack, *id) == (Ack::Pubcomp, delivery.id))
        {
            let text = format!("identifier {} carries {message:?} before PUBCOMP", delivery.id);
            return self.notice(Fault::PacketIdentifier, text);
        }
        let in_use = self
            .unacked
            .get(&delivery.id)
            .or_else(|| self.held.get(&delivery.id));
        let is_other_qos = delivery.qos == 1 && self.held.contains_key(&delivery.id);
        if let Some(carried) = in_use.filter(|carried| **carried != message || is_other_qos) {
            let text = format!(
                "identifier {} carries {message:?} while in use for {carried:?}",
                delivery.id
            );
            self.notice(Fault::PacketIdentifier, text);
        }
    }
}

/// Waits for CONNACK; session present.
fn connack(link: &mut Link) -> io::Result<bool> {
    let deadline = Instant::now() + CONNACK_WAIT;
    while Instant::now() < deadline {
        match link.receive()? {
            Some(Packet::Connack {
                session_present,
                code: 0,
            }) => return Ok(session_present),
            Some(Packet::Connack { code, .. }) => {
                return Err(io::Error::other(format!("CONNACK {code:#x}")));
            }
            Some(_) => {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "another packet comes first",
                ));
            }
            None => {}
        }
    }
    Err(ErrorKind::TimedOut.into())
}

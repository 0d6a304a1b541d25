//! Lost, doubled and reordered messages.

use std::collections::BTreeMap;

use crate::history::{ClientNo, Delivery, Event, Fault, Kind, TextNo, What};

use super::{Violation, Walk, is_shared};

/// Milliseconds by which a deadline may be early: the broker counts from the beginning of the turn in which it read the
/// message, and a turn may last on a busy machine.
const ROUNDING: u32 = 250;

/// Whether subscribers have to get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    Perhaps,
    Due,
    Never,
}

/// A message that was published.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Of the event.
    index: usize,
    at: u32,
    topic: TextNo,
    qos: u8,
    pub(super) kind: Kind,
    /// How often it was sent.
    sends: u16,
    pub(super) duty: Duty,
    was_delivered: bool,
}

impl Message {
    /// The category of what goes wrong with it.
    const fn fault(&self, plain: Fault) -> Fault {
        match self.kind {
            Kind::Delayed(_) => Fault::Delayed,
            Kind::Will(_) => Fault::Will,
            _ => plain,
        }
    }

    /// How often it may be delivered as a new message.
    const fn deliveries_max(&self) -> u16 {
        if self.qos == 2 { 1 } else { self.sends }
    }
}

/// How often one client got one message.
#[derive(Clone, Copy, Debug, Default)]
struct Got {
    /// Deliveries to the application.
    times: u16,
    /// Of them, without DUP.
    fresh: u16,
    /// Also as a retained message of a new subscription.
    at_all: bool,
    /// On which connection, the last time.
    connection: u32,
}

/// How often the members of a group got one message.
#[derive(Clone, Debug, Default)]
struct GotByGroup {
    times: u16,
    /// Of them, as a new message: without DUP or to another member, unless it may be handed on.
    fresh: u16,
    /// A member got it with QoS 2.
    is_once: bool,
    deliveries: Vec<ToMember>,
}

/// One delivery to a member.
#[derive(Clone, Debug)]
struct ToMember {
    member: ClientNo,
    connection: u32,
    /// After how many kills.
    kills: u32,
    /// Another member got it in place of this one.
    is_handed_on: bool,
}

/// What one client got.
#[derive(Debug)]
pub(super) struct Received {
    /// By publisher and number - 1.
    got: Vec<Vec<Got>>,
    /// The last number by publisher, topic, QoS of either hop.
    last: BTreeMap<(ClientNo, TextNo, u8, u8), u32>,
}

impl Received {
    pub(super) fn new(clients: usize) -> Received {
        Received {
            got: vec![Vec::new(); clients],
            last: BTreeMap::new(),
        }
    }
}

/// What the members of each shared filter got.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<TextNo, BTreeMap<(ClientNo, u32), GotByGroup>>);

fn entry(got: &mut Vec<Got>, number: u32) -> &mut Got {
    let index = number.saturating_sub(1) as usize;
    if got.len() <= index {
        got.resize(index + 1, Got::default());
    }
    &mut got[index]
}

impl Walk<'_> {
    pub(super) fn publication(&mut self, index: usize, event: &Event) {
        let client = event.client;
        match event.what {
            What::Publishing { topic, qos, kind, .. } => {
                self.report.figures.published += u64::from(qos > 0 && !matches!(kind, Kind::Will(_)));
                self.report.figures.delayed += u64::from(matches!(kind, Kind::Delayed(_)));
                self.messages[usize::from(client)].push(Message {
                    index,
                    at: event.at,
                    topic,
                    qos,
                    kind,
                    sends: 1,
                    duty: Duty::Perhaps,
                    was_delivered: false,
                });
            }
            What::Resending { number } => {
                self.report.figures.resent += 1;
                if let Some(message) = self.message(client, number) {
                    message.sends += 1;
                }
            }
            What::Acknowledged { number } => {
                self.report.figures.acknowledged += 1;
                if let Some(message) = self.message(client, number) {
                    message.duty = Duty::Due;
                    let (topic, kind) = (message.topic, message.kind);
                    self.observations.acknowledged(topic, number, kind);
                }
            }
            What::Refused { number } => {
                self.report.figures.refused += 1;
                if let Some(message) = self.message(client, number) {
                    message.duty = Duty::Perhaps;
                }
            }
            _ => {}
        }
    }

    pub(super) fn delivered(&mut self, at: u32, client: ClientNo, delivery: &Delivery) {
        self.report.figures.delivered += 1;
        self.report.figures.delivered_dup += u64::from(delivery.dup);
        let about = Some((delivery.publisher, delivery.number));
        let Some(message) = self.message(delivery.publisher, delivery.number) else {
            return self.violation(Fault::Protocol, client, about, "was never published".into());
        };
        message.was_delivered = true;
        let message = message.clone();
        let shared = self.sessions[usize::from(client)]
            .filters()
            .find(|filter| is_shared(&self.history.filters[usize::from(*filter)]));
        if message.topic != delivery.topic || delivery.qos > message.qos {
            self.violation(
                Fault::Protocol,
                client,
                about,
                "with another topic or a higher QoS".into(),
            );
        }
        if let Kind::Delayed(seconds) = message.kind
            && at + ROUNDING < message.at + u32::from(seconds) * 1000
        {
            let text = format!("after {} ms of {seconds} s", at - message.at);
            self.violation(Fault::Delayed, client, about, text);
        }
        if self.history.clients[usize::from(client)].observer {
            return self.observe(client, delivery);
        }
        match shared {
            Some(filter) => self.delivered_to_group(filter, client, delivery, &message),
            None => self.delivered_to_client(client, delivery, &message),
        }
    }

    fn delivered_to_client(&mut self, client: ClientNo, delivery: &Delivery, message: &Message) {
        let about = Some((delivery.publisher, delivery.number));
        let connection = self.sessions[usize::from(client)].connection;
        let received = &mut self.received[usize::from(client)];
        let got = entry(
            &mut received.got[usize::from(delivery.publisher)],
            delivery.number,
        );
        got.at_all = true;
        if delivery.retain {
            return;
        }
        let is_again = got.times > 0 && got.connection == connection;
        got.times += 1;
        got.fresh += u16::from(!delivery.dup);
        got.connection = connection;
        let (times, fresh) = (got.times, got.fresh);
        let max = message.deliveries_max();
        let mut is_reordered = false;
        if times == 1 {
            let key = (delivery.publisher, delivery.topic, delivery.qos, message.qos);
            let last = received.last.entry(key).or_default();
            is_reordered = matches!(message.kind, Kind::Plain | Kind::Retained) && delivery.number < *last;
            *last = delivery.number.max(*last);
        }
        let is_doubled = match delivery.qos {
            0 => times > max,
            1 => fresh > max || (is_again && max == 1),
            _ => times > max,
        };
        if is_doubled {
            let text = format!(
                "QoS {} delivered {times} times, {fresh} without DUP, at most {max}",
                delivery.qos
            );
            self.violation(message.fault(Fault::Doubled), client, about, text);
        }
        if is_reordered {
            let text = "comes after a later one".into();
            self.violation(Fault::Reordered, client, about, text);
        }
    }

    fn delivered_to_group(
        &mut self,
        filter: TextNo,
        client: ClientNo,
        delivery: &Delivery,
        message: &Message,
    ) {
        let about = (delivery.publisher, delivery.number);
        let got = self.groups.0.entry(filter).or_default().entry(about).or_default();
        let kills = self.process.kills;
        let connection = self.sessions[usize::from(client)].connection;
        // A member that had it is gone, so that the broker could not know whether it has it.
        let is_gone = |it: &&mut ToMember| {
            let other = &self.sessions[usize::from(it.member)];
            let is_past = it.kills != kills || other.connection != it.connection || !other.is_open();
            it.member != client && !it.is_handed_on && is_past
        };
        let had_it = got.deliveries.iter().any(|it| it.member == client);
        // If it was published more than once, this may be another copy than the one that it had.
        let may_be_handed_on = !had_it || (!delivery.dup && message.deliveries_max() > 1);
        if may_be_handed_on && let Some(gone) = got.deliveries.iter_mut().find(is_gone) {
            gone.is_handed_on = true;
        } else {
            got.fresh += u16::from(!had_it || !delivery.dup);
        }
        got.times += 1;
        got.deliveries.push(ToMember {
            member: client,
            connection,
            kills,
            is_handed_on: false,
        });
        let (times, fresh) = (got.times, got.fresh);
        // What a member has begun to get with QoS 2 it gets to the end, and nobody else gets it (MQTT 5 §4.8.2).
        let is_doubled = got.is_once || fresh > message.deliveries_max();
        got.is_once |= delivery.qos == 2;
        if is_doubled {
            let text = format!(
                "QoS {} delivered {times} times to the group, {fresh} as new",
                delivery.qos
            );
            self.report.add(Violation {
                fault: message.fault(Fault::Doubled),
                client,
                message: Some(about),
                group: Some(filter),
                text,
            });
        }
    }

    /// A Will that was sent although its client had taken it back.
    pub(super) fn check_wills_not_due(&mut self) {
        for (client, messages) in self.messages.iter().enumerate() {
            let undue = messages.iter().zip(1..);
            for (_, number) in undue.filter(|(it, _)| it.duty == Duty::Never && it.was_delivered) {
                let client = u16::try_from(client).unwrap_or(u16::MAX);
                self.report.add(Violation {
                    fault: Fault::Will,
                    client,
                    message: Some((client, number)),
                    group: None,
                    text: "sent although its client had left in order or was back in time".into(),
                });
            }
        }
    }

    pub(super) fn check_lost(&mut self) {
        let topics = self.history.topics.len();
        let mut groups: BTreeMap<TextNo, usize> = BTreeMap::new();
        for client in 0..self.sessions.len() {
            // The event from which on a topic's messages are due.
            let mut due_from: Vec<Option<usize>> = vec![None; topics];
            for it in self.sessions[client]
                .lasting(self.drained)
                .filter(|it| it.qos > 0)
            {
                if is_shared(&self.history.filters[usize::from(it.filter)]) {
                    let since = groups.entry(it.filter).or_insert(it.since);
                    *since = it.since.min(*since);
                    continue;
                }
                for (topic, due_from) in due_from.iter_mut().enumerate() {
                    if self.matching[usize::from(it.filter)][topic] {
                        *due_from = Some(due_from.map_or(it.since, |since| since.min(it.since)));
                    }
                }
            }
            self.check_lost_to_client(client, &due_from);
        }
        for (filter, since) in groups {
            self.check_lost_to_group(filter, since);
        }
    }

    fn check_lost_to_client(&mut self, client: usize, due_from: &[Option<usize>]) {
        for publisher in 0..self.messages.len() {
            for (index, message) in self.messages[publisher].iter().enumerate() {
                let is_due = due_from[usize::from(message.topic)].is_some_and(|since| since < message.index);
                let got = self.received[client].got[publisher].get(index);
                if !is_due || !message.is_due_to_subscribers() || got.is_some_and(|got| got.at_all) {
                    continue;
                }
                let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
                let publisher = u16::try_from(publisher).unwrap_or(u16::MAX);
                self.report.add(Violation {
                    fault: message.fault(Fault::Lost),
                    client: u16::try_from(client).unwrap_or(u16::MAX),
                    message: Some((publisher, number)),
                    group: None,
                    text: "acknowledged and not delivered".into(),
                });
            }
        }
    }

    fn check_lost_to_group(&mut self, filter: TextNo, since: usize) {
        let none = BTreeMap::new();
        let got = self.groups.0.get(&filter).unwrap_or(&none);
        for (publisher, messages) in (0..).zip(&self.messages) {
            for (number, message) in (1..).zip(messages) {
                let is_due = self.matching[usize::from(filter)][usize::from(message.topic)]
                    && since < message.index
                    && message.is_due_to_subscribers();
                if is_due && !got.contains_key(&(publisher, number)) {
                    self.report.add(Violation {
                        fault: message.fault(Fault::Lost),
                        client: publisher,
                        message: Some((publisher, number)),
                        group: Some(filter),
                        text: format!(
                            "acknowledged and delivered to no member of {}",
                            self.history.filters[usize::from(filter)]
                        ),
                    });
                }
            }
        }
    }
}

impl Message {
    pub(super) fn is_on(&self, topic: TextNo) -> bool {
        self.topic == topic
    }

    fn is_due_to_subscribers(&self) -> bool {
        self.duty == Duty::Due && self.qos > 0 && self.kind != Kind::Clear
    }
}

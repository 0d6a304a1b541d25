//! The check of clients that sleep (MQTT-SN §6.14): sensors that fall asleep, wake, come back, are lost and are killed
//! with their node at any moment, and one client that publishes for them and listens to their Wills. What must hold:
//!
//! - a sensor that sleeps wakes with its guard, and finds its notes, until its time is over, also after a kill;
//! - it gets every acknowledged message of QoS 1, in order, the first time not as a repetition; and while it sleeps
//!   without a kill, every one of QoS 0;
//! - awake, it gets nothing of QoS 1 that was published after it woke, and it is told once, and only then, that it has
//!   acknowledged everything older;
//! - its Will is published if it is lost, and only then, and once;
//! - once all have left, nothing is left of them.

mod sensor;
mod wire;

use std::{collections::BTreeSet, time::Duration};

use broker_core::{
    Config, Connect, Disconnect, DisconnectCause, Event, MessageParts, PacketId, Publish, QoS, ReasonCode,
    Request, Subscribe, SubscribeOptions,
};
use testkit::{Node, Random};

use super::{common, durable::blank};
use sensor::{Sensor, State};
use wire::Line;

const SENSORS: usize = 4;
const PUBLISHER: usize = 9;
/// Timers are this late at most, milliseconds.
const SLACK_MS: u64 = 300;

#[derive(Debug)]
struct Sleepers {
    node: Node,
    random: Random,
    shards: u16,
    publisher: Line,
    sensors: Vec<Sensor>,
    /// The number of the last message.
    last: u32,
    /// The packet identifier of the publisher's last message.
    last_id: u16,
    /// Messages that the publisher has no acknowledgement of, by packet identifier.
    unacked: Vec<(PacketId, u32)>,
    /// Wills that were published.
    wills: BTreeSet<u32>,
    /// The store completes nothing.
    is_held: bool,
}

/// Runs `steps` random steps from `seed`.
///
/// # Errors
/// What the broker did wrong first.
pub fn run(seed: u64, steps: u64) -> Result<(), String> {
    let mut model = Sleepers::new(seed)?;
    for step in 0..steps {
        model.step().map_err(|what| format!("step {step}: {what}"))?;
    }
    model.finish()
}

impl Sleepers {
    fn new(seed: u64) -> Result<Sleepers, String> {
        let mut random = Random::new(seed);
        let mut config = Config::default();
        config.mqtt.max_inflight = [1, 3, 32][random.below(3)];
        config.mqtt.max_mqueue_len = 0;
        config.mqtt.max_mqueue_bytes = 0;
        config.mqtt.session_expiry_interval = Duration::from_secs(u64::from(u32::MAX));
        let shards = u16::try_from(random.between(1, 4)).expect("a small number");
        let mut node = Node::new(shards, common(&config));
        let publisher = Line::open(&mut node);
        let mut model = Sleepers {
            node,
            random,
            shards,
            publisher,
            sensors: (0..SENSORS).map(Sensor::new).collect(),
            last: 0,
            last_id: 0,
            unacked: Vec::new(),
            wills: BTreeSet::new(),
            is_held: false,
        };
        model.connect_publisher();
        subscribe(&mut model.node, &model.publisher, "wills/#");
        model.hear()?;
        Ok(model)
    }

    fn connect_publisher(&mut self) {
        self.publisher = Line::open(&mut self.node);
        let connect = Connect {
            clean_start: false,
            session_expiry_interval: u32::MAX,
            ..blank(PUBLISHER, 4)
        };
        self.publisher
            .ask(&mut self.node, Request::Connect(Box::new(connect)));
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..=4 => self.crash()?,
            5..=19 => self.pass()?,
            20..=49 => self.publish(),
            _ => {
                let at = self.random.below(SENSORS);
                self.act(at)?;
            }
        }
        self.hear()?;
        self.check_wills()
    }

    fn publish(&mut self) {
        self.last += 1;
        self.last_id = self.last_id % 1000 + 1;
        let packet_id = PacketId::new(self.last_id).expect("from 1 on");
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce][self.random.below(3)];
        let payload = self.last.to_be_bytes();
        let parts = MessageParts {
            qos,
            ..MessageParts::new("news", &payload)
        };
        let message = parts
            .publish(self.node.now(), broker_core::ClientInfo::system())
            .expect("a short topic");
        for sensor in &mut self.sensors {
            sensor.published(self.last, qos, self.is_held);
        }
        if qos == QoS::AtLeastOnce {
            self.unacked.push((packet_id, self.last));
        }
        let publish = Publish {
            message,
            packet_id: (qos > QoS::AtMostOnce).then_some(packet_id),
            dup: false,
        };
        self.publisher.ask(&mut self.node, Request::Publish(publish));
    }

    /// Time passes, not so that it is close whether somebody is lost.
    fn pass(&mut self) -> Result<(), String> {
        let seconds = u64::from(self.random.between(1, 40));
        self.node.advance(Duration::from_secs(seconds));
        while self.sensors.iter().any(|sensor| sensor.is_close(self.now())) {
            self.node.advance(Duration::from_millis(SLACK_MS));
        }
        self.hear()?;
        let now = self.now();
        self.sensors.iter_mut().for_each(|sensor| sensor.pass(now));
        Ok(())
    }

    fn now(&self) -> u64 {
        self.node.now().as_millis()
    }

    /// Things happen of which it is not known whether they last; then the process is killed.
    fn crash(&mut self) -> Result<(), String> {
        self.hear()?;
        self.is_held = true;
        self.node.hold_commits(true);
        for _ in 0..self.random.below(6) {
            if self.random.chance(50) {
                self.publish();
            } else {
                let at = self.random.below(SENSORS);
                self.sensors[at].vanish(&mut self.node, &mut self.random);
            }
            if self.random.chance(30) {
                self.node.complete_commit();
            }
            self.hear()?;
        }
        self.node.crash_anywhere(&mut self.random);
        if self.random.chance(50) {
            let down = u64::from(self.random.between(1, 20));
            self.node.advance(Duration::from_secs(down));
        }
        if self.random.chance(30) {
            self.shards = u16::try_from(self.random.between(1, 4)).expect("a small number");
        }
        self.is_held = false;
        self.unacked.clear();
        while self.sensors.iter().any(|sensor| sensor.is_close(self.now())) {
            self.node.advance(Duration::from_millis(SLACK_MS));
        }
        self.node.restart(self.shards);
        let now = self.now();
        self.sensors.iter_mut().for_each(|sensor| sensor.killed(now));
        self.connect_publisher();
        self.node.advance(Duration::from_millis(SLACK_MS));
        self.hear()
    }

    fn act(&mut self, at: usize) -> Result<(), String> {
        let now = self.now();
        self.sensors[at].act(&mut self.node, &mut self.random, now, self.last)
    }

    /// Everybody hears what there is to hear.
    fn hear(&mut self) -> Result<(), String> {
        loop {
            let mut is_quiet = true;
            while let Some(event) = self.publisher.hear() {
                is_quiet = false;
                self.publisher_hears(event)?;
            }
            for sensor in &mut self.sensors {
                is_quiet &= !sensor.hear(&mut self.node, &mut self.random)?;
            }
            if is_quiet {
                break;
            }
        }
        if self.is_held {
            return Ok(());
        }
        self.sensors.iter_mut().try_for_each(Sensor::check)
    }

    fn publisher_hears(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::PubAck(packet_id, _) => {
                let at = self.unacked.iter().position(|(id, _)| *id == packet_id);
                let (_, number) = self.unacked.remove(at.ok_or("an answer to nothing")?);
                self.sensors
                    .iter_mut()
                    .for_each(|sensor| sensor.acknowledged(number));
            }
            Event::Deliver(delivery) => {
                let number = number_of(delivery.message.payload())?;
                if !self.wills.insert(number) && !delivery.dup {
                    return Err(format!("Will {number} is published twice"));
                }
                if let Some(packet_id) = delivery.packet_id {
                    let request = Request::PubAck(packet_id, ReasonCode::Success);
                    self.publisher.ask(&mut self.node, request);
                }
            }
            Event::Connected(_) | Event::SubAck(..) => {}
            other => return Err(format!("the publisher hears {other:?}")),
        }
        Ok(())
    }

    fn check_wills(&self) -> Result<(), String> {
        for sensor in &self.sensors {
            sensor.check_wills(&self.wills)?;
        }
        Ok(())
    }

    /// Everybody leaves.
    fn finish(&mut self) -> Result<(), String> {
        for at in 0..SENSORS {
            while self.sensors[at].state != State::Connected {
                self.act(at)?;
                self.hear()?;
            }
            self.sensors[at].acks = 100;
            self.sensors[at].end(&mut self.node);
            self.hear()?;
        }
        self.node.advance(Duration::from_secs(10_000));
        self.hear()?;
        self.check_wills()?;
        let sessions: usize = (0..self.shards)
            .map(|id| self.node.shard(id).census().sessions)
            .sum();
        if sessions != 1 {
            return Err(format!(
                "{sessions} sessions are left, of which one is the publisher's"
            ));
        }
        Ok(())
    }
}

fn subscribe(node: &mut Node, line: &Line, filter: &str) {
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        ..SubscribeOptions::default()
    };
    let subscribe = Subscribe {
        packet_id: PacketId::FIRST,
        filters: vec![(filter.to_owned(), options)],
        subscription_id: None,
        user_properties: Vec::new(),
    };
    line.ask(node, Request::Subscribe(Box::new(subscribe)));
}

fn disconnect(node: &mut Node, line: &Line, cause: DisconnectCause) {
    let disconnect = Disconnect {
        cause,
        session_expiry_interval: None,
        keeps_will: false,
        user_properties: Vec::new(),
    };
    line.ask(node, Request::Disconnect(Box::new(disconnect)));
}

fn number_of(payload: &[u8]) -> Result<u32, String> {
    let number = payload.try_into().map_err(|_| "not of this check".to_owned())?;
    Ok(u32::from_be_bytes(number))
}

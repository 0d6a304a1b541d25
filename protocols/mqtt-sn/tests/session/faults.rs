//! Every procedure, with every single datagram of it lost, doubled or held back: its outcome is the same.

use std::collections::BTreeMap;

use broker_core::{QoS, Timestamp};
use bytes::Bytes;
use mqtt_sn::Settings;
use testkit::Random;

use crate::{
    device::{Device, Step},
    net::*,
    probe::{Got, Probe},
};
use Step::{
    Connect, Inject, Leave, Pass, Ping, Publish, Register, Sleep, Subscribe, Unsubscribe, Vanish, Wake,
    WillMsg, WillTopic,
};

/// What happens to one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Lost,
    /// Its copy comes so many milliseconds later.
    Doubled(u64),
    /// It comes so many milliseconds later; others overtake it, also its own repetition.
    HeldBack(u64),
}

/// What happens to datagrams.
#[derive(Clone)]
enum Network {
    Calm,
    /// To the one of this number.
    One(u64, Fault),
    /// To any.
    Storm(Random),
}

impl Network {
    fn fault(&mut self, number: u64) -> Option<Fault> {
        match self {
            Network::Calm => None,
            Network::One(at, fault) => (*at == number).then_some(*fault),
            Network::Storm(random) => match random.below(10) {
                0 | 1 => Some(Fault::Lost),
                2 => Some(Fault::Doubled(random.between(0, 1_500).into())),
                3 => Some(Fault::HeldBack(random.between(0, 1_500).into())),
                _ => None,
            },
        }
    }
}

const FAULTS: [Fault; 6] = [
    Fault::Lost,
    Fault::Doubled(0),
    Fault::Doubled(30),
    Fault::Doubled(1_500),
    Fault::HeldBack(1_500),
    Fault::HeldBack(11_000),
];

/// One way, milliseconds.
const LATENCY: u64 = 20;

struct World {
    net: Net,
    probe: Probe,
    device: Device,
    /// By time of arrival: to the gateway (true) or to the device.
    under_way: BTreeMap<(Timestamp, u64), (bool, Bytes)>,
    sent: u64,
    network: Network,
    heard: Vec<Got>,
}

impl World {
    fn new(settings: &Settings, network: Network) -> World {
        let settings = settings.clone();
        let mut net = Net::with(|own| *own = settings, |_| {});
        let mut probe = net.probe();
        probe.subscribe(&mut net.node, "up/#");
        probe.subscribe(&mut net.node, "will/#");
        World {
            net,
            probe,
            device: Device::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            network,
            heard: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        self.net.node.now()
    }

    fn send(&mut self, is_up: bool, datagram: Bytes) {
        self.sent += 1;
        let fault = self.network.fault(self.sent);
        let delays = match fault {
            None => [Some(0), None],
            Some(Fault::Lost) => [None, None],
            Some(Fault::Doubled(delay)) => [Some(0), Some(delay)],
            Some(Fault::HeldBack(delay)) => [Some(delay), None],
        };
        for delay in delays.into_iter().flatten() {
            let arrival = Timestamp::from_millis(self.now().as_millis() + LATENCY + delay);
            let number = u64::try_from(self.under_way.len()).expect("few") + self.sent * 1000;
            self.under_way
                .insert((arrival, number), (is_up, datagram.clone()));
        }
    }

    /// Passes on what both sides have to say.
    fn post(&mut self) {
        for (_, datagram) in self.net.take_all() {
            self.send(false, datagram);
        }
        for datagram in std::mem::take(&mut self.device.out) {
            self.send(true, datagram);
        }
        self.heard.extend(self.probe.take());
    }

    /// The next thing happens, if it does before `end`; true if one has.
    fn turn(&mut self, end: Timestamp) -> bool {
        self.post();
        let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
        let deadlines = [arrival, self.net.node.next_deadline(), self.device.next_timeout()];
        let Some(next) = deadlines.into_iter().flatten().min().filter(|&next| next <= end) else {
            self.net.node.advance(end.since(self.now()));
            return false;
        };
        self.net.node.advance(next.since(self.now()));
        self.net.collect();
        let now = self.now();
        self.device.fire(now);
        if let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                (true, datagram) => self.net.datagram(&at(1), None, &datagram),
                (false, datagram) => self.device.hear(now, &datagram),
            }
        }
        self.post();
        true
    }

    fn run(&mut self, script: &[Step]) {
        for &step in script {
            match step {
                Inject(topic, payload, qos) => self.probe.publish(&mut self.net.node, topic, payload, qos),
                Pass(seconds) => {
                    let end = self.now().after_secs(seconds);
                    while self.turn(end) {}
                }
                step => self.device.begin(self.now(), step),
            }
            while !self.device.is_done() {
                let end = self.now().after_secs(3600);
                assert!(self.turn(end), "{step:?} has no end");
            }
            if step == Wake {
                self.check_wake(script);
            }
        }
        let end = self.now().after_secs(60);
        while self.turn(end) {}
    }

    /// PINGRESP says that everything has been delivered: what was published until then and has to arrive, has.
    fn check_wake(&self, script: &[Step]) {
        let before = script.iter().take_while(|step| **step != Wake);
        for step in before {
            if let Inject(_, payload, qos) = step {
                let is_there = self.device.got.iter().any(|got| got.1 == **payload);
                assert!(is_there || *qos == QoS::AtMostOnce, "{payload} was not delivered");
            }
        }
    }
}

/// What has to be the same: of QoS 2 everything, of QoS 1 everything but repetitions, of QoS 0 nothing; in order, if
/// one message at a time is under way.
fn outcome(settings: &Settings, got: &[Got]) -> (Vec<Got>, Vec<Got>) {
    let of = |qos| got.iter().filter(move |got| got.2 == qos).cloned();
    let mut at_least_once: Vec<Got> = Vec::new();
    for got in of(Q1) {
        if !at_least_once.contains(&got) {
            at_least_once.push(got);
        }
    }
    let mut exactly_once: Vec<Got> = of(Q2).collect();
    if settings.max_inflight > 1 {
        at_least_once.sort();
        exactly_once.sort();
    }
    (at_least_once, exactly_once)
}

fn every_single_fault(settings: &Settings, script: &[Step]) {
    let mut calm = World::new(settings, Network::Calm);
    calm.run(script);
    let datagrams = calm.sent;
    let expected = (
        outcome(settings, &calm.heard),
        outcome(settings, &calm.device.got),
    );
    let published = |up: bool| {
        let qos12 = script.iter().filter(|step| match step {
            Publish(_, _, qos) => up && *qos > Q0,
            Inject(_, _, qos) => !up && *qos > Q0,
            _ => false,
        });
        qos12.count()
    };
    let heard = calm
        .heard
        .iter()
        .filter(|got| got.0.starts_with("up/") && got.2 > Q0);
    assert_eq!(
        heard.count(),
        published(true),
        "without faults everything arrives once"
    );
    for number in 1..=datagrams {
        for fault in FAULTS {
            let mut world = World::new(settings, Network::One(number, fault));
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(script)));
            assert!(ran.is_ok(), "datagram {number} of {datagrams}: {fault:?}");
            let actual = (
                outcome(settings, &world.heard),
                outcome(settings, &world.device.got),
            );
            assert_eq!(actual, expected, "datagram {number} of {datagrams}: {fault:?}");
        }
    }
}

const KEPT: Step = Connect {
    clean: false,
    will: None,
};
const CLEAN: Step = Connect {
    clean: true,
    will: None,
};

#[test]
fn connecting_and_leaving() {
    every_single_fault(&settings(), &[CLEAN, Ping, Leave, Pass(30), KEPT, Ping, Leave]);
}

#[test]
fn the_will() {
    let will = Some(("will/a", "one"));
    let connect = Connect { clean: true, will };
    every_single_fault(&settings(), &[connect, Ping, Vanish, Pass(6000)]);
    every_single_fault(&settings(), &[connect, Ping, Leave]);
    every_single_fault(
        &settings(),
        &[
            connect,
            WillTopic(Some("will/b")),
            WillMsg("two"),
            Vanish,
            Pass(6000),
        ],
    );
    let twice = [
        WillTopic(Some("will/b")),
        WillTopic(Some("will/c")),
        WillMsg("two"),
        WillMsg("three"),
    ];
    every_single_fault(
        &settings(),
        &[&[connect][..], &twice, &[Pass(60), Vanish, Pass(6000)]].concat(),
    );
    every_single_fault(&settings(), &[connect, WillTopic(None), Vanish, Pass(6000)]);
    every_single_fault(&settings(), &[connect, Sleep(100), Pass(200)]);
}

#[test]
fn publishing() {
    let script = [
        CLEAN,
        Register("up/a"),
        Publish("up/a", "1", Q1),
        Publish("up/a", "2", Q2),
        Publish("up/a", "3", Q0),
        Publish("up/a", "4", Q2),
        Publish("up/a", "5", Q1),
        Pass(60),
        Leave,
    ];
    every_single_fault(&settings(), &script);
}

#[test]
fn subscribing_and_deliveries() {
    for max_inflight in [1, 4] {
        let mut settings = settings();
        settings.max_inflight = max_inflight;
        let script = [
            CLEAN,
            Subscribe("down/a", Q2),
            Inject("down/a", "1", Q1),
            Inject("down/a", "2", Q2),
            Inject("down/a", "3", Q1),
            Pass(60),
            Subscribe("down/+", Q2),
            Inject("down/b", "4", Q2),
            Inject("down/b", "5", Q1),
            Inject("down/c", "6", Q2),
            Pass(120),
            Unsubscribe("down/+"),
            Subscribe("down/+", Q2),
            Unsubscribe("down/+"),
            Pass(60),
            Inject("down/b", "7", Q2),
            Unsubscribe("down/a"),
            Subscribe("down/a", Q2),
            Pass(60),
            Inject("down/a", "8", Q2),
            Pass(60),
            Ping,
        ];
        every_single_fault(&settings, &script);
    }
}

#[test]
fn sleeping() {
    for connect in [CLEAN, KEPT] {
        let script = [
            connect,
            Subscribe("down/a", Q2),
            Subscribe("down/b/#", Q2),
            Sleep(600),
            Inject("down/a", "1", Q1),
            Inject("down/b/1", "2", Q2),
            Inject("down/a", "3", Q0),
            Pass(30),
            Wake,
            Pass(30),
            Inject("down/b/1", "4", Q2),
            Pass(30),
            Wake,
            Pass(30),
            Sleep(60),
            Pass(60),
            Wake,
            Pass(30),
        ];
        every_single_fault(&settings(), &script);
    }
}

#[test]
fn from_sleep_to_a_connection() {
    let script = [
        KEPT,
        Subscribe("down/a", Q2),
        Sleep(600),
        Inject("down/a", "1", Q1),
        Inject("down/a", "2", Q2),
        Pass(30),
        KEPT,
        Pass(60),
        Inject("down/a", "3", Q2),
        Pass(60),
        Leave,
    ];
    every_single_fault(&settings(), &script);
}

#[test]
fn a_storm() {
    let mut settings = settings();
    settings.retry_max = 20;
    let script = [
        KEPT,
        Register("up/a"),
        Subscribe("down/#", Q2),
        Inject("down/a", "1", Q2),
        Publish("up/a", "2", Q2),
        Inject("down/b", "3", Q1),
        Publish("up/a", "4", Q1),
        Inject("down/a", "5", Q2),
        Publish("up/a", "6", Q2),
        Publish("up/a", "7", Q2),
        Inject("down/c", "8", Q1),
        Inject("down/c", "9", Q2),
        Pass(900),
        Ping,
    ];
    let mut calm = World::new(&settings, Network::Calm);
    calm.run(&script);
    let expected = (
        outcome(&settings, &calm.heard),
        outcome(&settings, &calm.device.got),
    );
    for seed in 0..200 {
        let mut world = World::new(&settings, Network::Storm(Random::new(seed)));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(&script)));
        assert!(ran.is_ok(), "seed {seed}");
        let actual = (
            outcome(&settings, &world.heard),
            outcome(&settings, &world.device.got),
        );
        assert_eq!(actual, expected, "seed {seed}");
    }
}

//! The check of what lasts: clients with and without persistent sessions, a store that is slow, fails and fills, and a
//! node that is killed at any moment and starts again with another number of shards. The clients repeat what was not
//! acknowledged, as the specification wants it. What must hold, in whatever order things happen:
//!
//! - an acknowledged message of QoS 1 or 2 reaches every session that was subscribed when it was sent and still is at
//!   the end, however often node and client were away; so do delayed messages and Wills;
//! - QoS 2 arrives once; QoS 1 twice only as a repetition, and after its acknowledgement only if a crash came in
//!   between; the first arrivals are in the order of publisher, topic and QoS;
//! - nothing arrives for a subscription that was not there, and QoS, subscription identifiers and the retain flag are
//!   those of the subscriptions that were;
//! - a session is present if it was stored and has not expired;
//! - packet identifiers in use are not used for anything else;
//! - retained messages are those of the last publishers, in memory as in the store;
//! - once all sessions have ended and nothing is retained, nothing is left, neither in memory nor in the store.

mod check;
mod client;
mod connection;
mod end;
mod events;
mod ledger;
mod steps;
mod subscriptions;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use broker_core::{Config, LinkId, QoS, Request, SharedStrategy, Timestamp, store::Fault};

use testkit::Random;

use super::{Failure, Report, common};
use crate::sim::Node;
use client::{Acks, Client};
pub(super) use connection::blank;
use ledger::Ledger;

const CLIENTS: usize = 6;
/// The first of them speak MQTT 5, the others 3.1.1.
const V5_CLIENTS: usize = 4;
/// Lines of history shown with a failure.
const HISTORY: usize = 400;

/// Which corners a run visits.
#[derive(Clone, Copy, Debug)]
struct World {
    /// After each step everything that is under way is waited for.
    is_strict: bool,
    /// Commits fail at times.
    has_faults: bool,
    /// Clients come and go seldom and there are many messages, so that backlogs are longer than memory.
    is_long: bool,
    /// Bytes of a payload.
    payload: usize,
}

/// Who of a shared group got a message.
#[derive(Clone, Copy, Debug)]
struct Taker {
    client: usize,
    qos: QoS,
    is_persistent: bool,
}

#[derive(Debug)]
struct Durable {
    node: Node,
    config: Config,
    world: World,
    random: Random,
    clients: Vec<Client>,
    owners: BTreeMap<LinkId, usize>,
    ledger: Ledger,
    /// Seconds that Wills wait, by number.
    delays: BTreeMap<u64, u32>,
    /// By group and message.
    takers: BTreeMap<(String, u64), Vec<Taker>>,
    /// Groups that a member has left, or whose members' sessions have ended: at which tick last.
    left: BTreeMap<String, u64>,
    fault: Option<Fault>,
    /// The last tick at which commits failed.
    faulty_at: Option<u64>,
    is_stalled: bool,
    report: Report,
    history: Option<VecDeque<String>>,
}

/// Runs `steps` random steps from `seed`, lets everybody come back and get what is left, and then ends all sessions.
///
/// # Errors
/// What the broker did wrong first.
pub fn run(seed: u64, steps: u64, with_history: bool) -> Result<Report, Box<Failure>> {
    let mut model = Durable::new(seed, with_history);
    match model.run(steps) {
        Ok(()) => Ok(model.report),
        Err(what) => Err(Box::new(Failure {
            what: format!("{what} ({:?})", model.world),
            step: model.report.steps,
            history: model.history.take().into_iter().flatten().collect(),
        })),
    }
}

fn choose(random: &mut Random) -> (World, Config) {
    let world = World {
        is_strict: random.chance(40),
        has_faults: random.chance(25),
        is_long: random.chance(15),
        payload: if random.chance(4) { 300_000 } else { 10 },
    };
    let mut config = Config {
        shared_strategy: [
            SharedStrategy::Random,
            SharedStrategy::RoundRobin,
            SharedStrategy::RoundRobinPerGroup,
            SharedStrategy::Sticky,
            SharedStrategy::Local,
            SharedStrategy::HashClientId,
            SharedStrategy::HashTopic,
        ][random.below(7)],
        ..Config::default()
    };
    let mqtt = &mut config.mqtt;
    mqtt.max_inflight = [1, 2, 5, 32][random.below(4)];
    mqtt.max_mqueue_bytes = 0;
    mqtt.max_mqueue_len = [0, 0, 0, 3, 300][random.below(5)];
    mqtt.max_awaiting_rel = 100;
    mqtt.upgrade_qos = random.chance(15);
    if random.chance(20) {
        let ranks = [("a", 3), ("b/c", 1)].map(|(topic, rank)| (topic.into(), rank));
        mqtt.mqueue_priorities = Arc::new(BTreeMap::from(ranks));
    }
    mqtt.session_expiry_interval = std::time::Duration::from_secs(u64::from(u32::MAX));
    (world, config)
}

impl Durable {
    fn new(seed: u64, with_history: bool) -> Durable {
        let mut random = Random::new(seed);
        let (world, config) = choose(&mut random);
        let shards = u16::try_from(1 + random.below(5)).expect("at most 5");
        let now = Timestamp::from_millis(1_000_000_000);
        Durable {
            node: Node::new(shards, common(&config), now, random.bits()),
            config,
            world,
            random,
            clients: (0..CLIENTS).map(|at| Client::new(at < V5_CLIENTS)).collect(),
            owners: BTreeMap::new(),
            ledger: Ledger::default(),
            delays: BTreeMap::new(),
            takers: BTreeMap::new(),
            left: BTreeMap::new(),
            fault: None,
            faulty_at: None,
            is_stalled: false,
            report: Report::default(),
            history: with_history.then(VecDeque::new),
        }
    }

    fn run(&mut self, steps: u64) -> Result<(), String> {
        self.log(|model| {
            format!(
                "{:?}, {} shards, {:?}",
                model.world,
                model.node.shards().len(),
                model.config
            )
        });
        for _ in 0..steps {
            self.step()?;
            self.report.steps += 1;
            if self.world.is_strict {
                self.settle()?;
            } else {
                for _ in 0..self.random.below(5) {
                    self.node.step();
                    self.events()?;
                }
            }
            self.pass(1)?;
        }
        self.finish()
    }

    fn log(&mut self, line: impl FnOnce(&Durable) -> String) {
        if self.history.is_some() {
            let line = format!("{} {}", self.ledger.tick, line(self));
            let history = self.history.get_or_insert_default();
            if history.len() == HISTORY {
                history.remove(1);
            }
            history.push_back(line);
        }
    }

    fn now(&self) -> u64 {
        self.node.now().as_millis()
    }

    fn request(&mut self, link: LinkId, request: Request) {
        self.ledger.tick += 1;
        self.log(|_| format!("{link:?} > {request:?}"));
        self.node.handle(link, request);
    }

    /// Until nothing is under way but commits that are held back.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.events()?;
            if !self.node.step() {
                break;
            }
        }
        if self.node.store().pending() == 0 {
            self.quiet()?;
        }
        Ok(())
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, millis: u64) -> Result<(), String> {
        let target = Timestamp::from_millis(self.now() + millis);
        let mut count = 0;
        while let Some(next) = self.node.poll_timeout().filter(|&next| next <= target) {
            self.node.set_clock(next);
            while self.node.fire() {
                self.events()?;
                if self.world.is_strict {
                    self.settle()?;
                } else if self.random.chance(50) {
                    self.node.step();
                    self.events()?;
                }
            }
            count += 1;
            if count > 1_000_000 {
                return Err(format!("a deadline that is acted on and stays: {next:?}"));
            }
        }
        self.node.set_clock(target);
        Ok(())
    }

    /// All that was to be stored is stored.
    fn quiet(&mut self) -> Result<(), String> {
        let now = self.now();
        self.ledger.quiet(now);
        for client in &mut self.clients {
            if let Some(life) = client.settled_life.take() {
                client.life = life;
            }
        }
        self.check_quiet()
    }
}

impl Acks {
    fn any(random: &mut Random) -> Acks {
        [Acks::AtOnce, Acks::AtOnce, Acks::Later, Acks::Later, Acks::Never][random.below(5)]
    }
}

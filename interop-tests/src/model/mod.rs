//! The strict check: after every random step the node runs until nothing is under way, and what every client got is
//! judged by the [`Reference`].

mod client;
pub mod durable;
pub mod interleaved;
pub mod script;
pub mod sleepers;

use std::collections::{BTreeMap, VecDeque};

use broker_core::{
    Config, Disconnect, DisconnectCause, Event, LinkId, PacketId, QoS, ReasonCode, Redirect, Request,
    Timestamp, Unsubscribe,
    admission::{Admission, AuthenticationChain},
    hooks::Hooks,
    shard::{Census, Common},
};

use testkit::Random;

use crate::{
    reference::{Reference, TIMER_SLACK_MS},
    sim::Node,
};
use client::{Acks, Client, SlowConsent};
use script::World;

/// Clients of one run.
const CLIENTS: usize = 8;
/// The sessions of the first of them may outlive their connections.
const LASTING: usize = 5;
/// What is due may happen this much later, milliseconds: a nested delayed message is late twice.
const SLACK_MS: u64 = 2 * TIMER_SLACK_MS;
/// Lines of history shown with a failure.
const HISTORY: usize = 80;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Random steps.
    pub steps: u64,
    /// PUBLISH packets that clients got.
    pub deliveries: u64,
    /// Of these, repetitions.
    pub repetitions: u64,
    /// Of these, with the retain flag.
    pub retained: u64,
}

/// Where a run went wrong.
#[derive(Debug)]
pub struct Failure {
    /// What the broker did wrong.
    pub what: String,
    /// The step at which it came to light, from 0.
    pub step: u64,
    /// What happened before, oldest first; empty unless it was asked for.
    pub history: Vec<String>,
}

/// One run.
#[derive(Debug)]
pub struct Model {
    node: Node,
    reference: Reference,
    world: World,
    config: Config,
    random: Random,
    clients: Vec<Client>,
    owners: BTreeMap<LinkId, usize>,
    number: u64,
    report: Report,
    history: Option<VecDeque<String>>,
}

/// The configuration with an authenticator that is asked, so that clients wait for the control plane.
pub fn common(config: &Config) -> Common {
    let mut authentication = AuthenticationChain::new(true);
    authentication.push(std::sync::Arc::new(SlowConsent));
    Common {
        config: config.clone(),
        admission: Admission {
            authentication,
            ..Admission::default()
        },
        hooks: Hooks::default(),
    }
}

/// Runs `steps` random steps from `seed`, then ends all sessions and sees that nothing is left.
///
/// # Errors
/// What the broker did wrong first.
pub fn run(seed: u64, steps: u64, with_history: bool) -> Result<Report, Box<Failure>> {
    let mut model = Model::new(seed, with_history);
    let result = model.run(steps);
    match result {
        Ok(()) => Ok(model.report),
        Err(what) => Err(Box::new(Failure {
            what,
            step: model.report.steps,
            history: model.history.take().into_iter().flatten().collect(),
        })),
    }
}

impl Model {
    fn new(seed: u64, with_history: bool) -> Model {
        let mut random = Random::new(seed);
        let (world, config) = World::choose(&mut random);
        let shards = u16::try_from(1 + random.below(8)).expect("at most 8");
        let now = Timestamp::from_millis(1_000_000_000);
        Model {
            node: Node::new(shards, common(&config), now, random.bits()),
            reference: Reference::new(config.clone(), now.as_millis()),
            world,
            config,
            random,
            clients: (0..CLIENTS).map(Client::new).collect(),
            owners: BTreeMap::new(),
            number: 0,
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
            self.settle()?;
            self.advance(1)?;
            self.report.steps += 1;
        }
        self.finish()
    }

    fn log(&mut self, line: impl FnOnce(&Model) -> String) {
        if self.history.is_some() {
            let line = line(self);
            let history = self.history.get_or_insert_default();
            if history.len() == HISTORY {
                history.remove(1);
            }
            history.push_back(line);
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let at = self.random.below(CLIENTS);
        let is_online = self.clients[at].link.is_some();
        if self.config.redirect.is_some() && self.random.chance(10) {
            self.redirect();
        }
        match (self.random.below(100), is_online) {
            (0..=4, _) | (0..=49, false) => self.connect(at)?,
            (5..=10, true) => self.disconnect(at),
            (11..=24, true) => self.subscribe(at),
            (25..=31, true) => self.unsubscribe(at),
            (32..=65, true) => self.publish(at),
            (66..=83, true) => self.acknowledge(at),
            (84..=87, true) => self.congest(at),
            (99, _) if self.random.chance(20) => self.redirect(),
            (88..=99, _) => return self.pass_time(),
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, at: usize) -> Result<(), String> {
        self.number += 1;
        let id = if at == CLIENTS - 1 && self.random.chance(50) {
            String::new()
        } else {
            format!("c{at}")
        };
        let connect = self
            .world
            .connect(&mut self.random, id, self.number, at < LASTING);
        let acks = [Acks::AtOnce, Acks::AtOnce, Acks::Later, Acks::Later, Acks::Never][self.random.below(5)];
        // A connection under another name would go on, and nobody would speak for it any more.
        let client = &mut self.clients[at];
        let is_same = client
            .info
            .as_ref()
            .is_none_or(|info| info.client_id.as_str() == connect.client_id);
        if let Some(link) = client.link.take_if(|_| !is_same) {
            self.request(link, lost());
            self.settle()?;
        }
        // The link is named before anything happens on it, as a driver does.
        let link = LinkId(self.node.links() + 1);
        self.clients[at].begin(link, &connect, acks);
        self.owners.insert(link, at);
        self.log(|_| format!("{link:?} = client {at} {acks:?}: {connect:?}"));
        self.reference.connect(link, &connect);
        self.node.connect(connect);
        Ok(())
    }

    fn request(&mut self, link: LinkId, request: Request) {
        self.log(|_| format!("{link:?} > {request:?}"));
        self.reference.request(link, &request);
        self.node.handle(link, request);
    }

    fn disconnect(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(link) = client.link.take() else { return };
        let cause = match self.random.below(4) {
            0 => DisconnectCause::Normal,
            1 => DisconnectCause::ByClient(ReasonCode::DisconnectWithWill),
            2 => DisconnectCause::ByServer(ReasonCode::KeepAliveTimeout),
            _ => DisconnectCause::ConnectionLost,
        };
        let is_goodbye = matches!(cause, DisconnectCause::Normal | DisconnectCause::ByClient(_));
        let may_change = client.is_v5 && client.expiry > 0 && is_goodbye;
        let session_expiry_interval =
            (may_change && self.random.chance(30)).then(|| [0, 7, 100][self.random.below(3)]);
        let disconnect = Disconnect {
            cause,
            session_expiry_interval,
            keeps_will: false,
            user_properties: Vec::new(),
        };
        self.request(link, Request::Disconnect(Box::new(disconnect)));
    }

    fn subscribe(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(link) = client.link else { return };
        let id = client.packet_id();
        let subscribe =
            self.world
                .subscribe(&mut self.random, id, client.is_v5, at < LASTING, &client.filters);
        for (filter, _) in &subscribe.filters {
            if !client.filters.contains(filter) {
                client.filters.push(filter.clone());
            }
        }
        self.request(link, Request::Subscribe(Box::new(subscribe)));
    }

    fn unsubscribe(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(link) = client.link else { return };
        let mut filters = Vec::new();
        for _ in 0..=self.random.below(2) {
            if client.filters.is_empty() || self.random.chance(15) {
                filters.push(self.world.filter(&mut self.random, at < LASTING));
            } else {
                let place = self.random.below(client.filters.len());
                filters.push(client.filters.swap_remove(place));
            }
        }
        let unsubscribe = Unsubscribe {
            packet_id: client.packet_id(),
            filters,
            user_properties: Vec::new(),
        };
        self.request(link, Request::Unsubscribe(Box::new(unsubscribe)));
    }

    fn publish(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let (Some(link), Some(info)) = (client.link, client.info.clone()) else {
            return;
        };
        self.number += 1;
        let is_repeated = !client.publishing.is_empty() && self.random.chance(15);
        let id = if is_repeated {
            client.publishing[self.random.below(client.publishing.len())]
        } else {
            client.packet_id()
        };
        let mut publish = self
            .world
            .publish(&mut self.random, self.node.now(), &info, id, self.number);
        publish.dup = is_repeated && self.random.chance(70);
        if publish.message.qos() == QoS::ExactlyOnce && !client.publishing.contains(&id) {
            client.publishing.push(id);
        }
        self.request(link, Request::Publish(publish));
    }

    /// The client catches up with what it owes, in any order, or says something that makes no sense.
    fn acknowledge(&mut self, at: usize) {
        let random = &mut self.random;
        let Some((link, request)) = self.clients[at].next_answer(random) else {
            return;
        };
        self.request(link, request);
    }

    fn congest(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(link) = client.link else { return };
        client.congested = !client.congested;
        let congested = client.congested;
        self.log(|_| format!("{link:?} congested: {congested}"));
        self.reference.congest(link, congested);
        self.node.congest(link, congested);
    }

    fn redirect(&mut self) {
        self.config.redirect = match self.config.redirect {
            Some(_) => None,
            None => Some(Redirect {
                moved: self.random.chance(50),
                server_reference: "other.example".to_owned(),
            }),
        };
        self.log(|model| format!("redirect: {:?}", model.config.redirect));
        self.reference.reconfigure(self.config.clone());
        self.node.reconfigure(common(&self.config));
    }

    fn pass_time(&mut self) -> Result<(), String> {
        let seconds = [1, 2, 5, 30, 700][self.random.below(5)];
        let seconds = self.random.between(1, seconds);
        self.log(|_| format!("time passes: {seconds} s"));
        self.advance(u64::from(seconds) * 1000)
    }

    /// Lets time pass, deadline by deadline. What the broker may do up to a timer's slack late is waited for.
    fn advance(&mut self, millis: u64) -> Result<(), String> {
        let target = self.node.now().as_millis() + millis;
        while let Some(first) = self.reference.next_deadline().filter(|&at| at <= target) {
            let mut until = first + SLACK_MS;
            while let Some(at) = self.reference.next_deadline().filter(|&at| at <= until) {
                until = at + SLACK_MS;
                self.reference.fire(at);
            }
            self.pass_to(until)?;
        }
        self.pass_to(target)
    }

    fn pass_to(&mut self, until: u64) -> Result<(), String> {
        let until = Timestamp::from_millis(until);
        while let Some(next) = self.node.poll_timeout().filter(|&next| next <= until) {
            self.node.set_clock(next);
            while self.node.fire() {
                self.settle_events()?;
            }
        }
        self.node.set_clock(until);
        self.reference.set_clock(self.node.now().as_millis());
        self.settle()
    }

    /// Until nothing is under way; then everything must have come.
    fn settle(&mut self) -> Result<(), String> {
        self.settle_events()?;
        self.reference.quiet()
    }

    fn settle_events(&mut self) -> Result<(), String> {
        loop {
            while let Some((link, event)) = self.node.poll_event() {
                self.event(link, &event)?;
            }
            if !self.node.step() {
                return Ok(());
            }
        }
    }

    fn event(&mut self, link: LinkId, event: &Event) -> Result<(), String> {
        self.log(|_| format!("{link:?} < {event:?}"));
        self.reference.event(link, event)?;
        let Some(&at) = self.owners.get(&link) else {
            return Err(format!("{event:?} for {link:?}, which does not exist"));
        };
        match event {
            Event::Deliver(delivery) => {
                self.report.deliveries += 1;
                self.report.repetitions += u64::from(delivery.dup);
                self.report.retained += u64::from(delivery.retain);
            }
            Event::Refused(_) | Event::Close(_) => {
                self.owners.remove(&link);
            }
            _ => {}
        }
        if let Some(request) = self.clients[at].event(link, event) {
            self.request(link, request);
        }
        Ok(())
    }

    /// Ends all sessions: the broker forgets everything but what is retained.
    fn finish(&mut self) -> Result<(), String> {
        if self.config.redirect.is_some() {
            self.redirect();
        }
        for at in 0..CLIENTS {
            if let Some(link) = self.clients[at].link.take() {
                self.request(link, lost());
                self.settle()?;
            }
        }
        while let Some(at) = self.reference.next_deadline() {
            let millis = (at + SLACK_MS).saturating_sub(self.node.now().as_millis());
            self.advance(millis)?;
        }
        self.forgotten()
    }

    fn forgotten(&mut self) -> Result<(), String> {
        let (sessions, delayed) = self.reference.census();
        if sessions + delayed > 0 {
            return Err(format!(
                "the reference still has {sessions} sessions, {delayed} delayed messages"
            ));
        }
        let retained = self
            .node
            .shards()
            .iter()
            .map(|shard| shard.census().retained)
            .sum();
        let (least, most) = self.reference.retained();
        if !(least..=most).contains(&retained) {
            return Err(format!("{retained} retained messages, not {least} to {most}"));
        }
        nothing_left(&self.node)
    }
}

/// All clients are gone and all sessions have ended: only what is retained may be left.
///
/// # Errors
/// If anything else is.
pub fn nothing_left(node: &Node) -> Result<(), String> {
    for shard in node.shards() {
        let census = shard.census();
        let left = Census {
            retained: 0,
            ..census
        };
        if left != Census::default() {
            return Err(format!(
                "{:?} has not forgotten everything: {census:?}",
                shard.id()
            ));
        }
    }
    Ok(())
}

fn lost() -> Request {
    Request::Disconnect(Box::new(Disconnect {
        cause: DisconnectCause::ConnectionLost,
        session_expiry_interval: None,
        keeps_will: false,
        user_properties: Vec::new(),
    }))
}

/// For clients that count.
fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).unwrap_or(PacketId::FIRST)
}

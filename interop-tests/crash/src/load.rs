//! The threads that are the clients, and what they share with the thread that kills the broker.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, Manners, Outgo},
    history::{Fault, Kind, Recorder, TextNo, What},
    plan::{Absence, Role, Traffic},
    wire::Version,
};

/// What the clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Publish, come and go.
    Load,
    /// Publish nothing, be there, take what comes.
    Drain,
    /// Look at what is left: subscriptions, retained messages.
    Inspect,
    Stop,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    pub(crate) seed: u64,
    pub(crate) address: SocketAddr,
    pub(crate) topics: Vec<String>,
    pub(crate) filters: Vec<String>,
    /// Number of topics that may hold a retained message.
    pub(crate) retained_topics: usize,
    phase: AtomicU8,
    kills: AtomicU64,
    /// By client: acknowledgements of its publishes and deliveries to it.
    pub(crate) progress: Vec<AtomicU64>,
    /// By client: the last phase whose work is done.
    done: Vec<AtomicU8>,
    /// The last payload of each `$SYS` topic.
    system: Mutex<BTreeMap<String, String>>,
}

impl Shared {
    pub(crate) fn new(recorder: Recorder, seed: u64, address: SocketAddr) -> Shared {
        let history = recorder.lock();
        let (topics, filters) = (history.topics.clone(), history.filters.clone());
        let clients = history.clients.len();
        drop(history);
        Shared {
            recorder,
            seed,
            address,
            retained_topics: topics
                .iter()
                .filter(|topic| topic.starts_with("retained/"))
                .count(),
            topics,
            filters,
            phase: AtomicU8::new(Phase::Load as u8),
            kills: AtomicU64::new(0),
            progress: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            done: (0..clients).map(|_| AtomicU8::new(0)).collect(),
            system: Mutex::default(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Load,
            1 => Phase::Drain,
            2 => Phase::Inspect,
            _ => Phase::Stop,
        }
    }

    pub(crate) fn killed(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    /// The clients that have not finished a phase.
    pub(crate) fn unfinished(&self, phase: Phase) -> Vec<usize> {
        let done = self.done.iter().enumerate();
        done.filter(|(_, done)| done.load(Ordering::SeqCst) < phase as u8)
            .map(|(client, _)| client)
            .collect()
    }

    /// Keeps what `$SYS` says.
    pub(crate) fn told(&self, topic: &str, text: String) {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        system.insert(topic.to_owned(), text);
    }

    /// What `$SYS` said last, of topics that hold `part`.
    pub(crate) fn system(&self, part: &str) -> BTreeMap<String, String> {
        let system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let found = system.iter().filter(|(topic, _)| topic.contains(part));
        found.map(|(topic, text)| (topic.clone(), text.clone())).collect()
    }
}

/// Runs a client until the phase `Stop`.
pub(crate) fn run(shared: &Arc<Shared>, role: &Role) {
    let client = Client::new(Arc::clone(shared), role.client, role.manners);
    let now = Instant::now();
    let mut actor = Actor {
        client,
        role,
        shared,
        phase: Phase::Load,
        change_at: now,
        away_until_kill: 0,
        publish_at: now,
        inspect: Vec::new(),
        connected_at: now,
        is_seen: false,
    };
    while actor.phase != Phase::Stop {
        actor.turn();
    }
    actor.client.leave();
}

struct Actor<'a> {
    client: Client,
    role: &'a Role,
    shared: &'a Arc<Shared>,
    phase: Phase,
    /// When it leaves, or comes back.
    change_at: Instant,
    away_until_kill: u64,
    publish_at: Instant,
    /// Filters left to unsubscribe.
    inspect: Vec<TextNo>,
    connected_at: Instant,
    /// An observer has seen what is retained in the phase `Inspect`.
    is_seen: bool,
}

impl Actor<'_> {
    fn turn(&mut self) {
        let phase = self.shared.phase();
        if phase != self.phase {
            self.phase = phase;
            self.enter();
        }
        if !self.client.is_connected() {
            self.disconnected();
            return;
        }
        if self.phase == Phase::Load && self.role.absence.is_some() && Instant::now() >= self.change_at {
            self.go();
            return;
        }
        if self.role.observes {
            self.observe();
            return;
        }
        if matches!(self.phase, Phase::Load | Phase::Drain) {
            self.subscribe();
        }
        if self.phase == Phase::Load {
            self.resubscribe();
            self.publish();
        }
        if self.phase == Phase::Inspect {
            self.unsubscribe();
        }
        self.client.turn();
        self.report();
    }

    fn enter(&mut self) {
        match self.phase {
            Phase::Drain => {
                self.client.manners = Manners::default();
                if self.role.rests() {
                    self.client.drop_link();
                }
            }
            Phase::Inspect => {
                self.complain(Phase::Drain);
                self.inspect = self.client.subscribed.iter().copied().collect();
            }
            Phase::Stop => self.complain(Phase::Inspect),
            Phase::Load => {}
        }
    }

    /// Whoever has not come to rest says what it waits for.
    fn complain(&self, phase: Phase) {
        let client = usize::from(self.role.client);
        if self.shared.done[client].load(Ordering::SeqCst) < phase as u8 {
            let connected = self.client.is_connected();
            let text = format!(
                "not at rest, connected: {connected}, {}",
                self.client.unfinished()
            );
            self.shared
                .recorder
                .notice(self.role.client, Fault::Protocol, text);
        }
    }

    fn report(&self) {
        let is_subscribed = self.role.filters.len() == self.client.subscribed.len();
        let is_done = match self.phase {
            Phase::Load | Phase::Stop => false,
            Phase::Drain => {
                self.client.is_idle() && is_subscribed && self.client.quiet() > Duration::from_millis(1500)
            }
            Phase::Inspect => self.inspect.is_empty() && self.client.is_idle(),
        };
        if is_done {
            self.done();
        }
    }

    fn done(&self) {
        self.shared.done[usize::from(self.role.client)].store(self.phase as u8, Ordering::SeqCst);
    }

    /// Whether it stays away, for now.
    fn is_away(&self) -> bool {
        match self.phase {
            Phase::Load => {
                Instant::now() < self.change_at
                    || self.shared.kills.load(Ordering::SeqCst) < self.away_until_kill
            }
            Phase::Drain => self.role.rests() || self.role.observes,
            Phase::Inspect => self.role.rests() || self.is_seen,
            Phase::Stop => true,
        }
    }

    fn disconnected(&mut self) {
        let is_away = self.is_away();
        if self.phase > Phase::Load && is_away {
            self.done();
        }
        let is_anew = self.role.clean_at_times && self.phase == Phase::Load && self.client.random.once_in(3);
        let clean = self.role.clean || is_anew;
        if is_away || !self.client.connect(clean, self.role.will) {
            thread::sleep(Duration::from_millis(10));
            return;
        }
        self.connected_at = Instant::now();
        if let Some(Absence { online_ms, .. }) = self.role.absence {
            self.change_at = Instant::now() + self.client.random.millis(online_ms.0, online_ms.1);
        }
    }

    /// Leaves, with or without a word.
    fn go(&mut self) {
        let Some(absence) = self.role.absence else { return };
        if self.client.random.once_in(2) {
            self.client.drop_link();
        } else {
            self.client.leave();
        }
        let range = if self.client.random.once_in(2) {
            absence.short_ms
        } else {
            let kills = self.client.random.below(absence.kills + 1);
            self.away_until_kill = self.shared.kills.load(Ordering::SeqCst) + kills;
            absence.long_ms
        };
        self.change_at = Instant::now() + self.client.random.millis(range.0, range.1);
    }

    fn subscribe(&mut self) {
        for (filter, qos) in &self.role.filters {
            if !self.client.subscribed.contains(filter) && !self.client.is_asking(*filter) {
                self.client.subscribe(*filter, *qos);
            }
        }
    }

    fn resubscribe(&mut self) {
        if self.role.resubscribes && self.client.is_idle() && self.client.random.once_in(60) {
            let at = self.client.random.below(self.role.filters.len() as u64);
            let filter = self.role.filters[usize::try_from(at).unwrap_or(0)].0;
            if self.client.subscribed.contains(&filter) {
                self.client.unsubscribe(filter);
            }
        }
    }

    /// MQTT 5 says whether there was a subscription.
    fn unsubscribe(&mut self) {
        if self.client.version() == Version::V3 || self.role.clean {
            self.inspect.clear();
            return;
        }
        let subscribed = &self.client.subscribed;
        self.inspect.retain(|filter| subscribed.contains(filter));
        if let Some(filter) = self.inspect.first().copied()
            && !self.client.is_asking(filter)
        {
            self.client.unsubscribe(filter);
        }
    }

    fn publish(&mut self) {
        let Some(traffic) = &self.role.traffic else { return };
        let now = Instant::now();
        if now > self.publish_at + Duration::from_millis(200) {
            // What was not published during an outage is not made up for.
            self.publish_at = now;
        }
        while self.publish_at <= now && self.client.is_connected() && self.client.in_flight() < traffic.window
        {
            let out = self.choose(traffic);
            self.client.publish(&out);
            self.publish_at += Duration::from_micros(traffic.interval_us);
        }
    }

    fn choose(&mut self, traffic: &Traffic) -> Outgo {
        let random = &mut self.client.random;
        let kind = match random.below(100) {
            0..10 if !traffic.retained.is_empty() => {
                if random.once_in(40) {
                    Kind::Clear
                } else {
                    Kind::Retained
                }
            }
            10..16 if !traffic.delayed.is_empty() => Kind::Delayed(1 + (random.below(4) as u8)),
            _ => Kind::Plain,
        };
        let topics = match kind {
            Kind::Retained | Kind::Clear => &traffic.retained,
            Kind::Delayed(_) => &traffic.delayed,
            _ => &traffic.plain,
        };
        let at = usize::try_from(random.below(topics.len() as u64)).unwrap_or(0);
        let topic = topics[at];
        let qos = match kind {
            // One QoS for each: a QoS 1 message that is sent again is published again, behind a QoS 2 message that
            // followed it and is not.
            Kind::Retained | Kind::Clear => 1 + u8::from(at % 2 == 1),
            _ => 1 + u8::from(random.once_in(2)),
        };
        let name = &self.shared.topics[usize::from(topic)];
        let padding = if random.once_in(50) { 4000 } else { 200 };
        Outgo {
            sent_to: match kind {
                Kind::Delayed(seconds) => format!("$delayed/{seconds}/{name}"),
                _ => name.clone(),
            },
            topic,
            qos: traffic.qos.unwrap_or(qos),
            kind,
            padding: usize::try_from(random.below(padding)).unwrap_or(0),
        }
    }

    /// One look at the retained messages: until there is one of each topic, or for three seconds, since some were removed.
    fn observe(&mut self) {
        if self.phase == Phase::Drain {
            self.client.drop_link();
            return;
        }
        let Some((filter, qos)) = self.role.filters.first().copied() else {
            return;
        };
        if self.client.subscribed.is_empty() && !self.client.is_asking(filter) {
            self.client.subscribe(filter, qos);
            self.client.ping();
        }
        self.client.turn();
        let is_all = self.client.topics_seen() >= self.shared.retained_topics;
        let is_over = self.connected_at.elapsed() > Duration::from_secs(3);
        if self.client.is_connected() && !self.client.subscribed.is_empty() && (is_all || is_over) {
            self.shared.recorder.record(self.role.client, What::Observed);
            self.client.leave();
            self.is_seen = self.phase == Phase::Inspect;
            self.change_at = Instant::now() + self.client.random.millis(200, 1500);
        }
    }
}

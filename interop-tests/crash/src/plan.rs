//! Who the clients are and what each does.

use crate::{
    client::Manners,
    history::{ClientInfo, ClientNo, History, TextNo},
    wire::Version,
};

/// What MQTT 3 sessions, and MQTT 5 sessions that ask for it, live without a connection: milliseconds.
const LONG: u64 = 3_600_000;

/// How a client is away at times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absence {
    pub(crate) online_ms: (u64, u64),
    pub(crate) short_ms: (u64, u64),
    pub(crate) long_ms: (u64, u64),
    /// A long absence also lasts for up to so many kills.
    pub(crate) kills: u64,
}

/// What a client publishes.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) plain: Vec<TextNo>,
    pub(crate) retained: Vec<TextNo>,
    pub(crate) delayed: Vec<TextNo>,
    /// `None`: 1 and 2 mixed.
    pub(crate) qos: Option<u8>,
    pub(crate) interval_us: u64,
    pub(crate) window: usize,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) client: ClientNo,
    pub(crate) clean: bool,
    pub(crate) clean_at_times: bool,
    pub(crate) manners: Manners,
    pub(crate) filters: Vec<(TextNo, u8)>,
    pub(crate) resubscribes: bool,
    pub(crate) absence: Option<Absence>,
    pub(crate) traffic: Option<Traffic>,
    /// Topic, QoS, delay in seconds.
    pub(crate) will: Option<(TextNo, u8, u8)>,
    pub(crate) observes: bool,
}

impl Role {
    /// Whether it stays away once the load has ended: its Will is to come.
    pub(crate) fn rests(&self) -> bool {
        self.will.is_some()
    }
}

/// What the broker under test can do, and how much it gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) delayed: bool,
    pub(crate) wills: bool,
    pub(crate) shared: bool,
    /// Also a client that subscribes `$SYS/#`.
    pub(crate) system: bool,
    pub(crate) publishers: usize,
    /// Messages that each of them publishes a second.
    pub(crate) rate: u64,
}

/// All clients, and the history that knows their names.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) history: History,
    pub(crate) roles: Vec<Role>,
}

const NEVER_AWAY: Option<Absence> = None;
const MUCH_AWAY: Option<Absence> = Some(Absence {
    online_ms: (200, 1500),
    short_ms: (20, 400),
    long_ms: (500, 3000),
    kills: 4,
});
const OFTEN_AWAY: Option<Absence> = Some(Absence {
    online_ms: (100, 1000),
    short_ms: (10, 200),
    long_ms: (200, 1000),
    kills: 1,
});

impl Plan {
    pub(crate) fn new(scope: &Scope) -> Plan {
        let mut plan = Plan::default();
        plan.publishers(scope);
        plan.subscribers();
        plan.come_and_go();
        if scope.shared {
            plan.groups();
        }
        if scope.wills {
            plan.wills();
        }
        plan.expiring();
        plan.observers();
        plan.volatile(scope);
        plan
    }

    fn add(&mut self, name: &str, version: Version, expiry: u64) -> &mut Role {
        let client = ClientNo::try_from(self.roles.len()).expect("a plan has some dozens of clients");
        self.history.clients.push(ClientInfo {
            name: name.to_owned(),
            version,
            expiry,
            observer: false,
        });
        self.roles.push(Role {
            client,
            clean: false,
            clean_at_times: false,
            manners: Manners::default(),
            filters: Vec::new(),
            resubscribes: false,
            absence: NEVER_AWAY,
            traffic: None,
            will: None,
            observes: false,
        });
        self.roles.last_mut().expect("it was just pushed")
    }

    fn subscriber(&mut self, name: &str, version: Version, filters: &[(&str, u8)]) -> &mut Role {
        let filters = filters
            .iter()
            .map(|(filter, qos)| (self.history.filter(filter), *qos))
            .collect();
        let role = self.add(name, version, LONG);
        role.filters = filters;
        role
    }

    fn publishers(&mut self, scope: &Scope) {
        for number in 0..scope.publishers {
            let mut topics = |class: &str, count: usize| {
                let names = (0..count).map(|topic| format!("{class}/{number}/{topic}"));
                let topics: Vec<_> = names.map(|name| self.history.topic(&name)).collect();
                topics
            };
            let traffic = Traffic {
                plain: topics("load", 3),
                retained: topics("retained", 2),
                delayed: topics("delayed", usize::from(scope.delayed)),
                qos: None,
                interval_us: 1_000_000 / scope.rate,
                window: 24,
            };
            let version = if number % 2 == 0 { Version::V5 } else { Version::V3 };
            let role = self.add(&format!("publisher-{number}"), version, LONG);
            role.traffic = Some(traffic);
            role.manners.tear_once_in = if number % 3 == 2 { 200 } else { 0 };
        }
    }

    /// Those that are there whenever the broker is.
    fn subscribers(&mut self) {
        self.subscriber("all-2", Version::V5, &[("load/#", 2)]);
        self.subscriber("all-1", Version::V3, &[("load/#", 1)]);
        self.subscriber(
            "overlap",
            Version::V5,
            &[("load/+/0", 1), ("load/0/#", 2), ("load/+/+", 1)],
        );
        self.subscriber("retained", Version::V5, &[("retained/#", 1)]);
        self.subscriber("delayed", Version::V5, &[("delayed/#", 2)]);
        self.subscriber("wills", Version::V5, &[("will/#", 2)]);
        let slow = self.subscriber("slow-2", Version::V5, &[("load/+/1", 2)]);
        slow.manners.ack_delay_ms = 60;
        let slow = self.subscriber("slow-1", Version::V3, &[("load/1/#", 1)]);
        slow.manners.ack_delay_ms = 200;
        let tears = self.subscriber("tears-2", Version::V5, &[("load/+/2", 2)]);
        tears.manners.tear_once_in = 60;
        let tears = self.subscriber("tears-1", Version::V3, &[("load/+/0", 1)]);
        tears.manners.tear_once_in = 60;
        let changes = self.subscriber("changes", Version::V5, &[("load/0/#", 1), ("load/2/#", 2)]);
        changes.resubscribes = true;
    }

    fn come_and_go(&mut self) {
        self.subscriber("away-2", Version::V3, &[("load/#", 2)]).absence = MUCH_AWAY;
        self.subscriber("away-1", Version::V5, &[("load/+/2", 1), ("load/0/+", 1)])
            .absence = MUCH_AWAY;
        self.subscriber("away-delayed", Version::V3, &[("delayed/#", 1)])
            .absence = MUCH_AWAY;
        self.subscriber("away-wills", Version::V5, &[("will/#", 1)])
            .absence = MUCH_AWAY;
        self.subscriber("away-retained", Version::V5, &[("retained/+/0", 2)])
            .absence = MUCH_AWAY;
        let often = self.subscriber("often", Version::V5, &[("load/1/0", 2), ("load/+/1", 1)]);
        often.absence = OFTEN_AWAY;
        often.manners.tear_once_in = 100;
    }

    fn groups(&mut self) {
        for (group, filter) in [("one", "load/#"), ("two", "load/0/#")] {
            let filter = format!("$share/{group}/{filter}");
            self.subscriber(&format!("{group}-steady"), Version::V5, &[(&filter, 2)]);
            self.subscriber(&format!("{group}-away"), Version::V5, &[(&filter, 1)])
                .absence = MUCH_AWAY;
            let tears = self.subscriber(&format!("{group}-tears"), Version::V5, &[(&filter, 2)]);
            tears.manners.tear_once_in = 80;
        }
    }

    fn wills(&mut self) {
        for (number, delay) in [1, 1, 2, 3].into_iter().enumerate() {
            let topic = self.history.topic(&format!("will/{number}"));
            let role = self.add(&format!("will-{number}"), Version::V5, LONG);
            role.will = Some((topic, 1 + (number % 2) as u8, delay));
            let after = u64::from(delay) * 1000 + 1600;
            role.absence = Some(Absence {
                online_ms: (100, 1500),
                short_ms: (10, 400),
                long_ms: (after, after + 4000),
                kills: 0,
            });
        }
    }

    /// Sessions that expire within seconds, and one that is thrown away at times.
    fn expiring(&mut self) {
        for (name, expiry) in [("expires-2", 2000), ("expires-3", 3000)] {
            let role = self.subscriber(name, Version::V5, &[("load/0/0", 1)]);
            role.absence = Some(Absence {
                online_ms: (100, 1000),
                short_ms: (10, 400),
                long_ms: (expiry + 1600, expiry + 3000),
                kills: 0,
            });
            let client = usize::from(role.client);
            self.history.clients[client].expiry = expiry;
        }
        let role = self.subscriber("anew", Version::V5, &[("load/1/1", 2)]);
        role.clean_at_times = true;
        role.absence = OFTEN_AWAY;
    }

    fn observers(&mut self) {
        for number in 0..2 {
            let role = self.subscriber(&format!("observer-{number}"), Version::V5, &[("retained/#", 1)]);
            role.clean = true;
            role.observes = true;
            let client = usize::from(role.client);
            let info = &mut self.history.clients[client];
            info.observer = true;
            info.expiry = 0;
        }
    }

    /// Traffic that needs no store: QoS 0, and QoS 1 between clients whose sessions end with their connections.
    fn volatile(&mut self, scope: &Scope) {
        for (name, qos) in [("live-0", 0), ("live-1", 1)] {
            let topic = self.history.topic(name);
            let role = self.subscriber(&format!("{name}-to"), Version::V5, &[(name, qos)]);
            role.clean = true;
            let to = usize::from(role.client);
            let role = self.add(&format!("{name}-from"), Version::V5, 0);
            role.clean = true;
            role.traffic = Some(Traffic {
                plain: vec![topic],
                retained: Vec::new(),
                delayed: Vec::new(),
                qos: Some(qos),
                interval_us: 20_000,
                window: 8,
            });
            let from = usize::from(role.client);
            self.history.clients[to].expiry = 0;
            self.history.clients[from].expiry = 0;
        }
        if scope.system {
            let role = self.subscriber("system", Version::V5, &[("$SYS/#", 0)]);
            role.clean = true;
            let client = usize::from(role.client);
            self.history.clients[client].expiry = 0;
        }
    }
}

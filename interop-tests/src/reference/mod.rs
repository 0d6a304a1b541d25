//! A broker as simple as it gets, written from the specification: one list of sessions, filters as text, everything
//! found by looking at everything. It does not say what must happen next, but judges what did: where several outcomes
//! are permitted (who of a shared group gets a message, in which order independent messages arrive), it takes note of
//! the one that it sees.

mod connection;
mod delivery;
mod publish;
mod subscribe;

use std::{collections::BTreeMap, rc::Rc};

use broker_core::{
    Config, Event, LinkId, Message, PacketId, QoS, ReasonCode, Request, SubscribeOptions, Will,
};

/// What the broker did wrong; `Ok` if it did nothing wrong.
pub type Judgement = Result<(), String>;

/// Slack of the broker's timers, milliseconds: what is due may happen this much later.
pub const TIMER_SLACK_MS: u64 = 64;

/// Later than everything.
const NEVER: u64 = u64::MAX;

/// A published message.
#[derive(Debug)]
struct Note {
    /// What makes it distinguishable from all others: it travels as the correlation data.
    number: u64,
    publisher: String,
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
    expires: u64,
}

/// A message that a session is to get.
#[derive(Clone, Debug)]
struct Copy {
    note: Rc<Note>,
    qos: QoS,
    retain: bool,
    /// Sorted.
    ids: Vec<u32>,
    origin: Origin,
    /// It is permitted, but not demanded.
    optional: bool,
    /// It has to wait: it counts against the limit of the queue.
    queued: bool,
    /// The subscriptions that made it have changed since: it comes as they are by now.
    is_loose: bool,
}

/// Why a session gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A subscription matched a message as it was published.
    Live,
    /// It was retained when the subscription on this filter was made.
    Retained(String),
    /// A shared group chose the session.
    Shared(Target),
}

/// A shared group on one filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    group: String,
    filter: String,
}

/// A message that one of several sessions is to get.
#[derive(Debug)]
struct Debt {
    target: Target,
    /// Those who may have it waiting, with what each of them would get.
    holders: Vec<(String, Copy)>,
    optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Local,
    Exclusive,
    Shared(String),
}

#[derive(Clone, Debug)]
struct Subscription {
    filter: String,
    kind: Kind,
    options: SubscribeOptions,
    id: Option<u32>,
}

/// A delivery of QoS 1 or 2 that is not complete.
#[derive(Debug)]
struct Inflight {
    id: u16,
    copy: Copy,
    /// PUBREC has come.
    released: bool,
    /// Sent on the present connection.
    sent: bool,
}

#[derive(Debug)]
struct Session {
    client: String,
    link: Option<LinkId>,
    is_v5: bool,
    congested: bool,
    expiry: u32,
    expires_at: u64,
    will: Option<Will>,
    will_at: u64,
    subscriptions: Vec<Subscription>,
    waiting: Vec<Copy>,
    inflight: Vec<Inflight>,
    /// The packet identifier that comes next if it is free.
    next_id: u16,
    window: u16,
    awaiting_rel: Vec<u16>,
    /// It outlives its connection, or did so: QoS 1 and 2 come from the journal.
    is_stored: bool,
    /// Filters whose retained messages have not all come, and whether they have begun anew since, because the
    /// connection was lost before.
    replays: Vec<(String, bool)>,
}

impl Session {
    fn sent(&self) -> usize {
        self.inflight.iter().filter(|entry| entry.sent).count()
    }

    fn has_unsent(&self) -> bool {
        self.inflight.iter().any(|entry| !entry.sent)
    }

    fn has_window(&self) -> bool {
        self.sent() < usize::from(self.window) && !self.has_unsent()
    }

    fn is_reachable(&self) -> bool {
        self.link.is_some() && !self.congested
    }
}

/// An answer, as far as the specification determines it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Connected {
        present: bool,
        expiry: u32,
        keep_alive: Option<u16>,
        assigned: bool,
    },
    Refused(ReasonCode),
    Close(ReasonCode),
    PubAck(PacketId, ReasonCode),
    PubRec(PacketId, ReasonCode),
    PubRel(PacketId, ReasonCode),
    PubComp(PacketId, ReasonCode),
    SubAck(PacketId, Vec<ReasonCode>),
    UnsubAck(PacketId, Vec<ReasonCode>),
}

/// The naive broker.
#[derive(Debug)]
pub struct Reference {
    config: Config,
    now: u64,
    sessions: Vec<Session>,
    retained: BTreeMap<String, Rc<Note>>,
    /// Due time, order of arrival, message.
    delayed: Vec<(u64, u64, Rc<Note>)>,
    /// Retained messages that were delayed before. To a subscription made during the delay, whose retained messages
    /// still wait for its window, they may come twice: as they are published, and as retained.
    late: BTreeMap<u64, Rc<Note>>,
    debts: Vec<Debt>,
    /// Answers that must come, each with its alternatives.
    expected: Vec<(LinkId, Vec<Answer>)>,
    arrivals: u64,
    /// Messages published since the node was quiet: with more than one, their order is not determined.
    published: u32,
}

impl Reference {
    /// A broker without sessions.
    pub fn new(config: Config, now: u64) -> Reference {
        Reference {
            config,
            now,
            sessions: Vec::new(),
            retained: BTreeMap::new(),
            delayed: Vec::new(),
            late: BTreeMap::new(),
            debts: Vec::new(),
            expected: Vec::new(),
            arrivals: 0,
            published: 0,
        }
    }

    /// Another configuration.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
    }

    /// Sets the clock, milliseconds.
    pub fn set_clock(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// Numbers of sessions and of delayed messages.
    pub fn census(&self) -> (usize, usize) {
        (self.sessions.len(), self.delayed.len())
    }

    /// How many retained messages there are, at least and at most: some may expire just now.
    pub fn retained(&self) -> (usize, usize) {
        let slack = 2 * TIMER_SLACK_MS;
        let later = |limit: u64| self.retained.values().filter(|note| note.expires > limit).count();
        (later(self.now + slack), later(self.now.saturating_sub(slack)))
    }

    /// What a client does after its CONNECT.
    pub fn request(&mut self, link: LinkId, request: &Request) {
        let Some(at) = self.find_link(link) else {
            return;
        };
        match request {
            Request::Publish(publish) => self.publish(link, at, publish),
            Request::PubAck(id, _) => self.puback(at, id.get()),
            Request::PubRec(id, reason) => self.pubrec(link, at, *id, *reason),
            Request::PubRel(id, _) => self.pubrel(link, at, *id),
            Request::PubComp(id, _) => self.pubcomp(at, id.get()),
            Request::Undeliverable(id) => self.undeliverable(at, id.map(PacketId::get)),
            Request::Subscribe(subscribe) => self.subscribe(link, at, subscribe),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(link, at, unsubscribe),
            Request::Disconnect(disconnect) => self.disconnect(at, disconnect),
            Request::Connect(_) | Request::Auth(_) | Request::Note(..) | Request::SetWill(_) => {}
        }
    }

    /// The link's bytes wait, or have gone.
    pub fn congest(&mut self, link: LinkId, congested: bool) {
        if let Some(at) = self.find_link(link) {
            self.sessions[at].congested = congested;
        }
    }

    /// What the broker tells a client: is it right?
    ///
    /// # Errors
    /// If it is not.
    pub fn event(&mut self, link: LinkId, event: &Event) -> Judgement {
        let answer = match event {
            Event::Deliver(delivery) => return self.delivered(link, delivery),
            Event::Auth(_) => return Err(format!("{link:?}: AUTH without enhanced authentication")),
            Event::Noted(..) | Event::Asleep | Event::WillSet(_) | Event::Drained => {
                return Err(format!("{link:?}: {event:?} unasked"));
            }
            Event::Connected(connected) => {
                self.name_client(link, connected.client.client_id.as_str());
                Answer::Connected {
                    present: connected.session_present,
                    expiry: connected.session_expiry_interval,
                    keep_alive: connected.server_keep_alive,
                    assigned: connected.client_id_assigned,
                }
            }
            Event::Refused(closing) => Answer::Refused(closing.reason),
            Event::Close(closing) => Answer::Close(closing.reason),
            Event::PubAck(id, reason) => Answer::PubAck(*id, *reason),
            Event::PubRec(id, reason) => Answer::PubRec(*id, *reason),
            Event::PubRel(id, reason) => Answer::PubRel(*id, *reason),
            Event::PubComp(id, reason) => Answer::PubComp(*id, *reason),
            Event::SubAck(id, codes) => Answer::SubAck(*id, codes.clone()),
            Event::UnsubAck(id, codes) => Answer::UnsubAck(*id, codes.clone()),
        };
        let place = self
            .expected
            .iter()
            .position(|(to, permitted)| *to == link && permitted.contains(&answer));
        if let Some(place) = place {
            self.expected.remove(place);
            return Ok(());
        }
        if let Answer::PubRel(id, ReasonCode::Success) = answer {
            return self.released_again(link, id.get());
        }
        let instead: Vec<_> = self.expected.iter().filter(|(to, _)| *to == link).collect();
        Err(format!("{link:?} got {answer:?} but expects {instead:?}"))
    }

    fn expect(&mut self, link: LinkId, answer: Answer) {
        self.expected.push((link, vec![answer]));
    }

    fn find(&self, client: &str) -> Option<usize> {
        self.sessions.iter().position(|session| session.client == client)
    }

    fn find_link(&self, link: LinkId) -> Option<usize> {
        self.sessions
            .iter()
            .position(|session| session.link == Some(link))
    }
}

/// The number by which a message is told apart from all others.
pub fn number_of(message: &Message) -> Option<u64> {
    let data = message.properties().correlation_data()?;
    Some(u64::from_be_bytes(data.try_into().ok()?))
}

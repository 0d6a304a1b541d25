//! What the clients did and saw, in one order.
//!
//! A client records what it is about to send before it sends it, and what it has received after it has received it. The
//! order of the events is therefore one in which the broker may have done its part: what is recorded as acknowledged
//! before something else is recorded as sent was acknowledged before it was sent.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::wire::{Ack, Version};

/// Index in [`History::clients`].
pub(crate) type ClientNo = u16;
/// Index in [`History::topics`] or [`History::filters`].
pub(crate) type TextNo = u16;

/// No client: what happens to the broker.
pub(crate) const BROKER: ClientNo = u16::MAX;

/// What a client is, whatever it does.
#[derive(Clone, Debug)]
pub(crate) struct ClientInfo {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Whether it connects, subscribes and leaves again to see what is retained.
    pub(crate) observer: bool,
    /// Milliseconds that its session lives without a connection; 0: it ends with the connection.
    pub(crate) expiry: u64,
}

/// What a published message is beyond its QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// It replaces the retained message of its topic.
    Retained,
    /// It removes the retained message of its topic; subscribers cannot tell which one it was.
    Clear,
    /// Due so many seconds after it was sent.
    Delayed(u8),
    /// Due so many seconds after the connection's end.
    Will(u8),
}

/// A message as it reached a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) publisher: ClientNo,
    pub(crate) number: u32,
    pub(crate) topic: TextNo,
    pub(crate) id: u16,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The broker's process is started, prints that it is ready, is about to be killed.
    Started,
    Ready,
    Killed,
    /// From now on the disk takes nothing, or takes something again.
    Disk {
        works: bool,
    },
    /// All load has ended and nothing is on its way any more.
    Drained,
    /// CONNECT is sent. `will`: number of the Will it carries, or 0.
    Connecting {
        clean: bool,
        will: u32,
    },
    /// CONNACK 0 has come.
    Connected {
        present: bool,
    },
    /// The connection has ended; `orderly`: the client sent DISCONNECT and then saw the broker close.
    Ended {
        orderly: bool,
    },
    Subscribing {
        filter: TextNo,
    },
    Subscribed {
        filter: TextNo,
        qos: u8,
    },
    Unsubscribing {
        filter: TextNo,
    },
    /// `existed` is false if UNSUBACK says that there was no such subscription.
    Unsubscribed {
        filter: TextNo,
        existed: bool,
    },
    /// PUBLISH is sent for the first time, or a CONNECT with this Will is about to be.
    Publishing {
        number: u32,
        topic: TextNo,
        qos: u8,
        kind: Kind,
    },
    Resending {
        number: u32,
    },
    /// PUBACK or PUBREC has come.
    Acknowledged {
        number: u32,
    },
    /// The same with a reason code that is an error.
    Refused {
        number: u32,
    },
    /// Given to the application.
    Delivered(Delivery),
    /// A QoS 2 PUBLISH whose packet identifier is known: not given to the application.
    Repeated(Delivery),
    /// A subscriber's acknowledgement of QoS 2 sent, or the broker's received.
    Handshake {
        ack: Ack,
        id: u16,
    },
    /// An observer of retained messages has got what it will get.
    Observed,
    /// A client noticed something that must not be; the text is in [`History::notes`].
    Noticed(Fault),
}

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Lost,
    Doubled,
    Reordered,
    SessionPresent,
    Subscription,
    PacketIdentifier,
    Retained,
    Delayed,
    Will,
    Expired,
    Protocol,
    Broker,
}

impl Fault {
    pub(crate) const ALL: [Fault; 12] = [
        Fault::Lost,
        Fault::Doubled,
        Fault::Reordered,
        Fault::SessionPresent,
        Fault::Subscription,
        Fault::PacketIdentifier,
        Fault::Retained,
        Fault::Delayed,
        Fault::Will,
        Fault::Expired,
        Fault::Protocol,
        Fault::Broker,
    ];

    /// The name in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Fault::Lost => "lost",
            Fault::Doubled => "doubled",
            Fault::Reordered => "reordered",
            Fault::SessionPresent => "wrong session present",
            Fault::Subscription => "subscription missing",
            Fault::PacketIdentifier => "packet identifier misused",
            Fault::Retained => "retained missing or outdated",
            Fault::Delayed => "delayed lost, doubled or early",
            Fault::Will => "Will missing, doubled or undue",
            Fault::Expired => "expired session present",
            Fault::Protocol => "protocol violated",
            Fault::Broker => "broker failed otherwise",
        }
    }
}

/// What happened, when (milliseconds since the start) and to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) at: u32,
    pub(crate) client: ClientNo,
    pub(crate) what: What,
}

/// All that happened, and the names that the events refer to.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) clients: Vec<ClientInfo>,
    pub(crate) topics: Vec<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) events: Vec<Event>,
    /// By index of the event.
    pub(crate) notes: BTreeMap<usize, String>,
}

impl History {
    /// The number of a topic, new or known.
    pub(crate) fn topic(&mut self, topic: &str) -> TextNo {
        number_of(&mut self.topics, topic)
    }

    /// The number of a filter, new or known.
    pub(crate) fn filter(&mut self, filter: &str) -> TextNo {
        number_of(&mut self.filters, filter)
    }

    /// Who a client is, for people.
    pub(crate) fn name(&self, client: ClientNo) -> &str {
        self.clients
            .get(usize::from(client))
            .map_or("broker", |info| info.name.as_str())
    }

    pub(crate) fn note(&mut self, at: u32, client: ClientNo, fault: Fault, text: String) {
        self.notes.insert(self.events.len(), text);
        let what = What::Noticed(fault);
        self.events.push(Event { at, client, what });
    }

    /// One line per event, for the search for a mistake.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        (0..self.events.len()).try_for_each(|index| writeln!(out, "{}", self.line(index)))
    }

    /// One event as a line.
    pub(crate) fn line(&self, index: usize) -> Line<'_> {
        Line { history: self, index }
    }
}

fn number_of(texts: &mut Vec<String>, text: &str) -> TextNo {
    let at = texts.iter().position(|known| known == text).unwrap_or_else(|| {
        texts.push(text.to_owned());
        texts.len() - 1
    });
    TextNo::try_from(at).expect("a plan has some dozens of topics and filters")
}

/// Displays one event.
pub(crate) struct Line<'a> {
    history: &'a History,
    index: usize,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = self.history;
        let Event { at, client, what } = history.events[self.index];
        let filter = |number: TextNo| &history.filters[usize::from(number)];
        write!(f, "{}.{:03} {} ", at / 1000, at % 1000, history.name(client))?;
        match what {
            What::Subscribing { filter: of } => write!(f, "subscribing {}", filter(of)),
            What::Subscribed { filter: of, qos } => write!(f, "subscribed {} qos={qos}", filter(of)),
            What::Unsubscribing { filter: of } => write!(f, "unsubscribing {}", filter(of)),
            What::Unsubscribed { filter: of, existed } => {
                write!(f, "unsubscribed {} existed={existed}", filter(of))
            }
            What::Publishing {
                number,
                topic,
                qos,
                kind,
            } => {
                let topic = &history.topics[usize::from(topic)];
                write!(f, "publishing {number} {topic} qos={qos} {kind:?}")
            }
            What::Delivered(delivery) => write!(f, "delivered {}", Described(history, delivery)),
            What::Repeated(delivery) => write!(f, "repeated {}", Described(history, delivery)),
            What::Noticed(fault) => {
                let text = history.notes.get(&self.index).map_or("", String::as_str);
                write!(f, "noticed {fault:?}: {text}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

struct Described<'a>(&'a History, Delivery);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Described(history, it) = self;
        write!(
            f,
            "{} {} {} id={} qos={} dup={} retain={}",
            history.name(it.publisher),
            it.number,
            history.topics[usize::from(it.topic)],
            it.id,
            it.qos,
            u8::from(it.dup),
            u8::from(it.retain)
        )
    }
}

/// The history while it grows.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    history: Mutex<History>,
}

impl Recorder {
    pub(crate) fn new(history: History) -> Recorder {
        Recorder {
            start: Instant::now(),
            history: Mutex::new(history),
        }
    }

    /// Appends an event at the present time.
    pub(crate) fn record(&self, client: ClientNo, what: What) {
        let mut history = self.lock();
        let at = self.now();
        history.events.push(Event { at, client, what });
    }

    /// Appends a fault that a client noticed.
    pub(crate) fn notice(&self, client: ClientNo, fault: Fault, text: String) {
        let mut history = self.lock();
        history.note(self.now(), client, fault, text);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start; a run of more than seven weeks would wrap.
    pub(crate) fn now(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}

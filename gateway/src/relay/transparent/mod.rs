//! One connection to the broker for each client (MQTT-SN §4.2.1, "transparent gateway").
//!
//! ```text
//! CONNECT ─► Joining ──CONNACK──► Serving ◄──► (asleep)
//!    waits for the end of           │
//!    the same client's earlier one  ▼ DISCONNECT, lost
//!                                 Leaving ──closed──► gone
//! ```
//!
//! The broker has the session; here is only what it has no word for: whether the client sleeps, its notes, and a Will that
//! was changed after CONNECT. MQTT 3.1.1 cannot change a Will, so the gateway publishes a changed one itself and then
//! takes leave in order; were the gateway itself to vanish, the broker would publish the Will of the CONNECT.

mod join;
mod kept;
mod service;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use broker_core::{
    Closing, Connect, DisconnectCause, Event, LinkId, MessageParts, PacketId, QoS, ReasonCode, Request,
    Timestamp, random::Random, timer::TimerQueue,
};
use slab::Slab;

use super::{
    client::{Backoff, Notes},
    connection::{Connection, Incoming},
    upstream::{ConnId, Counters, Notice, Output, Terms, Transport, Upstream},
};
use kept::Kept;
use service::{Context, Service};

/// How long a connection whose client is gone may take for a Will that the gateway publishes.
const FAREWELL: Duration = Duration::from_secs(10);

/// The state machine: see the [module](self).
pub(crate) struct Transparent {
    terms: Terms,
    lines: Slab<Line>,
    by_link: HashMap<LinkId, usize>,
    by_conn: HashMap<ConnId, usize>,
    homes: BTreeMap<Arc<str>, Home>,
    kept: Kept,
    timers: TimerQueue<usize>,
    connections: u64,
    backoff: Backoff,
    random: Random,
    counters: Counters,
}

/// The lines of one client id that others have to know of.
#[derive(Debug, Default)]
struct Home {
    /// The client is served here.
    serving: Option<usize>,
    /// It takes leave of the broker here: no other line is opened before that is done, as the broker might see them in the
    /// wrong order and publish a Will that is none.
    leaving: Option<usize>,
    /// That other line.
    waiting: Option<usize>,
}

/// A client's connection to the broker.
struct Line {
    client_id: Arc<str>,
    /// `None` while it waits for another line to end.
    connection: Option<Connection>,
    stage: Stage,
    /// A timer is armed for this time or an earlier one.
    armed: Timestamp,
}

enum Stage {
    Joining {
        link: LinkId,
        connect: Box<Connect>,
        /// Of the session that goes on.
        notes: Notes,
    },
    Serving(Box<Service>),
    /// A Will is under way, at most until then.
    LastWill(PacketId, Timestamp),
    Closing,
}

impl Transparent {
    pub(crate) fn new(terms: Terms) -> Transparent {
        Transparent {
            random: Random::new(terms.seed),
            kept: Kept::new(terms.sessions_max),
            terms,
            lines: Slab::new(),
            by_link: HashMap::new(),
            by_conn: HashMap::new(),
            homes: BTreeMap::new(),
            timers: TimerQueue::new(),
            connections: 0,
            backoff: Backoff::new(),
            counters: Counters::default(),
        }
    }

    /// Ends a line for which nothing more can be done.
    fn remove(&mut self, now: Timestamp, key: usize, out: &mut Output) {
        let Some(mut line) = self.lines.try_remove(key) else {
            return;
        };
        if let Some(connection) = &mut line.connection {
            connection.close(now, false, out);
            self.by_conn.remove(&connection.id());
        }
        match line.stage {
            Stage::Joining { link, .. } => {
                self.by_link.remove(&link);
            }
            Stage::Serving(service) => {
                if let Some(link) = service.link {
                    self.by_link.remove(&link);
                }
                if !service.is_clean {
                    let client_id = Arc::clone(&line.client_id);
                    self.kept.put(client_id, service.notes, service.will);
                }
            }
            Stage::LastWill(..) | Stage::Closing => {}
        }
        let Some(home) = self.homes.get_mut(&line.client_id) else {
            return;
        };
        for place in [&mut home.serving, &mut home.leaving, &mut home.waiting] {
            *place = place.filter(|&other| other != key);
        }
        match (home.leaving, home.waiting.take()) {
            (None, Some(waiting)) => self.open(now, waiting, out),
            (_, None) if home.serving.is_none() && home.leaving.is_none() => {
                self.homes.remove(&line.client_id);
            }
            (_, waiting) => home.waiting = waiting,
        }
    }

    fn arm(&mut self, key: usize) {
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        let at = line.deadline();
        if at < line.armed {
            line.armed = at;
            self.timers.arm(at, key);
        }
    }

    /// The client is gone from the line. With `is_goodbye` its Will is discarded.
    fn leave(&mut self, now: Timestamp, key: usize, is_goodbye: bool, out: &mut Output) {
        let line = &mut self.lines[key];
        let (Stage::Serving(service), Some(connection)) = (&mut line.stage, &mut line.connection) else {
            return;
        };
        let mut stage = Stage::Closing;
        let will = service.will.take();
        if !service.is_clean {
            let notes = std::mem::take(&mut service.notes);
            let client_id = Arc::clone(&line.client_id);
            self.kept.put(client_id, notes, will.clone());
        }
        let own_will = will.filter(|_| service.will_changed && !is_goodbye);
        let says_goodbye = is_goodbye || service.will_changed;
        if let Some(link) = service.link {
            self.by_link.remove(&link);
        }
        if let Some(will) = own_will {
            let parts = MessageParts {
                qos: will.qos,
                retain: will.retain,
                ..MessageParts::new(&will.topic, &will.payload)
            };
            let origin = Arc::clone(&service.client);
            let id = (will.qos != QoS::AtMostOnce).then(|| service.free_id());
            let is_sent = parts
                .publish(now, &origin)
                .is_some_and(|message| connection.publish(now, &message, id, false, out));
            if let (Some(id), true) = (id, is_sent) {
                stage = Stage::LastWill(id, now.after(FAREWELL));
            }
        }
        if let Stage::Closing = stage {
            connection.close(now, says_goodbye, out);
        }
        connection.pause(now, false, out);
        line.stage = stage;
        let home = self.homes.entry(Arc::clone(&line.client_id)).or_default();
        home.serving = home.serving.filter(|&other| other != key);
        home.leaving = Some(key);
        self.arm(key);
    }

    fn disconnect(&mut self, now: Timestamp, key: usize, cause: DisconnectCause, out: &mut Output) {
        let line = &mut self.lines[key];
        match (&mut line.stage, cause) {
            (Stage::Serving(service), DisconnectCause::Asleep(seconds)) => {
                if let Some(link) = service.link {
                    self.by_link.remove(&link);
                    out.events.push((link, Event::Asleep));
                }
                service.fall_asleep(now.after_secs(u64::from(seconds)));
                self.arm(key);
            }
            (Stage::Serving(_), cause) => {
                out.notices.push(Notice::Disconnected {
                    client_id: line.client_id.to_string(),
                    reason: cause.text().to_owned(),
                });
                self.leave(now, key, matches!(cause, DisconnectCause::Normal), out);
            }
            // DISCONNECT may follow CONNECT without waiting for the answer (MQTT 3.1.1 §3.1.4).
            (_, cause) => {
                if let Some(connection) = &mut line.connection {
                    connection.close(now, cause == DisconnectCause::Normal, out);
                }
                self.remove(now, key, out);
            }
        }
    }

    /// The broker has closed the connection, or has made it useless.
    fn broken(&mut self, now: Timestamp, key: usize, reason: &str, out: &mut Output) {
        let line = &self.lines[key];
        let (client_id, reason) = (line.client_id.to_string(), reason.to_owned());
        match &line.stage {
            Stage::Joining { link, .. } => {
                let closing = Closing::because(ReasonCode::ServerUnavailable, reason.clone());
                out.events.push((*link, Event::Refused(Box::new(closing))));
                out.notices.push(Notice::Refused { client_id, reason });
            }
            Stage::Serving(service) => {
                if let Some(link) = service.link {
                    let closing = Closing::because(ReasonCode::ServerUnavailable, reason.clone());
                    out.events.push((link, Event::Close(Box::new(closing))));
                }
                out.notices.push(Notice::Disconnected { client_id, reason });
            }
            Stage::LastWill(..) | Stage::Closing => {}
        }
        self.remove(now, key, out);
    }

    fn handle_input(&mut self, now: Timestamp, key: usize, bytes: &[u8], out: &mut Output) {
        if let Some(connection) = self.lines[key].connection.as_mut() {
            connection.feed(bytes);
        }
        loop {
            let Some(line) = self.lines.get_mut(key) else {
                return;
            };
            let Some(connection) = line.connection.as_mut() else {
                return;
            };
            let packet = match connection.next() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(fault) => return self.broken(now, key, &fault.to_string(), out),
            };
            match (&mut line.stage, packet) {
                (
                    Stage::Joining { .. },
                    Incoming::ConnAck {
                        session_present,
                        reason,
                    },
                ) => {
                    self.joined(now, key, session_present, reason, out);
                }
                (Stage::Serving(service), packet) => {
                    let counters = &mut self.counters;
                    let mut context = Context {
                        now,
                        connection,
                        counters,
                        out,
                    };
                    service.handle_packet(packet, &mut context);
                }
                (Stage::LastWill(will, _), Incoming::PubRec(id)) if *will == id => {
                    connection.pub_rel(now, id, out);
                }
                (Stage::LastWill(will, _), Incoming::PubAck(id) | Incoming::PubComp(id)) if *will == id => {
                    connection.close(now, true, out);
                    line.stage = Stage::Closing;
                }
                // §3.2: the first packet of a server is CONNACK.
                (Stage::Joining { .. }, _) => {
                    return self.broken(now, key, "the broker's first packet is no CONNACK", out);
                }
                (Stage::LastWill(..) | Stage::Closing, _) => {}
            }
        }
        self.arm(key);
    }
}

impl Line {
    fn deadline(&self) -> Timestamp {
        let connection = self
            .connection
            .as_ref()
            .map_or(Timestamp::NEVER, Connection::deadline);
        let own = match &self.stage {
            Stage::Serving(service) => service.asleep_until,
            Stage::LastWill(_, until) => *until,
            Stage::Joining { .. } | Stage::Closing => Timestamp::NEVER,
        };
        connection.min(own)
    }
}

impl Upstream for Transparent {
    fn start(&mut self, _: Timestamp, _: &mut Output) {}

    fn handle_request(&mut self, now: Timestamp, link: LinkId, request: Request, out: &mut Output) {
        if let Request::Connect(connect) = request {
            return self.connect(now, link, connect, out);
        }
        let Some(&key) = self.by_link.get(&link) else {
            return;
        };
        if let Request::Disconnect(disconnect) = request {
            return self.disconnect(now, key, disconnect.cause, out);
        }
        let line = &mut self.lines[key];
        if let (Stage::Serving(service), Some(connection)) = (&mut line.stage, &mut line.connection) {
            let counters = &mut self.counters;
            let mut context = Context {
                now,
                connection,
                counters,
                out,
            };
            service.handle_request(request, &mut context);
            self.arm(key);
        }
    }

    fn handle_transport(&mut self, now: Timestamp, conn: ConnId, happening: Transport<'_>, out: &mut Output) {
        let Some(&key) = self.by_conn.get(&conn) else {
            return;
        };
        match happening {
            Transport::Opened => {
                self.backoff.succeeded();
                if let Some(connection) = self.lines[key].connection.as_mut() {
                    connection.handle_opened(now, out);
                }
            }
            Transport::Input(bytes) => self.handle_input(now, key, bytes, out),
            Transport::Closed(reason) => {
                let line = &self.lines[key];
                if line
                    .connection
                    .as_ref()
                    .is_some_and(|connection| !connection.was_opened())
                {
                    let random = self.random.next();
                    self.backoff.failed(now, random);
                }
                self.broken(now, key, reason, out);
            }
        }
    }

    fn handle_timeout(&mut self, now: Timestamp, out: &mut Output) {
        while let Some(key) = self.timers.pop_due(now) {
            let Some(line) = self.lines.get_mut(key) else {
                continue;
            };
            // Left over from before it was armed for a later time, or of another line.
            if line.armed > now {
                continue;
            }
            line.armed = Timestamp::NEVER;
            let kept = match &mut line.connection {
                Some(connection) => connection.handle_timeout(now, out),
                None => Ok(()),
            };
            match (&line.stage, kept) {
                (_, Err(fault)) => self.broken(now, key, &fault.to_string(), out),
                (Stage::Serving(service), Ok(())) if service.asleep_until <= now => {
                    out.notices.push(Notice::Disconnected {
                        client_id: line.client_id.to_string(),
                        reason: "it did not wake in time".to_owned(),
                    });
                    self.leave(now, key, false, out);
                }
                (Stage::LastWill(_, until), Ok(())) if *until <= now => self.remove(now, key, out),
                _ => {}
            }
            self.arm(key);
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    fn shutdown(&mut self, now: Timestamp, out: &mut Output) {
        let keys: Vec<_> = self.lines.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(line) = self.lines.get_mut(key) else {
                continue;
            };
            let (client_id, mut link) = (line.client_id.to_string(), None);
            if let Stage::Serving(service) = &line.stage {
                link = service.link;
                let reason = "the gateway ends".to_owned();
                out.notices.push(Notice::Disconnected { client_id, reason });
            }
            if let Some(link) = link {
                let closing = Closing::new(ReasonCode::ServerShuttingDown);
                out.events.push((link, Event::Close(Box::new(closing))));
            }
            if let Some(connection) = &mut line.connection {
                connection.close(now, true, out);
            }
        }
        self.by_link.clear();
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

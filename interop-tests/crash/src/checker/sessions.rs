//! Whether a session has to exist, and whether a Will has to be sent.

use std::collections::BTreeSet;

use crate::history::{Event, Fault, Kind, TextNo, What};

use super::{FORGOTTEN, MARGIN, Walk, messages::Duty};

/// Milliseconds after a start within which all that had become due before has happened.
const OPENING: u32 = 300;

/// Whether the broker holds a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exists {
    No,
    /// A CONNECT was sent whose answer was not seen.
    Perhaps,
    Yes,
}

/// A subscription of a client.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) filter: TextNo,
    pub(super) qos: u8,
    /// Index of the event at which SUBACK was seen.
    pub(super) since: usize,
    /// Index of the event that ended it.
    pub(super) until: Option<usize>,
}

/// A Will that the broker may hold.
#[derive(Clone, Copy, Debug)]
struct Armed {
    number: u32,
    /// CONNACK was seen.
    is_certain: bool,
    /// DISCONNECT removed it, for certain.
    is_removed: bool,
}

/// What is known of one client's session.
#[derive(Debug)]
pub(super) struct Session {
    expiry: u32,
    exists: Exists,
    /// Between Connecting and Ended.
    is_open: bool,
    /// Between Connected and Ended.
    is_connected: bool,
    /// The broker was killed while it was open.
    is_cut: bool,
    /// Counts connections.
    pub(super) connection: u32,
    /// When it lost its connection: at the earliest.
    away_from: Option<u32>,
    /// At the latest; `None`: not known yet, or it is connected.
    away_until: Option<u32>,
    /// The next start of the broker is the latest time.
    is_pending: bool,
    is_clean: bool,
    /// It did not exist for certain when CONNECT was sent, or it had expired.
    is_gone: Option<Fault>,
    subscriptions: Vec<Subscription>,
    /// Filters that the client has ever asked for.
    filters: BTreeSet<TextNo>,
    /// UNSUBSCRIBE was sent once for what stood.
    leaving: Option<TextNo>,
    will: Option<Armed>,
    /// Wills of earlier connections that this one removes if it comes in time.
    earlier: Vec<(u32, u32)>,
}

impl Session {
    pub(super) fn new(expiry: u64) -> Session {
        Session {
            expiry: u32::try_from(expiry).unwrap_or(u32::MAX),
            exists: Exists::No,
            is_open: false,
            is_connected: false,
            is_cut: false,
            connection: 0,
            away_from: None,
            away_until: None,
            is_pending: false,
            is_clean: false,
            is_gone: None,
            subscriptions: Vec::new(),
            filters: BTreeSet::new(),
            leaving: None,
            will: None,
            earlier: Vec::new(),
        }
    }

    /// Whether it has a connection to the process that runs now.
    pub(super) fn is_open(&self) -> bool {
        self.is_open && !self.is_cut
    }

    pub(super) fn ready(&mut self, at: u32) {
        if self.is_pending {
            self.away_until = Some(at);
            self.is_pending = false;
        }
    }

    /// `known_at`: what it learned before that, the store was told.
    pub(super) fn killed(&mut self, at: u32, known_at: u32) {
        if self.is_open {
            if self.is_connected || self.away_from.is_none() {
                self.away_from = Some(at);
            }
            self.is_cut = true;
        } else if self.away_until.is_none_or(|until| until < known_at) {
            return;
        }
        self.away_until = None;
        self.is_pending = true;
        // Whether DISCONNECT has outlived the process is not known.
        self.will = self.will.take().filter(|will| !will.is_removed);
    }

    fn connecting(&mut self, index: usize, at: u32, clean: bool) {
        let expired = self
            .away_until
            .is_some_and(|until| at > until.saturating_add(self.expiry).saturating_add(MARGIN));
        self.is_gone = match self.exists {
            Exists::No => Some(Fault::SessionPresent),
            _ if expired => Some(Fault::Expired),
            _ if clean => Some(Fault::SessionPresent),
            _ => None,
        };
        if self.is_gone.is_some() {
            self.exists = Exists::Perhaps;
            self.away_from = None;
            self.end_subscriptions(index);
        }
        self.is_clean = clean;
        self.is_open = true;
        self.is_connected = false;
        self.is_cut = false;
        self.is_pending = false;
        self.away_until = None;
        self.connection += 1;
    }

    /// Returns what is wrong with session present.
    fn connected(&mut self, index: usize, at: u32, present: bool) -> Option<Fault> {
        let is_alive = !self.is_clean
            && self.exists == Exists::Yes
            && self
                .away_from
                .is_none_or(|from| at.saturating_add(MARGIN) < from.saturating_add(self.expiry));
        let fault = match (present, self.is_gone) {
            (true, Some(fault)) => Some(fault),
            (false, _) if is_alive => Some(Fault::SessionPresent),
            _ => None,
        };
        // A subscription that the broker dropped with a session that it had to keep still counts.
        if !present && fault.is_none() {
            self.end_subscriptions(index);
        }
        self.exists = Exists::Yes;
        self.is_connected = true;
        self.away_from = None;
        fault
    }

    fn ended(&mut self, index: usize, at: u32, orderly: bool) {
        if self.expiry == 0 {
            self.exists = Exists::No;
            self.end_subscriptions(index);
        }
        if !self.is_cut {
            if self.is_connected || self.away_from.is_none() {
                self.away_from = Some(at);
            }
            self.away_until = Some(at);
            if let Some(will) = &mut self.will {
                will.is_removed = orderly;
            }
        }
        self.is_open = false;
        self.is_connected = false;
    }

    fn end_subscriptions(&mut self, index: usize) {
        for subscription in self.subscriptions.iter_mut().filter(|it| it.until.is_none()) {
            subscription.until = Some(index);
        }
        self.leaving = None;
    }

    fn standing(&mut self, filter: TextNo) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|it| it.filter == filter && it.until.is_none())
    }

    pub(super) fn subscribing(&mut self, filter: TextNo) {
        self.filters.insert(filter);
        if self.leaving == Some(filter) {
            self.leaving = None;
        }
    }

    pub(super) fn subscribed(&mut self, index: usize, filter: TextNo, qos: u8) {
        if let Some(standing) = self.standing(filter) {
            standing.qos = standing.qos.max(qos);
            return;
        }
        self.subscriptions.push(Subscription {
            filter,
            qos,
            since: index,
            until: None,
        });
    }

    pub(super) fn unsubscribing(&mut self, index: usize, filter: TextNo) {
        self.leaving = None;
        if let Some(standing) = self.standing(filter) {
            standing.until = Some(index);
            self.leaving = Some(filter);
        }
    }

    /// Whether the subscription had to be there.
    pub(super) fn unsubscribed(&mut self, filter: TextNo) -> bool {
        self.leaving.take() == Some(filter)
    }

    /// The subscriptions that stood to the end, or to the event `drained`.
    pub(super) fn lasting(&self, drained: Option<usize>) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter().filter(move |it| {
            it.until
                .is_none_or(|until| drained.is_some_and(|drained| until > drained))
        })
    }

    /// Filters that the client has ever asked for: messages may come before SUBACK.
    pub(super) fn filters(&self) -> impl Iterator<Item = TextNo> {
        self.filters.iter().copied()
    }
}

impl Walk<'_> {
    pub(super) fn connection(&mut self, index: usize, event: &Event) {
        let client = event.client;
        match event.what {
            What::Connecting { clean, will } => {
                self.resolve_will(client, event.at);
                let session = self.session(client);
                session.connecting(index, event.at, clean);
                session.will = (will > 0).then_some(Armed {
                    number: will,
                    is_certain: false,
                    is_removed: false,
                });
            }
            What::Connected { present } => {
                self.report.figures.connections += 1;
                self.remove_wills_in_time(client, event.at);
                let session = self.session(client);
                if let Some(will) = &mut session.will {
                    will.is_certain = true;
                }
                if let Some(fault) = session.connected(index, event.at, present) {
                    let text = format!("session present is {present} at {} ms", event.at);
                    self.violation(fault, client, None, text);
                }
            }
            What::Ended { orderly } => self.session(client).ended(index, event.at, orderly),
            _ => {}
        }
    }

    /// Decides about the Wills of all clients that are away.
    pub(super) fn resolve_wills(&mut self, at: u32) {
        for client in 0..self.sessions.len() {
            if !self.sessions[client].is_open {
                self.resolve_will(u16::try_from(client).unwrap_or(u16::MAX), at);
            }
        }
    }

    /// Decides about the Will of the connection before, now that the client comes back or all is over.
    fn resolve_will(&mut self, client: u16, at: u32) {
        let (ready_at, stuck_since) = (self.process.ready_at, self.process.stuck_since);
        let session = self.session(client);
        let Some(will) = session.will.take().filter(|will| will.is_certain) else {
            return;
        };
        let (from, until) = (session.away_from, session.away_until);
        let Some(message) = self.message(client, will.number) else {
            return;
        };
        let Kind::Will(delay) = message.kind else { return };
        let delay = u32::from(delay) * 1000;
        if will.is_removed {
            message.duty = Duty::Never;
        } else if until.is_some_and(|until| at > until + delay + MARGIN) && at > ready_at + OPENING {
            message.duty = Duty::Due;
            self.report.figures.wills_due += 1;
            if stuck_since.is_some_and(|since| until.is_some_and(|until| until + FORGOTTEN > since)) {
                self.in_doubt.push((client, will.number));
            }
        } else if let Some(from) = from {
            let deadline = from + delay;
            self.session(client).earlier.push((will.number, deadline));
        }
    }

    /// The broker was killed before it could store that these clients had left: they have left when it starts.
    pub(super) fn forget_wills(&mut self) {
        for (client, number) in std::mem::take(&mut self.in_doubt) {
            if let Some(message) = self.message(client, number) {
                message.duty = Duty::Perhaps;
                self.report.figures.wills_due -= 1;
            }
        }
    }

    /// A client that is back before the delay is over takes its Will back (MQTT 5 §3.1.3.2.2).
    fn remove_wills_in_time(&mut self, client: u16, at: u32) {
        let earlier = std::mem::take(&mut self.session(client).earlier);
        for (number, deadline) in earlier {
            if at + MARGIN < deadline
                && let Some(message) = self.message(client, number)
            {
                message.duty = Duty::Never;
            }
        }
    }
}

//! Goes through a history and finds what must not have happened.
//!
//! What counts:
//!
//! - **Lost**: a message of QoS 1 or 2 that was acknowledged to its publisher (PUBACK, PUBREC) and matches a
//!   subscription whose SUBACK was seen before the message was first sent, and that was not delivered although the
//!   subscription stood to the end. For a shared group: not delivered to any member. What was not acknowledged may
//!   arrive or not.
//! - **Doubled**: with QoS 2 on both hops, given to the application more than once. With QoS 1 on the second hop,
//!   delivered without DUP more often than it was published, or again on one connection. A publisher that sends a QoS 1
//!   message again after a broken connection publishes it once more. In a shared group, another member may get a QoS
//!   1 message once the connection of the first has ended; QoS 2 is delivered once in the whole group.
//! - **Reordered**: among the first deliveries of one publisher's messages on one topic, of the same QoS on both hops, to
//!   one client that is not a member of a group, a number that is lower than one before.
//! - **Session present** is wrong where it is known whether the session exists: it was confirmed by CONNACK and has
//!   not expired, or never existed, was discarded, or has expired. Time counts while the broker is down. A session
//!   that was connected when the broker was killed, or had been for the last second, expires counted from the
//!   next start at the latest.
//! - **Subscription missing**: UNSUBACK says 0x11 for a subscription that stood. (Without UNSUBSCRIBE it shows as lost.)
//! - **Packet identifier**: one that is in use carries another message; or PUBREL, sent for the first time, is answered 0x92.
//! - **Retained**: a new subscriber gets an older message than the last that was acknowledged before it subscribed, or none.
//! - **Delayed**, **Will**: lost or doubled as above, or before time; a Will although its client was back in time or
//!   left with DISCONNECT. Where it cannot be told what the broker had to do, within [`MARGIN`] of a deadline, nothing counts.

mod messages;
mod retained;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::{
    history::{BROKER, ClientNo, Event, Fault, History, TextNo, What},
    wire,
};

use messages::{Groups, Message, Received};
use retained::Observations;
use sessions::Session;

/// Milliseconds that a deadline may be missed by.
pub(crate) const MARGIN: u32 = 1500;
/// What the broker learned so many milliseconds before it was killed, and did not acknowledge, it may have forgotten;
/// if it was killed while the disk took nothing, so many before that.
const FORGOTTEN: u32 = 1000;
/// Violations of one kind that are kept in detail.
const KEPT: usize = 50;

/// One thing that must not have happened.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) fault: Fault,
    /// To whom.
    pub(crate) client: ClientNo,
    /// With which message: publisher and number.
    pub(crate) message: Option<(ClientNo, u32)>,
    /// Filter of the group that it is about.
    pub(crate) group: Option<TextNo>,
    pub(crate) text: String,
}

/// Counts that tell how much was checked.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) kills: u64,
    pub(crate) kills_in_start: u64,
    pub(crate) longest_start: u32,
    pub(crate) connections: u64,
    pub(crate) published: u64,
    pub(crate) resent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_dup: u64,
    pub(crate) observations: u64,
    pub(crate) wills_due: u64,
    pub(crate) delayed: u64,
}

/// The result.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) counts: BTreeMap<Fault, u64>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) figures: Figures,
}

impl Report {
    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    fn add(&mut self, violation: Violation) {
        let count = self.counts.entry(violation.fault).or_default();
        *count += 1;
        if *count <= KEPT as u64 {
            self.violations.push(violation);
        }
    }
}

/// Checks a whole history.
pub(crate) fn check(history: &History) -> Report {
    let mut walk = Walk::new(history);
    for (index, event) in history.events.iter().enumerate() {
        if event.client == BROKER {
            walk.broker(index, event);
        } else {
            walk.client(index, event);
        }
    }
    walk.finish();
    walk.report
}

/// What is known of the broker's process.
#[derive(Debug, Default)]
struct Process {
    started_at: u32,
    is_ready: bool,
    ready_at: u32,
    kills: u32,
    /// Since when the disk takes nothing.
    stuck_since: Option<u32>,
}

struct Walk<'a> {
    history: &'a History,
    /// By filter and topic.
    matching: Vec<Vec<bool>>,
    sessions: Vec<Session>,
    /// By client and number - 1.
    messages: Vec<Vec<Message>>,
    received: Vec<Received>,
    groups: Groups,
    observations: Observations,
    /// Wills that became due while the disk took nothing: publisher and number.
    in_doubt: Vec<(ClientNo, u32)>,
    process: Process,
    drained: Option<usize>,
    report: Report,
}

impl<'a> Walk<'a> {
    fn new(history: &'a History) -> Walk<'a> {
        let clients = history.clients.len();
        let matching = history.filters.iter().map(|filter| {
            let filter = plain(filter);
            history
                .topics
                .iter()
                .map(|topic| wire::matches(filter, topic))
                .collect()
        });
        Walk {
            history,
            matching: matching.collect(),
            sessions: history
                .clients
                .iter()
                .map(|info| Session::new(info.expiry))
                .collect(),
            messages: vec![Vec::new(); clients],
            received: (0..clients).map(|_| Received::new(clients)).collect(),
            groups: Groups::default(),
            observations: Observations::default(),
            in_doubt: Vec::new(),
            process: Process::default(),
            drained: None,
            report: Report::default(),
        }
    }

    fn violation(&mut self, fault: Fault, client: ClientNo, message: Option<(ClientNo, u32)>, text: String) {
        self.report.add(Violation {
            fault,
            client,
            message,
            group: None,
            text,
        });
    }

    fn broker(&mut self, index: usize, event: &Event) {
        match event.what {
            What::Started => self.process.started_at = event.at,
            What::Ready => {
                self.process.is_ready = true;
                self.process.ready_at = event.at;
                let start = event.at - self.process.started_at;
                self.report.figures.longest_start = self.report.figures.longest_start.max(start);
                self.sessions
                    .iter_mut()
                    .for_each(|session| session.ready(event.at));
            }
            What::Killed => {
                self.report.figures.kills += 1;
                self.report.figures.kills_in_start += u64::from(!self.process.is_ready);
                self.process.is_ready = false;
                self.process.kills += 1;
                let known_at = self.process.stuck_since.take().unwrap_or(event.at);
                let known_at = known_at.saturating_sub(FORGOTTEN);
                self.sessions
                    .iter_mut()
                    .for_each(|session| session.killed(event.at, known_at));
                self.forget_wills();
            }
            What::Disk { works } => {
                self.process.stuck_since = (!works).then_some(event.at);
                self.in_doubt.clear();
            }
            What::Drained => {
                self.drained = Some(index);
                self.resolve_wills(event.at);
            }
            What::Noticed(fault) => self.noticed(index, event.client, fault),
            _ => {}
        }
    }

    fn noticed(&mut self, index: usize, client: ClientNo, fault: Fault) {
        let text = self.history.notes.get(&index).cloned().unwrap_or_default();
        self.violation(fault, client, None, text);
    }

    fn client(&mut self, index: usize, event: &Event) {
        let client = event.client;
        match event.what {
            What::Connecting { .. } | What::Connected { .. } | What::Ended { .. } => {
                self.connection(index, event);
            }
            What::Subscribing { filter } => {
                if self.history.clients[usize::from(client)].observer {
                    self.observations.begin(client);
                }
                self.session(client).subscribing(filter);
            }
            What::Subscribed { filter, qos } => self.session(client).subscribed(index, filter, qos),
            What::Unsubscribing { filter } => self.session(client).unsubscribing(index, filter),
            What::Unsubscribed { filter, existed } => {
                if !self.session(client).unsubscribed(filter) || existed {
                    return;
                }
                let text = format!("no subscription {}", self.history.filters[usize::from(filter)]);
                self.violation(Fault::Subscription, client, None, text);
            }
            What::Publishing { .. }
            | What::Resending { .. }
            | What::Acknowledged { .. }
            | What::Refused { .. } => self.publication(index, event),
            What::Delivered(delivery) => self.delivered(event.at, client, &delivery),
            What::Observed => self.observed(client),
            What::Noticed(fault) => self.noticed(index, client, fault),
            _ => {}
        }
    }

    fn session(&mut self, client: ClientNo) -> &mut Session {
        &mut self.sessions[usize::from(client)]
    }

    fn message(&mut self, publisher: ClientNo, number: u32) -> Option<&mut Message> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.messages.get_mut(usize::from(publisher))?.get_mut(index)
    }

    fn finish(&mut self) {
        self.check_wills_not_due();
        self.check_lost();
    }
}

/// A filter without the prefix of a shared subscription.
fn plain(filter: &str) -> &str {
    filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'))
        .map_or(filter, |(_, filter)| filter)
}

/// Whether it is the filter of a shared subscription.
fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

//! Counters of a datagram listener. Each worker has its own, which only it writes; the listener adds them up.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::metrics::Counter;

/// Counters of one datagram listener, since it was opened: a sum over all workers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounters {
    /// Datagrams that came in, dropped ones included. On a DTLS listener: what was inside.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Datagrams that the system has taken.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Datagrams that the system refused to send, such as too long ones; and errors on receiving.
    pub errors: u64,
    /// Datagrams passed on to the worker that has the peer.
    pub forwarded: u64,
    /// Datagrams that had been forwarded to a worker that the peer had left already.
    pub returned: u64,
    /// Peers opened.
    pub opened: u64,
    /// Peers that have ended.
    pub closed: u64,
    /// Datagrams dropped, by reason: the endpoint's words, those of [`dtls`](crate::dtls), and these:
    ///
    /// - `source_port`: from port 0, where nobody can be answered;
    /// - `not_unicast`: sent to a group, though meant for a peer;
    /// - `banned`, `listener_stopped`, `server_shutting_down`, `max_connections`, `no_common_peer`: nobody new is
    ///   listened to;
    /// - `no_association`: its DTLS association has ended meanwhile;
    /// - `store_slow`, `congested`: the peer can take nothing now;
    /// - `forward_full`: the worker that it is for has too much to do;
    /// - `send_full`, `no_broadcast_address`: it could not be sent.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// One worker's part.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) errors: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) returned: Counter,
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    dropped: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// Counts a dropped datagram. Nobody else holds the lock but a reader of counters.
    pub(crate) fn drop_one(&self, reason: &'static str) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        *dropped.entry(reason).or_default() += 1;
    }

    pub(crate) fn add_to(&self, sum: &mut DatagramCounters) {
        sum.received += self.received.get();
        sum.received_bytes += self.received_bytes.get();
        sum.sent += self.sent.get();
        sum.sent_bytes += self.sent_bytes.get();
        sum.errors += self.errors.get();
        sum.forwarded += self.forwarded.get();
        sum.returned += self.returned.get();
        sum.opened += self.opened.get();
        sum.closed += self.closed.get();
        for (reason, count) in &*self.dropped.lock().unwrap_or_else(PoisonError::into_inner) {
            *sum.dropped.entry(reason).or_default() += count;
        }
    }
}

//! Clients that do as the specification says: they repeat what was not acknowledged, and keep what they have received.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use broker_core::{ClientInfo, LinkId, QoS, Request};

use super::{ledger::SLACK_MS, subscriptions::Subscriptions};

/// When a client acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    AtOnce,
    /// At some later step, in the order of what it owes.
    Later,
    /// Not on this connection.
    Never,
}

/// A message of the client's that is not complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publishing {
    pub(super) id: u16,
    pub(super) number: u64,
    /// PUBREC has come: PUBREL was sent.
    pub(super) is_released: bool,
}

/// From when to when the session may end, if its client stays away; milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Before it, it is there.
    pub(super) sure_until: u64,
    /// After it, it is gone.
    pub(super) gone_from: u64,
}

impl Life {
    pub(super) const NONE: Life = Life {
        sure_until: 0,
        gone_from: 0,
    };
    pub(super) const UNKNOWN: Life = Life {
        sure_until: 0,
        gone_from: u64::MAX,
    };

    /// It lives for `expiry` seconds from some time between these on.
    pub(super) fn from(early: u64, late: u64, expiry: u32) -> Life {
        let end = |from: u64| match expiry {
            0 => 0,
            u32::MAX => u64::MAX,
            seconds => from + u64::from(seconds) * 1000,
        };
        Life {
            sure_until: end(early),
            gone_from: end(late),
        }
    }

    pub(super) fn is_sure(self, now: u64) -> bool {
        now < self.sure_until
    }

    pub(super) fn is_over(self, now: u64) -> bool {
        now >= self.gone_from.saturating_add(SLACK_MS)
    }
}

/// What a client got of one message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Got {
    /// How often, repetitions of a QoS 2 exchange not counted.
    pub(super) count: u32,
    /// How often not as a repetition.
    pub(super) fresh: u32,
    /// The last link that brought it, and how often.
    pub(super) link: Option<(LinkId, u32)>,
    /// It was acknowledged (QoS 1) when the node had crashed so often.
    pub(super) acked: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) is_v5: bool,
    pub(super) link: Option<LinkId>,
    /// CONNACK has come.
    pub(super) info: Option<Arc<ClientInfo>>,
    pub(super) acks: Acks,
    /// The session that the broker has may be another than the client's: the next one is to be new.
    pub(super) must_clean: bool,
    /// Of the connection: what CONNECT asked for.
    pub(super) clean_start: bool,
    pub(super) expiry: u32,
    pub(super) connect_at: u64,
    pub(super) will: Option<u64>,
    /// The Will of the connection before, until it is known whether it was published.
    pub(super) last_will: Option<u64>,
    /// A connection that the present one is to replace.
    pub(super) replaced: Option<LinkId>,
    pub(super) window: u16,
    /// While there is no connection, or none that is answered.
    pub(super) life: Life,
    /// What the life is once the end of the connection is stored.
    pub(super) settled_life: Option<Life>,
    /// The longest expiry interval that may be in force, seconds.
    pub(super) longest: u32,
    pub(super) subscriptions: Subscriptions,
    /// SUBSCRIBE and UNSUBSCRIBE without an answer: filters, when asked.
    pub(super) asking: BTreeMap<u16, (Vec<String>, u64)>,
    /// In the order in which they were sent.
    pub(super) publishing: VecDeque<Publishing>,
    /// QoS 2 deliveries that are not released.
    pub(super) receiving: BTreeMap<u16, u64>,
    /// The packet identifier of the last message that came first at QoS 2.
    pub(super) last_exact: Option<u16>,
    /// Deliveries on this connection that the client has not acknowledged in full.
    pub(super) unacked: BTreeMap<u16, u64>,
    /// Answers that it owes, with the message if it is a PUBACK.
    pub(super) owed: VecDeque<(Request, Option<(String, u64)>)>,
    /// By message; those of shared groups by group and message.
    pub(super) got: BTreeMap<(String, u64), Got>,
    /// The last message got first of each publisher, topic and QoS.
    pub(super) last: BTreeMap<(usize, String, QoS), u64>,
    /// SUBSCRIBEs and connections: so often retained messages may have come again.
    pub(super) replays: u32,
    last_id: u16,
    /// Counts its sessions.
    pub(super) epoch: u32,
}

impl Client {
    pub(super) fn new(is_v5: bool) -> Client {
        Client {
            is_v5,
            link: None,
            info: None,
            acks: Acks::AtOnce,
            must_clean: false,
            clean_start: false,
            expiry: 0,
            connect_at: 0,
            will: None,
            last_will: None,
            replaced: None,
            window: 0,
            life: Life::NONE,
            settled_life: None,
            longest: 0,
            subscriptions: Subscriptions::default(),
            asking: BTreeMap::new(),
            publishing: VecDeque::new(),
            receiving: BTreeMap::new(),
            last_exact: None,
            unacked: BTreeMap::new(),
            owed: VecDeque::new(),
            got: BTreeMap::new(),
            last: BTreeMap::new(),
            replays: 0,
            last_id: 0,
            epoch: 0,
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.link.is_some() && self.info.is_some()
    }

    /// A packet identifier that is not in use.
    pub(super) fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % 500 + 1;
            let id = self.last_id;
            if self.publishing.iter().all(|one| one.id != id) && !self.asking.contains_key(&id) {
                return id;
            }
        }
    }

    /// Its connection is gone, and what it knew of it.
    pub(super) fn unlink(&mut self) {
        self.link = None;
        self.info = None;
        self.owed.clear();
        self.unacked.clear();
        self.asking.clear();
    }

    /// The session that it knew is no more: a new one begins.
    pub(super) fn begin_session(&mut self) {
        self.epoch += 1;
        self.subscriptions.clear();
        self.publishing.clear();
        self.receiving.clear();
        self.last_exact = None;
        self.got.clear();
        self.last.clear();
        self.replays = 0;
    }
}

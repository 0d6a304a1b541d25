//! Clients that sleep (MQTT-SN §6.14): what is kept for them, how they wake, and when they count as lost.
//!
//! A session whose client sleeps is dormant, with three differences: what is published for it at QoS 0 is kept, too,
//! in memory; nobody counts it as lost before its time, so that its Will waits until then; and it may wake. A client
//! that is awake is given what waited when it woke, and no more: on a busy topic it would be kept awake for ever. For
//! hooks, and for shared groups, it is away all the time.

use crate::{
    ClientId, Closing, DisconnectCause, Event, Message, ReasonCode, Timestamp,
    session::{Queued, Session, SessionKey, Tenant},
};

use super::{Shard, connect::Connecting, dormant::deadlines};

impl Shard {
    /// The session of a client that may wake: it is away, and proves with what was noted that it is the one.
    pub(super) fn session_to_wake(
        &mut self,
        now: Timestamp,
        client_id: &ClientId,
        guard: &[u8],
    ) -> Option<SessionKey> {
        let key = *self.by_client.get(client_id)?;
        // Its timer may be a moment late.
        self.do_due(now, key);
        let key = *self.by_client.get(client_id)?;
        let Tenant::Dormant(dormant) = &self.sessions[key.0 as usize] else {
            return None;
        };
        // Who is lost has to connect (§6.14, Figure 4).
        let sleeper = dormant
            .sleeper
            .as_ref()
            .filter(|sleeper| sleeper.until < Timestamp::NEVER)?;
        let (number, noted) = sleeper.notes().first()?;
        (*number == 0 && noted == guard).then_some(key)
    }

    /// What speaks against a client that wakes, before anybody is asked who it is.
    pub(super) fn wake_refusal(&mut self, now: Timestamp, connecting: &Connecting) -> Option<Closing> {
        let guard = connecting.connect.wake.as_ref()?;
        match self.session_to_wake(now, &connecting.client_id, guard) {
            Some(_) => None,
            None => Some(Closing::new(ReasonCode::BadUserNameOrPassword)),
        }
    }

    /// The session becomes dormant until its client wakes, or is lost.
    pub(super) fn fall_asleep(&mut self, key: SessionKey, until: Timestamp) {
        let session = self.session_mut(key);
        let sleeper = session.sleeper.get_or_insert_default();
        sleeper.until = until;
        sleeper.awake = None;
        let (expires_at, will_at) = deadlines(until, session.expiry_interval, session.will.as_deref());
        self.go_dormant(key, expires_at, will_at);
    }

    /// The client of a dormant session counts as lost: it is like any other that is away.
    pub(super) fn sleep_over(&mut self, now: Timestamp, key: SessionKey) {
        let Tenant::Dormant(dormant) = &mut self.sessions[key.0 as usize] else {
            return;
        };
        dormant.sleeper = dormant.sleeper.take().and_then(|mut sleeper| {
            sleeper.until = Timestamp::NEVER;
            (!sleeper.is_empty()).then_some(sleeper)
        });
        let dropped = match &mut dormant.rest {
            Some(rest) => rest.outgoing.take_queued_qos0(|_| true),
            None => Vec::new(),
        };
        dormant.rest = dormant.rest.take().filter(|rest| !rest.is_empty());
        self.leave_routes(key);
        self.drop_asleep(now, &dropped, "no_connection");
    }

    /// The client of a dormant session has come back to begin anew: if it slept, it was not lost.
    pub(super) fn forgive_sleeper(&mut self, key: SessionKey) {
        if let Tenant::Dormant(dormant) = &mut self.sessions[key.0 as usize]
            && dormant.asleep_until() < Timestamp::NEVER
        {
            dormant.will = None;
        }
    }

    /// A message of QoS 0 for a client that sleeps: within the limits of what may wait.
    pub(super) fn keep_asleep(&mut self, now: Timestamp, key: SessionKey, mut item: Queued) {
        item.priority = self.priority(&item.message);
        let limits = &self.common.config.mqtt;
        let cut = match &mut self.sessions[key.0 as usize] {
            Tenant::Dormant(dormant) if limits.mqueue_store_qos0 => {
                let outgoing = &mut dormant.rest.get_or_insert_default().outgoing;
                outgoing.enqueue(item, limits.max_mqueue_len, limits.max_mqueue_bytes)
            }
            _ => vec![item],
        };
        self.drop_asleep(now, &cut, "queue_full");
    }

    fn drop_asleep(&mut self, now: Timestamp, dropped: &[Queued], reason: &'static str) {
        for item in dropped {
            self.metrics.delivery_dropped.inc();
            self.metrics.delivery_dropped_qos0.inc();
            self.metrics.delivery_dropped_asleep.inc();
            let message: &Message = &item.message;
            self.dropped_point(now, message, None, reason);
        }
    }

    /// The client is back: what has waited for it for too long at QoS 0 is not sent.
    pub(super) fn drop_aged(&mut self, now: Timestamp, key: SessionKey) {
        let Some(age_max) = self.common.config.mqtt.mqueue_age_max else {
            return;
        };
        let outgoing = &mut self.session_mut(key).outgoing;
        let aged = outgoing.take_queued_qos0(|item| item.message.created().after(age_max) <= now);
        for item in aged {
            self.metrics.delivery_dropped.inc();
            self.metrics.delivery_dropped_expired.inc();
            self.drop_delivery(now, key, &item, "expired");
        }
    }

    /// Tells a client that is awake once it has got and acknowledged everything that waited when it woke: the journal is
    /// read up to its [gate](crate::session::Stored::gate), retained messages that it still had to get are sent, and as
    /// many of QoS 0 as there were.
    pub(super) fn tell_drained(&mut self, key: SessionKey) {
        let Some(session) = self.sessions[key.0 as usize].online_mut() else {
            return;
        };
        let Some(awake) = session
            .sleeper
            .as_mut()
            .and_then(|sleeper| sleeper.awake.as_mut())
        else {
            return;
        };
        let Some(stored) = &session.stored else { return };
        let outgoing = &session.outgoing;
        let (queued, _) = outgoing.queued();
        let qos0 = outgoing.queued_qos0();
        let is_read = stored.has_read_all() && stored.unsettled == 0;
        let is_sent = queued == qos0 && (qos0 == 0 || awake.qos0_left == 0) && session.replays.len() == 0;
        let is_drained = is_read && is_sent && outgoing.inflight_len() == 0;
        if is_drained && !awake.is_drained {
            awake.is_drained = true;
            let link = session.link;
            self.acknowledge(link, Event::Drained);
        }
    }
}

/// Until when the client of a session sleeps whose connection ends for this reason; `None` if it does not.
pub(super) fn sleep_of(session: &Session, now: Timestamp, cause: DisconnectCause) -> Option<Timestamp> {
    session.stored.as_ref()?;
    match cause {
        DisconnectCause::Asleep(seconds) => Some(now.after_secs(u64::from(seconds))),
        // The client can do nothing for it: it is still as good as asleep.
        DisconnectCause::ByServer(
            ReasonCode::SessionTakenOver
            | ReasonCode::ServerShuttingDown
            | ReasonCode::ServerBusy
            | ReasonCode::ServerUnavailable,
        ) => {
            let sleeper = session.sleeper.as_ref()?;
            let slept = (sleeper.awake.is_some() || session.opening) && sleeper.until < Timestamp::NEVER;
            slept.then_some(sleeper.until)
        }
        _ => None,
    }
}

//! What happens when its time has come.

use crate::{
    Closing, ReasonCode, Timestamp,
    hooks::HookContext,
    session::{Presence, SessionKey},
};

use super::{Shard, Timer};

/// Sessions looked at before the worker has its turn again.
const SLICE: usize = 1024;

impl Shard {
    /// The time of [`Shard::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        for _ in 0..SLICE {
            match self.timers.pop_due(now) {
                Some(Timer::Session(key)) => self.session_due(now, key),
                Some(Timer::Delayed) => self.delayed_due(now),
                Some(Timer::Retained) => self.retained_due(now),
                Some(Timer::Hooks) => self.tick(now),
                None => break,
            }
        }
        self.apply_effects(now);
    }

    /// Wakes the session at its next deadline.
    pub(super) fn arm_session(&mut self, key: SessionKey) {
        let at = self.session(key).deadline();
        self.timers.arm(at, Timer::Session(key));
    }

    fn session_due(&mut self, now: Timestamp, key: SessionKey) {
        let Some(session) = self.find_session(key) else {
            return;
        };
        match session.presence {
            Presence::Offline { will_at, .. } if will_at <= now => {
                self.will_due(now, key);
                if self.session_expired(now, key) {
                    self.terminate(now, key, None);
                } else {
                    self.arm_session(key);
                }
            }
            Presence::Offline { expires_at, .. } if expires_at <= now => self.terminate(now, key, None),
            Presence::Online { .. } if session.admitted_until <= now => {
                self.close_session(now, key, Closing::new(ReasonCode::MaximumConnectTime));
            }
            Presence::Online { .. } => self.retry_due(now, key),
            // A deadline of an earlier connection, or of an earlier tenant of this place.
            Presence::Offline { .. } => self.arm_session(key),
        }
    }

    fn session_expired(&self, now: Timestamp, key: SessionKey) -> bool {
        matches!(self.session(key).presence, Presence::Offline { expires_at, .. } if expires_at <= now)
    }

    fn will_due(&mut self, now: Timestamp, key: SessionKey) {
        let session = self.session_mut(key);
        if let Presence::Offline { will_at, .. } = &mut session.presence {
            *will_at = Timestamp::NEVER;
        }
        if let Some(will) = session.will.take() {
            self.publish_will(now, key, &will);
        }
    }

    /// Repeats what a 3.x client has not acknowledged for `mqtt.retry_interval`.
    fn retry_due(&mut self, now: Timestamp, key: SessionKey) {
        let Some(interval) = self.common.config.mqtt.retry_interval else {
            return;
        };
        let session = self.session_mut(key);
        if !std::mem::take(&mut session.retry_armed) {
            return;
        }
        let Presence::Online { link, congested, .. } = session.presence else {
            return;
        };
        if !congested {
            let before =
                Timestamp::from_millis(now.since(Timestamp::default().after(interval)).as_millis() as u64);
            for sending in session.outgoing.retry(now, before) {
                self.put(now, link, key, sending);
            }
        }
        let session = self.session_mut(key);
        if session.outgoing.inflight_len() > 0 {
            session.retry_armed = true;
            let at = session.outgoing.oldest_sent().after(interval);
            self.timers.arm(at.max(now), Timer::Session(key));
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let common = std::sync::Arc::clone(&self.common);
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        common.hooks.tick(&mut context);
        if let Some(next) = common.hooks.next_tick() {
            self.timers.arm(next, Timer::Hooks);
        }
    }
}

//! What happens when its time has come.

use crate::{
    Closing, ReasonCode, ShardId, Timestamp,
    hooks::HookContext,
    session::{SessionKey, Tenant},
    timer::coarse,
};

use super::Shard;

/// Deadlines acted on before the worker has its turn again.
const SLICE: usize = 1024;

/// What the end of a session counts for among them: its routes and entries go, too.
const ENDING: usize = 15;

/// Timers of sessions that have ended, or that an earlier one has replaced, which are not worth being sought out.
const STALE: usize = 1024;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Session,
    Delayed,
    Retained,
    Hooks,
    Flush,
    Sweep,
    Lookup,
    Tail,
    Commit,
    Ending,
}

impl Shard {
    /// When [`Shard::handle_timeout`] must be called, if at all.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_due().map(|(at, _)| at)
    }

    /// The time of [`Shard::poll_timeout`] has come. What is due is done piece by piece as outputs are polled.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        self.timeouts = SLICE;
        self.lookups.refill(now);
    }

    /// The earliest deadline. The stores of messages know theirs, so that a message that goes early leaves no timer.
    fn next_due(&self) -> Option<(Timestamp, Due)> {
        let at = |at: Timestamp, due| (at < Timestamp::NEVER).then_some((at, due));
        let tail = at(self.tail.retry_at, Due::Tail);
        let commit = at(self.commits.retry_at(), Due::Commit);
        let ending = (!self.endings.is_empty()).then_some((self.now, Due::Ending));
        if self.is_starting {
            return [tail, commit].into_iter().flatten().min();
        }
        let session = self.timers.next().map(|at| (at, Due::Session));
        let delayed = self.delayed.next().map(|at| (coarse(at), Due::Delayed));
        let retained = self.retained.next_expiry().map(|at| (coarse(at), Due::Retained));
        let lookup = self.lookups.is_waiting().then_some((self.now, Due::Lookup));
        let hooks = (self.hooks_at < Timestamp::NEVER).then(|| (coarse(self.hooks_at), Due::Hooks));
        let flush = at(self.flush_at, Due::Flush);
        let sweep = at(self.sweep.at, Due::Sweep);
        [
            session, delayed, retained, hooks, lookup, flush, sweep, tail, commit, ending,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Acts on one deadline that has passed. False if there is none, or if enough was done in this turn.
    pub(super) fn fire(&mut self, now: Timestamp) -> bool {
        if self.timeouts == 0 {
            return false;
        }
        let Some((_, due)) = self.next_due().filter(|(at, _)| *at <= now) else {
            self.timeouts = 0;
            return false;
        };
        self.timeouts -= 1;
        match due {
            Due::Session => {
                if let Some(key) = self.timers.pop_due(now) {
                    let sessions = self.sessions.len();
                    self.session_due(now, key);
                    if self.sessions.len() < sessions {
                        self.timeouts = self.timeouts.saturating_sub(ENDING);
                    }
                }
            }
            Due::Delayed => self.delayed_due(now),
            Due::Retained => self.retained_due(now),
            Due::Hooks => self.tick(now),
            Due::Flush => self.flush_due(now),
            Due::Sweep => self.sweep_due(now),
            Due::Tail => self.ask_tail(),
            Due::Commit => self.commits.retry_at = None,
            Due::Ending => {
                // One slice per turn of the worker.
                self.ending_due(now);
                self.timeouts = 0;
            }
            Due::Lookup if !self.next_lookup() => {
                self.timeouts = 0;
                return false;
            }
            Due::Lookup => {}
        }
        self.apply_effects(now);
        true
    }

    /// Wakes the session at its next deadline, unless a timer that stands comes first.
    pub(super) fn arm_session(&mut self, key: SessionKey) {
        let tenant = &mut self.sessions[key.0 as usize];
        let at = tenant.deadline();
        if at < tenant.armed() {
            *tenant.armed_mut() = at;
            self.timers.arm(at, key);
            self.forget_stale_timers();
        }
    }

    /// Sessions come and go faster than the times come at which they would have ended.
    fn forget_stale_timers(&mut self) {
        if self.timers.len() < 4 * self.sessions.len() + STALE {
            return;
        }
        let sessions = &self.sessions;
        self.timers.retain(|at, key| {
            let session = sessions.get(key.0 as usize);
            session
                .is_some_and(|session| session.armed() != Timestamp::NEVER && coarse(session.armed()) == at)
        });
    }

    fn session_due(&mut self, now: Timestamp, key: SessionKey) {
        let Some(tenant) = self.sessions.get_mut(key.0 as usize) else {
            return;
        };
        // A timer that a later one has replaced, or of an earlier tenant of this place.
        if tenant.armed() > now {
            return;
        }
        *tenant.armed_mut() = Timestamp::NEVER;
        self.do_due(now, key);
    }

    /// Does what is due for the session, whether its timer has fired or not.
    pub(super) fn do_due(&mut self, now: Timestamp, key: SessionKey) {
        match &self.sessions[key.0 as usize] {
            Tenant::Dormant(dormant) => {
                let (will_at, expires_at) = (dormant.will_at, dormant.expires_at);
                if dormant.asleep_until() <= now {
                    self.sleep_over(now, key);
                }
                if will_at <= now {
                    self.will_due(now, key);
                }
                if expires_at <= now {
                    return self.terminate(now, key, None);
                }
            }
            Tenant::Online(session) if session.admitted_until <= now => {
                return self.close_session(now, key, Closing::new(ReasonCode::MaximumConnectTime));
            }
            Tenant::Online(session) if session.retry_at <= now => self.retry_due(now, key),
            Tenant::Online(_) | Tenant::Ending(_) => {}
        }
        self.arm_session(key);
    }

    fn will_due(&mut self, now: Timestamp, key: SessionKey) {
        let Tenant::Dormant(dormant) = &mut self.sessions[key.0 as usize] else {
            return;
        };
        dormant.will_at = Timestamp::NEVER;
        if let Some(waiting) = dormant.will.take() {
            // Published and forgotten in one commit.
            self.publish_will(now, key, &waiting.client, &waiting.will);
            self.store_without_will(key, &waiting.client);
        }
    }

    /// Repeats what a 3.x client has not acknowledged for `mqtt.retry_interval`.
    fn retry_due(&mut self, now: Timestamp, key: SessionKey) {
        let Some(interval) = self.common.config.mqtt.retry_interval else {
            return;
        };
        let session = self.session_mut(key);
        session.retry_at = Timestamp::NEVER;
        let link = session.link;
        if session.takes_messages() {
            let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            let before = Timestamp::from_millis(now.as_millis().saturating_sub(interval_ms));
            for sending in session.outgoing.retry(now, before) {
                self.put_on_wire(now, link, key, sending);
            }
        }
        let session = self.session_mut(key);
        if session.outgoing.inflight_len() > 0 {
            session.retry_at = session.outgoing.oldest_sent().min(now).after(interval);
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let common = std::sync::Arc::clone(&self.common);
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        common.hooks.tick(&mut context);
        self.await_tick();
    }

    /// Hooks are called on the first shard, when they want to be.
    pub(super) fn await_tick(&mut self) {
        if self.id == ShardId(0) {
            self.hooks_at = self.common.hooks.next_tick().unwrap_or(Timestamp::NEVER);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ClientInfo, Connect, Disconnect, DisconnectCause, LinkId, MessageParts, Request,
        admission::{Admission, AuthenticationChain},
        shard::{Common, ShardSettings},
    };

    fn shard() -> Shard {
        let admission = Admission {
            authentication: AuthenticationChain::new(true),
            ..Admission::default()
        };
        Shard::new(ShardSettings {
            id: ShardId(0),
            shards: 1,
            common: Arc::new(Common {
                admission,
                ..Common::default()
            }),
            seed: 1,
        })
    }

    #[test]
    fn a_topic_that_is_retained_anew_leaves_no_timers() {
        let mut shard = shard();
        let timers = shard.timers.len();
        for millis in 0..1000 {
            let now = Timestamp::from_millis(millis);
            let parts = MessageParts {
                retain: true,
                expiry_interval: Some(86_400 - millis as u32),
                ..MessageParts::new("t", b"x")
            };
            let message = parts.publish(now, ClientInfo::system()).expect("a short topic");
            shard.publish_internal(now, message).expect("no limit");
        }
        assert_eq!(shard.timers.len(), timers);
    }

    #[test]
    fn a_client_that_comes_and_goes_leaves_few_timers() {
        let mut shard = shard();
        let now = Timestamp::from_millis(1000);
        for link in (0..10 * STALE as u64).map(LinkId) {
            let connect = Connect {
                session_expiry_interval: 3600,
                ..Connect::plain("c")
            };
            let disconnect = Disconnect {
                cause: DisconnectCause::ConnectionLost,
                session_expiry_interval: None,
                keeps_will: false,
                user_properties: Vec::new(),
            };
            shard.handle(now, link, Request::Connect(Box::new(connect)));
            shard.handle(now, link, Request::Disconnect(Box::new(disconnect)));
            while shard.poll_output().is_some() {}
        }
        assert_eq!(shard.census().sessions, 1);
        assert!(shard.timers.len() <= STALE + 8, "{}", shard.timers.len());
        let end = now.after_secs(3600);
        shard.handle_timeout(coarse(end));
        assert!(shard.poll_output().is_none());
        assert_eq!(shard.census().sessions, 0, "the timer that counts is still there");
    }
}

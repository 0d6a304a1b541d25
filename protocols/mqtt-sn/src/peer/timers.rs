//! Deadlines: retransmission, keep alive, sleep (§6.11, §6.13, §6.14, §7.2).

use std::time::Duration;

use broker_core::{Effects, Timestamp};

use super::{
    Peer,
    outgoing::Outgoing,
    state::{Connection, Phase, State},
};
use crate::Settings;

/// How long the network may hold back a copy of a datagram. A message that has been dealt with and comes again within
/// this time, bit for bit, is such a copy.
pub(super) const LATE: Duration = Duration::from_secs(2);

/// How long a client that answers "congestion" is left alone (T_WAIT, §7.2).
pub(super) const T_WAIT: Duration = Duration::from_secs(5 * 60);

/// Silence after which a client without keep alive (a duration of 0) counts as gone. Nothing but this and the
/// listener's `max_connections` bounds how many such clients there are.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// When something is sent again, and how often it still may be (§6.13).
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) at: Timestamp,
    left: u32,
}

impl Retry {
    /// It is sent now for the first time.
    pub(super) fn new(now: Timestamp, settings: &Settings) -> Retry {
        Retry {
            at: now.after(settings.retry_interval),
            left: settings.retry_max,
        }
    }

    /// Nothing is sent before `T_WAIT` is over.
    pub(super) fn pause(&mut self, now: Timestamp, settings: &Settings) {
        self.at = now.after(T_WAIT);
        self.left = settings.retry_max;
    }

    /// True if it is to be sent again now; `None` if that would be once too often.
    pub(super) fn fire(&mut self, now: Timestamp, settings: &Settings) -> Option<bool> {
        if self.at > now {
            return Some(false);
        }
        self.left = self.left.checked_sub(1)?;
        self.at = now.after(settings.retry_interval);
        settings.counters.sent_again.inc();
        Some(true)
    }
}

/// Seconds after which silence of a client that promised to be heard within `seconds` counts as its end: half as much
/// again. The specification recommends that only up to a minute (§7.2); MQTT, and so every other client of the
/// broker, has it always.
pub(super) fn tolerant(seconds: u16) -> u64 {
    (u64::from(seconds) * 3).div_ceil(2)
}

impl Peer {
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::AwaitConnect { until } => Some(*until),
            State::AwaitWill(will) => Some(will.until),
            State::Connected(connection) => {
                let outgoing = connection.outgoing.as_ref();
                let retry = outgoing.and_then(|outgoing| outgoing.next_retry());
                let waits = outgoing.is_some_and(|outgoing| !outgoing.waiting.is_empty());
                let rest = connection.rests_until().filter(|_| waits);
                let silence = connection.silence_until();
                [retry, rest, Some(silence)].into_iter().flatten().min()
            }
            State::FallingAsleep(falling) => Some(falling.asleep.nap.until),
            State::Asleep(asleep) => Some(asleep.nap.until),
            State::Common(common) => common.next_timeout(),
            State::Connecting(_) | State::Closed => None,
        }
    }

    pub(super) fn fire(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        match &mut self.state {
            State::AwaitConnect { until } if *until <= now => {
                self.close("connect_timeout", "no CONNECT within idle_timeout", effects);
            }
            State::AwaitWill(will) if will.until <= now => {
                self.close("connect_timeout", "no Will within idle_timeout", effects)
            }
            State::Connected(connection) if connection.silence_until() <= now => {
                self.fall_silent(now, effects)
            }
            State::Connected(_) => {
                let is_lost = self
                    .with_connection(now, effects, |connection, io| connection.send_again(io).is_none())
                    .unwrap_or(false);
                if is_lost {
                    self.settings.counters.clients_lost.inc();
                    self.lose(
                        now,
                        "not_answering",
                        "no answer after N_RETRY repetitions",
                        effects,
                    );
                }
            }
            // The broker has a deadline of its own and sees to Will and session.
            State::Asleep(asleep) if asleep.nap.until <= now => {
                self.close("asleep_timeout", "no PINGREQ while its sleep lasted", effects);
            }
            State::FallingAsleep(falling) if falling.asleep.nap.until <= now => {
                self.close(
                    "asleep_timeout",
                    "its sleep was over before it was stored",
                    effects,
                );
            }
            State::Common(_) => self.fire_common(now, effects),
            _ => {}
        }
    }
}

impl Connection {
    /// When the client's silence has lasted too long.
    fn silence_until(&self) -> Timestamp {
        match self.phase {
            Phase::Active if self.duration == 0 => self.heard_at.after(SILENCE_MAX),
            Phase::Active => self.heard_at.after_secs(tolerant(self.duration)),
            Phase::Awake(nap) | Phase::Drained(nap) => nap.until,
        }
    }
}

impl Outgoing {
    fn next_retry(&self) -> Option<Timestamp> {
        let register = self.register.as_ref().map(|register| register.retry.at);
        let inflight = self.inflight.iter().filter_map(|inflight| inflight.retry_at());
        inflight.chain(register).min()
    }
}

//! The broker's decision about a CONNECT or about a client that wakes: CONNACK (§6.2), and the end of a connection by
//! the broker.

use std::sync::Arc;

use broker_core::{Closing, Connected, DisconnectCause, Effects, PacketId, ReasonCode, Request, Timestamp};
use bytes::Bytes;

use super::{
    Peer,
    sleep::{FACTS, GUARD},
    state::{Asleep, Connecting, Connection, Goal, Greeting, Nap, Noted, Phase, State},
    timers::LATE,
};
use crate::{
    codec::{Message, ReturnCode},
    map,
    topics::Topics,
};

impl Peer {
    pub(super) fn handle_connected(
        &mut self,
        now: Timestamp,
        connected: Connected,
        effects: &mut Effects<'_>,
    ) {
        let connecting = match std::mem::replace(&mut self.state, State::Closed) {
            State::Connecting(connecting) => *connecting,
            State::Common(common) => return self.common_connected(now, common, connected, effects),
            state => {
                self.state = state;
                return;
            }
        };
        let nap = match connecting.goal {
            Goal::Wake { nap: None } => seconds(&connected.notes).map(|seconds| Nap::new(now, seconds)),
            Goal::Wake { nap } => nap,
            Goal::SleepFor { nap, .. } => Some(nap),
            Goal::Connect | Goal::Leave => None,
        };
        if let Some(next) = connecting.next {
            let cause = match nap.or(connecting.fallback) {
                Some(nap) => nap.cause(now),
                None => self.makes_way(&connected.client, &next),
            };
            Peer::leave(cause, effects);
            return self.begin(now, next, effects);
        }
        let goal = connecting.goal;
        let was_asleep = connected.notes.iter().any(|(number, _)| *number == GUARD);
        let phase = match (goal, nap) {
            (Goal::Wake { .. } | Goal::SleepFor { .. }, Some(nap)) => Phase::Awake(nap),
            (Goal::Wake { .. }, None) => {
                // The session never slept, or another protocol has put it to sleep.
                Peer::leave(DisconnectCause::ConnectionLost, effects);
                self.put(&Message::Disconnect(None), effects);
                return self.close("not_asleep", "a session that does not know of its sleep", effects);
            }
            _ => Phase::Active,
        };
        if was_asleep && phase == Phase::Active {
            // From now on nobody may wake it, wherever it leaves to, before it sleeps again.
            effects.requests.push(Request::Note(GUARD, None));
        }
        self.client_id = Some(connected.client.client_id.clone());
        let connection = self.connection(now, connecting, connected, phase);
        self.state = State::Connected(Box::new(connection));
        match goal {
            Goal::Connect => self.put(&Message::ConnAck(ReturnCode::Accepted), effects),
            Goal::Wake { .. } => {}
            Goal::SleepFor { seconds, .. } => {
                self.fall_asleep(
                    now,
                    Nap::new(now, seconds),
                    Some(Message::Disconnect(None)),
                    effects,
                );
            }
            Goal::Leave => self.say_goodbye(effects),
        }
    }

    fn connection(
        &self,
        now: Timestamp,
        connecting: Connecting,
        connected: Connected,
        phase: Phase,
    ) -> Connection {
        let Connecting {
            setup,
            will,
            greeting,
            fallback,
            ..
        } = connecting;
        // Notes of a session that ended with a CleanSession do not come.
        let topics = Topics::restore(&connected.notes, phase != Phase::Active);
        let guard = self.guard();
        let noted = Noted {
            guard: phase != Phase::Active && connected.notes.contains(&(GUARD, guard)),
            seconds: seconds(&connected.notes),
        };
        // After CONNACK, the same CONNECT may come again until the client gives up.
        let patience = self.settings.retry_interval * (self.settings.retry_max.saturating_add(1));
        Connection {
            client: Arc::clone(&connected.client),
            phase,
            duration: setup.duration,
            will_flag: setup.will,
            heard_at: now,
            // A decision of the broker may take its time.
            greeting: Greeting {
                late_until: if phase == Phase::Active {
                    now.after(LATE)
                } else {
                    greeting.late_until
                },
                ..greeting
            },
            fallback,
            fresh_until: now.after(patience),
            noted,
            asked: Vec::new(),
            number: PacketId::FIRST,
            topics: (!topics.is_empty()).then(|| Box::new(topics)),
            outgoing: None,
            will: connected.will.or(will),
            late: None,
        }
    }

    pub(super) fn handle_refused(&mut self, now: Timestamp, closing: &Closing, effects: &mut Effects<'_>) {
        let connecting = match std::mem::replace(&mut self.state, State::Closed) {
            State::Connecting(connecting) => *connecting,
            State::Common(common) => return self.common_refused(now, common),
            state => {
                self.state = state;
                return;
            }
        };
        if let Some(next) = connecting.next {
            return self.begin(now, next, effects);
        }
        let code = match map::return_code(closing.reason) {
            // Whatever a hook gave as its reason, it is no success.
            ReturnCode::Accepted => map::FAILED_SESSION,
            code => code,
        };
        match connecting.goal {
            Goal::Connect => self.put(&Message::ConnAck(code), effects),
            // It may try again, and sleeps on.
            Goal::Wake { nap: Some(nap) } | Goal::SleepFor { nap, .. } if code == ReturnCode::Congestion => {
                self.state = State::Asleep(Box::new(Asleep::of(&connecting, nap)));
                return;
            }
            Goal::Wake { nap: None } if code == ReturnCode::Congestion => {}
            // Its session is gone, or not for it: it has to connect.
            Goal::Wake { .. } | Goal::SleepFor { .. } | Goal::Leave => {
                self.put(&Message::Disconnect(None), effects);
            }
        }
        let mut detail = match connecting.goal {
            Goal::Wake { .. } if closing.reason == ReasonCode::BadUserNameOrPassword => {
                "nobody sleeps under this client id who may be woken from here".to_owned()
            }
            _ => closing.reason.text().to_owned(),
        };
        // Long names are cut.
        let who: String = connecting.setup.client_id.chars().take(64).collect();
        for part in [closing.text.as_deref(), Some(who.as_str())]
            .into_iter()
            .flatten()
        {
            detail.push_str(": ");
            detail.push_str(part);
        }
        self.close("refused", detail, effects);
    }

    /// The broker has ended the connection and has forgotten it.
    pub(super) fn handle_close(&mut self, now: Timestamp, closing: &Closing, effects: &mut Effects<'_>) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Common(common) => return self.common_refused(now, common),
            State::Connecting(connecting) => {
                // This may be the end of the connection before, that came too late: nobody would miss the new one.
                Peer::leave(connecting.cause(now), effects);
                self.put(&Message::Disconnect(None), effects);
            }
            // §6.12, also if another client has taken its session over, or the same one at another address.
            State::Connected(_) => self.put(&Message::Disconnect(None), effects),
            _ => {}
        }
        let detail = closing
            .text
            .clone()
            .unwrap_or_else(|| closing.reason.text().to_owned());
        self.close(map::word(closing.reason), detail, effects);
    }
}

impl Connecting {
    /// How the connection ends if it comes to nothing. A client that sleeps, sleeps on.
    pub(super) fn cause(&self, now: Timestamp) -> DisconnectCause {
        match (self.goal, self.fallback) {
            (Goal::Wake { nap: Some(nap) } | Goal::SleepFor { nap, .. }, _) | (_, Some(nap)) => {
                nap.cause(now)
            }
            _ => DisconnectCause::ConnectionLost,
        }
    }
}

/// What the session's notes say of its sleep.
fn seconds(notes: &[(u16, Bytes)]) -> Option<u16> {
    let (_, facts) = notes.iter().find(|(number, _)| *number == FACTS)?;
    facts.as_ref().try_into().ok().map(u16::from_be_bytes)
}

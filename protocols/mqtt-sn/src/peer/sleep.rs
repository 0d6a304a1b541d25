//! Sleep (§6.14): falling asleep, waking, sleeping on.
//!
//! Note 0 of a session is the [guard](Peer::guard) of its sleep, note 1 its duration, so that a client is woken in
//! the same way by another peer, at another address or after a restart of the broker. Pages of topic ids follow.

use broker_core::{ClientId, DisconnectCause, Effects, Request, Timestamp};
use bytes::Bytes;

use super::{
    Peer,
    state::{Asleep, Connecting, Connection, FallingAsleep, Goal, Greeting, Nap, Phase, Setup, State},
};
use crate::codec::Message;

/// The note that has the guard.
pub(super) const GUARD: u16 = 0;

/// The note that has the duration: seconds, two bytes.
pub(super) const FACTS: u16 = 1;

impl Nap {
    /// The client sleeps for what is left of it.
    pub(super) fn cause(self, now: Timestamp) -> DisconnectCause {
        let left = self.until.since(now).as_millis().div_ceil(1000);
        DisconnectCause::Asleep(u32::try_from(left).expect("a day and a half at most"))
    }
}

impl Asleep {
    /// The client that was to be woken sleeps on.
    pub(super) fn of(connecting: &Connecting, nap: Nap) -> Asleep {
        Asleep {
            client_id: ClientId::new(&connecting.setup.client_id),
            nap,
            greeting: connecting.greeting,
        }
    }

    /// In place of the CONNECT that was before its sleep.
    fn setup(&self) -> Setup {
        Setup {
            client_id: self.client_id.as_str().into(),
            will: false,
            clean_session: false,
            duration: 0,
        }
    }
}

impl Peer {
    /// A client sleeps. It hears `answer` once that is as safe as its session, so that a restart of the broker finds
    /// it asleep.
    pub(super) fn fall_asleep(
        &mut self,
        now: Timestamp,
        nap: Nap,
        answer: Option<Message<'static>>,
        effects: &mut Effects<'_>,
    ) {
        let guard = self.guard();
        let State::Connected(mut connection) = std::mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        let mut note = |number, note: Bytes| effects.requests.push(Request::Note(number, Some(note)));
        if !connection.noted.guard {
            note(GUARD, guard);
        }
        if connection.noted.seconds != Some(nap.seconds) {
            note(FACTS, Bytes::copy_from_slice(&nap.seconds.to_be_bytes()));
        }
        let stale = connection.topics.as_mut().map(|topics| topics.stale_notes());
        for (number, page) in stale.into_iter().flatten() {
            note(number, page);
        }
        Peer::leave(nap.cause(now), effects);
        self.state = State::FallingAsleep(Box::new(FallingAsleep {
            asleep: Asleep {
                client_id: connection.client.client_id.clone(),
                nap,
                greeting: connection.greeting,
            },
            answer,
            patience_until: now.after(self.settings.retry_interval / 2),
        }));
    }

    /// The broker has stored that the client sleeps.
    pub(super) fn handle_asleep(&mut self, effects: &mut Effects<'_>) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::FallingAsleep(falling) => {
                if let Some(answer) = &falling.answer {
                    self.put(answer, effects);
                }
                self.state = State::Asleep(Box::new(falling.asleep));
            }
            state => self.state = state,
        }
    }

    /// The broker has not said that the client sleeps, and the client speaks again: it is asked once more for the session.
    pub(super) fn stir(&mut self, now: Timestamp, message: Message<'_>, effects: &mut Effects<'_>) {
        let State::FallingAsleep(falling) = std::mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        self.state = State::Asleep(Box::new(falling.asleep));
        match message {
            // Even the same duration: nobody has stored it.
            Message::Disconnect(Some(seconds)) if seconds > 0 => {
                self.rouse(|nap| Goal::SleepFor { seconds, nap }, effects);
            }
            message => self.handle_message(now, message, effects),
        }
    }

    /// A client that is awake has got everything: PINGRESP, and the time of its sleep begins again.
    pub(super) fn sleep_again(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        if let State::Connected(connection) = &self.state
            && let Phase::Drained(nap) = connection.phase
        {
            self.fall_asleep(now, Nap::new(now, nap.seconds), Some(Message::PingResp), effects);
        }
    }

    /// Everything that waited has been handed out, so far as the broker knows.
    pub(super) fn handle_drained(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.with_connection(now, effects, |connection, _| {
            if let Phase::Awake(nap) = connection.phase {
                connection.phase = Phase::Drained(nap);
            }
        });
    }

    /// A client that is unknown here says that it sleeps.
    pub(super) fn wake_stranger(&mut self, now: Timestamp, client_id: &str, effects: &mut Effects<'_>) {
        let setup = Setup {
            client_id: self.effective_client_id(client_id),
            will: false,
            clean_session: false,
            duration: 0,
        };
        self.wake(setup, Goal::Wake { nap: None }, Greeting::unseen(now), effects);
    }

    /// The client that sleeps here says something.
    pub(super) fn rouse(&mut self, goal: impl FnOnce(Nap) -> Goal, effects: &mut Effects<'_>) {
        if let State::Asleep(asleep) = &self.state {
            let (setup, goal, greeting) = (asleep.setup(), goal(asleep.nap), asleep.greeting);
            self.wake(setup, goal, greeting, effects);
        }
    }

    fn wake(&mut self, setup: Setup, goal: Goal, greeting: Greeting, effects: &mut Effects<'_>) {
        let client_id = ClientId::new(&setup.client_id);
        effects.requests.push(self.wake_request(&client_id));
        self.state = State::Connecting(Box::new(Connecting {
            setup,
            will: None,
            goal,
            greeting,
            fallback: None,
            next: None,
        }));
    }

    /// A client that is awake, or about to be, has said nothing for too long or has lost its transport: it sleeps on,
    /// and what it did not acknowledge waits for the next time. Any other has lost its connection.
    pub(super) fn lose(
        &mut self,
        now: Timestamp,
        word: &'static str,
        detail: &'static str,
        effects: &mut Effects<'_>,
    ) {
        let State::Connected(connection) = &self.state else {
            return;
        };
        let nap = match connection.phase {
            Phase::Active => connection.fallback,
            Phase::Awake(nap) | Phase::Drained(nap) => Some(nap),
        };
        match nap.filter(|nap| nap.until > now) {
            Some(nap) => self.fall_asleep(now, nap, None, effects),
            None => {
                Peer::leave(DisconnectCause::ConnectionLost, effects);
                self.put(&Message::Disconnect(None), effects);
                self.close(word, detail, effects);
            }
        }
    }

    /// A message for a client that has just said that it sleeps; QoS 1 and 2 come again when it wakes.
    pub(super) fn too_late(&self) {
        self.settings.counters.delivery_dropped_asleep.inc();
    }
}

impl Connection {
    /// It has got everything and waits for nothing.
    pub(super) fn may_sleep_again(&self) -> bool {
        matches!(self.phase, Phase::Drained(_)) && self.outgoing.is_none() && self.asked.is_empty()
    }
}

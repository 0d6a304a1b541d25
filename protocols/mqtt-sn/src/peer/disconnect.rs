//! DISCONNECT (§6.12, §6.14), and the end of the transport.

use broker_core::{DisconnectCause, Effects, Request, Timestamp};

use super::{
    Peer,
    sleep::GUARD,
    state::{Goal, Nap, Phase, State},
};
use crate::codec::Message;

impl Peer {
    /// `seconds`: the client sleeps for so long; none: it leaves.
    pub(super) fn handle_disconnect(
        &mut self,
        now: Timestamp,
        seconds: Option<u16>,
        effects: &mut Effects<'_>,
    ) {
        match (&mut self.state, seconds) {
            (State::Connected(_), Some(seconds)) => {
                let answer = Message::Disconnect(None);
                self.fall_asleep(now, Nap::new(now, seconds), Some(answer), effects);
            }
            (State::Connected(_), None) => self.say_goodbye(effects),
            // Its first DISCONNECT was answered, and the answer was lost.
            (State::Asleep(asleep), Some(seconds)) if asleep.nap.seconds == seconds => {
                self.put(&Message::Disconnect(None), effects);
            }
            (State::Asleep(_), Some(seconds)) => self.rouse(|nap| Goal::SleepFor { seconds, nap }, effects),
            (State::Asleep(_), None) => self.rouse(|_| Goal::Leave, effects),
            (State::Connecting(connecting), None) if connecting.goal == Goal::Connect => {
                Peer::leave(DisconnectCause::Normal, effects);
                self.put(&Message::Disconnect(None), effects);
                self.close("normal", "DISCONNECT before CONNACK", effects);
            }
            (State::Connecting(connecting), None) => connecting.goal = Goal::Leave,
            (State::AwaitWill(_), None) => {
                self.put(&Message::Disconnect(None), effects);
                self.close("normal", "DISCONNECT before CONNACK", effects);
            }
            _ => self.settings.counters.received_unexpected.inc(),
        }
    }

    /// The client leaves: its Will is discarded.
    pub(super) fn say_goodbye(&mut self, effects: &mut Effects<'_>) {
        if let State::Connected(connection) = &self.state
            && connection.noted.guard
        {
            // Nobody may wake it from now on.
            effects.requests.push(Request::Note(GUARD, None));
        }
        Peer::leave(DisconnectCause::Normal, effects);
        self.put(&Message::Disconnect(None), effects);
        self.close("normal", DisconnectCause::Normal.text(), effects);
    }

    /// The transport is gone, as a DTLS association may be. A client that sleeps needs none.
    pub(super) fn handle_cut(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        let cause = match &self.state {
            State::Connected(connection) => match connection.phase {
                Phase::Active => Some(match connection.fallback {
                    Some(nap) => nap.cause(now),
                    None => DisconnectCause::ConnectionLost,
                }),
                Phase::Awake(nap) | Phase::Drained(nap) => Some(nap.cause(now)),
            },
            State::Connecting(connecting) => Some(connecting.cause(now)),
            State::Common(common) if common.is_known() => Some(DisconnectCause::ConnectionLost),
            _ => None,
        };
        if let State::Connected(connection) = &self.state
            && connection.fallback.is_some()
        {
            // With its CONNECT it could not be woken any more.
            effects.requests.push(Request::Note(GUARD, Some(self.guard())));
        }
        if let Some(cause) = cause {
            Peer::leave(cause, effects);
        }
        self.state = State::Closed;
    }
}

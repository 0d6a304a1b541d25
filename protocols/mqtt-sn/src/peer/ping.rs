//! PINGREQ (§6.11, §6.14) and keep alive.

use broker_core::{DisconnectCause, Effects, ReasonCode, Timestamp};

use super::{
    Peer,
    state::{Goal, Nap, Phase, State},
};
use crate::codec::Message;

impl Peer {
    pub(super) fn handle_ping(&mut self, now: Timestamp, client_id: &str, effects: &mut Effects<'_>) {
        let named = (!client_id.is_empty()).then(|| self.effective_client_id(client_id));
        match &mut self.state {
            State::Connected(connection) => {
                let own = connection.client.client_id.as_str();
                if named.is_some_and(|named| *named != *own) {
                    // Another client at the address of this one: it has to connect (§6.12).
                    return self.put(&Message::Disconnect(None), effects);
                }
                connection.heard_at = now;
                connection.shrink(now);
                match (connection.phase, connection.fallback.take()) {
                    // Its CONNECT was a copy: it sleeps, and wakes.
                    (Phase::Active, Some(nap)) if !client_id.is_empty() => {
                        self.fall_asleep(now, nap, None, effects);
                        self.stir(now, Message::PingReq(client_id), effects);
                    }
                    (Phase::Active, _) => self.put(&Message::PingResp, effects),
                    // It is being served.
                    (Phase::Awake(_) | Phase::Drained(_), _) => {
                        self.settings.counters.received_duplicate.inc()
                    }
                }
            }
            State::Asleep(asleep) => {
                let is_own = match &named {
                    Some(named) => **named == *asleep.client_id.as_str(),
                    None => asleep.greeting.without_id,
                };
                if is_own {
                    self.rouse(
                        |nap| Goal::Wake {
                            nap: Some(Nap::new(now, nap.seconds)),
                        },
                        effects,
                    );
                } else {
                    self.put(&Message::Disconnect(None), effects);
                }
            }
            State::Connecting(_) => self.settings.counters.received_duplicate.inc(),
            _ => self.settings.counters.received_unexpected.inc(),
        }
    }

    /// Nothing was heard for longer than the client had promised.
    pub(super) fn fall_silent(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        let State::Connected(connection) = &self.state else {
            return;
        };
        if connection.phase != Phase::Active || connection.fallback.is_some() {
            return self.lose(now, "asleep_timeout", "awake for longer than its sleep", effects);
        }
        Peer::leave(DisconnectCause::ByServer(ReasonCode::KeepAliveTimeout), effects);
        self.put(&Message::Disconnect(None), effects);
        self.close(
            "keepalive_timeout",
            "nothing heard for one and a half times the duration of its CONNECT",
            effects,
        );
    }
}

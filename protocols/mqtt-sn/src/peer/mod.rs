//! One MQTT-SN client as the gateway sees it: from its datagrams to requests, from events to its datagrams.
//!
//! `state.rs` has the diagram; each procedure has a file. What a client may send again, because an answer was lost, is
//! answered again and has no further effect; what its state does not allow is dropped and [counted](Counters),
//! unless the specification names an answer. Nothing is parked: a request that cannot be taken now is refused with
//! "congestion" or dropped, and the client repeats it.
//!
//! # Topic ids
//!
//! A topic name keeps its id as long as the session lasts: over sleep, over a new connection without CleanSession,
//! over a restart of the gateway. In PUBLISH the client may use every id that it was ever given in the session. The
//! gateway uses without further words only those that the client has registered, subscribed to or accepted in this
//! connection; others it REGISTERs again, under the same id, before the first PUBLISH, since the client may have lost
//! its memory in between (§6.10). Sleep and waking belong to one connection. A client that answers PUBLISH with
//! "invalid topic id" gets a REGISTER and the message again.
//!
//! # Who may wake a sleeping client
//!
//! PINGREQ says nothing but a client id. So the session notes a guard when its client falls asleep, and who wakes it
//! must have the same: under [`Roaming::Any`](crate::Roaming) nothing but, on a secured listener, the identity that
//! DTLS has proven (PSK identity or the subject of the certificate); under `Host` the address (and the node behind a
//! forwarder) in addition; under `Never` the port as well. A client that is connected cannot be woken, so a PINGREQ
//! cannot take its place.
//!
//! # Client ids that the gateway chooses
//!
//! MQTT-SN has no way to tell the client which one it got. So it can never come back to its session: CONNECT without
//! a client id always is one with CleanSession. From the address that it fell asleep at, such a client may wake with
//! an empty PINGREQ.

mod acknowledge;
mod admit;
mod common;
mod connect;
mod counters;
mod deliver;
mod disconnect;
mod identity;
mod late;
mod outgoing;
mod ping;
mod publish;
mod register;
mod sleep;
mod state;
mod subscribe;
mod timers;
mod will;

use std::sync::Arc;

use broker_core::{ClientId, Close, Disconnect, DisconnectCause, Effects, Event, Request, Timestamp};

use crate::{
    Settings, Transport,
    codec::{Message, Node},
};
use state::{Connection, State};

pub use common::CurrentSettings;
pub use counters::{Counter, Counters};

/// The longest message that is sent, bytes, without the envelope of a forwarder. One DTLS record holds as many (RFC
/// 6347 §4.1), and it is far more than the links of sensors carry; a delivery that is longer is dropped as
/// undeliverable.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// One MQTT-SN client. Performs no I/O and reads no clock.
#[derive(Debug)]
pub struct Peer {
    settings: Arc<Settings>,
    /// `None` for the common peer.
    transport: Option<Transport>,
    state: State,
    /// Outlives the state, for the log line of the connection's end.
    client_id: Option<ClientId>,
}

impl Peer {
    /// A client that is about to be offered its first datagram: CONNECT, or PINGREQ with a client id.
    pub fn new(now: Timestamp, settings: Arc<Settings>, transport: Transport) -> Peer {
        let until = now.after(settings.idle_timeout);
        Peer {
            settings,
            transport: Some(transport),
            state: State::AwaitConnect { until },
            client_id: None,
        }
    }

    /// Writes one datagram to the client.
    fn put(&self, message: &Message<'_>, effects: &mut Effects<'_>) {
        let node = self
            .transport
            .as_ref()
            .and_then(|transport| transport.remote.node.as_deref());
        put(node, message, effects);
    }

    /// Calls `call` with the admitted client, if it is one, then does what its state now asks for.
    fn with_connection<R>(
        &mut self,
        now: Timestamp,
        effects: &mut Effects<'_>,
        call: impl FnOnce(&mut Connection, &mut Io<'_, '_>) -> R,
    ) -> Option<R> {
        let State::Connected(connection) = &mut self.state else {
            return None;
        };
        let node = self
            .transport
            .as_ref()
            .and_then(|transport| transport.remote.node.as_deref());
        let mut io = Io {
            now,
            settings: &self.settings,
            node,
            effects,
        };
        let result = call(connection, &mut io);
        connection.advance(&mut io);
        if connection.may_sleep_again() {
            self.sleep_again(now, effects);
        }
        Some(result)
    }

    /// Tells the broker that the connection ends.
    fn leave(cause: DisconnectCause, effects: &mut Effects<'_>) {
        effects.requests.push(Request::Disconnect(Box::new(Disconnect {
            cause,
            session_expiry_interval: None,
            // §6.12; it ends with a session of CleanSession.
            keeps_will: true,
            user_properties: Vec::new(),
        })));
    }

    fn close(&mut self, reason: &'static str, detail: impl Into<String>, effects: &mut Effects<'_>) {
        self.state = State::Closed;
        *effects.close = Some(Close {
            reason,
            detail: detail.into(),
        });
    }
}

/// What a connection works with during one call.
struct Io<'a, 'e> {
    now: Timestamp,
    settings: &'a Settings,
    /// Behind which forwarder's address.
    node: Option<&'a [u8]>,
    effects: &'a mut Effects<'e>,
}

impl Io<'_, '_> {
    fn put(&mut self, message: &Message<'_>) {
        put(self.node, message, self.effects);
    }

    fn request(&mut self, request: Request) {
        self.effects.requests.push(request);
    }
}

/// Writes one datagram, in an envelope if a forwarder stands before the client (§5.5).
fn put(node: Option<&[u8]>, message: &Message<'_>, effects: &mut Effects<'_>) {
    effects.wire.put_datagram(|to| match node {
        Some(id) => Node::seal(0, id, to, |to| message.encode(to)),
        None => message.encode(to),
    });
}

impl broker_core::Peer for Peer {
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        if !matches!(self.state, State::Closed) {
            match Message::decode(input) {
                Ok(message) => self.handle_message(now, message, effects),
                Err(error) => self.handle_malformed(&error, effects),
            }
        }
        input.len()
    }

    fn handle_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Connected(connected) => self.handle_connected(now, *connected, effects),
            Event::Refused(closing) => self.handle_refused(now, &closing, effects),
            Event::Close(closing) => self.handle_close(now, &closing, effects),
            Event::Asleep => self.handle_asleep(effects),
            Event::Deliver(delivery) => self.handle_delivery(now, delivery, effects),
            Event::Drained => self.handle_drained(now, effects),
            event => {
                self.with_connection(now, effects, |connection, io| connection.handle_event(event, io));
            }
        }
    }

    fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.fire(now, effects);
        }
    }

    fn handle_closed(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.handle_cut(now, effects);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_timeout()
    }

    fn client_id(&self) -> Option<&str> {
        self.client_id.as_ref().map(ClientId::as_str)
    }
}

impl Connection {
    /// Answers of the broker to requests of the client, and deliveries' second halves.
    fn handle_event(&mut self, event: Event, io: &mut Io<'_, '_>) {
        match event {
            Event::PubAck(id, reason) => self.published(id, reason, io),
            Event::PubRec(id, reason) => self.received(id, reason, io),
            Event::PubComp(id, _) => self.completed(id, io),
            Event::PubRel(id, reason) => self.release(id, reason, io),
            Event::SubAck(number, codes) => self.subscribed(number, &codes, io),
            Event::UnsubAck(number, _) => self.unsubscribed(number, io),
            Event::Noted(number, reason) => self.noted(number, reason, io),
            Event::WillSet(reason) => self.will_set(reason, io),
            // The others concern the peer, or no client of MQTT-SN.
            _ => {}
        }
    }
}

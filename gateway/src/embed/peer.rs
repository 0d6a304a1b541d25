//! One embedded client as the broker sees it.
//!
//! ```text
//!       attached         admitted
//! New ──────────▶ Connecting ────▶ Connected ──▶ Closed
//!                     └───────────────────────────┘ refused, cancelled, disconnected, closed by the broker
//! ```
//!
//! What the application wants comes as [`Command`]s, taken at each nudge. The messages of a subscription go to its
//! queue; which one, a subscription identifier says. It is a hash of the filter, the same in every process, so
//! that what waits in a session of an earlier process finds the subscription that the application makes again. Two
//! filters with one hash are told apart as long as the client lives.

mod connection;
#[cfg(test)]
mod tests;
mod unclaimed;

use std::{mem, sync::Arc};

use broker_core::{
    Close, Closing, Connect, Connected, Disconnect, DisconnectCause, Effects, Event, Request, Timestamp,
};
use tokio::sync::oneshot;

use super::{
    End,
    shared::{Command, Shared},
};
use connection::Connection;

/// The answer to a connect.
pub(super) type Admission = oneshot::Sender<Result<Connected, Closing>>;

/// One embedded client. Performs no I/O and reads no clock.
pub(super) struct Peer {
    shared: Arc<Shared>,
    /// Memory of the last round of commands, for the next.
    commands: Vec<Command>,
    state: State,
}

enum State {
    New { connect: Box<Connect>, reply: Admission },
    Connecting { reply: Admission },
    Connected(Box<Connection>),
    Closed,
}

impl Peer {
    /// A client that will connect when it is nudged first.
    pub(super) fn new(shared: Arc<Shared>, connect: Connect, reply: Admission) -> Peer {
        Peer {
            shared,
            commands: Vec::new(),
            state: State::New {
                connect: Box::new(connect),
                reply,
            },
        }
    }

    fn drain(&mut self, effects: &mut Effects<'_>) {
        self.state = match mem::replace(&mut self.state, State::Closed) {
            State::New { connect, reply } => {
                effects.requests.push(Request::Connect(connect));
                State::Connecting { reply }
            }
            state => state,
        };
        let mut commands = mem::take(&mut self.commands);
        self.shared.take(&mut commands);
        for command in commands.drain(..) {
            self.handle_command(command, effects);
        }
        self.commands = commands;
    }

    fn handle_command(&mut self, command: Command, effects: &mut Effects<'_>) {
        match (&mut self.state, command) {
            (State::Connected(connection), Command::Disconnect { disconnect, reply }) => {
                if let Some(interval) = disconnect.session_expiry_interval {
                    connection.keeps_session = interval > 0;
                }
                effects.requests.push(Request::Disconnect(Box::new(disconnect)));
                self.close(End::Disconnected, effects);
                if let Some(reply) = reply {
                    // Whoever no longer waits needs no answer; the same below.
                    let _ = reply.send(());
                }
            }
            (State::Connecting { .. }, Command::Disconnect { disconnect, .. }) => {
                effects.requests.push(Request::Disconnect(Box::new(disconnect)));
                self.close(End::Disconnected, effects);
            }
            (State::Connected(connection), command) => connection.handle_command(command, effects),
            // Nobody has a client yet that could ask, or it is over: the answer is that no answer comes.
            (State::New { .. } | State::Connecting { .. } | State::Closed, _) => {}
        }
    }

    fn close(&mut self, end: End, effects: &mut Effects<'_>) {
        let (reason, detail) = match &end {
            End::Disconnected => ("normal", String::new()),
            End::Closed(_) => ("closed_by_broker", end.to_string()),
            End::BrokerEnded => ("server_shutting_down", String::new()),
        };
        *effects.close = Some(Close { reason, detail });
        self.finish(end);
    }

    /// Lets everybody know that nothing comes any more.
    fn finish(&mut self, end: End) {
        self.shared.close(end);
        if let State::Connected(connection) = mem::replace(&mut self.state, State::Closed) {
            connection.end();
        }
    }

    fn refused(&mut self, closing: Closing, effects: &mut Effects<'_>) {
        if let State::Connecting { reply } = mem::replace(&mut self.state, State::Closed) {
            let _ = reply.send(Err(closing.clone()));
        }
        self.close(End::Closed(closing), effects);
    }

    fn connected(&mut self, connected: Connected) {
        self.state = match mem::replace(&mut self.state, State::Closed) {
            State::Connecting { reply } => {
                let connection = Box::new(Connection::new(&connected));
                let _ = reply.send(Ok(connected));
                State::Connected(connection)
            }
            state => state,
        };
    }
}

/// Highest subscription identifier (§3.8.2.1.2).
const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;

/// FNV-1a, folded to the range of subscription identifiers, 1 to 268 435 455.
fn subscription_id(filter: &str) -> u32 {
    let hash = filter.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % SUBSCRIPTION_ID_MAX + 1
}

fn next_subscription_id(id: u32) -> u32 {
    id % SUBSCRIPTION_ID_MAX + 1
}

impl broker_core::Peer for Peer {
    /// A nudge: an embedded client sends commands instead of bytes.
    fn handle_input(&mut self, _now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        self.drain(effects);
        input.len()
    }

    fn handle_event(&mut self, _now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Connected(connected) => self.connected(*connected),
            Event::Refused(closing) => self.refused(*closing, effects),
            Event::Close(closing) => self.close(End::Closed(*closing), effects),
            event => {
                if let State::Connected(connection) = &mut self.state {
                    connection.handle_event(&self.shared, event, effects);
                }
            }
        }
    }

    fn handle_timeout(&mut self, _now: Timestamp, _effects: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _now: Timestamp, effects: &mut Effects<'_>) {
        if matches!(self.state, State::Connecting { .. } | State::Connected(_)) {
            effects.requests.push(Request::Disconnect(Box::new(Disconnect {
                cause: DisconnectCause::ConnectionLost,
                session_expiry_interval: None,
                keeps_will: false,
                user_properties: Vec::new(),
            })));
        }
        self.finish(End::BrokerEnded);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

impl Drop for Peer {
    /// The worker has ended, in order or not: nobody must wait for it.
    fn drop(&mut self) {
        self.finish(End::BrokerEnded);
    }
}

//! What happens by itself: flights are sent again, handshakes are given up, silent associations end.

use std::net::SocketAddr;

use broker_core::Timestamp;

use super::{
    super::{AssociationId, Outcome},
    Associations, Due, RETRANSMIT_MAX, drop_it,
};

impl Associations {
    /// When [`Associations::handle_timeout`] must be called, if at all. May move at every other call.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The time that [`Associations::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut Vec<Outcome>) {
        while let Some(&(due, what)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            match what {
                Due::Handshake(remote) => self.handshake_due(now, remote, out),
                Due::Association(id) => self.association_due(now, id, out),
            }
        }
    }

    fn handshake_due(&mut self, now: Timestamp, remote: SocketAddr, out: &mut Vec<Outcome>) {
        let Some(pending) = self.handshakes.get_mut(&remote) else {
            return;
        };
        if now >= pending.deadline {
            self.forget_handshake(remote);
            return drop_it(out, "handshake_timeout");
        }
        pending.send_flight(now, out);
        pending.interval = (pending.interval * 2).min(RETRANSMIT_MAX);
        pending.due = pending.deadline.min(now.after(pending.interval));
        self.timers.insert((pending.due, Due::Handshake(remote)));
    }

    fn association_due(&mut self, now: Timestamp, id: AssociationId, out: &mut Vec<Outcome>) {
        let server = self.server.clone();
        let Some(association) = self.get_mut(id) else {
            return;
        };
        association.due = association.heard.after(server.patience(association.has_spoken));
        if association.due <= now {
            return self.end(id, "idle_timeout", out);
        }
        let due = association.due;
        self.timers.insert((due, Due::Association(id)));
    }
}

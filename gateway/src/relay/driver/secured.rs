//! The associations of a DTLS socket, and the peers that stand on them.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use broker_core::{Identity, LinkId, Timestamp};
use driver::dtls::{AssociationId, Associations, DtlsServer, Outcome};

use super::RunError;

/// DTLS on one socket.
pub(super) struct Secured {
    associations: Associations,
    sessions: HashMap<AssociationId, Session>,
    by_address: HashMap<SocketAddr, AssociationId>,
}

struct Session {
    from: SocketAddr,
    identity: Option<Identity>,
    /// Who speaks over it: the client, or nodes behind a forwarder. Some may have ended.
    links: Vec<LinkId>,
}

/// What is left for the caller to do.
#[derive(Debug)]
pub(super) enum Unsealed {
    /// To be sent as it is.
    Transmit(SocketAddr, bytes::Bytes),
    /// A client says this.
    Data(SocketAddr, bytes::Bytes),
    /// These have lost what they stand on.
    Cut(Vec<LinkId>),
}

impl Secured {
    pub(super) fn new(server: Arc<DtlsServer>, associations_max: usize) -> Result<Secured, RunError> {
        let associations = Associations::new(server, associations_max)
            .map_err(|_| RunError::Settings("the system has no random numbers".to_owned()))?;
        Ok(Secured {
            associations,
            sessions: HashMap::new(),
            by_address: HashMap::new(),
        })
    }

    /// Handshakes that begin from now on are held with this.
    pub(super) fn reconfigure(&mut self, server: Arc<DtlsServer>) {
        self.associations.reconfigure(server);
    }

    /// Who is at this address.
    pub(super) fn identity_of(&self, address: SocketAddr) -> Option<&Identity> {
        self.sessions
            .get(self.by_address.get(&address)?)?
            .identity
            .as_ref()
    }

    /// A peer that speaks with this address. `is_alive` says which of the others are to be remembered.
    pub(super) fn add(&mut self, address: SocketAddr, link: LinkId, is_alive: impl Fn(LinkId) -> bool) {
        if let Some(id) = self.by_address.get(&address)
            && let Some(session) = self.sessions.get_mut(id)
        {
            session.links.retain(|&link| is_alive(link));
            session.links.push(link);
        }
    }

    pub(super) fn receive(&mut self, now: Timestamp, from: SocketAddr, datagram: &[u8]) -> Vec<Unsealed> {
        let mut outcomes = Vec::new();
        self.associations
            .handle_datagram(now, from, None, datagram, &mut outcomes);
        self.act(outcomes)
    }

    pub(super) fn send(&mut self, now: Timestamp, to: SocketAddr, plaintext: &[u8]) -> Vec<Unsealed> {
        let mut outcomes = Vec::new();
        if let Some(&id) = self.by_address.get(&to) {
            self.associations.send(now, id, plaintext, &mut outcomes);
        }
        self.act(outcomes)
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) -> Vec<Unsealed> {
        let mut outcomes = Vec::new();
        self.associations.handle_timeout(now, &mut outcomes);
        self.act(outcomes)
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.associations.poll_timeout()
    }

    /// Says goodbye to everybody.
    pub(super) fn close_all(&mut self) -> Vec<Unsealed> {
        let mut outcomes = Vec::new();
        self.associations.close_all("the gateway ends", &mut outcomes);
        self.act(outcomes)
    }

    fn act(&mut self, outcomes: Vec<Outcome>) -> Vec<Unsealed> {
        let mut left = Vec::new();
        for outcome in outcomes {
            match outcome {
                Outcome::Transmit { to, datagram, .. } => left.push(Unsealed::Transmit(to, datagram)),
                Outcome::Opened {
                    id, from, identity, ..
                } => {
                    self.by_address.insert(from, id);
                    let links = Vec::new();
                    self.sessions.insert(
                        id,
                        Session {
                            from,
                            identity,
                            links,
                        },
                    );
                }
                Outcome::Data { id, plaintext } => {
                    if let Some(session) = self.sessions.get(&id) {
                        left.push(Unsealed::Data(session.from, plaintext));
                    }
                }
                Outcome::Closed { id, reason } => {
                    let Some(session) = self.sessions.remove(&id) else {
                        continue;
                    };
                    tracing::debug!(client = %session.from, reason, "DTLS association closed");
                    if self.by_address.get(&session.from) == Some(&id) {
                        self.by_address.remove(&session.from);
                    }
                    left.push(Unsealed::Cut(session.links));
                }
                Outcome::Dropped { reason } => tracing::debug!(reason, "datagram or handshake dropped"),
            }
        }
        left
    }
}

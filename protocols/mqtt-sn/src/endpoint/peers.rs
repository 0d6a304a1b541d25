//! The peers of this crate.

use std::sync::Arc;

use broker_core::{Peer, Timestamp};

use super::Peers;
use crate::{Settings, Transport, peer};

#[derive(Debug)]
pub(super) struct Own(pub(super) Arc<Settings>);

impl Peers for Own {
    fn open(&self, now: Timestamp, transport: Transport) -> Box<dyn Peer> {
        Box::new(peer::Peer::new(now, Arc::clone(&self.0), transport))
    }

    fn common(&self, client_id: &str, seed: u64) -> Box<dyn Peer> {
        let settings = Arc::clone(&self.0);
        Box::new(peer::Peer::common(
            Arc::new(move || Arc::clone(&settings)),
            client_id,
            seed,
        ))
    }
}

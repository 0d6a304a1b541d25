//! Other gateways that are heard.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use broker_core::Timestamp;

/// ADVERTISE that may be missed before a gateway counts as gone (N_ADV, §7.2).
const MISSED_MAX: u32 = 3;

/// How long a gateway that was heard but never said when it will advertise counts as there.
const ASSUMED_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// A gateway that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherGateway {
    /// What it calls itself (§5.3.6). If it is the id of this gateway, clients cannot tell the two apart: one of them
    /// is configured wrong.
    pub gateway_id: u8,
    /// From where it was heard last.
    pub address: SocketAddr,
    /// When it counts as gone if it is not heard again.
    pub until: Timestamp,
}

/// The other gateways that a listener has heard (§6.1), at most one for each gateway id. Anybody can send an ADVERTISE:
/// this is for logs and metrics, nothing depends on it.
#[derive(Debug, Default)]
pub struct Neighbours {
    gateways: Mutex<BTreeMap<u8, OtherGateway>>,
}

impl Neighbours {
    /// Those that are there at `now`, by their ids.
    pub fn list(&self, now: Timestamp) -> Vec<OtherGateway> {
        let mut gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        gateways.retain(|_, gateway| gateway.until > now);
        gateways.values().copied().collect()
    }

    /// `interval`: what an ADVERTISE says. `None`, a GWINFO: what was said before goes on.
    pub(super) fn hear(
        &self,
        now: Timestamp,
        gateway_id: u8,
        address: SocketAddr,
        interval: Option<Duration>,
    ) {
        let until = now.after(interval.unwrap_or(ASSUMED_INTERVAL) * MISSED_MAX);
        let mut gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        let gateway = gateways.entry(gateway_id).or_insert(OtherGateway {
            gateway_id,
            address,
            until,
        });
        gateway.address = address;
        if interval.is_some() || gateway.until <= now {
            gateway.until = until;
        }
    }
}

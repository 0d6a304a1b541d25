//! Datagram sockets: opened, read and written; and what workers keep and tell each other about them. The worker's part
//! is in `worker`: `ports`, `datagrams` (in), `datagram_output`, `parcels` (between workers), `secured` (DTLS).

mod config;
mod counters;
mod listener;
mod parcel;
mod socket;
mod table;

use std::hash::{BuildHasher, RandomState};

pub use config::{DatagramConfig, DtlsSettings, EndpointFactory, EndpointMeta, PskLookup};
pub use counters::DatagramCounters;
pub(crate) use counters::Tally;
pub use listener::DatagramListener;
pub(crate) use listener::{Core, DatagramCommand, Opening};
pub(crate) use parcel::{News, Parcel};
pub(crate) use socket::{BATCH as RECEIVE_BATCH, DATAGRAM_BYTES_MAX, Datagrams, Groups, Origin, is_blocked};
pub(crate) use table::{Away, Place, RemoteRef, Table, Track};

/// A seed that others cannot guess: the standard library draws the keys of its hashers from the system.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

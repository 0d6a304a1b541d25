//! What an idle peer of a datagram listener costs. `--nocapture` prints it.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod common;

use std::{net::SocketAddr, sync::Arc};

use broker_core::{
    Addressed, Effects, Endpoint, Event, Peer, Remote, Stranger, Timestamp, Transmit, Verdict,
};
use common::{datagram::*, *};
use driver::{DatagramConfig, WorkerConfig};

const PEERS: u64 = 20_000;

/// A peer that has nothing.
struct Nobody;

impl Peer for Nobody {
    fn handle_input(&mut self, _: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        effects.wire.put_datagram(|to| to.extend_from_slice(input));
        input.len()
    }

    fn handle_event(&mut self, _: Timestamp, _: Event, _: &mut Effects<'_>) {}

    fn handle_timeout(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    /// Each has its keep alive.
    fn poll_timeout(&self) -> Option<Timestamp> {
        Some(Timestamp::from_millis(1 << 50))
    }
}

struct Everybody;

impl Endpoint for Everybody {
    fn address<'d>(&self, datagram: &'d [u8]) -> Addressed<'d> {
        Addressed::Sender(datagram)
    }

    fn handle_stranger(
        &mut self,
        _: Timestamp,
        _: &Stranger<'_>,
        _: &[u8],
        _: &mut Vec<Transmit>,
    ) -> Verdict {
        Verdict::Open(Box::new(Nobody))
    }

    fn handle_no_room(&mut self, _: Timestamp, _: &Remote, _: &[u8], _: &mut Vec<Transmit>) {}

    fn common_client_id(&self) -> Option<&str> {
        None
    }

    fn common_peer(&mut self, _: Timestamp) -> Box<dyn Peer> {
        Box::new(Nobody)
    }

    fn handle_timeout(&mut self, _: Timestamp, _: &mut Vec<Transmit>) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

/// Memory of this process that is in use, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn an_idle_peer_takes_at_most_600_bytes() {
    let workers = workers(1, &WorkerConfig::default());
    let config = DatagramConfig {
        endpoint: Arc::new(|_| Box::new(Everybody)),
        ..datagram_config(localhost())
    };
    let listener = listen_datagram(&workers, config);
    let mut before = 0;
    for n in 0..PEERS + 1000 {
        if n == 1000 {
            before = resident();
        }
        // Every address of this network is this machine's, so ports need not be different.
        let [.., high, low] = n.to_be_bytes();
        let socket = std::net::UdpSocket::bind(SocketAddr::from(([127, 1, high, low], 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(listener.address()).unwrap();
        assert_eq!(Client(socket).ask("hello"), "hello");
    }
    assert_eq!(listener.connections() as u64, PEERS + 1000);
    let each = (resident() - before) / PEERS;
    println!("{each} bytes for each idle peer");
    assert!(each <= 600, "{each} bytes for each idle peer");
}

//! What the fuzz target of the DTLS demultiplexer does; `cargo fuzz` and the test `fuzz` share it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use broker_core::Timestamp;
use bytes::BytesMut;
use driver::{
    ClientAuth, DtlsSettings,
    dtls::{AssociationId, Associations, DtlsServer, Outcome},
};
use rtc_dtls::{
    cipher_suite::CipherSuiteId,
    config::{ConfigBuilder, HandshakeConfig},
    crypto_provider::default_provider,
    endpoint::Endpoint,
};
use rtc_shared::TransportProtocol;

const HANDSHAKES_MAX: usize = 3;
const ASSOCIATIONS_MAX: usize = 4;

static SERVER: LazyLock<Arc<DtlsServer>> = LazyLock::new(|| {
    DtlsServer::load(&DtlsSettings {
        certificate: None,
        ca_file: None,
        client_auth: ClientAuth::None,
        psk: Some(Arc::new(|_| Some(b"secret".to_vec()))),
        handshake_timeout: Duration::from_secs(10),
        handshakes_max: HANDSHAKES_MAX,
        idle_timeout: Duration::from_secs(60),
    })
    .expect("it has keys")
});

static CLIENT: LazyLock<Arc<HandshakeConfig>> = LazyLock::new(|| {
    let config = ConfigBuilder::default()
        .with_crypto_provider(default_provider().expect("there is one"))
        .with_cipher_suites(vec![CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8])
        .with_psk(Some(Arc::new(|_| Ok(b"secret".to_vec()))))
        .with_psk_identity_hint(Some(b"client".to_vec()))
        .with_insecure_skip_verify(true);
    Arc::new(config.build(true, None).expect("it is complete"))
});

struct World {
    associations: Associations,
    now: Timestamp,
    client: Endpoint,
    began: Instant,
    /// Datagrams of the client, sent and not.
    genuine: Vec<Vec<u8>>,
    open: BTreeSet<AssociationId>,
    ever: usize,
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], u16::from(number % 4) + 1))
}

/// The client's address and the server's.
const CLIENT_NUMBER: u8 = 0;

fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 1))
}

/// Acts as `data` says. Nothing may panic, no bound may be passed, and the outcomes must make sense.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    let mut data = data.iter().copied();
    while let Some(op) = data.next() {
        let mut next = || data.next().unwrap_or_default();
        match op % 8 {
            0 => {
                let from = address(next());
                let len = usize::from(next());
                let datagram: Vec<_> = (0..len).map(|_| next()).collect();
                world.receive(from, &datagram);
            }
            1 | 2 => world.genuine(usize::MAX, address(CLIENT_NUMBER), None),
            3 => {
                let change = (usize::from(next()), next());
                world.genuine(usize::MAX, address(CLIENT_NUMBER), Some(change));
            }
            4 => world.genuine(next().into(), address(next()), None),
            5 => {
                let change = (usize::from(next()), next());
                world.genuine(next().into(), address(next()), Some(change));
            }
            6 => world.pass(Duration::from_millis(u64::from(next()) * 100)),
            _ => world.write(next()),
        }
    }
    world.pass(Duration::from_secs(10_000));
    assert!(world.associations.is_empty() && world.associations.handshakes() == 0);
    assert!(world.open.is_empty());
    assert_eq!(world.associations.poll_timeout(), None);
}

impl World {
    fn new() -> World {
        let began = Instant::now();
        let mut client = Endpoint::new(address(CLIENT_NUMBER), TransportProtocol::UDP, None);
        client
            .connect(began, server_address(), CLIENT.clone(), None)
            .expect("nothing is sent yet");
        let mut world = World {
            associations: Associations::new(SERVER.clone(), ASSOCIATIONS_MAX).expect("random numbers"),
            now: Timestamp::from_millis(1_800_000_000_000),
            client,
            began,
            genuine: Vec::new(),
            open: BTreeSet::new(),
            ever: 0,
        };
        world.collect();
        world
    }

    fn collect(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            self.genuine.push(transmit.message.to_vec());
        }
        // What can be replayed is bounded, so that a run is.
        let excess = self.genuine.len().saturating_sub(64);
        self.genuine.drain(..excess);
    }

    /// Datagram number `at` of the client, or its last one; with a byte changed if so asked.
    fn genuine(&mut self, at: usize, from: SocketAddr, change: Option<(usize, u8)>) {
        let last = self.genuine.len().saturating_sub(1);
        let Some(mut datagram) = self.genuine.get(at.min(last)).cloned() else {
            return;
        };
        if let Some((at, with)) = change {
            let at = at % datagram.len();
            datagram[at] ^= with;
        }
        self.receive(from, &datagram);
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let mut out = Vec::new();
        self.associations
            .handle_datagram(self.now, from, None, datagram, &mut out);
        self.check(out);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(at) = self.associations.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.associations.handle_timeout(self.now, &mut out);
            self.check(out);
        }
        self.now = end;
    }

    /// Either side says something, if it can.
    fn write(&mut self, text: u8) {
        let _ = self.client.write(self.began, server_address(), &[text; 9]);
        self.collect();
        if let Some(&id) = self.open.first() {
            let mut out = Vec::new();
            match text {
                0 => self.associations.close(self.now, id, "closed", &mut out),
                _ => self.associations.send(self.now, id, &[text; 9], &mut out),
            }
            self.check(out);
        }
    }

    fn check(&mut self, out: Vec<Outcome>) {
        assert!(out.len() < 2000, "{} outcomes of one call", out.len());
        for outcome in out {
            match outcome {
                Outcome::Transmit { to, datagram, .. } => {
                    assert!(datagram.len() <= 1200);
                    if to == address(CLIENT_NUMBER) {
                        let datagram = BytesMut::from(&datagram[..]);
                        let _ = self.client.read(self.began, server_address(), None, datagram);
                        self.collect();
                    }
                }
                Outcome::Opened { id, .. } => {
                    self.ever += 1;
                    assert!(self.open.insert(id), "an id is used again");
                }
                Outcome::Data { id, plaintext } => {
                    assert!(self.open.contains(&id) && !plaintext.is_empty());
                }
                Outcome::Closed { id, .. } => assert!(self.open.remove(&id)),
                Outcome::Dropped { reason } => assert!(!reason.is_empty()),
            }
        }
        assert_eq!(self.open.len(), self.associations.len());
        assert!(self.associations.handshakes() <= HANDSHAKES_MAX);
        assert!(self.associations.len() <= ASSOCIATIONS_MAX);
    }
}

/// How many handshakes succeed when `data` is acted out: a fuzz test that never gets so far tests little.
#[cfg(test)]
pub fn handshakes(data: &[u8]) -> usize {
    let mut world = World::new();
    for op in data {
        match op {
            1 => world.genuine(usize::MAX, address(CLIENT_NUMBER), None),
            _ => world.write(*op),
        }
    }
    world.ever
}

//! The client of rtc-dtls in memory, in virtual time, over networks that lose, double and reorder.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use broker_core::{Identity, Timestamp};
use bytes::BytesMut;
use driver::{
    ClientAuth,
    dtls::{AssociationId, Associations, DtlsServer, Outcome},
};
use rtc_dtls::{
    cipher_suite::CipherSuiteId,
    config::{ConfigBuilder, HandshakeConfig},
    crypto::Certificate,
    crypto_provider::default_provider,
    endpoint::{Endpoint, EndpointEvent},
};
use rtc_shared::TransportProtocol;
use testkit::{LossyLink, Weather};

use crate::setup::*;

pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// A client, and the time that it lives in.
pub(crate) struct Client {
    endpoint: Endpoint,
    began: Instant,
    pub(crate) said: Vec<Vec<u8>>,
    pub(crate) open: bool,
    pub(crate) closed: bool,
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 8883))
}

pub(crate) fn psk_client(suite: CipherSuiteId) -> Arc<HandshakeConfig> {
    let config = ConfigBuilder::default()
        .with_crypto_provider(default_provider().unwrap())
        .with_cipher_suites(vec![suite])
        .with_psk(Some(Arc::new(|_| Ok(KEY.to_vec()))))
        .with_psk_identity_hint(Some(IDENTITY.as_bytes().to_vec()))
        .with_insecure_skip_verify(true);
    Arc::new(config.build(true, None).unwrap())
}

pub(crate) fn certificate_client(suite: CipherSuiteId) -> Arc<HandshakeConfig> {
    let provider = default_provider().unwrap();
    let own = Certificate::generate_self_signed(vec!["sensor".to_owned()], provider.crypto()).unwrap();
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_cipher_suites(vec![suite])
        .with_certificates(vec![own])
        .with_mtu(200)
        .with_insecure_skip_verify(true);
    Arc::new(config.build(true, None).unwrap())
}

impl Client {
    pub(crate) fn new(config: Arc<HandshakeConfig>) -> Client {
        let began = Instant::now();
        let mut endpoint = Endpoint::new(address(1), TransportProtocol::UDP, None);
        endpoint.connect(began, server_address(), config, None).unwrap();
        Client {
            endpoint,
            began,
            said: Vec::new(),
            open: false,
            closed: false,
        }
    }

    fn instant(&self, now: Timestamp) -> Instant {
        self.began + now.since(START)
    }

    /// What it wants sent.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        self.endpoint
            .poll_transmit()
            .map(|transmit| transmit.message.to_vec())
    }

    pub(crate) fn receive(&mut self, now: Timestamp, datagram: &[u8]) {
        let now = self.instant(now);
        let events = self
            .endpoint
            .read(now, server_address(), None, BytesMut::from(datagram));
        for event in events.unwrap_or_default() {
            match event {
                EndpointEvent::HandshakeComplete => self.open = true,
                EndpointEvent::ApplicationData(data) => self.said.push(data.to_vec()),
                EndpointEvent::PeerClosed => self.closed = true,
                _ => {}
            }
        }
    }

    pub(crate) fn say(&mut self, now: Timestamp, text: &[u8]) {
        let now = self.instant(now);
        self.endpoint.write(now, server_address(), text).unwrap();
    }

    pub(crate) fn close(&mut self, now: Timestamp) {
        let now = self.instant(now);
        self.endpoint.close(now).unwrap();
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let at = self.endpoint.poll_timeout(&server_address())?;
        // A millisecond later, as its clock is finer.
        Some(START.after(at.saturating_duration_since(self.began) + Duration::from_millis(1)))
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        let now = self.instant(now);
        let _ = self.endpoint.handle_timeout(server_address(), now);
    }
}

/// What a server has said in outcomes.
pub(crate) struct Server {
    pub(crate) associations: Associations,
    pub(crate) opened: Vec<(AssociationId, Option<Identity>)>,
    pub(crate) data: Vec<(AssociationId, Vec<u8>)>,
    pub(crate) closed: Vec<(AssociationId, &'static str)>,
    pub(crate) dropped: Vec<&'static str>,
    /// Datagrams to be sent.
    pub(crate) transmits: Vec<(SocketAddr, Vec<u8>)>,
}

impl Server {
    pub(crate) fn new(server: Arc<DtlsServer>) -> Server {
        Server {
            associations: Associations::new(server, 0).unwrap(),
            opened: Vec::new(),
            data: Vec::new(),
            closed: Vec::new(),
            dropped: Vec::new(),
            transmits: Vec::new(),
        }
    }

    pub(crate) fn call(&mut self, what: impl FnOnce(&mut Associations, &mut Vec<Outcome>)) {
        let mut out = Vec::new();
        what(&mut self.associations, &mut out);
        for outcome in out {
            match outcome {
                Outcome::Transmit { to, datagram, .. } => self.transmits.push((to, datagram.to_vec())),
                Outcome::Opened { id, identity, .. } => self.opened.push((id, identity)),
                Outcome::Data { id, plaintext } => self.data.push((id, plaintext.to_vec())),
                Outcome::Closed { id, reason } => self.closed.push((id, reason)),
                Outcome::Dropped { reason } => self.dropped.push(reason),
            }
        }
    }

    /// Takes a datagram and returns what is sent in answer.
    pub(crate) fn receive(&mut self, now: Timestamp, from: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.call(|associations, out| associations.handle_datagram(now, from, None, datagram, out));
        self.take()
    }

    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.transmits.drain(..).map(|(_, datagram)| datagram).collect()
    }

    pub(crate) fn pass_time(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        self.call(|associations, out| associations.handle_timeout(now, out));
        self.take()
    }
}

/// Passes datagrams between the two at once until neither has anything to say.
pub(crate) fn settle(now: Timestamp, from: SocketAddr, client: &mut Client, server: &mut Server) {
    let mut down = server.take();
    loop {
        for datagram in down.drain(..) {
            client.receive(now, &datagram);
        }
        while let Some(datagram) = client.take() {
            down.extend(server.receive(now, from, &datagram));
        }
        if down.is_empty() {
            return;
        }
    }
}

/// A client that is connected.
pub(crate) fn connected(server: &mut Server, from: SocketAddr) -> (Client, AssociationId) {
    let mut client = Client::new(psk_client(CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8));
    settle(START, from, &mut client, server);
    assert!(client.open, "{:?}", server.dropped);
    (client, server.opened.last().unwrap().0)
}

/// Two networks, and what of them arrives.
struct Network {
    up: LossyLink,
    down: LossyLink,
    config: Arc<HandshakeConfig>,
    client: Client,
    /// When the client begins anew unless it is connected by then, as a device does.
    restart: Timestamp,
    server: Server,
    now: Timestamp,
}

/// rtc-dtls 0.21 forgets its timer when the server repeats a flight before the client's next one has arrived: it then
/// waits for ever.
const RESTART: Duration = Duration::from_secs(9);

impl Network {
    fn new(weather: Weather, seed: u64, config: Arc<HandshakeConfig>, server: Arc<DtlsServer>) -> Network {
        Network {
            up: LossyLink::new(weather, seed),
            down: LossyLink::new(weather, seed + 1_000_000),
            client: Client::new(config.clone()),
            config,
            restart: START.after(RESTART),
            server: Server::new(server),
            now: START,
        }
    }

    fn send(&mut self) {
        while let Some(datagram) = self.client.take() {
            self.up.send(self.now, &datagram);
        }
        for datagram in self.server.take() {
            self.down.send(self.now, &datagram);
        }
    }

    /// Lets time pass until `end`, or until `done`.
    fn run(&mut self, end: Timestamp, done: impl Fn(&Network) -> bool) {
        self.send();
        while !done(self) {
            let next = [
                self.up.next_arrival(),
                self.down.next_arrival(),
                self.client.poll_timeout(),
                self.server.associations.poll_timeout(),
                (!self.client.open).then_some(self.restart),
            ];
            match next.into_iter().flatten().min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return;
                }
            }
            while let Some(datagram) = self.up.receive(self.now) {
                let now = self.now;
                self.server
                    .call(|all, out| all.handle_datagram(now, address(5), None, &datagram, out));
            }
            while let Some(datagram) = self.down.receive(self.now) {
                self.client.receive(self.now, &datagram);
            }
            if !self.client.open && self.now >= self.restart {
                self.restart = self.now.after(RESTART);
                self.client = Client::new(self.config.clone());
            }
            if self.client.poll_timeout().is_some_and(|at| at <= self.now) {
                self.client.handle_timeout(self.now);
            }
            let now = self.now;
            self.server.call(|all, out| all.handle_timeout(now, out));
            self.send();
        }
    }
}

fn storm(loss_percent: u8) -> Weather {
    Weather {
        loss_percent,
        duplicate_percent: 20,
        delay_min: Duration::from_millis(5),
        delay_max: Duration::from_millis(200),
    }
}

/// Everything that arrives is what was sent, and once.
fn assert_once(sent: &[Vec<u8>], arrived: &[Vec<u8>]) {
    let mut sorted = arrived.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), arrived.len(), "something came twice");
    assert!(arrived.iter().all(|text| sent.contains(text)));
}

fn weather_the_storm(config: impl Fn() -> Arc<HandshakeConfig>, server: &Arc<DtlsServer>) {
    let mut arrived = 0;
    for seed in 0..30 {
        let mut network = Network::new(storm(15), seed, config(), server.clone());
        let end = START.after(Duration::from_secs(60));
        network.run(end, |network| {
            network.client.open && !network.server.opened.is_empty()
        });
        assert!(network.client.open, "seed {seed}: {:?}", network.server.dropped);
        let id = network.server.opened.last().unwrap().0;
        let ended = network.server.closed.len();
        let texts: Vec<_> = (0..20u8).map(|n| vec![b'a' + n; 1 + usize::from(n)]).collect();
        for text in &texts {
            let now = network.now;
            network.client.say(now, text);
            network.server.call(|all, out| all.send(now, id, text, out));
        }
        network.run(network.now.after(Duration::from_secs(1)), |_| false);
        let data: Vec<_> = network.server.data.iter().map(|(_, text)| text.clone()).collect();
        assert_once(&texts, &data);
        assert_once(&texts, &network.client.said);
        arrived += data.len() + network.client.said.len();
        assert_eq!(network.server.closed.len(), ended);
        assert_eq!(network.server.associations.len(), 1);
    }
    assert!(arrived > 30 * 40 * 7 / 10, "{arrived} arrived");
}

#[test]
fn pre_shared_key_handshakes_survive_bad_networks() {
    let config = || psk_client(CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8);
    weather_the_storm(config, &psk_server());
    let config = || psk_client(CipherSuiteId::Tls_Psk_With_Aes_128_Gcm_Sha256);
    weather_the_storm(config, &psk_server());
}

#[test]
fn certificate_handshakes_survive_bad_networks() {
    let pki = Pki::new();
    let server = DtlsServer::load(&mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256)).unwrap();
    let config = || certificate_client(CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm_8);
    weather_the_storm(config, &server);
}

/// Loses or doubles the datagrams with these numbers, counted over both directions.
fn handshake_with(
    server: Arc<DtlsServer>,
    config: Arc<HandshakeConfig>,
    lost: usize,
    doubled: usize,
) -> usize {
    let mut client = Client::new(config);
    let mut server = Server::new(server);
    let (mut now, mut number) = (START, 0);
    while !client.open || server.opened.is_empty() {
        assert!(
            now < START.after(Duration::from_secs(20)),
            "lost {lost}, doubled {doubled}: {:?}",
            server.dropped
        );
        let up: Vec<_> = std::iter::from_fn(|| client.take()).collect();
        let down = server.take();
        let quiet = up.is_empty() && down.is_empty();
        for (datagram, is_up) in up
            .iter()
            .map(|d| (d, true))
            .chain(down.iter().map(|d| (d, false)))
        {
            let copies = if number == lost {
                0
            } else {
                1 + usize::from(number == doubled)
            };
            number += 1;
            for _ in 0..copies {
                match is_up {
                    true => server.call(|all, out| all.handle_datagram(now, address(5), None, datagram, out)),
                    false => client.receive(now, datagram),
                }
            }
        }
        if quiet {
            now = now.after(Duration::from_millis(100));
            client.handle_timeout(now);
            server.call(|all, out| all.handle_timeout(now, out));
        }
    }
    assert_eq!(server.opened.len(), 1);
    assert_eq!(server.associations.handshakes(), 0);
    number
}

#[test]
fn every_single_datagram_of_a_handshake_may_be_lost_or_doubled() {
    let pki = Pki::new();
    let certificates = DtlsServer::load(&mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256)).unwrap();
    let cases = [
        (
            psk_server(),
            psk_client(CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8),
        ),
        (
            certificates,
            certificate_client(CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256),
        ),
    ];
    for (server, config) in cases {
        let count = handshake_with(server.clone(), config.clone(), usize::MAX, usize::MAX);
        assert!(count >= 6);
        for number in 0..count {
            handshake_with(server.clone(), config.clone(), number, usize::MAX);
            handshake_with(server.clone(), config.clone(), usize::MAX, number);
        }
    }
}

#[test]
fn certificates_of_clients_come_in_many_fragments() {
    let pki = Pki::new();
    let mut settings = mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256);
    settings.client_auth = ClientAuth::Optional;
    let mut server = Server::new(DtlsServer::load(&settings).unwrap());
    let mut client = Client::new(certificate_client(
        CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm_8,
    ));
    settle(START, address(5), &mut client, &mut server);
    // Its own authority is nobody's here.
    assert!(
        server.dropped.contains(&"bad_client_certificate"),
        "{:?}",
        server.dropped
    );
    assert!(server.opened.is_empty() && server.associations.handshakes() == 0);
}

#[test]
fn a_goodbye_of_either_side_ends_the_association() {
    let mut server = Server::new(psk_server());
    let (mut client, id) = connected(&mut server, address(5));
    client.close(START);
    settle(START, address(5), &mut client, &mut server);
    assert_eq!(server.closed, [(id, "close_notify")]);

    let (mut client, id) = connected(&mut server, address(5));
    server.call(|all, out| all.close(START, id, "kicked", out));
    settle(START, address(5), &mut client, &mut server);
    assert!(client.closed);
    assert_eq!(server.closed[1..], [(id, "kicked")]);
    server.call(|all, out| all.close(START, id, "kicked", out));
    server.call(|all, out| all.send(START, id, b"late", out));
    assert_eq!(server.closed.len(), 2);
    assert_eq!(server.dropped.last(), Some(&"no_association"));
    assert_eq!(server.associations.poll_timeout(), None);
}

//! Datagrams over DTLS, with the client of rtc-dtls on real sockets.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the client of rtc-dtls lives in the time of its tests"
)]

mod common;

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use common::{datagram::*, *};
use driver::{ClientAuth, DatagramConfig, DatagramListener, DtlsSettings, WorkerConfig, Workers};
use rtc_dtls::{
    cipher_suite::CipherSuiteId,
    config::ConfigBuilder,
    crypto_provider::default_provider,
    endpoint::{Endpoint, EndpointEvent},
};
use rtc_shared::TransportProtocol;

/// The identities that have keys, and these.
fn key(identity: &str) -> Option<Vec<u8>> {
    let is_known = ["one", "other"].contains(&identity);
    is_known.then(|| format!("the key of {identity}").into_bytes())
}

fn settings() -> DtlsSettings {
    DtlsSettings {
        certificate: None,
        ca_file: None,
        client_auth: ClientAuth::None,
        psk: Some(Arc::new(key)),
        handshake_timeout: PATIENCE,
        handshakes_max: 100,
        idle_timeout: PATIENCE,
    }
}

fn listen_secured(workers: &Workers, dtls: DtlsSettings) -> DatagramListener {
    let config = DatagramConfig {
        dtls: Some(dtls),
        ..datagram_config(localhost())
    };
    listen_datagram(workers, config)
}

/// A client's end of an association.
struct SecuredClient {
    socket: UdpSocket,
    server: SocketAddr,
    endpoint: Endpoint,
    said: VecDeque<String>,
    is_open: bool,
    is_closed: bool,
}

impl SecuredClient {
    fn new(server: SocketAddr, identity: &'static str) -> SecuredClient {
        let socket = UdpSocket::bind(localhost()).unwrap();
        SecuredClient::on(socket, server, identity)
    }

    fn on(socket: UdpSocket, server: SocketAddr, identity: &'static str) -> SecuredClient {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let config = ConfigBuilder::default()
            .with_crypto_provider(default_provider().unwrap())
            .with_cipher_suites(vec![CipherSuiteId::Tls_Psk_With_Aes_128_Gcm_Sha256])
            .with_psk(Some(Arc::new(move |_| Ok(key(identity).unwrap()))))
            .with_psk_identity_hint(Some(identity.as_bytes().to_vec()))
            .with_insecure_skip_verify(true);
        let config = Arc::new(config.build(true, None).unwrap());
        let mut endpoint = Endpoint::new(socket.local_addr().unwrap(), TransportProtocol::UDP, None);
        endpoint.connect(Instant::now(), server, config, None).unwrap();
        let mut client = SecuredClient {
            socket,
            server,
            endpoint,
            said: VecDeque::new(),
            is_open: false,
            is_closed: false,
        };
        client.until(|client| client.is_open);
        client
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            self.socket.send_to(&transmit.message, self.server).unwrap();
        }
    }

    fn turn(&mut self) {
        self.flush();
        let mut buffer = [0; 65_535];
        if let Ok(len) = self.socket.recv(&mut buffer) {
            let bytes = BytesMut::from(&buffer[..len]);
            let events = self.endpoint.read(Instant::now(), self.server, None, bytes);
            for event in events.unwrap_or_default() {
                match event {
                    EndpointEvent::HandshakeComplete => self.is_open = true,
                    EndpointEvent::ApplicationData(data) => {
                        self.said.push_back(String::from_utf8(data.to_vec()).unwrap());
                    }
                    EndpointEvent::PeerClosed => self.is_closed = true,
                    _ => {}
                }
            }
        }
        let due = self.endpoint.poll_timeout(&self.server);
        if due.is_some_and(|at| at <= Instant::now()) {
            let _ = self.endpoint.handle_timeout(self.server, Instant::now());
        }
        self.flush();
    }

    fn until(&mut self, what: impl Fn(&SecuredClient) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !what(self) {
            assert!(Instant::now() < end, "the server is stuck");
            self.turn();
        }
    }

    fn send(&mut self, text: &str) {
        let sent = self.endpoint.write(Instant::now(), self.server, text.as_bytes());
        sent.unwrap();
        self.flush();
    }

    fn receive(&mut self) -> String {
        self.until(|client| !client.said.is_empty());
        self.said.pop_front().unwrap()
    }

    fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.receive()
    }

    fn close(&mut self) {
        self.endpoint.close(Instant::now()).unwrap();
        self.flush();
    }
}

#[test]
fn peers_are_reached_wherever_they_live() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, settings());
    for n in 0..6 {
        let mut client = SecuredClient::new(listener.address(), "one");
        assert_eq!(client.ask("Stext"), "who");
        for shard in [0, 1, 0] {
            let id = id_of(shard, 2, n);
            assert_eq!(client.ask(&format!("Sconnect {id}")), format!("connected {id}"));
            assert_eq!(client.ask("Sworker"), format!("worker-{shard}"));
        }
        assert_eq!(client.ask("Sidentity"), "one");
        assert_eq!(client.ask("Sbye"), "bye");
        wait_until(|| listener.connections() == 0);
        assert_eq!(client.ask("Stext"), "who", "the association lives on");
    }
    assert!(listener.counters().forwarded > 0);
    assert_eq!(listener.counters().opened, 6);
    listener.stop();
    wait_until(|| listener.is_closed());
}

#[test]
fn peers_go_from_worker_to_worker_while_datagrams_are_under_way() {
    let workers = workers(3, &WorkerConfig::default());
    let listener = listen_secured(&workers, settings());
    for n in 0..6 {
        let mut client = SecuredClient::new(listener.address(), "one");
        for round in 0..5 {
            let mut expected = Vec::new();
            for step in 0..4 {
                let id = id_of((round + step) % 3, 3, n);
                client.send(&format!("Sconnect {id}"));
                client.send(&format!("Stext {step}"));
                expected.extend([format!("connected {id}"), format!("text {step}")]);
            }
            let mut texts: Vec<String> = (0..8).map(|_| client.receive()).collect();
            texts.sort();
            expected.sort();
            assert_eq!(texts, expected, "nothing is lost, nobody is a stranger");
        }
        client.close();
        wait_until(|| listener.connections() == 0);
    }
    assert_eq!(listener.counters().opened, 6);
}

#[test]
fn peers_and_nodes_end_with_their_association() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, settings());
    for n in 0..4 {
        let mut client = SecuredClient::new(listener.address(), "one");
        for (shard, node) in [(0, "a"), (1, "b"), (0, "c"), (1, "d")] {
            let id = id_of(shard, 2, n);
            let id = format!("{node}{id}");
            assert_eq!(
                client.ask(&format!("N{node}connect {id}")),
                format!("connected {id}")
            );
        }
        assert_eq!(client.ask("Sopen"), "open");
        assert_eq!(listener.connections(), 5);
        client.close();
        wait_until(|| listener.connections() == 0);
    }
    let ends = workers.handles().iter().map(|worker| worker.counters().ends());
    let ends: u64 = ends
        .map(|ends| ends.get("close_notify").copied().unwrap_or_default())
        .sum();
    assert_eq!(ends, 20);
}

#[test]
fn an_idle_association_ends_with_its_peers() {
    let workers = workers(2, &WorkerConfig::default());
    let dtls = DtlsSettings {
        idle_timeout: Duration::from_millis(50),
        ..settings()
    };
    let listener = listen_secured(&workers, dtls);
    let mut client = SecuredClient::new(listener.address(), "one");
    client.send("Sopen");
    wait_until(|| listener.counters().opened == 1 && listener.connections() == 0);
    client.until(|client| client.is_closed);
}

#[test]
fn who_comes_next_from_an_address_does_not_get_the_peer_of_the_one_before() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, settings());
    for shard in [0, 1] {
        let mut one = SecuredClient::new(listener.address(), "one");
        let id = id_of(shard, 2, 0);
        assert_eq!(one.ask(&format!("Sconnect {id}")), format!("connected {id}"));
        let mut other = SecuredClient::on(one.socket, listener.address(), "other");
        assert_eq!(other.ask("Stext"), "who");
        assert_eq!(other.ask("Sopen"), "open");
        assert_eq!(other.ask("Sidentity"), "other");
        wait_until(|| listener.connections() == 1);
        assert_eq!(other.ask("Sbye"), "bye");
        wait_until(|| listener.connections() == 0);
    }
}

#[test]
fn new_keys_serve_new_handshakes_and_old_associations_go_on() {
    let workers = workers(2, &WorkerConfig::default());
    let only_one = |identity: &str| key(identity).filter(|_| identity == "one");
    let dtls = DtlsSettings {
        psk: Some(Arc::new(only_one)),
        ..settings()
    };
    let listener = listen_secured(&workers, dtls);
    let mut one = SecuredClient::new(listener.address(), "one");
    assert_eq!(one.ask("Sopen"), "open");
    let without = DtlsSettings {
        psk: None,
        ..settings()
    };
    assert!(
        listener.reload_dtls(&without).is_err(),
        "nothing to prove who it is"
    );
    listener.reload_dtls(&settings()).unwrap();
    let mut other = SecuredClient::new(listener.address(), "other");
    assert_eq!(other.ask("Sopen"), "open");
    assert_eq!(other.ask("Sidentity"), "other");
    assert_eq!(one.ask("Stext"), "text");
}

#[test]
fn what_is_not_sealed_is_dropped() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, settings());
    let plain = Client::to(listener.address());
    for _ in 0..10 {
        plain.send("Sopen");
    }
    wait_until(|| listener.counters().dropped.values().sum::<u64>() == 10);
    assert_eq!((listener.counters().received, listener.connections()), (0, 0));
}

#[test]
fn the_last_words_are_sealed_before_the_process_ends() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, settings());
    let mut clients: Vec<SecuredClient> = Vec::new();
    for n in 0..6 {
        let mut client = SecuredClient::new(listener.address(), "one");
        let id = id_of(n % 2, 2, usize::from(n));
        assert_eq!(client.ask(&format!("Sconnect {id}")), format!("connected {id}"));
        clients.push(client);
    }
    listener.stop();
    for worker in workers.handles() {
        let told = worker.call_blocking(|worker| {
            let now = worker.now();
            worker.shard().shut_down(now);
        });
        told.unwrap();
    }
    workers.shutdown(Duration::from_secs(10));
    for client in &mut clients {
        assert_eq!(client.receive(), "closed ServerShuttingDown");
        client.until(|client| client.is_closed);
    }
}

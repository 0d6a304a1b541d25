//! The client of webrtc-dtls, on tokio, at a listener with several workers.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, sync::Arc};

use driver::{ClientAuth, DatagramConfig, DatagramListener, DtlsSettings, WorkerConfig, Workers};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{net::UdpSocket, task::JoinSet};
use webrtc_dtls::{
    Error,
    cipher_suite::CipherSuiteId,
    config::{Config, ExtendedMasterSecretType},
    conn::DTLSConn,
    crypto::Certificate,
};

use crate::{
    common::{datagram::*, *},
    setup::*,
};

const PSK_CCM_8: CipherSuiteId = CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8;
const PSK_CCM: CipherSuiteId = CipherSuiteId::Tls_Psk_With_Aes_128_Ccm;
const PSK_GCM: CipherSuiteId = CipherSuiteId::Tls_Psk_With_Aes_128_Gcm_Sha256;
const ECDSA_CCM_8: CipherSuiteId = CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm_8;
const ECDSA_CCM: CipherSuiteId = CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm;
const ECDSA_GCM: CipherSuiteId = CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256;

fn listen_secured(workers: &Workers, dtls: DtlsSettings) -> DatagramListener {
    let dtls = DtlsSettings {
        handshake_timeout: PATIENCE,
        ..dtls
    };
    let config = DatagramConfig {
        dtls: Some(dtls),
        ..datagram_config(localhost())
    };
    listen_datagram(workers, config)
}

fn psk(suite: CipherSuiteId, identity: &str, key: &[u8]) -> Config {
    let key = key.to_vec();
    Config {
        cipher_suites: vec![suite],
        psk: Some(Arc::new(move |_| Ok(key.clone()))),
        psk_identity_hint: Some(identity.as_bytes().to_vec()),
        ..Config::default()
    }
}

/// The key that the listener knows.
fn own(suite: CipherSuiteId) -> Config {
    psk(suite, IDENTITY, &KEY)
}

/// A client that believes the authority of `pki`.
fn trusting(pki: &Pki, suite: CipherSuiteId) -> Config {
    let mut roots_cas = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap();
    roots_cas.add(authority).unwrap();
    Config {
        cipher_suites: vec![suite],
        roots_cas,
        server_name: "localhost".to_owned(),
        ..Config::default()
    }
}

/// The same, with a certificate of its own.
fn known(pki: &Pki, files: &(impl AsRef<Path>, impl AsRef<Path>)) -> Config {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    // webrtc-dtls has a word of its own for private keys in PEM.
    let key = read(files.1.as_ref()).replace("PRIVATE KEY", "PRIVATE_KEY");
    let certificate = Certificate::from_pem(&(key + &read(files.0.as_ref()))).unwrap();
    Config {
        certificates: vec![certificate],
        ..trusting(pki, ECDSA_GCM)
    }
}

/// A client's end of an association.
struct Client {
    socket: Arc<UdpSocket>,
    association: DTLSConn,
}

impl Client {
    async fn new(listener: &DatagramListener, config: Config) -> Result<Client, Error> {
        let socket = UdpSocket::bind(localhost()).await.unwrap();
        socket.connect(listener.address()).await.unwrap();
        Client::on(Arc::new(socket), config).await
    }

    async fn on(socket: Arc<UdpSocket>, config: Config) -> Result<Client, Error> {
        // It brings another provider for rustls, which then needs to be told; the result says whether it knew.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let association = DTLSConn::new(socket.clone(), config, true, None).await?;
        Ok(Client { socket, association })
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    async fn send(&self, text: &str) {
        self.association.write(text.as_bytes(), None).await.unwrap();
    }

    async fn receive(&self) -> String {
        let mut buffer = [0; 2048];
        let len = self.association.read(&mut buffer, None).await.unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    async fn ask(&self, text: &str) -> String {
        self.send(text).await;
        self.receive().await
    }

    async fn connect(&self, id: &str) {
        let answer = self.ask(&format!("Sconnect {id}")).await;
        assert_eq!(answer, format!("connected {id}"));
    }
}

/// The client gets no association, and the listener counts this word.
async fn refused(listener: &DatagramListener, config: Config, reason: &str) {
    let before = listener.counters().dropped.get(reason).copied();
    tokio::select! {
        client = Client::new(listener, config) => assert!(client.is_err(), "{reason}"),
        () = until(|| listener.counters().dropped.get(reason).copied() > before) => {}
    }
    until(|| listener.counters().dropped.get(reason).copied() > before).await;
}

#[test]
fn pre_shared_keys() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, psk_settings());
    run(async {
        for suite in [PSK_CCM_8, PSK_CCM, PSK_GCM] {
            for extended_master_secret in [
                ExtendedMasterSecretType::Require,
                ExtendedMasterSecretType::Disable,
            ] {
                let config = Config {
                    extended_master_secret,
                    ..own(suite)
                };
                let client = Client::new(&listener, config).await.unwrap();
                assert_eq!(client.ask("Sopen").await, "open");
                assert_eq!(client.ask("Sidentity").await, IDENTITY);
                client.association.close().await.unwrap();
                until(|| listener.connections() == 0).await;
            }
        }
        let wrong = psk(PSK_CCM_8, IDENTITY, b"fedcba9876543210");
        refused(&listener, wrong, "wrong_key").await;
        refused(&listener, psk(PSK_CCM_8, "nobody", &KEY), "wrong_key").await;
    });
    assert_eq!(listener.counters().opened, 6);
}

#[test]
fn certificates_of_the_server() {
    let workers = workers(2, &WorkerConfig::default());
    let pki = Pki::new();
    let settings = mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256);
    let listener = listen_secured(&workers, settings);
    run(async {
        for suite in [ECDSA_CCM_8, ECDSA_CCM, ECDSA_GCM] {
            let client = Client::new(&listener, trusting(&pki, suite)).await.unwrap();
            assert_eq!(client.ask("Sopen").await, "open");
            assert_eq!(client.ask("Sidentity").await, "None");
        }
        // On the same port.
        let client = Client::new(&listener, own(PSK_GCM)).await.unwrap();
        assert_eq!(client.ask("Sopen").await, "open");
        assert_eq!(client.ask("Sidentity").await, IDENTITY);

        let elsewhere = Client::new(&listener, trusting(&Pki::new(), ECDSA_GCM)).await;
        assert!(elsewhere.is_err(), "it does not know the authority");
        let misnamed = Config {
            server_name: "example.com".to_owned(),
            ..trusting(&pki, ECDSA_GCM)
        };
        assert!(Client::new(&listener, misnamed).await.is_err());
    });
    assert_eq!(listener.counters().opened, 4);
}

#[test]
fn certificates_of_clients() {
    let workers = workers(2, &WorkerConfig::default());
    let pki = Pki::new();
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let settings = DtlsSettings {
        client_auth: ClientAuth::Required,
        ..mixed_settings(&pki, algorithm)
    };
    let listener = listen_secured(&workers, settings);
    run(async {
        let config = known(&pki, &pki.issue("pump", algorithm));
        let client = Client::new(&listener, config).await.unwrap();
        assert_eq!(client.ask("Sopen").await, "open");
        let identity = client.ask("Sidentity").await;
        assert!(identity.contains("pump"), "{identity}");

        refused(&listener, trusting(&pki, ECDSA_GCM), "no_client_certificate").await;
        let elsewhere = Pki::new();
        let config = known(&pki, &elsewhere.issue("pump", algorithm));
        refused(&listener, config, "bad_client_certificate").await;
    });
    assert_eq!(listener.counters().opened, 1);
}

#[test]
fn many_at_once_and_each_gets_its_own() {
    const CLIENTS: usize = 24;
    let workers = workers(3, &WorkerConfig::default());
    let listener = Arc::new(listen_secured(&workers, psk_settings()));
    run(async {
        let mut clients = JoinSet::new();
        for n in 0..CLIENTS {
            let listener = listener.clone();
            clients.spawn(async move {
                let client = Client::new(&listener, own(PSK_CCM_8)).await.unwrap();
                let id = id_of((n % 3) as u16, 3, n);
                client.connect(&id).await;
                for round in 0..20 {
                    let text = format!("text {round} of {n}");
                    assert_eq!(client.ask(&format!("S{text}")).await, text);
                }
                // More from the server than was asked for.
                client.send("Smany 5").await;
                let mut numbers = BTreeSet::new();
                for _ in 0..5 {
                    numbers.insert(client.receive().await.parse::<u32>().unwrap());
                }
                assert!(numbers.into_iter().eq(0..5));
                client
            });
        }
        let clients = clients.join_all().await;
        assert_eq!(listener.connections(), CLIENTS);
        for client in clients {
            client.association.close().await.unwrap();
        }
        until(|| listener.connections() == 0).await;
    });
    assert!(listener.counters().forwarded > 0);
}

#[test]
fn the_server_speaks_first() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, psk_settings());
    run(async {
        for shard in [0, 1] {
            let id = id_of(shard, 2, 0);
            let first = Client::new(&listener, own(PSK_GCM)).await.unwrap();
            first.connect(&id).await;
            let second = Client::new(&listener, own(PSK_GCM)).await.unwrap();
            second.connect(&id).await;
            assert_eq!(first.receive().await, "closed SessionTakenOver");
        }
    });
}

/// A device that restarts has the same port again, and no memory.
#[test]
fn a_client_comes_back_from_its_port() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_secured(&workers, psk_settings());
    run(async {
        for shard in [0, 1] {
            let id = id_of(shard, 2, 0);
            let client = Client::new(&listener, own(PSK_CCM_8)).await.unwrap();
            client.connect(&id).await;
            client.association.close().await.unwrap();
            until(|| listener.connections() == 0).await;

            let (socket, address) = (client.socket.clone(), client.address());
            drop(client);
            let client = Client::on(socket, own(PSK_CCM_8)).await.unwrap();
            assert_eq!(client.address(), address);
            let answer = client.ask("Stext").await;
            assert_eq!(answer, "who", "the peer has ended with the association");
            client.connect(&id).await;

            // Without a word.
            let socket = client.socket.clone();
            drop(client);
            let client = Client::on(socket, own(PSK_GCM)).await.unwrap();
            assert_eq!(client.ask("Stext").await, "who");
            client.connect(&id).await;
            assert_eq!(client.ask("Sbye").await, "bye");
            until(|| listener.connections() == 0).await;
        }
    });
    let ends = workers.handles().iter().map(|worker| worker.counters().ends());
    let ends: Vec<_> = ends.collect();
    let count = |reason: &str| ends.iter().filter_map(|ends| ends.get(reason)).sum::<u64>();
    assert_eq!((count("close_notify"), count("replaced")), (2, 2));
}

//! TLS: both versions, client certificates, files that are wrong, and strangers on the port.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod common;

use std::{path::PathBuf, sync::Arc};

use common::*;
use driver::{ClientAuth, Listener, ListenerConfig, TlsError, TlsSettings, WorkerConfig, Workers};
use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

/// A certificate authority with a server's and a client's certificate.
struct Pki {
    files: Files,
    authority: CertifiedIssuer<'static, KeyPair>,
    settings: TlsSettings,
}

impl Pki {
    fn new(name: &str) -> Pki {
        let files = Files::new(name);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Test authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (certificate, key) = issue(&authority, "server");
        let mut settings = TlsSettings::new(
            files.write("cert.pem", &certificate),
            files.write("key.pem", &key),
        );
        settings.ca_file = Some(files.write("ca.pem", &authority.pem()));
        Pki {
            files,
            authority,
            settings,
        }
    }

    fn connector(
        &self,
        client: Option<(String, String)>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                use pki_types::pem::PemObject;
                let chain = vec![pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

fn issue(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Acme, Inc.");
    params.distinguished_name.push(DnType::CommonName, name);
    (
        params.signed_by(&key, authority).unwrap().pem(),
        key.serialize_pem(),
    )
}

async fn connect(connector: &TlsConnector, listener: &Listener) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(listener.address()).await?;
    connector.connect("localhost".try_into().unwrap(), stream).await
}

fn start(pki: &Pki, base: ListenerConfig, client_auth: ClientAuth) -> (Workers, Listener) {
    let workers = workers(2, &WorkerConfig::default());
    let mut config = base;
    config.tls = Some(TlsSettings {
        client_auth,
        ..pki.settings.clone()
    });
    let listener = listen(&workers, config);
    (workers, listener)
}

#[test]
fn packets_come_back_over_both_versions() {
    let pki = Pki::new("versions");
    let (_workers, listener) = start(&pki, stream_config(), ClientAuth::None);
    run(async {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut stream = connect(&pki.connector(None, version), &listener).await.unwrap();
            for byte in packet(b"slowly") {
                stream.write_all(&[byte]).await.unwrap();
                stream.flush().await.unwrap();
            }
            assert_eq!(receive(&mut stream).await, b"slowly");
            let body: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (_, echo) = tokio::join!(send(&mut writer, &body), receive(&mut reader));
            assert!(echo == body);
            send(&mut writer, b"bye").await;
            assert_eq!(receive(&mut reader).await, b"bye");
            // An orderly end: close_notify, not a cut.
            assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
        }
    });
}

#[test]
fn tls_links_go_to_the_worker_of_their_shard() {
    let pki = Pki::new("moving");
    let (workers, listener) = start(&pki, stream_config(), ClientAuth::None);
    run(async {
        for n in 0..16 {
            let connector = pki.connector(None, &rustls::version::TLS13);
            let mut stream = connect(&connector, &listener).await.unwrap();
            send(&mut stream, format!("connect client-{n}").as_bytes()).await;
            assert_eq!(receive(&mut stream).await, b"connected");
            send(&mut stream, b"still here").await;
            assert_eq!(receive(&mut stream).await, b"still here");
        }
        assert!(count(&workers, "links_moved") > 0);
    });
}

#[test]
fn websocket_runs_over_tls() {
    use tokio_tungstenite::tungstenite::Message;
    let pki = Pki::new("wss");
    let (_workers, listener) = start(&pki, websocket_config(), ClientAuth::None);
    run(async {
        let stream = connect(&pki.connector(None, &rustls::version::TLS13), &listener)
            .await
            .unwrap();
        let (mut client, _) = tokio_tungstenite::client_async("wss://localhost/echo", stream)
            .await
            .unwrap();
        client.send(Message::binary(packet(b"hello"))).await.unwrap();
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            Message::binary(packet(b"hello"))
        );
    });
}

#[test]
fn an_optional_certificate_is_described() {
    let pki = Pki::new("optional");
    let (_workers, listener) = start(&pki, stream_config(), ClientAuth::Optional);
    run(async {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let certificate = issue(&pki.authority, "sensor-1");
            let mut stream = connect(&pki.connector(Some(certificate), version), &listener)
                .await
                .unwrap();
            send(&mut stream, b"whoami").await;
            let text = String::from_utf8(receive(&mut stream).await).unwrap();
            assert_eq!(text, r#"Some("CN=sensor-1,O=Acme\\, Inc.") None tcp:test"#);

            let mut stream = connect(&pki.connector(None, version), &listener).await.unwrap();
            send(&mut stream, b"whoami").await;
            assert_eq!(receive(&mut stream).await, b"None None tcp:test");
        }
    });
}

#[test]
fn a_required_certificate_must_be_there_and_be_ours() {
    let pki = Pki::new("required");
    let stranger = Pki::new("stranger");
    let (workers, listener) = start(&pki, stream_config(), ClientAuth::Required);
    run(async {
        let mut failures = 0;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let ours = issue(&pki.authority, "ours");
            let mut stream = connect(&pki.connector(Some(ours), version), &listener)
                .await
                .unwrap();
            send(&mut stream, b"x").await;
            assert_eq!(receive(&mut stream).await, b"x");
            for certificate in [None, Some(issue(&stranger.authority, "theirs"))] {
                // In TLS 1.3 the client learns of it only when it reads.
                if let Ok(mut stream) = connect(&pki.connector(certificate, version), &listener).await {
                    assert!(stream.read(&mut [0]).await.is_err());
                }
                failures += 1;
                until(|| count(&workers, "tls_handshake_failures") == failures).await;
            }
        }
        assert_eq!(count(&workers, "connections_opened"), 2);
    });
}

#[test]
fn bytes_that_are_not_tls_end_the_connection_and_block_nobody() {
    let pki = Pki::new("garbage");
    let (workers, listener) = start(&pki, stream_config(), ClientAuth::None);
    run(async {
        let silent = TcpStream::connect(listener.address()).await.unwrap();
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        rest(&mut stream).await;
        until(|| count(&workers, "tls_handshake_failures") == 1).await;
        let mut stream = connect(&pki.connector(None, &rustls::version::TLS13), &listener)
            .await
            .unwrap();
        send(&mut stream, b"x").await;
        assert_eq!(receive(&mut stream).await, b"x");
        drop(silent);
    });
}

#[test]
fn certificates_are_exchanged_while_running() {
    let pki = Pki::new("reload");
    let (_workers, listener) = start(&pki, stream_config(), ClientAuth::None);
    run(async {
        let new = Pki::new("reload-new");
        let connector = new.connector(None, &rustls::version::TLS13);
        assert!(
            connect(&connector, &listener).await.is_err(),
            "still the old authority's"
        );
        let broken = TlsSettings {
            key_file: PathBuf::from("/nowhere"),
            ..new.settings.clone()
        };
        assert!(listener.reload_tls(&broken).is_err());
        let mut stream = connect(&pki.connector(None, &rustls::version::TLS13), &listener)
            .await
            .unwrap();
        listener.reload_tls(&new.settings).unwrap();
        connect(&connector, &listener).await.unwrap();
        send(&mut stream, b"not disturbed").await;
        assert_eq!(receive(&mut stream).await, b"not disturbed");
    });
}

#[test]
fn wrong_files_are_named_with_what_is_wrong() {
    let pki = Pki::new("wrong");
    let workers = workers(1, &WorkerConfig::default());
    let good = &pki.settings;
    let other_key = pki
        .files
        .write("other.pem", &KeyPair::generate().unwrap().serialize_pem());
    let encrypted = pki.files.write(
        "encrypted.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let damaged = pki.files.write(
        "damaged.pem",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    let empty = pki.files.write("empty.pem", "nothing\n");
    let with = |change: &dyn Fn(&mut TlsSettings)| {
        let mut tls = good.clone();
        change(&mut tls);
        let mut config = stream_config();
        config.tls = Some(tls);
        match workers.listen(config) {
            Err(driver::ListenError::Tls { error, .. }) => error,
            other => panic!("accepted: {other:?}"),
        }
    };
    assert!(matches!(
        with(&|tls| tls.key_file = other_key.clone()),
        TlsError::KeyMismatch { .. }
    ));
    assert!(matches!(
        with(&|tls| tls.key_file = encrypted.clone()),
        TlsError::EncryptedKey { .. }
    ));
    assert!(matches!(
        with(&|tls| tls.key_file = empty.clone()),
        TlsError::NoKey { .. }
    ));
    assert!(matches!(
        with(&|tls| tls.certificate_file = empty.clone()),
        TlsError::NoCertificate { .. }
    ));
    assert!(matches!(
        with(&|tls| tls.certificate_file = damaged.clone()),
        TlsError::Malformed { .. }
    ));
    assert!(matches!(
        with(&|tls| tls.certificate_file = "/nowhere".into()),
        TlsError::Unreadable { .. }
    ));
    let no_authority = with(&|tls| {
        tls.client_auth = ClientAuth::Required;
        tls.ca_file = None;
    });
    assert!(matches!(no_authority, TlsError::NoAuthority));
    let no_version = with(&|tls| (tls.tls12, tls.tls13) = (false, false));
    assert!(matches!(no_version, TlsError::NoVersion));
    let text = with(&|tls| tls.key_file = other_key.clone()).to_string();
    assert!(text.contains("other.pem") && text.contains("cert.pem"), "{text}");
}

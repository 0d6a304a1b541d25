//! OpenSSL's client on a real socket. Skipped, with a line that says so, where there is no `openssl`.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::UdpSocket,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use broker_core::{Identity, Timestamp};
use driver::{
    ClientAuth, DtlsSettings,
    dtls::{Associations, DtlsServer, Outcome},
};

use crate::setup::*;

/// Everything must be over by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that answers in capitals.
struct Server {
    socket: UdpSocket,
    associations: Associations,
    start: Instant,
    identities: Vec<Option<Identity>>,
    closed: Vec<&'static str>,
    dropped: Vec<&'static str>,
}

impl Server {
    fn new(settings: &DtlsSettings) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Server {
            socket,
            associations: Associations::new(DtlsServer::load(settings).unwrap(), 0).unwrap(),
            start: Instant::now(),
            identities: Vec::new(),
            closed: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Takes one datagram, if one comes soon.
    fn turn(&mut self) {
        let unix = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let now = Timestamp::from_millis(u64::try_from(unix.as_millis()).unwrap());
        let mut buffer = [0; 2048];
        let mut out = Vec::new();
        if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            self.associations
                .handle_datagram(now, from, None, &buffer[..len], &mut out);
        }
        self.associations.handle_timeout(now, &mut out);
        while !out.is_empty() {
            for outcome in std::mem::take(&mut out) {
                match outcome {
                    Outcome::Transmit { to, datagram, .. } => {
                        self.socket.send_to(&datagram, to).unwrap();
                    }
                    Outcome::Opened { identity, .. } => self.identities.push(identity),
                    Outcome::Data { id, plaintext } => {
                        self.associations
                            .send(now, id, &plaintext.to_ascii_uppercase(), &mut out);
                    }
                    Outcome::Closed { reason, .. } => self.closed.push(reason),
                    Outcome::Dropped { reason } => self.dropped.push(reason),
                }
            }
        }
    }

    fn turn_until(&mut self, what: &str, mut done: impl FnMut(&Server) -> bool) {
        while !done(self) {
            assert!(
                self.start.elapsed() < PATIENCE,
                "waited in vain for {what}: dropped {:?}",
                self.dropped
            );
            self.turn();
        }
    }
}

struct Client {
    child: Child,
    input: ChildStdin,
    output: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Client {
    /// `None` where there is no `openssl`.
    fn start(server: &Server, args: &[&str]) -> Option<Client> {
        let address = server.socket.local_addr().unwrap().to_string();
        let child = Command::new("openssl")
            .args(["s_client", "-dtls1_2", "-connect", &address])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            println!("skipped: no openssl on this machine");
            return None;
        };
        let output = Arc::new(Mutex::new(String::new()));
        let (mut stdout, copy) = (child.stdout.take().unwrap(), output.clone());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(len @ 1..) = stdout.read(&mut buffer) {
                copy.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        let input = child.stdin.take().unwrap();
        Some(Client {
            child,
            input,
            output,
            reader: Some(reader),
        })
    }

    fn printed(&self, text: &str) -> bool {
        self.output.lock().unwrap().contains(text)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

/// A handshake, a word there and back, and a goodbye. Returns whom the server saw.
fn converse(settings: &DtlsSettings, args: &[&str], cipher: &str) -> Option<Option<Identity>> {
    let mut server = Server::new(settings);
    let mut client = Client::start(&server, args)?;
    client.input.write_all(b"temperature\n").unwrap();
    server.turn_until("the answer", |_| client.printed("TEMPERATURE"));
    let expected = format!("Cipher is {cipher}");
    assert!(
        client.printed(&expected),
        "{expected}: {}",
        client.output.lock().unwrap()
    );
    client.input.write_all(b"Q\n").unwrap();
    server.turn_until("the end", |server| !server.closed.is_empty());
    assert_eq!(server.closed, ["close_notify"]);
    assert!(server.associations.is_empty() && server.associations.handshakes() == 0);
    Some(server.identities.pop().unwrap())
}

fn key_in_hex() -> String {
    KEY.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn pre_shared_keys_with_every_cipher() {
    let key = key_in_hex();
    for cipher in ["PSK-AES128-CCM8", "PSK-AES128-CCM", "PSK-AES128-GCM-SHA256"] {
        let ciphers = format!("{cipher}:@SECLEVEL=0");
        let args = ["-psk", &key, "-psk_identity", IDENTITY, "-cipher", &ciphers];
        let Some(identity) = converse(&psk_settings(), &args, cipher) else {
            return;
        };
        assert_eq!(identity, Some(Identity::Psk(IDENTITY.into())), "{cipher}");
    }
}

#[test]
fn certificates_and_pre_shared_keys_on_one_port() {
    let pki = Pki::new();
    let settings = mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256);
    let authority = pki.path("ca.pem").display().to_string();
    for cipher in [
        "ECDHE-ECDSA-AES128-CCM8",
        "ECDHE-ECDSA-AES128-CCM",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ] {
        let ciphers = format!("{cipher}:@SECLEVEL=0");
        let args = ["-CAfile", &authority, "-verify_return_error", "-cipher", &ciphers];
        let Some(identity) = converse(&settings, &args, cipher) else {
            return;
        };
        assert_eq!(identity, None, "{cipher}");
    }
    let key = key_in_hex();
    let args = [
        "-psk",
        &key,
        "-psk_identity",
        IDENTITY,
        "-cipher",
        "PSK-AES128-CCM8:@SECLEVEL=0",
    ];
    assert_eq!(
        converse(&settings, &args, "PSK-AES128-CCM8").unwrap(),
        Some(Identity::Psk(IDENTITY.into()))
    );
}

#[test]
fn every_kind_of_server_key_and_curve() {
    let pki = Pki::new();
    let authority = pki.path("ca.pem").display().to_string();
    let kinds = [
        (&rcgen::PKCS_RSA_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", "X25519"),
        (
            &rcgen::PKCS_ECDSA_P384_SHA384,
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "P-256:P-384",
        ),
        (&rcgen::PKCS_ED25519, "ECDHE-ECDSA-AES128-GCM-SHA256", "P-384"),
    ];
    for (algorithm, cipher, curve) in kinds {
        let settings = mixed_settings(&pki, algorithm);
        let args = ["-CAfile", &authority, "-verify_return_error", "-curves", curve];
        let Some(_) = converse(&settings, &args, cipher) else {
            return;
        };
    }
}

#[test]
fn a_client_shows_its_certificate() {
    let pki = Pki::new();
    for (name, algorithm) in [
        ("meter", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("pump", &rcgen::PKCS_RSA_SHA256),
    ] {
        let mut settings = mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256);
        settings.client_auth = ClientAuth::Required;
        let (certificate, key) = pki.issue(name, algorithm);
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let args = ["-cert", &certificate, "-key", &key];
        let Some(identity) = converse(&settings, &args, "ECDHE-ECDSA-AES128-GCM-SHA256") else {
            return;
        };
        let Some(Identity::Certificate(info)) = identity else {
            panic!("{identity:?}");
        };
        assert_eq!(info.common_name.as_deref(), Some(name));
        assert_eq!(info.subject, format!("CN={name}"));
    }
}

/// Runs a client that the server must turn away, until it says why.
fn refused(settings: &DtlsSettings, args: &[&str], reason: &str) {
    let mut server = Server::new(settings);
    let Some(mut client) = Client::start(&server, args) else {
        return;
    };
    server.turn_until(reason, |server| server.dropped.contains(&reason));
    server.turn_until("the end of the client", |_| {
        client.child.try_wait().unwrap().is_some()
    });
    assert!(server.identities.is_empty());
    assert_eq!(server.associations.handshakes(), 0);
}

#[test]
fn who_does_not_know_the_key_is_told_so() {
    let key = key_in_hex();
    let cipher = "PSK-AES128-CCM8:@SECLEVEL=0";
    refused(
        &psk_settings(),
        &["-psk", "00ff", "-psk_identity", IDENTITY, "-cipher", cipher],
        "wrong_key",
    );
    // An unknown name looks the same from outside.
    refused(
        &psk_settings(),
        &["-psk", &key, "-psk_identity", "nobody", "-cipher", cipher],
        "wrong_key",
    );
}

#[test]
fn certificates_that_do_not_count_are_refused() {
    let pki = Pki::new();
    let mut settings = mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256);
    settings.client_auth = ClientAuth::Required;
    refused(&settings, &[], "no_client_certificate");
    let stranger = Pki::new();
    let (certificate, key) = stranger.issue("intruder", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    settings.client_auth = ClientAuth::Optional;
    refused(
        &settings,
        &["-cert", &certificate, "-key", &key],
        "bad_client_certificate",
    );
    let Some(identity) = converse(&settings, &[], "ECDHE-ECDSA-AES128-GCM-SHA256") else {
        return;
    };
    assert_eq!(identity, None);
}

#[test]
fn no_common_cipher_suite() {
    let args = ["-psk", "00ff", "-cipher", "PSK-AES256-GCM-SHA384"];
    refused(&psk_settings(), &args, "no_common_cipher_suite");
}

#[test]
fn a_small_mtu_cuts_the_flights_of_a_client() {
    let pki = Pki::new();
    let mut settings = mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256);
    settings.client_auth = ClientAuth::Required;
    let (certificate, key) = pki.issue("meter", &rcgen::PKCS_RSA_SHA256);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let cipher = "ECDHE-ECDSA-AES128-GCM-SHA256";
    let mut args = vec!["-cert", &certificate, "-key", &key, "-cipher", cipher];
    // RFC 6066 §4 is not spoken here, and need not be.
    args.extend(["-mtu", "256", "-maxfraglen", "512"]);
    let Some(identity) = converse(&settings, &args, cipher) else {
        return;
    };
    assert!(matches!(identity, Some(Identity::Certificate(_))));
}

#[test]
fn a_renegotiation_is_refused() {
    let key = key_in_hex();
    let cipher = "PSK-AES128-CCM8:@SECLEVEL=0";
    let args = ["-psk", &key, "-psk_identity", IDENTITY, "-cipher", cipher];
    let mut server = Server::new(&psk_settings());
    let Some(mut client) = Client::start(&server, &args) else {
        return;
    };
    client.input.write_all(b"temperature\n").unwrap();
    server.turn_until("the answer", |_| client.printed("TEMPERATURE"));
    assert!(client.printed("Secure Renegotiation IS supported"));
    assert!(client.printed("Extended master secret: yes"));
    client.input.write_all(b"R\n").unwrap();
    server.turn_until("the end", |server| !server.closed.is_empty());
    // It is told no_renegotiation (RFC 5746 §4.5), and OpenSSL ends the association for that.
    assert_eq!(server.closed, ["alert_of_client"]);
    assert_eq!(server.identities.len(), 1);
}

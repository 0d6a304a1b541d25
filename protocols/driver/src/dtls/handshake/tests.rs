//! A client made of the same parts, which lies where a real one cannot be made to.

use std::time::Duration;

use super::{
    super::{association::Said, cookie::COOKIE_BYTES, record::VERSION_1_0},
    *,
};
use crate::{ClientAuth, DtlsSettings};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HELLO_NUMBER: u16 = 1;

struct Client {
    handshake: Handshake,
    transcript: Vec<u8>,
    randoms: Randoms,
    number: u16,
}

fn server() -> Arc<DtlsServer> {
    DtlsServer::load(&DtlsSettings {
        certificate: None,
        ca_file: None,
        client_auth: ClientAuth::None,
        psk: Some(Arc::new(|identity| {
            (identity == "meter").then(|| b"key".to_vec())
        })),
        handshake_timeout: Duration::from_secs(10),
        handshakes_max: 1,
        idle_timeout: Duration::from_secs(10),
    })
    .unwrap()
}

/// A hello with these suites and extensions.
fn hello_body(
    version: [u8; 2],
    session: &[u8],
    suites: &[u16],
    compression: u8,
    extensions: &[u8],
) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(session.len() as u8);
    body.extend(session);
    body.push(0);
    body.put_u16(2 * suites.len() as u16);
    for suite in suites {
        body.put_u16(*suite);
    }
    body.extend([1, compression]);
    if !extensions.is_empty() {
        body.put_u16(extensions.len() as u16);
        body.extend(extensions);
    }
    body
}

fn fragment(kind: u8, number: u16, bytes: &[u8]) -> Fragment<'_> {
    Fragment {
        kind,
        len: bytes.len(),
        number,
        offset: 0,
        bytes,
    }
}

fn start(body: &[u8]) -> Result<Handshake, Failure> {
    let hello = ClientHello::parse(body).unwrap();
    Handshake::start(
        server(),
        &hello,
        [9; COOKIE_BYTES],
        (&fragment(kind::CLIENT_HELLO, HELLO_NUMBER, body), 5),
    )
}

fn message(kind: u8, number: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put_message_header(&mut message, kind, body.len(), number, (0, body.len()));
    message.extend(body);
    message
}

fn plain(body: &[u8]) -> Record<'_> {
    Record {
        content: ContentType::Handshake,
        epoch: 0,
        sequence: 9,
        body,
    }
}

impl Client {
    fn new(session: &[u8], extensions: &[u8]) -> Client {
        let body = hello_body(VERSION, session, &[0xc0a8], 0, extensions);
        let mut handshake = start(&body).unwrap();
        let mut transcript = message(kind::CLIENT_HELLO, HELLO_NUMBER, &body);
        let mut datagrams = Vec::new();
        handshake.flight(|datagram| datagrams.push(datagram));
        let mut rest = &datagrams[0][..];
        let first = Record::take(&mut rest).unwrap();
        assert_eq!((first.epoch, first.sequence), (0, 5), "as the hello's");
        transcript.extend(first.body);
        let server_hello = Fragment::take(&mut { first.body }).unwrap();
        assert_eq!(
            (server_hello.kind, server_hello.number),
            (kind::SERVER_HELLO, HELLO_NUMBER)
        );
        transcript.extend(Record::take(&mut rest).unwrap().body);
        assert!(rest.is_empty());
        Client {
            handshake,
            transcript,
            randoms: Randoms {
                client: [7; 32],
                server: server_hello.bytes[2..34].try_into().unwrap(),
            },
            number: HELLO_NUMBER + 1,
        }
    }

    fn note(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let message = message(kind, self.number, body);
        self.number += 1;
        self.transcript.extend(&message);
        message
    }

    fn hash(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.transcript)
            .as_ref()
            .to_vec()
    }

    /// Sends the identity, and a Finished that `spoil` may change.
    fn finish(&mut self, extended: bool, spoil: impl FnOnce(&mut Vec<u8>)) -> Result<Progress, Failure> {
        let exchange = self.note(kind::CLIENT_KEY_EXCHANGE, b"\x00\x05meter");
        assert!(matches!(
            self.handshake.handle(NOW, &plain(&exchange))?,
            Progress::Waiting
        ));
        let hash = self.hash();
        let master = Master::new(
            &psk_premaster(b"key"),
            &self.randoms,
            extended.then_some(&hash[..]),
        )
        .unwrap();
        let mut verify_data = master.verify_data(b"client finished", &hash).unwrap().to_vec();
        spoil(&mut verify_data);
        let finished = self.note(kind::FINISHED, &verify_data);
        let (write, read) = master
            .keys(super::super::crypto::Cipher::Ccm8, &self.randoms)
            .unwrap();
        let mut datagram = BytesMut::new();
        write
            .seal(&mut datagram, ContentType::Handshake, 0, &finished)
            .unwrap();
        let record = Record::take(&mut &datagram[..]).unwrap();
        let mut progress = self.handshake.handle(NOW, &record)?;
        if let Progress::Done(done) = &mut progress {
            let answer = done.channel.last_flight().unwrap();
            let mut rest = &answer[..];
            assert_eq!(
                Record::take(&mut rest).unwrap().content,
                ContentType::ChangeCipherSpec
            );
            let plaintext = read.open(&Record::take(&mut rest).unwrap()).unwrap();
            let expected = master.verify_data(b"server finished", &self.hash()).unwrap();
            assert_eq!(plaintext[MESSAGE_HEADER_BYTES..], expected);
            // The same Finished again is a replay; a new record with it is answered.
            assert!(matches!(
                done.channel.open(&record),
                Said::Nothing("replayed_record")
            ));
            let mut again = BytesMut::new();
            write
                .seal(&mut again, ContentType::Handshake, 1, &finished)
                .unwrap();
            let again = done.channel.open(&Record::take(&mut &again[..]).unwrap());
            assert!(matches!(again, Said::Answer(_)));
        }
        Ok(progress)
    }
}

const EXTENDED_MASTER_SECRET: [u8; 4] = [0, 23, 0, 0];

#[test]
fn clients_with_and_without_extended_master_secret_and_with_a_session_id() {
    for (session, extensions, extended) in [
        (&b""[..], &b""[..], false),
        (b"", &EXTENDED_MASTER_SECRET, true),
        (&[3; 32], &EXTENDED_MASTER_SECRET, true),
    ] {
        let progress = Client::new(session, extensions).finish(extended, |_| {}).unwrap();
        let Progress::Done(done) = progress else { panic!() };
        assert_eq!(done.identity, Some(Identity::Psk("meter".into())));
    }
}

#[test]
fn a_finished_that_belongs_to_another_handshake_is_refused() {
    let failure = Client::new(b"", b"")
        .finish(false, |data| data[11] ^= 1)
        .err()
        .unwrap();
    assert_eq!(failure, Failure::new(Alert::DecryptError, "wrong_finished"));
    // One that is too short, or too long.
    for len in [0, 1, 11, 13] {
        let failure = Client::new(b"", b"").finish(false, |data| data.resize(len, 0));
        assert_eq!(failure.err().unwrap().reason, "wrong_finished", "{len} bytes");
    }
    // Somebody on the way has changed what the client offered.
    let mut client = Client::new(b"", b"");
    client.transcript[MESSAGE_HEADER_BYTES + 40] ^= 1;
    let failure = client.finish(false, |_| {}).err().unwrap();
    assert_eq!(failure.reason, "wrong_finished");
}

#[test]
fn hellos_that_cannot_be_answered_are_refused_with_the_alert_of_the_specification() {
    let refused = |body: &[u8]| start(body).err().unwrap();
    let suites = [0xc0a8];
    let old = hello_body(VERSION_1_0, b"", &suites, 0, b"");
    assert_eq!(refused(&old).alert, Some(Alert::ProtocolVersion));
    let compressed = hello_body(VERSION, b"", &suites, 1, b"");
    assert_eq!(refused(&compressed).alert, Some(Alert::IllegalParameter));
    // ECDHE_ECDSA, which needs a certificate, and one that nobody knows.
    let other = hello_body(VERSION, b"", &[0xc0ae, 0x1234], 0, b"");
    assert_eq!(refused(&other).alert, Some(Alert::HandshakeFailure));
}

#[test]
fn hellos_that_contradict_the_specification_of_their_extensions() {
    let hello = |extensions: &[u8]| hello_body(VERSION, b"", &[0xc0a8], 0, extensions);
    // RFC 5746 §3.6: nothing has been negotiated before.
    let refused = start(&hello(&[
        0xff, 1, 0, 13, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    ]));
    assert_eq!(
        refused.err().unwrap(),
        Failure::new(Alert::HandshakeFailure, "renegotiation")
    );
    assert!(start(&hello(&[0xff, 1, 0, 1, 0])).is_ok());
    let twice = [EXTENDED_MASTER_SECRET, EXTENDED_MASTER_SECRET].concat();
    assert!(ClientHello::parse(&hello(&twice)).is_none());
    // Padding (RFC 7685) of 3 and of 4 KiB.
    let mut padding = vec![0, 21, 12, 0];
    padding.resize(4 + (3 << 10), 0);
    assert!(ClientHello::parse(&hello(&padding)).is_some());
    padding[2] = 16;
    padding.resize(4 + (4 << 10), 0);
    assert!(ClientHello::parse(&hello(&padding)).is_none());
}

#[test]
fn no_datagram_of_a_flight_is_too_long() {
    for len in 1100..1200 {
        let mut client = Client::new(b"", b"");
        let handshake = &mut client.handshake;
        handshake.transcript = message(kind::CERTIFICATE, 1, &vec![7; len]);
        handshake
            .transcript
            .extend(message(kind::SERVER_HELLO_DONE, 2, b""));
        handshake.flight = 0..handshake.transcript.len();
        let mut sent = Vec::new();
        handshake.flight(|datagram| sent.push(datagram.len()));
        assert!(sent.iter().all(|len| *len <= 1200), "{len}: {sent:?}");
    }
}

#[test]
fn messages_out_of_turn_end_the_handshake() {
    for kind in [
        kind::CERTIFICATE,
        kind::CERTIFICATE_VERIFY,
        kind::SERVER_HELLO,
        99,
    ] {
        let mut client = Client::new(b"", b"");
        let message = client.note(kind, b"");
        let failure = client.handshake.handle(NOW, &plain(&message)).err().unwrap();
        assert_eq!(failure.reason, "unexpected_message", "{kind}");
    }
    // An unprotected Finished is none.
    let mut client = Client::new(b"", b"");
    let exchange = client.note(kind::CLIENT_KEY_EXCHANGE, b"\x00\x05meter");
    client.handshake.handle(NOW, &plain(&exchange)).unwrap();
    let finished = client.note(kind::FINISHED, &[0; 12]);
    let progress = client.handshake.handle(NOW, &plain(&finished)).unwrap();
    assert!(matches!(progress, Progress::Dropped("useless_fragment")));
}

#[test]
fn malformed_key_exchanges_end_the_handshake() {
    for body in [&b""[..], b"\x00", b"\x00\x06meter", b"\x00\x05meter!"] {
        let mut client = Client::new(b"", b"");
        let message = client.note(kind::CLIENT_KEY_EXCHANGE, body);
        let failure = client.handshake.handle(NOW, &plain(&message)).err().unwrap();
        assert_eq!(failure.alert, Some(Alert::DecodeError), "{body:?}");
    }
}

//! The server's side of one handshake (RFC 6347 §4.2.4), from a hello with a good cookie to the client's Finished.
//!
//! ```text
//!  ClientHello                       ->
//!                                    <-  ServerHello, Certificate*, ServerKeyExchange*, CertificateRequest*,
//!                                        ServerHelloDone
//!  Certificate*, ClientKeyExchange,
//!  CertificateVerify*, Finished      ->
//!                                    <-  Finished
//! ```

use std::{ops::Range, sync::Arc, time::Duration};

use aws_lc_rs::{
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    constant_time, digest, rand,
};
use broker_core::{Identity, Timestamp};
use bytes::{BufMut, BytesMut};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{
    association::Channel,
    certificate,
    cookie::Cookie,
    crypto::{Exchange, Keys, Master, Randoms, Suite, psk_premaster},
    hello::{ClientHello, Fragment, MESSAGE_HEADER_BYTES, kind, put_message_header},
    reassembly::Reassembly,
    record::{Alert, ContentType, Reader, Record, VERSION, Window, put_header},
    server::DtlsServer,
};

mod flight;

/// Bytes of a client's flight, if it may show a certificate.
const FLIGHT_BYTES_MAX: usize = 16 << 10;
/// The same without a certificate: an identity of 128 bytes, which RFC 4279 §5.3 asks for, or a point on a curve.
const FLIGHT_BYTES_MAX_PLAIN: usize = 1 << 10;
/// A Finished that came before its keys is kept if it is not longer.
const EARLY_BYTES_MAX: usize = 128;
/// Records that cannot be opened are dropped, as anyone may have sent them (RFC 6347 §4.1.2.7). If they still come so
/// long after there are keys, the client is told that it has another one: who has the right one has sent its Finished
/// again meanwhile (RFC 6347 §4.2.4.1).
const WRONG_KEY_AFTER: Duration = Duration::from_secs(2);

/// Why a handshake ends in failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Told to the client.
    pub(super) alert: Option<Alert>,
    /// For counters.
    pub(super) reason: &'static str,
}

impl Failure {
    pub(super) fn new(alert: Alert, reason: &'static str) -> Failure {
        Failure {
            alert: Some(alert),
            reason,
        }
    }

    fn internal() -> Failure {
        Failure::new(Alert::InternalError, "internal_error")
    }

    fn malformed() -> Failure {
        Failure::new(Alert::DecodeError, "malformed_handshake")
    }
}

/// What a record did to a handshake.
pub(super) enum Progress {
    /// It goes on.
    Waiting,
    /// The record was of no use.
    Dropped(&'static str),
    /// The client has proven itself.
    Done(Box<Done>),
}

/// The result of a handshake.
pub(super) struct Done {
    pub(super) channel: Channel,
    pub(super) cookie: Cookie,
    pub(super) identity: Option<Identity>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Certificate,
    KeyExchange,
    CertificateVerify,
    Finished,
}

/// A handshake under way. Beyond the server's own flight it keeps at most [`FLIGHT_BYTES_MAX`] bytes of the client's.
pub(super) struct Handshake {
    server: Arc<DtlsServer>,
    suite: &'static Suite,
    /// Of the hello.
    cookie: Cookie,
    randoms: Randoms,
    extended_master_secret: bool,
    /// The server's half of the key exchange.
    private: Option<EphemeralPrivateKey>,
    /// All messages so far, each in one piece (RFC 6347 §4.2.6).
    transcript: Vec<u8>,
    /// The server's flight in it.
    flight: Range<usize>,
    /// Sequence number of the next record without protection.
    sequence: u64,
    /// Number of the next message of the server's.
    number: u16,
    reassembly: Reassembly,
    step: Step,
    certificate: Option<CertificateDer<'static>>,
    identity: Option<Identity>,
    secrets: Option<Secrets>,
    window: Window,
    early: Option<Box<[u8]>>,
}

struct Secrets {
    /// When they came to be.
    since: Timestamp,
    master: Master,
    read: Keys,
    write: Keys,
}

impl Handshake {
    /// Answers a hello whose `cookie` is good: [`Handshake::flight`] is to be sent.
    pub(super) fn start(
        server: Arc<DtlsServer>,
        hello: &ClientHello<'_>,
        cookie: Cookie,
        (fragment, sequence): (&Fragment<'_>, u64),
    ) -> Result<Handshake, Failure> {
        if !hello.is_1_2 {
            return Err(Failure::new(Alert::ProtocolVersion, "protocol_version"));
        }
        if !hello.null_compression {
            return Err(Failure::new(Alert::IllegalParameter, "compression"));
        }
        if hello.renegotiates {
            return Err(Failure::new(Alert::HandshakeFailure, "renegotiation"));
        }
        let Some(suite) = server.suite(hello) else {
            return Err(Failure::new(Alert::HandshakeFailure, "no_common_cipher_suite"));
        };
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(|_| Failure::internal())?;
        let asks = suite.exchange != Exchange::Psk && server.clients.is_some();
        let (step, budget) = match asks {
            true => (Step::Certificate, FLIGHT_BYTES_MAX),
            false => (Step::KeyExchange, FLIGHT_BYTES_MAX_PLAIN),
        };
        let mut handshake = Handshake {
            suite,
            cookie,
            randoms: Randoms {
                client: hello.random,
                server: random,
            },
            extended_master_secret: hello.extended_master_secret,
            private: None,
            transcript: Vec::new(),
            flight: 0..0,
            // RFC 6347 §4.2.1: as the hello's, so that it differs from that of every HelloVerifyRequest.
            sequence,
            number: fragment.number,
            reassembly: Reassembly::new(fragment.number.wrapping_add(1), budget),
            step,
            certificate: None,
            identity: None,
            secrets: None,
            window: Window::default(),
            early: None,
            server,
        };
        handshake.note(kind::CLIENT_HELLO, fragment.number, fragment.bytes);
        handshake.write_flight(hello)?;
        Ok(handshake)
    }

    /// True if `hello` is the one that this handshake began with: a cookie belongs to all that a hello says.
    pub(super) fn is_from(&self, hello: &ClientHello<'_>) -> bool {
        self.cookie == *hello.cookie
    }

    /// Sequence number for an alert.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence
    }

    /// Takes a record of the client's, protected or not.
    pub(super) fn handle(&mut self, now: Timestamp, record: &Record<'_>) -> Result<Progress, Failure> {
        match (record.epoch, record.content) {
            (0, ContentType::Handshake) => self.handle_fragments(now, record.body, 0),
            // Anyone can send one from the client's address. If it is genuine, the handshake ends by its deadline.
            (0, ContentType::Alert) => Ok(Progress::Dropped("unprotected_alert")),
            // Says what the epoch says.
            (0, ContentType::ChangeCipherSpec) => Ok(Progress::Waiting),
            (1, _) => self.handle_protected(now, record),
            _ => Ok(Progress::Dropped("unexpected_record")),
        }
    }

    fn handle_protected(&mut self, now: Timestamp, record: &Record<'_>) -> Result<Progress, Failure> {
        let Some(secrets) = &self.secrets else {
            if record.content == ContentType::Handshake && record.body.len() <= EARLY_BYTES_MAX {
                let mut whole = BytesMut::new();
                let header = (record.epoch, record.sequence);
                put_header(&mut whole, record.content, VERSION, header, record.body.len());
                whole.extend_from_slice(record.body);
                self.early = Some(whole[..].into());
                return Ok(Progress::Waiting);
            }
            return Ok(Progress::Dropped("no_keys_yet"));
        };
        if !self.window.is_new(record.sequence) {
            return Ok(Progress::Dropped("replayed_record"));
        }
        let Some(plaintext) = secrets.read.open(record) else {
            return match now.since(secrets.since) < WRONG_KEY_AFTER {
                true => Ok(Progress::Dropped("bad_record_mac")),
                // What RFC 4279 §2 answers to a wrong key, and to an identity that is unknown.
                false => Err(Failure::new(Alert::DecryptError, "wrong_key")),
            };
        };
        self.window.mark(record.sequence);
        match record.content {
            ContentType::Handshake => self.handle_fragments(now, &plaintext, 1),
            ContentType::Alert => Err(Failure {
                alert: None,
                reason: "alert_of_client",
            }),
            _ => Ok(Progress::Dropped("unexpected_record")),
        }
    }

    fn handle_fragments(&mut self, now: Timestamp, mut body: &[u8], epoch: u16) -> Result<Progress, Failure> {
        let mut useful = false;
        while let Some(fragment) = Fragment::take(&mut body) {
            // Nothing but Finished is protected, and it always is.
            if (epoch == 1) == (fragment.kind == kind::FINISHED) {
                useful |= self.reassembly.push(&fragment);
            }
        }
        while let Some((kind, number, body)) = self.reassembly.pop() {
            if let Some(done) = self.handle_message(now, kind, number, &body)? {
                return Ok(Progress::Done(Box::new(done)));
            }
        }
        if self.secrets.is_some()
            && let Some(early) = self.early.take()
            && let Some(record) = Record::take(&mut &early[..])
        {
            return self.handle_protected(now, &record);
        }
        Ok(match useful {
            true => Progress::Waiting,
            false => Progress::Dropped("useless_fragment"),
        })
    }

    fn handle_message(
        &mut self,
        now: Timestamp,
        kind: u8,
        number: u16,
        body: &[u8],
    ) -> Result<Option<Done>, Failure> {
        let before = self.transcript.len();
        self.note(kind, number, body);
        match (self.step, kind) {
            (Step::Certificate, kind::CERTIFICATE) => self.handle_certificate(now, body)?,
            (Step::KeyExchange, kind::CLIENT_KEY_EXCHANGE) => self.handle_key_exchange(now, body)?,
            (Step::CertificateVerify, kind::CERTIFICATE_VERIFY) => {
                let server = self.server.clone();
                let clients = server.clients.as_ref().ok_or_else(Failure::internal)?;
                let certificate = self.certificate.as_ref().ok_or_else(Failure::internal)?;
                let info =
                    certificate::verify_possession(clients, certificate, &self.transcript[..before], body)?;
                self.identity = Some(Identity::Certificate(Arc::new(info)));
                self.step = Step::Finished;
            }
            (Step::Finished, kind::FINISHED) => return self.handle_finished(before, body).map(Some),
            _ => return Err(Failure::new(Alert::HandshakeFailure, "unexpected_message")),
        }
        Ok(None)
    }

    fn handle_certificate(&mut self, now: Timestamp, body: &[u8]) -> Result<(), Failure> {
        let server = self.server.clone();
        let clients = server.clients.as_ref().ok_or_else(Failure::internal)?;
        self.certificate = certificate::verify_chain(clients, now, body)?;
        self.step = Step::KeyExchange;
        Ok(())
    }

    fn handle_key_exchange(&mut self, now: Timestamp, body: &[u8]) -> Result<(), Failure> {
        let mut reader = Reader(body);
        let premaster = match self.suite.exchange {
            Exchange::Psk => {
                let identity = reader.vec16().ok_or_else(Failure::malformed)?;
                let key = self.psk(identity)?;
                psk_premaster(&key)
            }
            Exchange::EcdheEcdsa | Exchange::EcdheRsa => {
                let point = reader.vec8().ok_or_else(Failure::malformed)?;
                let private = self.private.take().ok_or_else(Failure::internal)?;
                let public = UnparsedPublicKey::new(private.algorithm(), point);
                let refused = Failure::new(Alert::IllegalParameter, "bad_point");
                agree_ephemeral(private, public, refused, |secret| {
                    Ok(Zeroizing::new(secret.to_vec()))
                })?
            }
        };
        reader.end().ok_or_else(Failure::malformed)?;
        // RFC 7627 §3: up to and including this message.
        let hash = digest::digest(&digest::SHA256, &self.transcript);
        let session_hash = self.extended_master_secret.then_some(hash.as_ref());
        let master = Master::new(&premaster, &self.randoms, session_hash).ok_or_else(Failure::internal)?;
        let (read, write) = master
            .keys(self.suite.cipher, &self.randoms)
            .ok_or_else(Failure::internal)?;
        self.secrets = Some(Secrets {
            since: now,
            master,
            read,
            write,
        });
        self.step = match self.certificate {
            Some(_) => Step::CertificateVerify,
            None => Step::Finished,
        };
        Ok(())
    }

    /// The key of an identity. One that nobody knows has a random key: the client then cannot tell whether it is the
    /// identity or the key that is wrong (RFC 4279 §2).
    fn psk(&mut self, identity: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let lookup = self.server.psk.as_ref().ok_or_else(Failure::internal)?;
        let known = std::str::from_utf8(identity).ok();
        let known = known.and_then(|name| Some((name, lookup(name)?)));
        match known {
            Some((name, key)) if !key.is_empty() => {
                self.identity = Some(Identity::Psk(name.into()));
                Ok(Zeroizing::new(key))
            }
            _ => {
                let mut key = Zeroizing::new(vec![0; 16]);
                rand::fill(&mut key).map_err(|_| Failure::internal())?;
                Ok(key)
            }
        }
    }

    /// RFC 5246 §7.4.9. `before`: where the message begins in the transcript.
    fn handle_finished(&mut self, before: usize, body: &[u8]) -> Result<Done, Failure> {
        let secrets = self.secrets.take().ok_or_else(Failure::internal)?;
        let verify_data = |label: &[u8], end: usize| {
            let hash = digest::digest(&digest::SHA256, &self.transcript[..end]);
            secrets
                .master
                .verify_data(label, hash.as_ref())
                .ok_or_else(Failure::internal)
        };
        let expected = verify_data(b"client finished", before)?;
        constant_time::verify_slices_are_equal(&expected, body)
            .map_err(|_| Failure::new(Alert::DecryptError, "wrong_finished"))?;
        let answer = verify_data(b"server finished", self.transcript.len())?;
        let mut finished = Vec::with_capacity(MESSAGE_HEADER_BYTES + answer.len());
        put_message_header(
            &mut finished,
            kind::FINISHED,
            answer.len(),
            self.number,
            (0, answer.len()),
        );
        finished.put_slice(&answer);
        let channel = Channel::new(
            secrets.read,
            secrets.write,
            self.window,
            (self.sequence, finished),
        );
        Ok(Done {
            channel,
            cookie: self.cookie,
            identity: self.identity.take(),
        })
    }
}

#[cfg(test)]
mod tests;

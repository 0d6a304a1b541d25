//! The server's flight: what is in it, and how it goes on its way.

use aws_lc_rs::{agreement::EphemeralPrivateKey, rand};
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    super::{
        crypto::{Exchange, curve},
        hello::{ClientHello, Fragment, MESSAGE_HEADER_BYTES, kind, put_message_header, server_hello},
        record::{ContentType, DATAGRAM_BYTES_MAX, HEADER_BYTES, VERSION, put_header},
    },
    Failure, Handshake,
};

impl Handshake {
    /// Writes the flight that answers `hello` into the transcript.
    pub(super) fn write_flight(&mut self, hello: &ClientHello<'_>) -> Result<(), Failure> {
        let start = self.transcript.len();
        let body = server_hello(hello, self.suite, &self.randoms.server);
        self.write(kind::SERVER_HELLO, &body);
        if self.suite.exchange != Exchange::Psk {
            let server = self.server.clone();
            let certificate = server.certificate.as_ref().ok_or_else(Failure::internal)?;
            self.write(kind::CERTIFICATE, &certificate.message);
            let body = self.key_exchange(hello).ok_or_else(Failure::internal)?;
            self.write(kind::SERVER_KEY_EXCHANGE, &body);
            if let Some(clients) = &server.clients {
                self.write(kind::CERTIFICATE_REQUEST, &clients.request);
            }
        }
        self.write(kind::SERVER_HELLO_DONE, &[]);
        self.flight = start..self.transcript.len();
        Ok(())
    }

    /// The body of a ServerKeyExchange (RFC 8422 §5.4).
    fn key_exchange(&mut self, hello: &ClientHello<'_>) -> Option<Vec<u8>> {
        let group = hello.group()?;
        let private = EphemeralPrivateKey::generate(curve(group)?, &rand::SystemRandom::new()).ok()?;
        let public = private.compute_public_key().ok()?;
        self.private = Some(private);
        let mut body = vec![3];
        body.put_u16(group);
        body.put_u8(u8::try_from(public.as_ref().len()).ok()?);
        body.put_slice(public.as_ref());
        let signer = self.server.signer(self.suite.exchange, hello)?;
        let signed = [&self.randoms.client, &self.randoms.server, &body[..]].concat();
        let signature = signer.sign(&signed).ok()?;
        body.put_u16(signer.scheme().into());
        body.put_u16(u16::try_from(signature.len()).ok()?);
        body.put_slice(&signature);
        Some(body)
    }

    fn write(&mut self, kind: u8, body: &[u8]) {
        self.note(kind, self.number, body);
        self.number = self.number.wrapping_add(1);
    }

    /// Appends a message to the transcript.
    pub(super) fn note(&mut self, kind: u8, number: u16, body: &[u8]) {
        put_message_header(&mut self.transcript, kind, body.len(), number, (0, body.len()));
        self.transcript.extend_from_slice(body);
    }

    /// The server's flight, each time with new sequence numbers, in datagrams.
    pub(in crate::dtls) fn flight(&mut self, mut send: impl FnMut(Bytes)) {
        let mut datagram = BytesMut::new();
        let mut messages = &self.transcript[self.flight.clone()];
        while let Some(message) = Fragment::take(&mut messages) {
            let mut offset = 0;
            loop {
                let overhead = HEADER_BYTES + MESSAGE_HEADER_BYTES;
                let rest = message.bytes.len() - offset;
                let room = DATAGRAM_BYTES_MAX.checked_sub(datagram.len() + overhead);
                let Some(room) = room.filter(|room| *room >= rest.min(100)) else {
                    send(datagram.split().freeze());
                    continue;
                };
                let part = rest.min(room);
                let header = (0, self.sequence);
                self.sequence += 1;
                let len = MESSAGE_HEADER_BYTES + part;
                put_header(&mut datagram, ContentType::Handshake, VERSION, header, len);
                put_message_header(
                    &mut datagram,
                    message.kind,
                    message.len,
                    message.number,
                    (offset, part),
                );
                datagram.extend_from_slice(&message.bytes[offset..offset + part]);
                offset += part;
                if offset == message.bytes.len() {
                    break;
                }
            }
        }
        if !datagram.is_empty() {
            send(datagram.freeze());
        }
    }
}

//! Handshake messages (RFC 6347 §4.2, RFC 5246 §7.4): what a client's hello offers, and what the server writes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    cookie::COOKIE_BYTES,
    crypto::{SECP256R1, Suite, curve},
    record::{ContentType, HEADER_BYTES, Reader, VERSION_1_0, put_header},
};

/// Type, length, number, and the two values of a fragment.
pub(super) const MESSAGE_HEADER_BYTES: usize = 12;

/// Handshake types (RFC 5246 §7.4).
pub(super) mod kind {
    pub(in crate::dtls) const CLIENT_HELLO: u8 = 1;
    pub(in crate::dtls) const SERVER_HELLO: u8 = 2;
    pub(in crate::dtls) const HELLO_VERIFY_REQUEST: u8 = 3;
    pub(in crate::dtls) const CERTIFICATE: u8 = 11;
    pub(in crate::dtls) const SERVER_KEY_EXCHANGE: u8 = 12;
    pub(in crate::dtls) const CERTIFICATE_REQUEST: u8 = 13;
    pub(in crate::dtls) const SERVER_HELLO_DONE: u8 = 14;
    pub(in crate::dtls) const CERTIFICATE_VERIFY: u8 = 15;
    pub(in crate::dtls) const CLIENT_KEY_EXCHANGE: u8 = 16;
    pub(in crate::dtls) const FINISHED: u8 = 20;
}

/// Extensions (RFC 5246 §7.4.1.4, RFC 7627 §5.1, RFC 5746 §3.2, RFC 8422 §5.1).
mod extension {
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(super) const RENEGOTIATION_INFO: u16 = 0xff01;
}

/// The suite value that stands for an empty renegotiation_info (RFC 5746 §3.3).
const RENEGOTIATION_SCSV: u16 = 0x00ff;

/// Bytes of a hello. Those of DTLS 1.2 have a few hundred; it is kept while the handshake lasts.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// Extensions of a hello. Fewer than a hundred are registered.
const EXTENSIONS_MAX: usize = 64;

/// A handshake message or a part of one, as it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'d> {
    pub(super) kind: u8,
    /// Of the whole message.
    pub(super) len: usize,
    pub(super) number: u16,
    pub(super) offset: usize,
    pub(super) bytes: &'d [u8],
}

impl<'d> Fragment<'d> {
    /// Takes the first one off the body of a record. `None` if there is no sound one.
    pub(super) fn take(body: &mut &'d [u8]) -> Option<Fragment<'d>> {
        let mut reader = Reader(body);
        let kind = reader.u8()?;
        let len = reader.u24()?;
        let number = reader.u16()?;
        let offset = reader.u24()?;
        let bytes = reader.vec24()?;
        if offset + bytes.len() > len {
            return None;
        }
        *body = reader.0;
        Some(Fragment {
            kind,
            len,
            number,
            offset,
            bytes,
        })
    }

    /// The message, if this is all of it.
    pub(super) fn whole(&self) -> Option<&'d [u8]> {
        (self.bytes.len() == self.len).then_some(self.bytes)
    }
}

/// Appends the header of a message or of a part of one.
pub(super) fn put_message_header(
    to: &mut impl BufMut,
    kind: u8,
    len: usize,
    number: u16,
    (offset, part): (usize, usize),
) {
    to.put_u8(kind);
    put_u24(to, len);
    to.put_u16(number);
    put_u24(to, offset);
    put_u24(to, part);
}

fn put_u24(to: &mut impl BufMut, value: usize) {
    let value = u32::try_from(value).expect("our messages are shorter than 16 MiB");
    to.put_uint(value.into(), 3);
}

/// A ClientHello. It lies in the bytes that it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientHello<'d> {
    /// Everything before the cookie.
    pub(super) before_cookie: &'d [u8],
    pub(super) cookie: &'d [u8],
    /// Everything after it.
    pub(super) after_cookie: &'d [u8],
    /// DTLS 1.2 is spoken.
    pub(super) is_1_2: bool,
    pub(super) random: [u8; 32],
    /// Compression can be left out.
    pub(super) null_compression: bool,
    pub(super) extended_master_secret: bool,
    /// RFC 5746 is known to the client.
    pub(super) secure_renegotiation: bool,
    /// It takes this for a renegotiation (RFC 5746 §3.6).
    pub(super) renegotiates: bool,
    /// Whether the client names formats of points.
    pub(super) point_formats: bool,
    suites: &'d [u8],
    groups: Option<&'d [u8]>,
    schemes: &'d [u8],
}

impl<'d> ClientHello<'d> {
    /// Reads the body of one. `None` if it is malformed, or longer than any good one.
    pub(super) fn parse(body: &'d [u8]) -> Option<ClientHello<'d>> {
        if body.len() > HELLO_BYTES_MAX {
            return None;
        }
        let mut reader = Reader(body);
        let version: [u8; 2] = reader.array()?;
        let random = reader.array()?;
        let session = reader.vec8()?;
        let before = body.len() - reader.0.len();
        let cookie = reader.vec8()?;
        let after_cookie = reader.0;
        let suites = reader.vec16()?;
        let compression = reader.vec8()?;
        if session.len() > 32 || version[0] != 254 || suites.len() % 2 != 0 {
            return None;
        }
        let mut hello = ClientHello {
            before_cookie: &body[..before],
            cookie,
            after_cookie,
            // Versions count down.
            is_1_2: version[1] <= 253,
            random,
            null_compression: compression.contains(&0),
            extended_master_secret: false,
            secure_renegotiation: values(suites).any(|suite| suite == RENEGOTIATION_SCSV),
            renegotiates: false,
            point_formats: false,
            suites,
            groups: None,
            schemes: &[],
        };
        if !reader.0.is_empty() {
            let extensions = reader.vec16()?;
            reader.end()?;
            hello.parse_extensions(Reader(extensions))?;
        }
        Some(hello)
    }

    fn parse_extensions(&mut self, mut reader: Reader<'d>) -> Option<()> {
        let mut kinds = Vec::new();
        while !reader.0.is_empty() {
            let kind = reader.u16()?;
            let mut data = Reader(reader.vec16()?);
            // RFC 5246 §7.4.1.4: each at most once.
            if kinds.len() == EXTENSIONS_MAX || kinds.contains(&kind) {
                return None;
            }
            kinds.push(kind);
            match kind {
                extension::SUPPORTED_GROUPS => self.groups = Some(data.vec16()?),
                extension::SIGNATURE_ALGORITHMS => self.schemes = data.vec16()?,
                extension::POINT_FORMATS => self.point_formats = true,
                extension::EXTENDED_MASTER_SECRET => self.extended_master_secret = true,
                extension::RENEGOTIATION_INFO => {
                    self.secure_renegotiation = true;
                    self.renegotiates = !data.vec8()?.is_empty();
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Cipher suites that the client offers, the best first.
    pub(super) fn suites(&self) -> impl Iterator<Item = u16> + 'd {
        values(self.suites)
    }

    /// Signature schemes that it accepts.
    pub(super) fn schemes(&self) -> impl Iterator<Item = u16> + 'd {
        values(self.schemes)
    }

    /// The first of its curves that is spoken here.
    pub(super) fn group(&self) -> Option<u16> {
        match self.groups {
            None => Some(SECP256R1),
            Some(groups) => values(groups).find(|&group| curve(group).is_some()),
        }
    }
}

fn values(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let (pairs, _) = bytes.as_chunks();
    pairs.iter().map(|pair| u16::from_be_bytes(*pair))
}

/// The answer to a hello without a cookie. It is shorter than every hello, and has the hello's sequence number, as
/// nothing is kept that could count (RFC 6347 §4.2.1).
pub(super) fn hello_verify_request(sequence: u64, number: u16, cookie: &[u8; COOKIE_BYTES]) -> Bytes {
    const BODY: usize = 3 + COOKIE_BYTES;
    let mut datagram = BytesMut::with_capacity(HEADER_BYTES + MESSAGE_HEADER_BYTES + BODY);
    let len = MESSAGE_HEADER_BYTES + BODY;
    put_header(
        &mut datagram,
        ContentType::Handshake,
        VERSION_1_0,
        (0, sequence),
        len,
    );
    put_message_header(&mut datagram, kind::HELLO_VERIFY_REQUEST, BODY, number, (0, BODY));
    datagram.put_slice(&VERSION_1_0);
    datagram.put_u8(COOKIE_BYTES as u8);
    datagram.put_slice(cookie);
    datagram.freeze()
}

/// The body of a ServerHello (RFC 5246 §7.4.1.3). No session id: sessions are not resumed.
pub(super) fn server_hello(hello: &ClientHello<'_>, suite: &Suite, random: &[u8; 32]) -> Vec<u8> {
    use super::crypto::Exchange;

    let mut extensions = Vec::new();
    if hello.secure_renegotiation {
        extensions.put_u16(extension::RENEGOTIATION_INFO);
        extensions.put_slice(&[0, 1, 0]);
    }
    if hello.extended_master_secret {
        extensions.put_u16(extension::EXTENDED_MASTER_SECRET);
        extensions.put_u16(0);
    }
    if hello.point_formats && suite.exchange != Exchange::Psk {
        // Uncompressed only.
        extensions.put_u16(extension::POINT_FORMATS);
        extensions.put_slice(&[0, 2, 1, 0]);
    }
    let mut body = Vec::with_capacity(40 + extensions.len());
    body.put_slice(&super::record::VERSION);
    body.put_slice(random);
    body.put_u8(0);
    body.put_u16(suite.id);
    body.put_u8(0);
    if !extensions.is_empty() {
        body.put_u16(extensions.len() as u16);
        body.put_slice(&extensions);
    }
    body
}

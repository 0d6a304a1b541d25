//! Records (RFC 6347 §4.1), and what is read from bytes that anyone may have sent.

use bytes::{Bytes, BytesMut};

/// Type, version, epoch, sequence number and length.
pub(super) const HEADER_BYTES: usize = 13;
/// The most that one record may carry (RFC 5246 §6.2.1).
pub(super) const PLAINTEXT_BYTES_MAX: usize = 1 << 14;
/// The most that the body of a record may have (RFC 5246 §6.2.3).
const BODY_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 2048;
/// Handshake datagrams are kept within this: with the headers of IPv6 and UDP it is below 1280 bytes, which every
/// path carries (RFC 8200 §5).
pub(super) const DATAGRAM_BYTES_MAX: usize = 1200;
/// DTLS 1.2.
pub(super) const VERSION: [u8; 2] = [254, 253];
/// DTLS 1.0: what the first ClientHello and every HelloVerifyRequest may say (RFC 6347 §4.2.1).
pub(super) const VERSION_1_0: [u8; 2] = [254, 255];

/// What a record carries (RFC 5246 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    ChangeCipherSpec = 20,
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

/// One record, as it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'d> {
    pub(super) content: ContentType,
    pub(super) epoch: u16,
    /// 48 bits.
    pub(super) sequence: u64,
    /// Protected if `epoch` is not 0.
    pub(super) body: &'d [u8],
}

impl<'d> Record<'d> {
    /// Takes the first record off `datagram`. `None` if there is none that could be of DTLS 1.2 with this server: what
    /// follows cannot be read either.
    pub(super) fn take(datagram: &mut &'d [u8]) -> Option<Record<'d>> {
        let mut reader = Reader(datagram);
        let content = match reader.u8()? {
            20 => ContentType::ChangeCipherSpec,
            21 => ContentType::Alert,
            22 => ContentType::Handshake,
            23 => ContentType::ApplicationData,
            _ => return None,
        };
        let version = reader.array()?;
        let epoch = reader.u16()?;
        let [a, b, c, d, e, f] = reader.array()?;
        let body = reader.vec16()?;
        let is_1_2 = version == VERSION || (version == VERSION_1_0 && epoch == 0);
        if !is_1_2 || body.len() > BODY_BYTES_MAX {
            return None;
        }
        *datagram = reader.0;
        Some(Record {
            content,
            epoch,
            sequence: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            body,
        })
    }
}

/// Appends the header of a record whose body has `len` bytes.
pub(super) fn put_header(
    to: &mut BytesMut,
    content: ContentType,
    version: [u8; 2],
    (epoch, sequence): (u16, u64),
    len: usize,
) {
    to.extend_from_slice(&[content as u8, version[0], version[1]]);
    to.extend_from_slice(&epoch.to_be_bytes());
    to.extend_from_slice(&sequence.to_be_bytes()[2..]);
    let len = u16::try_from(len).expect("our records are shorter than 64 KiB");
    to.extend_from_slice(&len.to_be_bytes());
}

/// An alert that nothing protects.
pub(super) fn plain_alert(alert: Alert, sequence: u64) -> Bytes {
    let mut datagram = BytesMut::with_capacity(HEADER_BYTES + 2);
    put_header(&mut datagram, ContentType::Alert, VERSION, (0, sequence), 2);
    datagram.extend_from_slice(&alert.bytes());
    datagram.freeze()
}

/// What this side has to say about the end (RFC 5246 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alert {
    CloseNotify = 0,
    HandshakeFailure = 40,
    BadCertificate = 42,
    IllegalParameter = 47,
    DecodeError = 50,
    DecryptError = 51,
    ProtocolVersion = 70,
    InternalError = 80,
    NoRenegotiation = 100,
}

impl Alert {
    /// Level and description.
    pub(super) fn bytes(self) -> [u8; 2] {
        let level = match self {
            Alert::CloseNotify | Alert::NoRenegotiation => 1,
            _ => 2,
        };
        [level, self as u8]
    }
}

/// Which sequence numbers have been seen (RFC 6347 §4.1.2.6): the 64 up to the highest one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// One above the highest seen.
    next: u64,
    /// Bit 0 is `next - 1`.
    seen: u64,
}

impl Window {
    /// True if a record with this number may be new. It is known to be genuine only after it has been opened: then
    /// [`Window::mark`].
    pub(super) fn is_new(self, sequence: u64) -> bool {
        match (self.next.checked_sub(1)).and_then(|top| top.checked_sub(sequence)) {
            None => true,
            Some(age) => age < 64 && self.seen >> age & 1 == 0,
        }
    }

    /// Notes it as seen.
    pub(super) fn mark(&mut self, sequence: u64) {
        if sequence >= self.next {
            let shift = sequence + 1 - self.next;
            self.seen = if shift < 64 { self.seen << shift } else { 0 };
            self.next = sequence + 1;
        }
        let age = self.next - 1 - sequence;
        if age < 64 {
            self.seen |= 1 << age;
        }
    }
}

/// Takes values off the front of bytes, as far as there are any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'d>(pub(super) &'d [u8]);

impl<'d> Reader<'d> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'d [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u24(&mut self) -> Option<usize> {
        let [a, b, c] = self.array()?;
        Some(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c))
    }

    /// Bytes with their number before them, in one byte.
    pub(super) fn vec8(&mut self) -> Option<&'d [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// The same with two bytes.
    pub(super) fn vec16(&mut self) -> Option<&'d [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// The same with three bytes.
    pub(super) fn vec24(&mut self) -> Option<&'d [u8]> {
        let len = self.u24()?;
        self.take(len)
    }

    /// `Some` if nothing is left.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_takes_every_number_once_and_old_ones_never() {
        let mut window = Window::default();
        for sequence in [0, 5, 3, 64, 1] {
            assert!(window.is_new(sequence), "{sequence}");
            window.mark(sequence);
            assert!(!window.is_new(sequence), "{sequence}");
        }
        assert!(!window.is_new(0), "65 numbers back");
        assert!(window.is_new(2));
        window.mark((1 << 48) - 1);
        assert!(!window.is_new(64) && !window.is_new(0));
        assert!(window.is_new((1 << 48) - 64) && !window.is_new((1 << 48) - 65));
    }

    #[test]
    fn records_are_taken_one_after_another() {
        let mut datagram = BytesMut::new();
        put_header(&mut datagram, ContentType::Handshake, VERSION_1_0, (0, 7), 2);
        datagram.extend_from_slice(b"ab");
        put_header(
            &mut datagram,
            ContentType::ApplicationData,
            VERSION,
            (1, 1 << 40),
            1,
        );
        datagram.extend_from_slice(b"c");
        let mut rest = &datagram[..];
        let first = Record::take(&mut rest).unwrap();
        assert_eq!(
            (first.content, first.epoch, first.sequence, first.body),
            (ContentType::Handshake, 0, 7, &b"ab"[..])
        );
        let second = Record::take(&mut rest).unwrap();
        assert_eq!(
            (second.epoch, second.sequence, second.body),
            (1, 1 << 40, &b"c"[..])
        );
        assert!(Record::take(&mut rest).is_none());
    }

    #[test]
    fn a_record_has_no_more_bytes_than_the_specification_gives_it() {
        for (len, is_one) in [((1 << 14) + 2048, true), ((1 << 14) + 2049, false)] {
            let mut datagram = BytesMut::new();
            put_header(&mut datagram, ContentType::Handshake, VERSION, (0, 0), len);
            datagram.resize(HEADER_BYTES + len, 0);
            assert_eq!(Record::take(&mut &datagram[..]).is_some(), is_one, "{len} bytes");
        }
    }

    #[test]
    fn what_is_no_record_is_not_taken() {
        let good = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        assert!(Record::take(&mut &good[..]).is_some());
        for cut in 0..good.len() {
            assert!(Record::take(&mut &good[..cut]).is_none(), "{cut} bytes");
        }
        // An unknown type, TLS 1.2, and DTLS 1.0 under keys.
        for (at, byte) in [(0, 25), (1, 3), (4, 1)] {
            let mut bad = good;
            bad[at] = byte;
            if at == 4 {
                bad[2] = 255;
            }
            assert!(Record::take(&mut &bad[..]).is_none(), "{bad:?}");
        }
    }
}

//! What remains of a handshake: keys, counters, and what may have to be sent again.

use broker_core::Timestamp;
use bytes::{Bytes, BytesMut};

use super::{
    Path,
    cookie::Cookie,
    crypto::Keys,
    hello::{Fragment, kind},
    record::{Alert, ContentType, Record, VERSION, Window, put_header},
};

/// Sequence numbers have 48 bits, and are never used again (RFC 6347 §4.1).
const SEQUENCE_MAX: u64 = (1 << 48) - 1;

/// The protected records of one association, both ways.
pub(super) struct Channel {
    read: Keys,
    write: Keys,
    window: Window,
    /// Of the next record out.
    sequence: u64,
    /// Of the next record out that is not protected: ChangeCipherSpec.
    plain_sequence: u64,
    /// The server's Finished message, for a client that has not got it.
    finished: Box<[u8]>,
}

/// What a record said.
pub(super) enum Said {
    /// Not genuine, or not new.
    Nothing(&'static str),
    Data(Bytes),
    /// The client ends the association; it is to be answered if it says so itself.
    End(&'static str),
    /// To be sent in answer.
    Answer(Bytes),
}

impl Channel {
    /// `plain_sequence` counts on from the handshake; `finished` is the server's last message.
    pub(super) fn new(
        read: Keys,
        write: Keys,
        window: Window,
        (plain_sequence, finished): (u64, Vec<u8>),
    ) -> Channel {
        Channel {
            read,
            write,
            window,
            sequence: 0,
            plain_sequence,
            finished: finished.into(),
        }
    }

    /// The server's last flight: ChangeCipherSpec and Finished.
    pub(super) fn last_flight(&mut self) -> Option<Bytes> {
        let mut datagram = BytesMut::with_capacity(96);
        let header = (0, self.plain_sequence);
        self.plain_sequence += 1;
        put_header(&mut datagram, ContentType::ChangeCipherSpec, VERSION, header, 1);
        datagram.extend_from_slice(&[1]);
        let sequence = self.next_sequence()?;
        self.write
            .seal(&mut datagram, ContentType::Handshake, sequence, &self.finished)?;
        Some(datagram.freeze())
    }

    fn next_sequence(&mut self) -> Option<u64> {
        let sequence = self.sequence;
        self.sequence += 1;
        (sequence <= SEQUENCE_MAX).then_some(sequence)
    }

    /// A datagram with one record. `None` if there are no more sequence numbers, or the library fails.
    pub(super) fn seal(&mut self, content: ContentType, plaintext: &[u8]) -> Option<Bytes> {
        let sequence = self.next_sequence()?;
        let mut datagram = BytesMut::new();
        self.write.seal(&mut datagram, content, sequence, plaintext)?;
        Some(datagram.freeze())
    }

    /// Opens a record. What is not genuine changes nothing.
    pub(super) fn open(&mut self, record: &Record<'_>) -> Said {
        if record.epoch != 1 {
            return Said::Nothing("wrong_epoch");
        }
        if !self.window.is_new(record.sequence) {
            return Said::Nothing("replayed_record");
        }
        let Some(plaintext) = self.read.open(record) else {
            return Said::Nothing("bad_record_mac");
        };
        self.window.mark(record.sequence);
        match (record.content, &plaintext[..]) {
            (ContentType::ApplicationData, []) => Said::Nothing("empty_record"),
            (ContentType::ApplicationData, _) => Said::Data(plaintext),
            (ContentType::Alert, [_, 0]) => Said::End("close_notify"),
            (ContentType::Alert, [2, _]) => Said::End("alert_of_client"),
            (ContentType::Handshake, mut body) => self.handle_handshake(&mut body),
            _ => Said::Nothing("unexpected_record"),
        }
    }

    fn handle_handshake(&mut self, body: &mut &[u8]) -> Said {
        let answer = match Fragment::take(body) {
            // The client repeats its last flight: ours was lost (RFC 6347 §4.2.4).
            Some(fragment) if fragment.kind == kind::FINISHED => self.last_flight(),
            Some(fragment) if fragment.kind == kind::CLIENT_HELLO => {
                self.seal(ContentType::Alert, &Alert::NoRenegotiation.bytes())
            }
            _ => None,
        };
        answer.map_or(Said::Nothing("unexpected_record"), Said::Answer)
    }
}

/// An association that is open.
pub(super) struct Association {
    /// Its number: no other ever has it.
    pub(super) serial: u64,
    pub(super) path: Path,
    pub(super) channel: Channel,
    /// Of the hello that it began with: tells a late copy from a new one. The random value of a client does not, if
    /// it has none that are better after a restart.
    pub(super) cookie: Cookie,
    /// When the client was last heard.
    pub(super) heard: Timestamp,
    /// Data has come.
    pub(super) has_spoken: bool,
    /// When the table looks whether it is idle.
    pub(super) due: Timestamp,
}

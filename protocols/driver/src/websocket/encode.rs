//! Frames that the server sends: unmasked, binary (RFC 6455 §5.1, [MQTT-6.0.0-1]).

use std::io::IoSlice;

use smallvec::SmallVec;

use super::opcode;

/// Longest frame; a longer stretch of bytes goes out as several messages, so that a reader that gathers whole
/// messages need not wait long, nor keep much.
const FRAME_BYTES_MAX: usize = 256 << 10;

/// Control frames that wait, bytes. A ping above it goes unanswered: a later one will be (RFC 6455 §5.5.3 lets only
/// the most recent ping be answered).
const CONTROL_BYTES_MAX: usize = 1024;

/// Puts frame headers between the bytes of an outbox as they are written, so that the bytes themselves stay where
/// they are.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// Goes out before the payload: headers, and control frames whose turn has come.
    prefix: SmallVec<[u8; 16]>,
    /// Control frames that wait for the end of the data frame.
    control: Vec<u8>,
    /// Payload bytes of the frame under way.
    left: usize,
    closed: bool,
}

impl Encoder {
    /// Answers a ping.
    pub(crate) fn pong(&mut self, data: &[u8]) {
        if !self.closed && self.control.len() + data.len() + 2 <= CONTROL_BYTES_MAX {
            self.put_control(opcode::PONG, data);
        }
    }

    /// Says goodbye. Payload that is offered later is not framed any more.
    pub(crate) fn close(&mut self, code: u16) {
        if !self.closed {
            self.put_control(opcode::CLOSE, &code.to_be_bytes());
            self.closed = true;
        }
    }

    /// Something waits to be written, besides payload.
    pub(crate) fn has_own_bytes(&self) -> bool {
        !self.prefix.is_empty() || !self.control.is_empty()
    }

    /// Prepares the next write, with `waiting` bytes of payload: returns how many of them may follow the
    /// [prefix](Encoder::prefix).
    pub(crate) fn prepare(&mut self, waiting: usize) -> usize {
        if self.left == 0 && self.prefix.is_empty() {
            // A Close frame is the last one (§5.5.1): payload that came before it goes first.
            if waiting == 0 || !self.closed {
                self.prefix.extend_from_slice(&self.control);
                self.control = Vec::new();
            }
            if waiting > 0 && !(self.closed && self.control.is_empty()) {
                self.left = waiting.min(FRAME_BYTES_MAX);
                put_header(&mut self.prefix, opcode::BINARY, self.left);
            }
        }
        self.left
    }

    /// The bytes that go before the payload.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// `count` bytes were written. Returns how many of them were payload.
    pub(crate) fn advance(&mut self, count: usize) -> usize {
        let own = count.min(self.prefix.len());
        if own == self.prefix.len() {
            self.prefix = SmallVec::new();
        } else {
            self.prefix.drain(..own);
        }
        let payload = count - own;
        self.left -= payload;
        payload
    }

    fn put_control(&mut self, opcode: u8, body: &[u8]) {
        let mut header = SmallVec::<[u8; 16]>::new();
        put_header(&mut header, opcode, body.len());
        self.control.extend_from_slice(&header);
        self.control.extend_from_slice(body);
    }
}

fn put_header(to: &mut SmallVec<[u8; 16]>, opcode: u8, len: usize) {
    to.push(0x80 | opcode);
    match len {
        // The patterns bound the value: neither cast loses anything.
        0..126 => to.push(len as u8),
        126..65_536 => {
            to.push(126);
            to.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            to.push(127);
            to.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// At most `limit` bytes of `from`, as slices in `to`. Returns how many slices.
pub(crate) fn limit<'a>(from: &'a [IoSlice<'_>], mut limit: usize, to: &mut [IoSlice<'a>]) -> usize {
    let mut count = 0;
    for (slot, slice) in to.iter_mut().zip(from) {
        if limit == 0 {
            break;
        }
        let here = slice.len().min(limit);
        *slot = IoSlice::new(&slice[..here]);
        limit -= here;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `payload` in steps of `step` bytes at most, as a socket would.
    fn drain(encoder: &mut Encoder, mut payload: &[u8], step: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        loop {
            let allowed = encoder.prepare(payload.len());
            let mut bytes = encoder.prefix().to_vec();
            bytes.extend_from_slice(&payload[..allowed]);
            if bytes.is_empty() {
                return wire;
            }
            bytes.truncate(step);
            wire.extend_from_slice(&bytes);
            let used = encoder.advance(bytes.len());
            payload = &payload[used..];
        }
    }

    #[test]
    fn payload_is_cut_into_frames() {
        let payload = vec![7; FRAME_BYTES_MAX + 300];
        let mut expected = vec![0x82, 127, 0, 0, 0, 0, 0, 4, 0, 0];
        expected.extend_from_slice(&payload[..FRAME_BYTES_MAX]);
        expected.extend([0x82, 126, 1, 44]);
        expected.extend_from_slice(&payload[..300]);
        for step in [1, 5, 1000, usize::MAX] {
            assert!(
                drain(&mut Encoder::default(), &payload, step) == expected,
                "in steps of {step}"
            );
        }
        assert_eq!(drain(&mut Encoder::default(), b"hi", 1), [0x82, 2, b'h', b'i']);
    }

    #[test]
    fn control_frames_wait_for_the_end_of_a_frame() {
        let mut encoder = Encoder::default();
        assert_eq!(encoder.prepare(4), 4);
        encoder.advance(3);
        encoder.pong(b"p");
        assert_eq!(drain(&mut encoder, b"bcd", 1), [b'b', b'c', b'd', 0x8a, 1, b'p']);
    }

    #[test]
    fn close_comes_last() {
        let mut encoder = Encoder::default();
        encoder.close(1000);
        encoder.close(1002);
        encoder.pong(b"too late");
        assert_eq!(
            drain(&mut encoder, b"bye", 2),
            [0x82, 3, b'b', b'y', b'e', 0x88, 2, 0x03, 0xe8]
        );
        assert!(!encoder.has_own_bytes());
    }

    #[test]
    fn a_flood_of_pings_is_bounded() {
        let mut encoder = Encoder::default();
        for _ in 0..1000 {
            encoder.pong(&[0; 125]);
        }
        assert_eq!(drain(&mut encoder, b"", 4096).len(), 8 * 127);
    }
}

//! Frames that a client sends.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| length (7)  | extended length (16 or 64)    |
//! |I|S|S|S|  (4)  |A|             | if length is 126 or 127       |
//! |N|V|V|V|       |S|             |                               |
//! | |1|2|3|       |K|             |                               |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! | masking key (32): always there, from a client                 |
//! +---------------------------------------------------------------+
//! ```

use smallvec::SmallVec;

use super::{code, opcode};

/// Longest frame header of a client: two bytes, 64 bits of length, 32 of mask.
const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// How a client's stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The code to answer with.
    pub(crate) code: u16,
    /// `Some` if the client broke the protocol: what it did, with the clause. `None` if it said goodbye.
    pub(crate) violation: Option<&'static str>,
}

impl End {
    fn violation(code: u16, what: &'static str) -> End {
        End {
            code,
            violation: Some(what),
        }
    }
}

/// Where the decoder stands in the stream.
///
/// ```text
/// Header ──complete, data──> Data ──last byte──> Header
///    └──complete, control──> Control ──last byte──> Header
/// ```
#[derive(Debug)]
enum State {
    Header {
        bytes: [u8; HEADER_BYTES_MAX],
        have: u8,
    },
    Data {
        left: u64,
        mask: Mask,
    },
    Control {
        opcode: u8,
        left: u8,
        mask: Mask,
        body: SmallVec<[u8; 8]>,
    },
}

impl State {
    const START: State = State::Header {
        bytes: [0; HEADER_BYTES_MAX],
        have: 0,
    };
}

/// Takes the frames apart as their bytes come in.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// A message whose last frame is still to come, and its bytes so far.
    message: Option<u64>,
    message_bytes_max: u64,
}

impl Decoder {
    pub(crate) fn new(message_bytes_max: u64) -> Decoder {
        Decoder {
            state: State::START,
            message: None,
            message_bytes_max,
        }
    }

    /// Moves the payload in `buffer` to its front, unmasked, and returns its length. What follows an end is not
    /// looked at.
    pub(crate) fn decode(&mut self, buffer: &mut [u8], mut ping: impl FnMut(&[u8])) -> (usize, Option<End>) {
        let mut payload = 0;
        let mut at = 0;
        while at < buffer.len() {
            match &mut self.state {
                State::Header { bytes, have } => {
                    bytes[usize::from(*have)] = buffer[at];
                    *have += 1;
                    at += 1;
                    let header = *bytes;
                    let have = usize::from(*have);
                    match self.header(&header[..have]) {
                        Ok(Some(next)) => self.state = next,
                        Ok(None) => {}
                        Err(end) => return (payload, Some(end)),
                    }
                }
                State::Data { left, mask } => {
                    let here = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len() - at);
                    buffer.copy_within(at..at + here, payload);
                    mask.apply(&mut buffer[payload..payload + here]);
                    payload += here;
                    at += here;
                    *left -= here as u64;
                }
                State::Control { left, mask, body, .. } => {
                    let here = usize::from(*left).min(buffer.len() - at);
                    mask.apply(&mut buffer[at..at + here]);
                    body.extend_from_slice(&buffer[at..at + here]);
                    at += here;
                    // `here` is at most `left`, which is a u8.
                    *left -= here as u8;
                }
            }
            if let Some(end) = self.finish_frame(&mut ping) {
                return (payload, Some(end));
            }
        }
        (payload, None)
    }

    /// Back to [`State::Header`] if the frame is complete.
    fn finish_frame(&mut self, ping: &mut impl FnMut(&[u8])) -> Option<End> {
        let end = match &self.state {
            State::Data { left: 0, .. } => None,
            State::Control {
                opcode: opcode::PING,
                left: 0,
                body,
                ..
            } => {
                ping(body);
                None
            }
            State::Control {
                opcode: opcode::CLOSE,
                left: 0,
                body,
                ..
            } => Some(closed(body)),
            // A Pong that nobody asked for is allowed and means nothing (§5.5.3).
            State::Control { left: 0, .. } => None,
            _ => return None,
        };
        self.state = State::START;
        end
    }

    /// What follows the header, once all its bytes are there.
    fn header(&mut self, bytes: &[u8]) -> Result<Option<State>, End> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if rest.is_empty() {
            check_start(first, second)?;
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < extended + 4 {
            return Ok(None);
        }
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => rest[..extended]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let shortest = match extended {
            0 => 0,
            2 => 126,
            _ => 1 << 16,
        };
        if length < shortest || length >> 63 != 0 {
            return Err(End::violation(
                code::PROTOCOL_ERROR,
                "length not minimal, or too long (RFC 6455 §5.2)",
            ));
        }
        let mask = Mask([
            rest[extended],
            rest[extended + 1],
            rest[extended + 2],
            rest[extended + 3],
        ]);
        let opcode = first & 0x0f;
        if opcode >= opcode::CLOSE {
            // `check_start` has refused control frames of more than 125 bytes.
            let left = length as u8;
            return Ok(Some(State::Control {
                opcode,
                left,
                mask,
                body: SmallVec::new(),
            }));
        }
        self.data_frame(opcode, first & 0x80 != 0, length)?;
        Ok(Some(State::Data { left: length, mask }))
    }

    /// Counts a data frame into its message.
    fn data_frame(&mut self, opcode: u8, last: bool, length: u64) -> Result<(), End> {
        let before = match (opcode, self.message) {
            (opcode::CONTINUATION, Some(bytes)) => bytes,
            (opcode::BINARY, None) => 0,
            _ => {
                let what = "frames of two messages mixed, or a continuation of none (RFC 6455 §5.4)";
                return Err(End::violation(code::PROTOCOL_ERROR, what));
            }
        };
        let message = before.saturating_add(length);
        if message > self.message_bytes_max {
            return Err(End::violation(
                code::TOO_BIG,
                "message above the limit (RFC 6455 §10.4)",
            ));
        }
        self.message = (!last).then_some(message);
        Ok(())
    }
}

/// What the first two bytes already forbid.
fn check_start(first: u8, second: u8) -> Result<(), End> {
    let opcode = first & 0x0f;
    if first & 0x70 != 0 {
        return Err(End::violation(
            code::PROTOCOL_ERROR,
            "reserved bit without an extension (RFC 6455 §5.2)",
        ));
    }
    if second & 0x80 == 0 {
        return Err(End::violation(
            code::PROTOCOL_ERROR,
            "frame of a client without mask (RFC 6455 §5.1)",
        ));
    }
    match opcode {
        opcode::CONTINUATION | opcode::BINARY => Ok(()),
        // MQTT 5 §6.0: a receiver of other than binary frames closes the connection [MQTT-6.0.0-1].
        opcode::TEXT => Err(End::violation(
            code::UNSUPPORTED_DATA,
            "text frame [MQTT-6.0.0-1]",
        )),
        opcode::CLOSE | opcode::PING | opcode::PONG => {
            if first & 0x80 == 0 || u64::from(second & 0x7f) > CONTROL_BYTES_MAX {
                let what = "control frame in fragments or above 125 bytes (RFC 6455 §5.5)";
                return Err(End::violation(code::PROTOCOL_ERROR, what));
            }
            Ok(())
        }
        _ => Err(End::violation(
            code::PROTOCOL_ERROR,
            "reserved opcode (RFC 6455 §5.2)",
        )),
    }
}

/// The answer to a Close frame with this body (§5.5.1, §7.4).
fn closed(body: &[u8]) -> End {
    let &[high, low, ref reason @ ..] = body else {
        return match body {
            [] => End {
                code: code::NORMAL,
                violation: None,
            },
            _ => End::violation(
                code::PROTOCOL_ERROR,
                "Close frame with half a code (RFC 6455 §5.5.1)",
            ),
        };
    };
    let code = u16::from_be_bytes([high, low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return End::violation(
            code::PROTOCOL_ERROR,
            "Close frame with a code not for the wire (RFC 6455 §7.4)",
        );
    }
    if std::str::from_utf8(reason).is_err() {
        return End::violation(
            code::INVALID_DATA,
            "Close frame with a reason not in UTF-8 (RFC 6455 §5.5.1)",
        );
    }
    End {
        code,
        violation: None,
    }
}

/// The masking key, turned so that its first byte is the next to use (§5.3).
#[derive(Clone, Copy, Debug)]
struct Mask([u8; 4]);

impl Mask {
    fn apply(&mut self, bytes: &mut [u8]) {
        let key = u64::from_ne_bytes([
            self.0[0], self.0[1], self.0[2], self.0[3], self.0[0], self.0[1], self.0[2], self.0[3],
        ]);
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.0.iter().cycle()) {
            *byte ^= key;
        }
        self.0.rotate_left(rest.len() % 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | len as u8),
            len @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let key = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend(key);
        bytes.extend(
            payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        bytes
    }

    /// Payload, pings and end of `stream`, offered in pieces of `step` bytes.
    fn decode(stream: &[u8], step: usize) -> (Vec<u8>, Vec<Vec<u8>>, Option<End>) {
        let mut decoder = Decoder::new(1 << 20);
        let (mut payload, mut pings) = (Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            let mut piece = piece.to_vec();
            let (len, end) = decoder.decode(&mut piece, |data| pings.push(data.to_vec()));
            payload.extend_from_slice(&piece[..len]);
            if end.is_some() {
                return (payload, pings, end);
            }
        }
        (payload, pings, None)
    }

    #[test]
    fn frames_become_one_stream_however_they_are_cut() {
        let large: Vec<u8> = (0..70_000u32).map(|n| (n % 241) as u8).collect();
        let mut stream = frame(0x82, b"one");
        stream.extend(frame(0x02, &large[..200]));
        stream.extend(frame(0x89, b"are you there"));
        stream.extend(frame(0x00, b""));
        stream.extend(frame(0x80, &large));
        stream.extend(frame(0x8a, b"unasked"));
        stream.extend(frame(0x82, b""));
        stream.extend(frame(0x88, &[0x03, 0xe9, b'b', b'y', b'e']));
        let mut expected = b"one".to_vec();
        expected.extend_from_slice(&large[..200]);
        expected.extend_from_slice(&large);
        for step in [1, 2, 3, 7, 64, 4096, stream.len()] {
            let (payload, pings, end) = decode(&stream, step);
            assert!(payload == expected, "in steps of {step}");
            assert_eq!(pings, [b"are you there".to_vec()]);
            assert_eq!(
                end,
                Some(End {
                    code: 1001,
                    violation: None
                })
            );
        }
    }

    #[test]
    fn a_violation_names_its_code() {
        let unmasked = vec![0x82, 0x01, b'x'];
        let long_form_of_a_short_length = vec![0x82, 0x80 | 126, 0, 5];
        let cases: Vec<(Vec<u8>, u16)> = vec![
            (unmasked, 1002),
            (frame(0x81, b"text"), 1003),
            (frame(0xc2, b"compressed"), 1002),
            (frame(0x83, b"reserved"), 1002),
            (frame(0x8b, b"reserved"), 1002),
            (frame(0x80, b"continues nothing"), 1002),
            ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), 1002),
            (frame(0x09, b"fragment of a ping"), 1002),
            (frame(0x89, &[0; 126]), 1002),
            ([long_form_of_a_short_length, vec![0; 4]].concat(), 1002),
            (vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
            (vec![0x82, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0], 1009),
            ([frame(0x02, &[0; 1 << 20]), frame(0x80, b"x")].concat(), 1009),
            (frame(0x88, b"x"), 1002),
            (frame(0x88, &[0x03, 0xed]), 1002),
            (frame(0x88, &[0x03, 0xe8, 0xff]), 1007),
        ];
        for (stream, code) in cases {
            for step in [1, stream.len()] {
                let (_, _, end) = decode(&stream, step);
                let end = end.unwrap_or_else(|| panic!("accepted: {:?}", &stream[..stream.len().min(20)]));
                assert_eq!(end.code, code, "{end:?}");
                assert!(end.violation.is_some());
            }
        }
    }

    #[test]
    fn a_goodbye_is_answered_with_its_code() {
        assert_eq!(
            decode(&frame(0x88, b""), 1).2,
            Some(End {
                code: 1000,
                violation: None
            })
        );
        assert_eq!(
            decode(&frame(0x88, &[0x0f, 0xa0]), 1).2,
            Some(End {
                code: 4000,
                violation: None
            })
        );
    }
}

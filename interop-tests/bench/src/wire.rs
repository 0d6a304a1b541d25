//! The few MQTT frames that a load needs, of versions 3.1.1 and 5.0.

use std::io::Write;

/// Bytes at the start of every payload: who sent it, its number, and when.
pub(crate) const STAMP_BYTES: usize = 20;

/// What a client asks for in CONNECT.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    /// MQTT 5.0 instead of 3.1.1.
    pub(crate) v5: bool,
    /// Clean Session, or Clean Start.
    pub(crate) clean: bool,
    /// Session Expiry Interval in seconds, MQTT 5.0 only.
    pub(crate) expiry_seconds: u32,
}

/// Who sent a message, its number among theirs, and when, in microseconds of the sender's clock.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) sender: u32,
    pub(crate) number: u64,
    pub(crate) sent_micros: u64,
}

/// A packet from the broker, as far as a load looks at it.
pub(crate) enum Packet<'a> {
    Connack { code: u8, session_present: bool },
    Suback { refused: bool },
    Puback(u16),
    Pubrec(u16),
    Pubrel(u16),
    Pubcomp(u16),
    Publish { qos: u8, id: u16, payload: &'a [u8] },
    Pingresp,
    Other,
}

/// What the broker sent is no MQTT.
#[derive(Debug)]
pub(crate) struct Malformed;

fn remaining_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends CONNECT, with a keep alive of an hour: some brokers do not take 0.
pub(crate) fn connect(out: &mut Vec<u8>, client_id: &str, session: Session) {
    out.push(0x10);
    let properties = if session.v5 { 6 } else { 0 };
    remaining_length(out, 10 + properties + 2 + client_id.len());
    text(out, "MQTT");
    out.push(if session.v5 { 5 } else { 4 });
    out.push(if session.clean { 2 } else { 0 });
    out.extend_from_slice(&3600u16.to_be_bytes());
    if session.v5 {
        out.extend_from_slice(&[5, 0x11]);
        out.extend_from_slice(&session.expiry_seconds.to_be_bytes());
    }
    text(out, client_id);
}

/// Appends SUBSCRIBE.
pub(crate) fn subscribe(out: &mut Vec<u8>, v5: bool, id: u16, filters: &[String], qos: u8) {
    out.push(0x82);
    let filters_bytes: usize = filters.iter().map(|filter| 3 + filter.len()).sum();
    remaining_length(out, 2 + usize::from(v5) + filters_bytes);
    out.extend_from_slice(&id.to_be_bytes());
    if v5 {
        out.push(0);
    }
    for filter in filters {
        text(out, filter);
        out.push(qos);
    }
}

/// What is the same in all PUBLISH packets of a run.
#[derive(Clone, Copy)]
pub(crate) struct Publication {
    pub(crate) v5: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// At least [`STAMP_BYTES`].
    pub(crate) payload_bytes: usize,
}

/// Appends PUBLISH with a stamped payload.
pub(crate) fn publish(out: &mut Vec<u8>, of: &Publication, topic: &str, id: u16, stamp: Stamp) {
    out.push(0x30 | of.qos << 1 | u8::from(of.retain));
    let id_bytes = if of.qos > 0 { 2 } else { 0 };
    let payload_bytes = of.payload_bytes.max(STAMP_BYTES);
    remaining_length(
        out,
        2 + topic.len() + id_bytes + usize::from(of.v5) + payload_bytes,
    );
    text(out, topic);
    if of.qos > 0 {
        out.extend_from_slice(&id.to_be_bytes());
    }
    if of.v5 {
        out.push(0);
    }
    out.extend_from_slice(&stamp.sender.to_be_bytes());
    out.extend_from_slice(&stamp.number.to_be_bytes());
    out.extend_from_slice(&stamp.sent_micros.to_be_bytes());
    // Not all the same byte: a store that compresses shall find something to do, but not a void.
    const FILL: &[u8; 64] = b"t=21.5;h=40.25;p=1013.2;v=3.291;rssi=-71;up=86412;fw=1.4.2;x=0;;";
    let mut left = payload_bytes - STAMP_BYTES;
    while left > 0 {
        let part = left.min(FILL.len());
        out.extend_from_slice(&FILL[..part]);
        left -= part;
    }
}

/// The stamp of a payload.
pub(crate) fn stamp(payload: &[u8]) -> Option<Stamp> {
    Some(Stamp {
        sender: u32::from_be_bytes(payload.get(..4)?.try_into().ok()?),
        number: u64::from_be_bytes(payload.get(4..12)?.try_into().ok()?),
        sent_micros: u64::from_be_bytes(payload.get(12..20)?.try_into().ok()?),
    })
}

/// Appends one of the packets that hold only an identifier: PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70.
pub(crate) fn acknowledge(out: &mut Vec<u8>, kind: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[kind, 2, high, low]);
}

/// Appends PINGREQ.
pub(crate) fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Appends DISCONNECT.
pub(crate) fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xe0, 0]);
}

/// Writes a topic or filter from its pattern: `{s}` is a session or sender, `{n}` a number.
pub(crate) fn fill(out: &mut Vec<u8>, pattern: &str, sender: u64, number: u64) {
    let mut rest = pattern;
    while let Some(at) = rest.find('{') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let value = match &rest[at..] {
            part if part.starts_with("{s}") => Some(sender),
            part if part.starts_with("{n}") => Some(number),
            _ => None,
        };
        let Some(value) = value else {
            out.push(b'{');
            rest = &rest[at + 1..];
            continue;
        };
        // Writing into a vector cannot fail.
        let _ = write!(out, "{value}");
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest.as_bytes());
}

/// [`fill`] into a string.
pub(crate) fn filled(pattern: &str, sender: u64, number: u64) -> String {
    let mut out = Vec::new();
    fill(&mut out, pattern, sender, number);
    String::from_utf8_lossy(&out).into_owned()
}

/// The first packet in `bytes` and its length, if it is there in full.
pub(crate) fn take(bytes: &[u8], v5: bool) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let mut length = 0usize;
    let mut header = 1;
    loop {
        let Some(&byte) = bytes.get(header) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if header > 4 {
            return Err(Malformed);
        }
    }
    let Some(body) = bytes.get(header..header + length) else {
        return Ok(None);
    };
    let packet = parse(bytes[0], body, v5).ok_or(Malformed)?;
    Ok(Some((packet, header + length)))
}

fn parse(first: u8, body: &[u8], v5: bool) -> Option<Packet<'_>> {
    let id = || Some(u16::from_be_bytes(body.get(..2)?.try_into().ok()?));
    Some(match first >> 4 {
        2 => Packet::Connack {
            code: *body.get(1)?,
            session_present: body.first()? & 1 == 1,
        },
        3 => return parse_publish(first, body, v5),
        4 => Packet::Puback(id()?),
        5 => Packet::Pubrec(id()?),
        6 => Packet::Pubrel(id()?),
        7 => Packet::Pubcomp(id()?),
        9 => {
            let codes = if v5 { 3 + usize::from(*body.get(2)?) } else { 2 };
            Packet::Suback {
                refused: body.get(codes..)?.iter().any(|code| code & 0x80 != 0),
            }
        }
        13 => Packet::Pingresp,
        _ => Packet::Other,
    })
}

fn parse_publish(first: u8, body: &[u8], v5: bool) -> Option<Packet<'_>> {
    let qos = first >> 1 & 3;
    let topic_bytes = usize::from(u16::from_be_bytes(body.get(..2)?.try_into().ok()?));
    let mut at = 2 + topic_bytes;
    let mut id = 0;
    if qos > 0 {
        id = u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?);
        at += 2;
    }
    if v5 {
        let (mut properties, mut shift) = (0usize, 0);
        loop {
            let byte = *body.get(at)?;
            at += 1;
            properties |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 || shift > 21 {
                break;
            }
        }
        at += properties;
    }
    Some(Packet::Publish {
        qos,
        id,
        payload: body.get(at..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back() {
        for v5 in [false, true] {
            let of = Publication {
                v5,
                qos: 1,
                retain: false,
                payload_bytes: 200,
            };
            let stamp_in = Stamp {
                sender: 7,
                number: 1 << 40,
                sent_micros: 9,
            };
            let mut out = Vec::new();
            publish(&mut out, &of, "a/b", 513, stamp_in);
            assert!(take(&out[..out.len() - 1], v5).unwrap().is_none());
            let Some((Packet::Publish { qos, id, payload }, length)) = take(&out, v5).unwrap() else {
                panic!("no PUBLISH");
            };
            assert_eq!((qos, id, payload.len(), length), (1, 513, 200, out.len()));
            let read = stamp(payload).unwrap();
            assert_eq!((read.sender, read.number, read.sent_micros), (7, 1 << 40, 9));
        }
    }

    #[test]
    fn patterns_are_filled() {
        assert_eq!(filled("d/{s}/{n}/{x}", 3, 14), "d/3/14/{x}");
    }

    #[test]
    fn a_refused_subscription_is_seen() {
        let refused = |bytes: &[u8], v5| match take(bytes, v5).unwrap() {
            Some((Packet::Suback { refused }, _)) => refused,
            _ => panic!("no SUBACK"),
        };
        assert!(!refused(&[0x90, 3, 0, 1, 1], false));
        assert!(refused(&[0x90, 4, 0, 1, 0, 0x80], false));
        assert!(refused(&[0x90, 4, 0, 1, 0, 0x97], true));
    }
}

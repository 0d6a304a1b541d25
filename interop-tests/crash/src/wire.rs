//! The packets of MQTT 3.1.1 and 5.0 that the clients here send and understand.
//!
//! Written from the two specifications and used by nothing else: a mistake of the broker's codec cannot hide behind
//! the same mistake here.

/// The version of the protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

/// The four packets that move a QoS 1 or QoS 2 message on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// A Will: topic and payload, QoS, delay in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) delay: u32,
}

/// CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    /// Seconds; MQTT 5 only.
    pub(crate) expiry: u32,
    pub(crate) will: Option<Will>,
}

/// PUBLISH in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// 0 with QoS 0.
    pub(crate) id: u16,
}

/// What a broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connack { session_present: bool, code: u8 },
    Publish(Publish),
    Ack { ack: Ack, id: u16, code: u8 },
    Suback { id: u16, codes: Vec<u8> },
    Unsuback { id: u16, codes: Vec<u8> },
    Pingresp,
    Disconnect { code: u8 },
}

/// Why bytes are no packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

fn text(out: &mut Vec<u8>, text: &str) {
    binary(out, text.as_bytes());
}

fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("names here are short");
    out.extend(len.to_be_bytes());
    out.extend(bytes);
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let byte = u8::try_from(left % 128).expect("a rest of 128 fits");
        left /= 128;
        if left == 0 {
            out.push(byte);
            break;
        }
        out.push(byte | 0x80);
    }
    out.extend(body);
    out
}

/// §3.1.
pub(crate) fn connect(connect: &Connect) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.push(if connect.version == Version::V5 { 5 } else { 4 });
    let mut flags = if connect.clean { 0x02 } else { 0 };
    if let Some(will) = &connect.will {
        flags |= 0x04 | (will.qos << 3);
    }
    body.push(flags);
    // No keep alive: a connection ends by its socket only.
    body.extend([0, 0]);
    if connect.version == Version::V5 {
        body.extend([5, 0x11]);
        body.extend(connect.expiry.to_be_bytes());
    }
    text(&mut body, &connect.client_id);
    if let Some(will) = &connect.will {
        if connect.version == Version::V5 {
            body.extend([5, 0x18]);
            body.extend(will.delay.to_be_bytes());
        }
        text(&mut body, &will.topic);
        binary(&mut body, &will.payload);
    }
    framed(0x10, &body)
}

/// §3.3.
pub(crate) fn publish(version: Version, publish: &Publish) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, &publish.topic);
    if publish.qos > 0 {
        body.extend(publish.id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(&publish.payload);
    let first = 0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    framed(first, &body)
}

/// §3.4 to §3.7.
pub(crate) fn ack(ack: Ack, id: u16) -> Vec<u8> {
    let first = match ack {
        Ack::Puback => 0x40,
        Ack::Pubrec => 0x50,
        Ack::Pubrel => 0x62,
        Ack::Pubcomp => 0x70,
    };
    framed(first, &id.to_be_bytes())
}

/// §3.8, with one filter.
pub(crate) fn subscribe(version: Version, id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    text(&mut body, filter);
    body.push(qos);
    framed(0x82, &body)
}

/// §3.10, with one filter.
pub(crate) fn unsubscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    text(&mut body, filter);
    framed(0xa2, &body)
}

/// §3.12.
pub(crate) fn pingreq() -> Vec<u8> {
    vec![0xc0, 0]
}

/// §3.14: the Will is not to be sent.
pub(crate) fn disconnect() -> Vec<u8> {
    vec![0xe0, 0]
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(Malformed("a field is longer than its packet"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn variable(&mut self) -> Result<usize, Malformed> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a variable byte integer of five bytes"))
    }

    /// Properties are skipped: no check depends on one.
    fn properties(&mut self, version: Version) -> Result<(), Malformed> {
        if version == Version::V5 {
            let len = self.variable()?;
            self.take(len)?;
        }
        Ok(())
    }

    fn byte_or(&mut self, default: u8) -> Result<u8, Malformed> {
        if self.0.is_empty() {
            Ok(default)
        } else {
            self.byte()
        }
    }
}

/// The first packet of `bytes` and its length; `None`: it is not complete.
pub(crate) fn decode(version: Version, bytes: &[u8]) -> Result<Option<(Packet, usize)>, Malformed> {
    let mut header = Reader(bytes);
    let Ok(first) = header.byte() else {
        return Ok(None);
    };
    let mut len = None;
    for end in 2..=5 {
        let Some(field) = bytes.get(1..end) else {
            return Ok(None);
        };
        if field[field.len() - 1] & 0x80 == 0 {
            len = Some((Reader(field).variable()?, end));
            break;
        }
    }
    let Some((len, start)) = len else {
        return Err(Malformed("a remaining length of five bytes"));
    };
    let Some(body) = bytes.get(start..start + len) else {
        return Ok(None);
    };
    packet(version, first, Reader(body)).map(|packet| Some((packet, start + len)))
}

fn packet(version: Version, first: u8, mut body: Reader<'_>) -> Result<Packet, Malformed> {
    let flags = first & 0x0f;
    let kind = first >> 4;
    let flags_due = if kind == 6 { 2 } else { 0 };
    if kind != 3 && flags != flags_due {
        return Err(Malformed("reserved flags"));
    }
    Ok(match kind {
        2 => {
            let session_present = body.byte()? & 1 == 1;
            let code = body.byte()?;
            Packet::Connack {
                session_present,
                code,
            }
        }
        3 => Packet::Publish(incoming(version, flags, body)?),
        4..=7 => {
            let ack = match kind {
                4 => Ack::Puback,
                5 => Ack::Pubrec,
                6 => Ack::Pubrel,
                _ => Ack::Pubcomp,
            };
            let id = body.number()?;
            let code = body.byte_or(0)?;
            Packet::Ack { ack, id, code }
        }
        9 | 11 => {
            let id = body.number()?;
            body.properties(version)?;
            let codes = body.0.to_vec();
            if kind == 9 {
                Packet::Suback { id, codes }
            } else {
                Packet::Unsuback { id, codes }
            }
        }
        13 => Packet::Pingresp,
        14 => Packet::Disconnect {
            code: body.byte_or(0)?,
        },
        _ => return Err(Malformed("a packet that no broker sends")),
    })
}

fn incoming(version: Version, flags: u8, mut body: Reader<'_>) -> Result<Publish, Malformed> {
    let qos = flags >> 1 & 3;
    let len = usize::from(body.number()?);
    let topic = std::str::from_utf8(body.take(len)?).map_err(|_| Malformed("a topic that is not UTF-8"))?;
    let id = if qos > 0 { body.number()? } else { 0 };
    if qos == 3 || (qos > 0) == (id == 0) {
        return Err(Malformed("a PUBLISH with QoS 3 or packet identifier 0"));
    }
    body.properties(version)?;
    Ok(Publish {
        topic: topic.to_owned(),
        payload: body.0.to_vec(),
        qos,
        dup: flags & 8 != 0,
        retain: flags & 1 != 0,
        id,
    })
}

/// Whether a topic matches a filter (MQTT 5 §4.7), without the prefix of a shared subscription.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_specifications() {
        let mut wanted = Connect {
            version: Version::V3,
            client_id: "a".into(),
            clean: true,
            expiry: 0,
            will: None,
        };
        assert_eq!(connect(&wanted), b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a");
        wanted.version = Version::V5;
        wanted.clean = false;
        wanted.expiry = 10;
        wanted.will = Some(Will {
            topic: "w".into(),
            payload: b"x".to_vec(),
            qos: 2,
            delay: 3,
        });
        assert_eq!(
            connect(&wanted),
            b"\x10\x1f\0\x04MQTT\x05\x14\0\0\x05\x11\0\0\0\x0a\0\x01a\x05\x18\0\0\0\x03\0\x01w\0\x01x"
        );
        assert_eq!(
            subscribe(Version::V3, 10, "a/b", 1),
            b"\x82\x08\0\x0a\0\x03a/b\x01"
        );
        assert_eq!(
            subscribe(Version::V5, 10, "a/b", 1),
            b"\x82\x09\0\x0a\0\0\x03a/b\x01"
        );
        assert_eq!(unsubscribe(Version::V3, 10, "a"), b"\xa2\x05\0\x0a\0\x01a");
        assert_eq!(ack(Ack::Pubrel, 258), b"\x62\x02\x01\x02");
    }

    #[test]
    fn a_publish_comes_back_as_it_was() {
        for version in [Version::V3, Version::V5] {
            for len in [0, 1, 120, 127, 128, 20_000] {
                let sent = Publish {
                    topic: "a/b".into(),
                    payload: vec![7; len],
                    qos: 2,
                    dup: true,
                    retain: true,
                    id: 513,
                };
                let bytes = publish(version, &sent);
                for cut in 0..bytes.len().min(200) {
                    assert_eq!(decode(version, &bytes[..cut]), Ok(None));
                }
                let decoded = decode(version, &bytes);
                assert_eq!(decoded, Ok(Some((Packet::Publish(sent), bytes.len()))));
            }
        }
    }

    #[test]
    fn answers_are_read_with_and_without_a_reason_code() {
        let read =
            |version, bytes: &[u8]| decode(version, bytes).map(|found| found.map(|(packet, _)| packet));
        let pubcomp = |code| {
            let ack = Ack::Pubcomp;
            Ok(Some(Packet::Ack { ack, id: 1, code }))
        };
        assert_eq!(read(Version::V3, b"\x70\x02\0\x01"), pubcomp(0));
        assert_eq!(read(Version::V5, b"\x70\x03\0\x01\x92"), pubcomp(0x92));
        assert_eq!(read(Version::V5, b"\x70\x04\0\x01\x92\0"), pubcomp(0x92));
        let codes = vec![0x11];
        assert_eq!(
            read(Version::V5, b"\xb0\x04\0\x01\0\x11"),
            Ok(Some(Packet::Unsuback { id: 1, codes }))
        );
        let session_present = true;
        assert_eq!(
            read(Version::V5, b"\x20\x03\x01\0\0"),
            Ok(Some(Packet::Connack {
                session_present,
                code: 0
            }))
        );
        assert!(
            read(Version::V5, b"\x60\x02\0\x01").is_err(),
            "PUBREL without its flag"
        );
        assert!(read(Version::V5, b"\x36\x05\0\x01a\0\x01").is_err(), "QoS 3");
        assert!(
            read(Version::V5, b"\x32\x06\0\x01a\0\0\0").is_err(),
            "packet identifier 0"
        );
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a", true),
            ("+/b", "a/b", true),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}

//! Frames of MQTT-SN 1.2, as far as a sensor needs them. All here are shorter than 256 bytes.

/// What a gateway sends to a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    ConnAck(u8),
    Register {
        topic_id: [u8; 2],
        msg_id: [u8; 2],
    },
    RegAck {
        topic_id: [u8; 2],
        code: u8,
    },
    Publish {
        flags: u8,
        topic_id: [u8; 2],
        msg_id: [u8; 2],
        data: &'a [u8],
    },
    PubAck(u8),
    SubAck(u8),
    PingResp,
    Disconnect,
    Other,
}

/// Flags of QoS 1.
pub(crate) const QOS_1: u8 = 0x20;
/// The bits of the quality of service.
pub(crate) const QOS: u8 = 0x60;
const CLEAN_SESSION: u8 = 0x04;

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = 2 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut frame = vec![u8::try_from(length).expect("a short frame"), kind];
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}

pub(crate) fn connect(client_id: &str, clean: bool, seconds: u16) -> Vec<u8> {
    let flags = if clean { CLEAN_SESSION } else { 0 };
    frame(0x04, &[&[flags, 1], &seconds.to_be_bytes(), client_id.as_bytes()])
}

pub(crate) fn register(msg_id: u16, topic: &str) -> Vec<u8> {
    frame(0x0a, &[&[0, 0], &msg_id.to_be_bytes(), topic.as_bytes()])
}

pub(crate) fn accept_register(topic_id: [u8; 2], msg_id: [u8; 2]) -> Vec<u8> {
    frame(0x0b, &[&topic_id, &msg_id, &[0]])
}

pub(crate) fn publish(flags: u8, topic_id: [u8; 2], msg_id: u16, data: &[u8]) -> Vec<u8> {
    frame(0x0c, &[&[flags], &topic_id, &msg_id.to_be_bytes(), data])
}

pub(crate) fn puback(topic_id: [u8; 2], msg_id: [u8; 2]) -> Vec<u8> {
    frame(0x0d, &[&topic_id, &msg_id, &[0]])
}

pub(crate) fn subscribe(msg_id: u16, topic: &str) -> Vec<u8> {
    frame(0x12, &[&[QOS_1], &msg_id.to_be_bytes(), topic.as_bytes()])
}

pub(crate) fn pingreq(client_id: &str) -> Vec<u8> {
    frame(0x16, &[client_id.as_bytes()])
}

pub(crate) fn sleep(seconds: u16) -> Vec<u8> {
    frame(0x18, &[&seconds.to_be_bytes()])
}

/// Puts a frame into the envelope of a forwarder, for the node of this number.
pub(crate) fn of_node(node: u32, inner: &[u8]) -> Vec<u8> {
    let mut envelope = frame(0xfe, &[&[0], &node.to_be_bytes()]);
    envelope.extend_from_slice(inner);
    envelope
}

/// Takes a frame out of the envelope that [`of_node`] makes.
pub(crate) fn to_node(datagram: &[u8]) -> Option<(u32, &[u8])> {
    let (head, inner) = datagram.split_at_checked(7)?;
    (head[..2] == [7, 0xfe]).then(|| {
        let node = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        (node, inner)
    })
}

/// `None` if it is none that can be read.
pub(crate) fn parse(datagram: &[u8]) -> Option<Frame<'_>> {
    let body = match *datagram.first()? {
        1 => datagram.get(3..)?,
        _ => datagram.get(1..)?,
    };
    let (&kind, rest) = body.split_first()?;
    let pair = |at: usize| Some([*rest.get(at)?, *rest.get(at + 1)?]);
    Some(match kind {
        0x05 => Frame::ConnAck(*rest.first()?),
        0x0a => Frame::Register {
            topic_id: pair(0)?,
            msg_id: pair(2)?,
        },
        0x0b => Frame::RegAck {
            topic_id: pair(0)?,
            code: *rest.get(4)?,
        },
        0x0c => Frame::Publish {
            flags: *rest.first()?,
            topic_id: pair(1)?,
            msg_id: pair(3)?,
            data: rest.get(5..)?,
        },
        0x0d => Frame::PubAck(*rest.get(4)?),
        0x13 => Frame::SubAck(*rest.get(5)?),
        0x17 => Frame::PingResp,
        0x18 => Frame::Disconnect,
        _ => Frame::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_specification() {
        assert_eq!(connect("ab", true, 300), [8, 4, 4, 1, 1, 44, b'a', b'b']);
        assert_eq!(sleep(60), [4, 0x18, 0, 60]);
        assert_eq!(publish(QOS_1, [1, 2], 3, b"x"), [8, 12, 0x20, 1, 2, 0, 3, b'x']);
        assert_eq!(parse(&[3, 5, 1]), Some(Frame::ConnAck(1)));
        assert_eq!(parse(&[2, 0x17]), Some(Frame::PingResp));
        assert_eq!(parse(&[8, 0x13, 0x20, 0, 0, 0, 1, 3]), Some(Frame::SubAck(3)));
        assert_eq!(parse(&[4, 5]), None);
    }

    #[test]
    fn envelopes_open_again() {
        let inner = pingreq("c");
        let envelope = of_node(0x0102_0304, &inner);
        assert_eq!(to_node(&envelope), Some((0x0102_0304, &inner[..])));
        assert_eq!(to_node(&inner), None);
    }
}

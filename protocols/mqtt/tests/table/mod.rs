//! Packets, valid and broken, written down once for all codec tests.
#![allow(dead_code, reason = "every test binary uses its own part")]

pub(crate) mod broken;
pub(crate) mod known;
pub(crate) mod valid;

use mqtt::codec::{Decoder, ProtocolVersion, Sender};

pub(crate) use ProtocolVersion::{V3, V4, V5};

/// Bytes from a notation that reads like the specification's figures:
/// `10` is a byte, `"MQTT"` a text with its length in front, `'abc'` plain bytes, `{ }` properties with their length
/// in front, and `|` the remaining length of all that follows it.
pub(crate) fn wire(notation: &str) -> Vec<u8> {
    let mut rest = notation;
    let bytes = parse(&mut rest);
    assert!(rest.is_empty(), "unbalanced notation: {notation}");
    bytes
}

fn parse(rest: &mut &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(first) = rest.chars().next() {
        match first {
            '}' => break,
            '|' => {
                *rest = &rest[1..];
                let body = parse(rest);
                bytes.extend(var_int(body.len()));
                bytes.extend(body);
            }
            '{' => {
                *rest = &rest[1..];
                let block = parse(rest);
                *rest = rest.strip_prefix('}').expect("a closing brace");
                bytes.extend(var_int(block.len()));
                bytes.extend(block);
            }
            '"' | '\'' => {
                let (text, after) = rest[1..].split_once(first).expect("a closing quote");
                if first == '"' {
                    bytes.extend((text.len() as u16).to_be_bytes());
                }
                bytes.extend(text.as_bytes());
                *rest = after;
            }
            ' ' | '\n' => *rest = &rest[1..],
            _ => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                *rest = &rest[2..];
            }
        }
    }
    bytes
}

fn var_int(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A decoder without a size limit.
pub(crate) fn decoder(version: ProtocolVersion, sender: Sender) -> Decoder {
    Decoder {
        version,
        sender,
        max_packet_size: u32::MAX,
    }
}

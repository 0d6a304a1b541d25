//! Messages, valid and broken, written down once for all codec tests.
#![allow(dead_code, reason = "every test binary uses its own part")]

pub(crate) mod broken;
pub(crate) mod valid;

/// Bytes from a notation that reads like the specification's tables: `0C` is a byte, `'abc'` plain bytes.
pub(crate) fn wire(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in notation.split('\'').enumerate() {
        if at % 2 == 1 {
            bytes.extend(part.as_bytes());
            continue;
        }
        let octets = part.split_whitespace();
        bytes.extend(octets.map(|octet| u8::from_str_radix(octet, 16).expect("two hexadecimal digits")));
    }
    bytes
}

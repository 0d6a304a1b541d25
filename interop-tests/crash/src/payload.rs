//! Payloads that say which message they are and that they are whole.

use crate::history::ClientNo;

/// `publisher number padding`, where the padding follows from the number.
pub(crate) fn make(publisher: ClientNo, number: u32, padding: usize) -> Vec<u8> {
    let mut payload = format!("{publisher} {number} ").into_bytes();
    payload.extend((0..padding).map(|at| letter(number, at)));
    payload
}

/// Publisher and number; `None` if it is not what [`make`] made.
pub(crate) fn read(payload: &[u8]) -> Option<(ClientNo, u32)> {
    let mut parts = payload.splitn(3, |byte| *byte == b' ');
    let publisher = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let number = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let padding = parts.next()?;
    let is_whole = padding
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte == letter(number, at));
    is_whole.then_some((publisher, number))
}

fn letter(number: u32, at: usize) -> u8 {
    b'a' + u8::try_from((number as usize).wrapping_mul(31).wrapping_add(at) % 26).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_it_is_and_shows_damage() {
        for padding in [0, 1, 3000] {
            let mut payload = make(3, 77, padding);
            assert_eq!(read(&payload), Some((3, 77)));
            let last = payload.len() - 1;
            payload[last] ^= 1;
            assert_eq!(read(&payload), None);
        }
    }
}

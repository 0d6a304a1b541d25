//! Handshake messages from their fragments, in order (RFC 6347 §4.2.2, §4.2.3).

use super::hello::Fragment;

/// A client's flight has at most Certificate, ClientKeyExchange, CertificateVerify and Finished.
const MESSAGES_MAX: usize = 4;
/// Parts of one message that are kept.
const PARTS_MAX: usize = 64;

/// Gathers the messages of one handshake. What does not fit is dropped: the client sends it again.
#[derive(Debug)]
pub(super) struct Reassembly {
    /// Number of the message that comes next.
    next: u16,
    /// That one and those after it.
    slots: [Option<Slot>; MESSAGES_MAX],
    /// Bytes that may still be taken.
    budget: usize,
}

#[derive(Debug)]
struct Slot {
    kind: u8,
    len: usize,
    /// Ordered by where they begin.
    parts: Vec<(usize, Vec<u8>)>,
}

impl Reassembly {
    /// The first message has this number. At most `budget` bytes are taken in all.
    pub(super) fn new(next: u16, budget: usize) -> Reassembly {
        Reassembly {
            next,
            slots: Default::default(),
            budget,
        }
    }

    /// Takes a fragment. False if it was of no use.
    pub(super) fn push(&mut self, fragment: &Fragment<'_>) -> bool {
        let ahead = usize::from(fragment.number.wrapping_sub(self.next));
        let Some(slot) = self.slots.get_mut(ahead) else {
            return false;
        };
        if fragment.bytes.len() > self.budget || (slot.is_none() && fragment.len > self.budget) {
            return false;
        }
        let slot = slot.get_or_insert_with(|| Slot {
            kind: fragment.kind,
            len: fragment.len,
            parts: Vec::new(),
        });
        if slot.kind != fragment.kind || slot.len != fragment.len || slot.parts.len() >= PARTS_MAX {
            return false;
        }
        let at = slot
            .parts
            .partition_point(|(offset, _)| *offset < fragment.offset);
        let known = slot.parts.get(at);
        if known
            .is_some_and(|(offset, part)| *offset == fragment.offset && part.len() >= fragment.bytes.len())
        {
            return false;
        }
        self.budget -= fragment.bytes.len();
        slot.parts.insert(at, (fragment.offset, fragment.bytes.to_vec()));
        true
    }

    /// The next message, once it is whole: its type, number and body.
    pub(super) fn pop(&mut self) -> Option<(u8, u16, Vec<u8>)> {
        let slot = self.slots[0].as_ref()?;
        let mut have = 0;
        for (offset, part) in &slot.parts {
            if *offset > have {
                return None;
            }
            have = have.max(offset + part.len());
        }
        if have < slot.len {
            return None;
        }
        let slot = self.slots[0].take()?;
        let mut body = Vec::with_capacity(have);
        for (offset, part) in slot.parts {
            self.budget += part.len();
            let known = (body.len() - offset).min(part.len());
            body.extend_from_slice(&part[known..]);
        }
        // What was sent twice may come again; the message itself goes on counting.
        self.budget -= body.len();
        self.slots.rotate_left(1);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        Some((slot.kind, number, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u16, len: usize, offset: usize, bytes: &[u8]) -> Fragment<'_> {
        Fragment {
            kind: 16,
            len,
            number,
            offset,
            bytes,
        }
    }

    #[test]
    fn fragments_in_any_order_overlapping_and_repeated_make_the_message() {
        let mut reassembly = Reassembly::new(2, 100);
        assert!(reassembly.push(&part(3, 1, 0, b"z")));
        assert!(reassembly.push(&part(2, 6, 4, b"ef")));
        assert!(!reassembly.push(&part(2, 6, 4, b"e")));
        assert!(reassembly.push(&part(2, 6, 0, b"ab")));
        assert_eq!(reassembly.pop(), None);
        assert!(reassembly.push(&part(2, 6, 1, b"bcd")));
        assert_eq!(reassembly.pop(), Some((16, 2, b"abcdef".to_vec())));
        assert_eq!(reassembly.pop(), Some((16, 3, b"z".to_vec())));
        assert_eq!(reassembly.pop(), None);
        assert_eq!(reassembly.budget, 100 - 7);
        assert!(!reassembly.push(&part(3, 1, 0, b"z")), "has been");
    }

    #[test]
    fn a_message_may_take_all_of_the_budget() {
        let mut reassembly = Reassembly::new(0, 8);
        for (offset, bytes) in [(0, b"ab"), (2, b"cd"), (4, b"ef"), (6, b"gh")] {
            assert!(reassembly.push(&part(0, 8, offset, bytes)));
        }
        assert_eq!(reassembly.pop(), Some((16, 0, b"abcdefgh".to_vec())));
        assert!(!reassembly.push(&part(1, 1, 0, b"a")));
    }

    #[test]
    fn an_empty_message_is_whole_at_once() {
        let mut reassembly = Reassembly::new(0, 10);
        assert!(reassembly.push(&part(0, 0, 0, b"")));
        assert_eq!(reassembly.pop(), Some((16, 0, Vec::new())));
    }

    #[test]
    fn what_is_too_much_or_contradicts_is_dropped() {
        let mut reassembly = Reassembly::new(0, 10);
        assert!(!reassembly.push(&part(0, 11, 0, b"a")), "longer than the budget");
        assert!(!reassembly.push(&part(4, 1, 0, b"a")), "too far ahead");
        assert!(reassembly.push(&part(0, 9, 0, b"abcdefg")));
        assert!(!reassembly.push(&part(1, 4, 0, b"abcd")), "the budget is used up");
        assert!(!reassembly.push(&part(0, 8, 7, b"h")), "another length");
        let mut reassembly = Reassembly::new(0, 1000);
        for offset in 0..PARTS_MAX {
            assert!(reassembly.push(&part(0, 1000, 2 * offset, b"a")));
        }
        assert!(!reassembly.push(&part(0, 1000, 999, b"a")), "too many parts");
    }
}

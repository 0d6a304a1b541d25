//! A page of names as it stands in a note.
//!
//! ```text
//!   for each name:   Known to the client (0 or 1)   Length (2)   Name
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::{Entry, PAGE_LEN};

/// The name with what stands before it.
pub(super) fn len(entry: &Entry) -> usize {
    3 + entry.name.len()
}

pub(super) fn encode(entries: &[Entry]) -> Bytes {
    let mut to = BytesMut::with_capacity(entries.iter().map(len).sum());
    for entry in entries {
        to.put_u8(entry.confirmed.into());
        to.put_u16(u16::try_from(entry.name.len()).expect("a topic name came in a datagram"));
        to.put_slice(entry.name.as_bytes());
    }
    to.freeze()
}

/// Appends the names of the page; `None` if it is none: then nothing is appended.
pub(super) fn decode(mut page: &[u8], entries: &mut Vec<Entry>) -> Option<()> {
    let before = entries.len();
    while let Some((entry, rest)) = split(page) {
        entries.push(entry);
        page = rest;
    }
    let is_valid = page.is_empty() && entries.len() - before <= usize::from(PAGE_LEN);
    if !is_valid {
        entries.truncate(before);
    }
    is_valid.then_some(())
}

fn split(page: &[u8]) -> Option<(Entry, &[u8])> {
    let ([confirmed, high, low], rest) = page.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    let confirmed = *confirmed == 1;
    let entry = Entry {
        name: std::str::from_utf8(name).ok()?.into(),
        confirmed,
        confirmed_in_note: confirmed,
    };
    Some((entry, rest))
}

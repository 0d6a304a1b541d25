//! How what must last is written down: the bytes of records and entries, and the names of entries.
//!
//! Integers are written with the higher bytes first. Texts and byte strings have their length before them. Every
//! record and entry says its version where it may have to change; what cannot be read is reported, never guessed.
//!
//! | key | entry |
//! |---|---|
//! | `s.CLIENT` | [`SessionEntry`]: a persistent session |
//! | `c.CLIENT` | [`CursorEntry`]: how far it has read |
//! | `f.CLIENT.FILTER` | [`FilterEntry`]: one subscription |
//! | `i.CLIENT.PACKET` | empty: a QoS 2 message was received and not yet released |
//! | `o.CLIENT.PACKET` | [`OutgoingEntry`]: a delivery that the client has not acknowledged in full |
//! | `x.CLIENT.SEQUENCE` | empty: a delivery beyond the cursor is complete |
//! | `n.CLIENT.NUMBER` | a note of the session's protocol |
//! | `g.GROUP` | [`GroupEntry`]: a shared group with persistent members |
//! | `t.GROUP.SEQUENCE` | empty: a QoS 2 message of the group is a member's for good |
//! | `r.TOPIC` | the record of a retained message |
//! | `d.TIME.NUMBER` | [`DelayedEntry`]: a message that waits for its time |
//!
//! CLIENT, FILTER, GROUP and TOPIC are [`Token`]s, the rest are hexadecimal numbers.

mod bytes;
mod entries;
mod keys;
mod origin;
mod record;
mod token;

pub use bytes::{Decoder, Encoder, FormatError};
pub use entries::{
    CursorEntry, DelayedEntry, FilterEntry, GroupEntry, OutgoingEntry, OutgoingState, PresenceEntry,
    SessionEntry,
};
pub use keys::Name;
pub use origin::Origins;
pub use record::{decode_message, encode_message, is_retained};
pub use token::Token;

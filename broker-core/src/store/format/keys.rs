//! The names of entries.

use super::Token;
use crate::{
    PacketId, ShardId,
    store::{Key, Sequence},
};

/// What an entry is about, as its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A session.
    Session(Token),
    /// A session's cursor.
    Cursor(Token),
    /// A session's subscription on this filter.
    Filter(Token, Token),
    /// A QoS 2 message that the session's client has sent and not released.
    Received(Token, PacketId),
    /// A delivery to the session's client.
    Outgoing(Token, PacketId),
    /// A complete delivery beyond the session's cursor.
    Complete(Token, Sequence),
    /// A note of the session's protocol, by its number.
    Note(Token, u16),
    /// A shared group.
    Group(Token),
    /// A message of a shared group that a member has for good.
    Taken(Token, Sequence),
    /// A retained message.
    Retained(Token),
    /// A message that waits for the time, in milliseconds, which it shares with others.
    Delayed(u64, u64),
}

impl Name {
    /// As a key.
    pub fn key(self) -> Key {
        let text = match self {
            Name::Session(client) => format!("s.{client}"),
            Name::Cursor(client) => format!("c.{client}"),
            Name::Filter(client, filter) => format!("f.{client}.{filter}"),
            Name::Received(client, packet_id) => format!("i.{client}.{:04x}", packet_id.get()),
            Name::Outgoing(client, packet_id) => format!("o.{client}.{:04x}", packet_id.get()),
            Name::Complete(client, sequence) => format!("x.{client}.{:016x}", sequence.0),
            Name::Note(client, number) => format!("n.{client}.{number:04x}"),
            Name::Group(group) => format!("g.{group}"),
            Name::Taken(group, sequence) => format!("t.{group}.{:016x}", sequence.0),
            Name::Retained(topic) => format!("r.{topic}"),
            Name::Delayed(at, number) => format!("d.{at:016x}.{number:016x}"),
        };
        Key::new(&text).expect("letters, digits and dots")
    }

    /// What the key names; `None` if it is none of these.
    pub fn parse(key: &Key) -> Option<Name> {
        let mut parts = key.as_str().split('.');
        let (table, first, second) = (parts.next()?, parts.next()?, parts.next());
        if parts.next().is_some() {
            return None;
        }
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let packet_id = |text: &str| PacketId::new(u16::from_str_radix(text, 16).ok()?);
        let name = match (table, second) {
            ("s", None) => Name::Session(Token::parse(first)?),
            ("c", None) => Name::Cursor(Token::parse(first)?),
            ("f", Some(filter)) => Name::Filter(Token::parse(first)?, Token::parse(filter)?),
            ("i", Some(packet)) => Name::Received(Token::parse(first)?, packet_id(packet)?),
            ("o", Some(packet)) => Name::Outgoing(Token::parse(first)?, packet_id(packet)?),
            ("x", Some(sequence)) => Name::Complete(Token::parse(first)?, Sequence(number(sequence)?)),
            ("n", Some(number)) => Name::Note(Token::parse(first)?, u16::from_str_radix(number, 16).ok()?),
            ("g", None) => Name::Group(Token::parse(first)?),
            ("t", Some(sequence)) => Name::Taken(Token::parse(first)?, Sequence(number(sequence)?)),
            ("r", None) => Name::Retained(Token::parse(first)?),
            ("d", Some(rest)) => Name::Delayed(number(first)?, number(rest)?),
            _ => return None,
        };
        Some(name)
    }

    /// The shard that keeps what is named; that of a retained message depends on its topic instead.
    pub fn shard(self, shards: u16) -> ShardId {
        match self {
            Name::Session(token)
            | Name::Cursor(token)
            | Name::Filter(token, _)
            | Name::Received(token, _)
            | Name::Outgoing(token, _)
            | Name::Complete(token, _)
            | Name::Note(token, _)
            | Name::Group(token)
            | Name::Taken(token, _)
            | Name::Retained(token) => token.shard(shards),
            Name::Delayed(_, number) => {
                let shard = number % u64::from(shards.max(1));
                ShardId(u16::try_from(shard).expect("less than a u16"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_from_their_keys() {
        let (token, other) = (Token::of("a"), Token::of("b"));
        let packet_id = PacketId::new(0xbeef).unwrap();
        for name in [
            Name::Session(token),
            Name::Cursor(token),
            Name::Filter(token, other),
            Name::Received(token, packet_id),
            Name::Outgoing(token, PacketId::FIRST),
            Name::Complete(token, Sequence(7)),
            Name::Note(token, 0),
            Name::Note(token, u16::MAX),
            Name::Group(token),
            Name::Taken(token, Sequence::END),
            Name::Retained(token),
            Name::Delayed(1, u64::MAX),
        ] {
            assert_eq!(Name::parse(&name.key()), Some(name));
        }
        for other in ["s", "s.1", "q.1", "i.1.0000", "settings.a.b.c"] {
            assert_eq!(Name::parse(&Key::new(other).unwrap()), None, "{other}");
        }
    }
}

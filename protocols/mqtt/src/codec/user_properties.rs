//! User properties (MQTT 5 §2.2.2.2, identifier 0x26), read lazily: most are only passed on.

use std::fmt;

use super::{
    EncodeError,
    properties::{Property, PropertyList},
    reader::Reader,
    writer::{Sink, Trim},
};

/// User properties in their order; names may recur.
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A validated property block, in which other properties may stand as well.
    Block(&'a [u8]),
    Pairs(&'a [(String, String)]),
}

impl<'a> UserProperties<'a> {
    /// None.
    pub const EMPTY: UserProperties<'static> = UserProperties(Source::Block(&[]));

    /// These pairs of name and value.
    pub const fn new(pairs: &'a [(String, String)]) -> UserProperties<'a> {
        UserProperties(Source::Pairs(pairs))
    }

    pub(super) const fn of_block(block: &'a [u8]) -> UserProperties<'a> {
        UserProperties(Source::Block(block))
    }

    /// The pairs of name and value, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let (block, pairs): (&'a [u8], &'a [(String, String)]) = match self.0 {
            Source::Block(block) => (block, &[]),
            Source::Pairs(pairs) => (&[], pairs),
        };
        let mut rest = Reader::new(block);
        let from_block = std::iter::from_fn(move || {
            loop {
                if let (Property::UserProperty(pair), _) = Property::decode(&mut rest).ok()? {
                    return Some(pair);
                }
            }
        });
        from_block.chain(pairs.iter().map(|(name, value)| (&**name, &**value)))
    }

    /// The pairs as the broker core takes them.
    pub fn to_vec(self) -> Vec<(String, String)> {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

impl PropertyList for UserProperties<'_> {
    fn put(&self, trim: Trim, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if trim != Trim::Nothing {
            return Ok(());
        }
        self.iter()
            .try_for_each(|pair| Property::UserProperty(pair).put(sink))
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        UserProperties::EMPTY
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

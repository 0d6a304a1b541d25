//! Names of any length and alphabet as short, fixed ones.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::ShardId;

/// Stands for a client id, a filter or a topic in keys: the first 128 bits of its SHA-256, so that nobody can make
/// two names meet. Thirty-two hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u128);

impl Token {
    /// That of `name`.
    pub fn of(name: &str) -> Token {
        Token::of_parts(&[name])
    }

    /// That of several texts, in this order. Lengths count: `("ab", "c")` and `("a", "bc")` differ.
    pub fn of_parts(parts: &[&str]) -> Token {
        let mut hash = Sha256::new();
        for part in parts {
            if parts.len() > 1 {
                hash.update((part.len() as u64).to_be_bytes());
            }
            hash.update(part.as_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (head, _) = digest.split_first_chunk::<16>().expect("a digest has 32 bytes");
        Token(u128::from_be_bytes(*head))
    }

    /// From its text; `None` if that is none.
    pub fn parse(text: &str) -> Option<Token> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Token)
    }

    /// The shard of `shards` that what it names belongs to. The same in every process.
    pub fn shard(self, shards: u16) -> ShardId {
        let shard = self.0 % u128::from(shards.max(1));
        ShardId(u16::try_from(shard).expect("less than a u16"))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_head_of_sha_256() {
        // FIPS 180-2, appendix B.1: the digest of "abc".
        assert_eq!(Token::of("abc").to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(
            Token::parse("ba7816bf8f01cfea414140de5dae2223"),
            Some(Token::of("abc"))
        );
        assert_eq!(Token::parse("+a7816bf8f01cfea414140de5dae2223"), None);
        assert_ne!(Token::of_parts(&["ab", "c"]), Token::of_parts(&["a", "bc"]));
    }
}

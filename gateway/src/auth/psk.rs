//! The file of pre-shared keys of a DTLS listener.

use std::{collections::HashMap, fmt, path::Path, sync::Arc};

use thiserror::Error;

/// The pre-shared keys (RFC 4279) of a file, by identity.
///
/// One per line, in the form of EMQX's `psk_authentication.init_file`:
///
/// ```text
/// # a comment; blank lines are skipped
/// meter-17:8c701116e9127c57a99d5563709af3deaca75563e2c4dd0865701ae839fb6d79
/// meter-18:hex:8c701116e9127c57a99d5563709af3de
/// ```
///
/// The identity ends at the first colon. What follows is the key: the bytes of the text, or, after `hex:`, bytes in
/// hexadecimal. So the key of the first line has 64 bytes, that of the second 16. An identity must not be empty, begin
/// with `#`, begin or end with blanks, or hold control characters; it stands once.
#[derive(Clone, Default)]
pub struct PskTable {
    keys: HashMap<Box<str>, Arc<[u8]>>,
}

/// Why a file of pre-shared keys cannot be used. No message shows a key.
#[derive(Debug, Error)]
pub enum PskError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: PskLineError,
    },
    /// It has no key, so that nobody could connect.
    #[error("{path} holds no key; write lines of the form IDENTITY:KEY")]
    Empty {
        /// The file.
        path: String,
    },
}

/// What is wrong with a line of a file of pre-shared keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PskLineError {
    /// It has no colon.
    #[error("expected IDENTITY:KEY")]
    NoColon,
    /// Its identity is not allowed.
    #[error(
        "the identity is longer than {} bytes, empty, begins or ends with a blank, or has a control character",
        PskTable::IDENTITY_BYTES_MAX
    )]
    Identity,
    /// Its identity stands in an earlier line, too.
    #[error("the identity of line {0} again; remove one of the two lines")]
    Twice(usize),
    /// Its key has no bytes, or too many.
    #[error("the key has {0} bytes; allowed: 1 to {max}", max = PskTable::KEY_BYTES_MAX)]
    Length(usize),
    /// Its key is not hexadecimal.
    #[error("after `hex:` the key must be pairs of hexadecimal digits")]
    Hex,
}

impl PskTable {
    /// Longest identity; RFC 4279 §5.3 wants at least 128.
    pub const IDENTITY_BYTES_MAX: usize = 256;
    /// Longest key; RFC 4279 §5.3 wants at least 64.
    pub const KEY_BYTES_MAX: usize = 256;

    /// Reads a file of pre-shared keys.
    ///
    /// # Errors
    ///
    /// It cannot be read, the first wrong line, or that it holds no key.
    pub fn read(path: &Path) -> Result<PskTable, PskError> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| PskError::Read { path: name(), source })?;
        let table = PskTable::parse(&text).map_err(|(line, problem)| PskError::Line {
            path: name(),
            line,
            problem,
        })?;
        if table.keys.is_empty() {
            return Err(PskError::Empty { path: name() });
        }
        Ok(table)
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    ///
    /// The number of the first wrong line, from 1, and what is wrong.
    pub fn parse(text: &str) -> Result<PskTable, (usize, PskLineError)> {
        let mut table = PskTable::default();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (identity, key) = parse_line(line).map_err(|problem| (number, problem))?;
            if let Some(earlier) = lines.insert(identity, number) {
                return Err((number, PskLineError::Twice(earlier)));
            }
            table.keys.insert(identity.into(), key.into());
        }
        Ok(table)
    }

    /// The key of an identity.
    pub fn get(&self, identity: &str) -> Option<&[u8]> {
        self.keys.get(identity).map(|key| &**key)
    }
}

/// Never the keys.
impl fmt::Debug for PskTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PskTable({} identities)", self.keys.len())
    }
}

fn parse_line(line: &str) -> Result<(&str, Vec<u8>), PskLineError> {
    let (identity, key) = line.split_once(':').ok_or(PskLineError::NoColon)?;
    let is_allowed = (1..=PskTable::IDENTITY_BYTES_MAX).contains(&identity.len())
        && identity.trim() == identity
        && !identity.contains(char::is_control);
    if !is_allowed {
        return Err(PskLineError::Identity);
    }
    let key = match key.strip_prefix("hex:") {
        Some(digits) => parse_hex(digits).ok_or(PskLineError::Hex)?,
        None => key.as_bytes().to_vec(),
    };
    if (1..=PskTable::KEY_BYTES_MAX).contains(&key.len()) {
        Ok((identity, key))
    } else {
        Err(PskLineError::Length(key.len()))
    }
}

fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.trim_end().as_bytes().chunks(2);
    pairs
        .map(|pair| match *pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_or_hexadecimal() {
        let table = PskTable::parse("# c\r\n\na:secret\nb c:hex:00fF\r\nd:x:y \n").unwrap();
        let keys = ["a", "b c", "d", "e"].map(|identity| table.get(identity));
        assert_eq!(keys, [Some(&b"secret"[..]), Some(&[0, 255]), Some(b"x:y "), None]);
    }

    #[test]
    fn wrong_lines() {
        let long = "x".repeat(257);
        for (text, expected) in [
            ("a", (1, PskLineError::NoColon)),
            ("\n:k", (2, PskLineError::Identity)),
            (" a:k", (1, PskLineError::Identity)),
            ("a\tb:k", (1, PskLineError::Identity)),
            (&format!("{long}:k"), (1, PskLineError::Identity)),
            ("a:", (1, PskLineError::Length(0))),
            ("a:hex:", (1, PskLineError::Length(0))),
            (&format!("a:{long}"), (1, PskLineError::Length(257))),
            ("a:hex:0", (1, PskLineError::Hex)),
            ("a:hex:0g", (1, PskLineError::Hex)),
            ("a:k\nb:k\na:l", (3, PskLineError::Twice(1))),
        ] {
            assert_eq!(PskTable::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn no_key_is_shown() {
        let table = PskTable::parse("a:very secret").unwrap();
        assert_eq!(format!("{table:?}"), "PskTable(1 identities)");
        for text in ["very secret", "a:hex:very secret", "a:very secret\na:very secret"] {
            let (_, problem) = PskTable::parse(text).unwrap_err();
            assert!(!format!("{problem} {problem:?}").contains("very"), "{problem}");
        }
    }
}

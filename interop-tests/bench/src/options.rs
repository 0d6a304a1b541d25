//! The command line: a scenario and `--name value` pairs.

use std::{collections::BTreeMap, str::FromStr};

/// What is wrong with the command line.
pub(crate) type Error = String;

/// The options that were given.
pub(crate) struct Options {
    given: BTreeMap<String, String>,
}

impl Options {
    /// # Errors
    ///
    /// If a name is none of `known`, or has no value.
    pub(crate) fn new(mut words: impl Iterator<Item = String>, known: &[&str]) -> Result<Options, Error> {
        let mut given = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .filter(|name| known.contains(name))
                .ok_or_else(|| format!("unknown option {word}; known: --{}", known.join(" --")))?;
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            given.insert(name.to_owned(), value);
        }
        Ok(Options { given })
    }

    /// The value of an option, or its default.
    ///
    /// # Errors
    ///
    /// If the value is none of its type.
    pub(crate) fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, Error> {
        match self.given.get(name) {
            None => Ok(default),
            Some(value) => value
                .parse()
                .map_err(|_| format!("--{name} {value} is no such value")),
        }
    }

    /// The value of an option that may be left out.
    ///
    /// # Errors
    ///
    /// If the value is none of its type.
    pub(crate) fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        match self.given.get(name).map(|value| value.parse()) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(format!("--{name} has no such value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, Error> {
        Options::new(line.split_whitespace().map(str::to_owned), &["qos", "size"])
    }

    #[test]
    fn values_have_types_and_defaults() {
        let options = options("--qos 1").unwrap();
        assert_eq!(options.get("qos", 0u8), Ok(1));
        assert_eq!(options.get("size", 64usize), Ok(64));
        assert_eq!(options.optional::<u32>("size"), Ok(None));
    }

    #[test]
    fn mistakes_are_told() {
        assert!(options("--qps 1").is_err());
        assert!(options("--qos").is_err());
        assert!(options("--qos one").unwrap().get("qos", 0u8).is_err());
    }
}

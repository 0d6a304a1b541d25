//! What is wrong with a configuration, and where.

use std::{fmt, path::Path, sync::Arc};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// It is built in.
    Default,
    /// A line of a file.
    File {
        /// The file, as it was named.
        path: Arc<Path>,
        /// Line, from 1; 0 stands for the file as a whole.
        line: usize,
        /// Character in the line, from 1.
        column: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The argument of an option `--set`.
    Argument(String),
}

/// As compilers write places, so that editors find them.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("built-in default"),
            Origin::File { path, line: 0, .. } => path.display().fmt(f),
            Origin::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Argument(argument) => write!(f, "--set {argument}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it stands; [`Origin::Default`] if it is about something that stands nowhere.
    pub origin: Origin,
    /// What is wrong and what would be right, in one line.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.message),
            origin => write!(f, "{origin}: {}", self.message),
        }
    }
}

/// Everything that is wrong, in the order in which it was read; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One line per error.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

//! `tidegate config`.

use std::fmt::Write as _;

use clap::Subcommand;

use super::Failure;
use crate::config::{self, Loaded, Sources};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration and the files that it names, without starting
    Check,
    /// Say what a key means, what its value is and where that comes from
    Explain {
        /// The key, or the start of several, such as `mqtt`
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Print the whole configuration in the syntax of files, with the origin of each value
    Dump,
}

impl ConfigCommand {
    pub(super) fn run(&self, sources: &Sources) -> Result<String, Failure> {
        let loaded = config::load(sources)?;
        match self {
            ConfigCommand::Check => {
                config::check_files(&loaded)?;
                Ok(summary(&loaded))
            }
            ConfigCommand::Explain { key } => config::explain(&loaded, key).map_err(Failure::Usage),
            ConfigCommand::Dump => Ok(config::dump(&loaded)),
        }
    }
}

fn summary(loaded: &Loaded) -> String {
    let mut text = "the configuration is valid\n".to_owned();
    for listener in &loaded.settings.listeners {
        let _ = match listener.disabled_because() {
            None => writeln!(text, "{} on {}", listener.id(), listener.bind),
            Some(reason) => writeln!(text, "{} off: {reason}", listener.id()),
        };
    }
    let mqttsn = &loaded.settings.mqttsn;
    for listener in &mqttsn.listeners {
        let _ = match mqttsn.disabled_because(listener) {
            None => writeln!(text, "{} on {}", listener.id(), listener.bind),
            Some(reason) => writeln!(text, "{} off: {reason}", listener.id()),
        };
    }
    text
}

//! Logs: one line per event on standard error, as text or JSON.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{fmt, prelude::*, registry};

use crate::config::{Log, LogFormat, LogLevel};

/// Installs the log for the whole process. Called a second time it changes nothing.
pub fn install(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let layer = fmt::layer().with_writer(io::stderr).with_target(false);
    let installed = match log.format {
        LogFormat::Text => registry().with(level).with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry()
            .with(level)
            .with(layer.json().flatten_event(true))
            .try_init(),
    };
    if installed.is_err() {
        tracing::debug!("the application has installed a log of its own");
    }
}

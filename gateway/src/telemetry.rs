//! Logs: one line per event on standard error, as text or JSON.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{fmt, prelude::*, registry};

use crate::config::{Log, LogFormat, LogLevel};

/// Lines that wait for a slow reader of standard error; beyond, lines are dropped rather than workers held up.
const LINES_MAX: usize = 65_536;

/// Writes what waits when it is dropped.
#[must_use = "the log ends with it"]
pub struct LogGuard(#[expect(dead_code, reason = "it is kept for its drop")] WorkerGuard);

/// Installs the log for the whole process. A thread of its own writes the lines, so that no worker waits for whoever
/// reads them. Called a second time it changes nothing.
pub fn install(log: Log) -> LogGuard {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let builder = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX);
    let (writer, guard) = builder.thread_name("log").finish(io::stderr());
    let layer = fmt::layer().with_writer(writer).with_target(false);
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
    LogGuard(guard)
}

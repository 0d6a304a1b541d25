//! The socket through which an operator's command reaches a running node: `control.sock` in its data directory.
//!
//! Only the user that the node runs as can open it (mode 0600), and nothing that a client can do over the network
//! reaches it. A connection carries one request, a line of at most 4096 bytes of UTF-8:
//!
//! | request | answer |
//! |---|---|
//! | `backup PATH` | writes an archive of the store as it is now to a new file, whose path is absolute |
//! | `stats` | the numbers of the store |
//!
//! The answer consists of lines of at most 4096 bytes: `progress DONE TOTAL` in bytes, any number of times, with a total
//! of 0 if it is not known; `text TEXT`, what is to be said; and at last `end`, or `error TEXT` if it went wrong. An
//! answer without its last line is cut off.
//!
//! The node serves one connection at a time; the next waits. Who sends no request for five seconds, or takes nothing of
//! the answer for ten, is disconnected; what it has asked for goes on.

mod client;
mod server;

use std::path::PathBuf;

pub(crate) use client::request;
pub(crate) use server::{ControlSocket, Service};

/// Name of the socket in the data directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Bytes of the longest line in either direction, its end included.
const LINE_BYTES_MAX: usize = 4096;

/// What a node is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// An archive of the store as it is now, in a new file.
    Backup(PathBuf),
    /// The numbers of the store.
    Stats,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// How far it is.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all; 0: not known.
        total: u64,
    },
    /// A line to be shown.
    Text(String),
}

impl Request {
    /// The line, without its end; `None` if it cannot be written as one.
    fn to_line(&self) -> Option<String> {
        let line = match self {
            Request::Stats => "stats".to_owned(),
            Request::Backup(path) => format!("backup {}", path.to_str()?),
        };
        (Request::parse(&line).as_ref() == Some(self) && line.len() < LINE_BYTES_MAX).then_some(line)
    }

    /// `None` if it is no request.
    fn parse(line: &str) -> Option<Request> {
        if line.chars().any(char::is_control) {
            return None;
        }
        match line.split_once(' ') {
            None => (line == "stats").then_some(Request::Stats),
            Some(("backup", path)) => Some(Request::Backup(path.into())).filter(|_| path.starts_with('/')),
            Some(_) => None,
        }
    }
}

impl Answer {
    /// The line, without its end.
    fn to_line(&self) -> String {
        match self {
            Answer::Progress { done, total } => format!("progress {done} {total}"),
            Answer::Text(text) => format!("text {}", one_line(text)),
        }
    }

    /// `None` if it is none.
    fn parse(line: &str) -> Option<Answer> {
        match line.split_once(' ')? {
            ("text", text) => Some(Answer::Text(text.to_owned())),
            ("progress", numbers) => {
                let (done, total) = numbers.split_once(' ')?;
                let (done, total) = (done.parse().ok()?, total.parse().ok()?);
                Some(Answer::Progress { done, total })
            }
            _ => None,
        }
    }
}

/// As much of `text` as fits a line, with blanks for its own ends of lines.
fn one_line(text: &str) -> String {
    let mut line = text.replace(char::is_control, " ");
    line.truncate(line.floor_char_boundary(LINE_BYTES_MAX - 16));
    line
}

#[cfg(test)]
mod tests;

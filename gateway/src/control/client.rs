use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use super::{Answer, LINE_BYTES_MAX, Request, SOCKET};

/// Why a running node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// What is asked cannot be said in one line.
    #[error("the path is too long, or not a line of UTF-8")]
    Request,
    /// Nobody listens there, or this user may not ask.
    #[error("cannot reach the node through {}: {cause}; are you the user that it runs as?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The node says why.
    #[error("the node answers: {0}")]
    Refused(String),
    /// The answer is not one.
    #[error("the node's answer is in an unknown form")]
    Answer,
    /// The answer has no end.
    #[error("the node's answer is cut off; look at its log")]
    CutOff,
}

/// Asks the node that runs on this data directory, and passes on what it answers.
pub(crate) fn request(
    dir: &Path,
    request: &Request,
    tell: &mut dyn FnMut(Answer),
) -> Result<(), ControlError> {
    let line = request.to_line().ok_or(ControlError::Request)?;
    let path = dir.join(SOCKET);
    let connected = UnixStream::connect(&path).and_then(|mut stream| {
        writeln!(stream, "{line}")?;
        Ok(stream)
    });
    match connected {
        Ok(stream) => receive(&mut BufReader::new(stream), tell),
        Err(cause) => Err(ControlError::Unreachable { path, cause }),
    }
}

/// Reads one answer.
pub(super) fn receive(input: &mut impl BufRead, tell: &mut dyn FnMut(Answer)) -> Result<(), ControlError> {
    loop {
        let mut line = Vec::new();
        let read = input.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        let Some(line) = line.strip_suffix(b"\n").filter(|_| read.is_ok()) else {
            return Err(ControlError::CutOff);
        };
        let line = String::from_utf8_lossy(line);
        if line == "end" {
            return Ok(());
        }
        if let Some(problem) = line.strip_prefix("error ") {
            return Err(ControlError::Refused(problem.to_owned()));
        }
        tell(Answer::parse(&line).ok_or(ControlError::Answer)?);
    }
}

//! One TCP connection that carries packets.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::wire::{self, Packet, Version};

/// A broker that does not take bytes for so long is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    version: Version,
    received: Vec<u8>,
    start: usize,
}

impl Link {
    /// Connects; `wait` is how long [`Link::receive`] waits for bytes.
    pub(crate) fn open(address: SocketAddr, version: Version, wait: Duration) -> io::Result<Link> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Link {
            stream,
            version,
            received: Vec::new(),
            start: 0,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// A packet that has come already.
    pub(crate) fn buffered(&mut self) -> io::Result<Option<Packet>> {
        match wire::decode(self.version, &self.received[self.start..]) {
            Ok(Some((packet, len))) => {
                self.start += len;
                Ok(Some(packet))
            }
            Ok(None) => {
                self.received.drain(..self.start);
                self.start = 0;
                Ok(None)
            }
            Err(malformed) => Err(io::Error::new(ErrorKind::InvalidData, malformed.0)),
        }
    }

    /// The next packet; `None`: none came in time. The end of the connection is an error.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Packet>> {
        if let Some(packet) = self.buffered()? {
            return Ok(Some(packet));
        }
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.received.extend(&chunk[..len]);
                self.buffered()
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

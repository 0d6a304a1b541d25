//! A TCP socket that can go from one worker to another.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A socket is registered with the event queue of one thread; to move it, it leaves that queue and joins another's.
/// It lives in this type rather than in the link, so that a TLS session around it moves without being taken apart.
#[derive(Debug)]
pub(crate) struct Socket(State);

#[derive(Debug)]
enum State {
    Registered(TcpStream),
    Moving(std::net::TcpStream),
    /// Leaving or joining has failed; the socket is closed.
    Lost,
}

impl Socket {
    /// A socket that is registered with the calling thread's event queue.
    pub(crate) fn new(stream: TcpStream) -> Socket {
        Socket(State::Registered(stream))
    }

    /// Leaves the event queue. It can be neither read nor written then.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Registered(stream) => State::Moving(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Joins the calling thread's event queue, if it is in none.
    pub(crate) fn join(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Moving(stream) => State::Registered(TcpStream::from_std(stream)?),
            other => other,
        };
        Ok(())
    }

    /// The socket, where it is registered.
    pub(crate) fn stream(&mut self) -> io::Result<&mut TcpStream> {
        match &mut self.0 {
            State::Registered(stream) => Ok(stream),
            State::Moving(_) | State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.stream()?).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.stream()?).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_shutdown(cx)
    }
}

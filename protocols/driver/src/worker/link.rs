//! One connection: its peer, its transport and what waits between them.

use std::{
    fmt::Display,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use broker_core::{Close, LinkId, Outbox, Peer, Timestamp};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{
    moving::Move,
    ports::Route,
    wake::{Ready, Source, SourceWake},
};
use crate::{
    listener::Permit,
    socket::Socket,
    websocket::{End, WebSocket, limit},
};

/// Slices given to one vectored write.
const SLICES: usize = 32;

/// Takes the bytes that the peer of an in-process link sends.
pub(super) type Sink = Box<dyn FnMut(Bytes) + Send>;

/// How the bytes travel below WebSocket.
pub(crate) enum Io {
    /// TCP.
    Tcp(Socket),
    /// TLS over TCP. Boxed: it is an order of magnitude larger.
    Tls(Box<TlsStream<Socket>>),
    /// As datagrams, by the socket of its listener on this worker. Boxed for the sake of the others.
    Datagram(Box<Route>),
    /// Not at all: the peer lives in this process.
    Internal(Option<Sink>),
}

/// ```text
/// Open ──the peer, the client or the server ends it──> Closing ──all is written──> Lingering ──> removed
///   └──────────────── the transport fails ───────────────┴────────────────────────────┴───────> removed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The peer is in charge.
    Open,
    /// The peer is not called any more; its last bytes go out.
    Closing {
        /// Whether the client may still be sending, so that the socket must not be closed at once.
        linger: bool,
    },
    /// Everything is sent and the sending side is shut; what comes in is dropped until the client closes, too.
    Lingering,
}

/// Why the transport is of no use any more.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    SendTimeout,
    OutboxFull,
}

/// One connection.
pub(crate) struct Link {
    pub(super) peer: Box<dyn Peer>,
    pub(super) io: Io,
    pub(super) websocket: Option<Box<WebSocket>>,
    /// The WebSocket client has said goodbye, behind packets that the peer has yet to look at.
    pub(super) goodbye: Option<Box<End>>,
    pub(super) outbox: Outbox,
    /// Input that the peer has not used yet: mostly the beginning of a packet.
    pub(super) leftover: Vec<u8>,
    pub(super) state: State,
    pub(super) failure: Option<Failure>,
    pub(super) wake: Option<(Arc<SourceWake>, Waker)>,
    /// The client belongs to another shard.
    pub(super) moving: Option<Box<Move>>,
    /// The link's earliest entry in the worker's timers.
    pub(super) alarm: Timestamp,
    /// The driver's own deadline: for progress in writing, or for lingering.
    pub(super) deadline: Timestamp,
    pub(super) permit: Option<Permit>,
    pub(super) address: Option<SocketAddr>,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// It stands in the worker's list of links to settle.
    pub(super) touched: bool,
    /// The shard was told that too much waits.
    pub(super) congested: bool,
    /// The transport does not take more at the moment.
    pub(super) write_blocked: bool,
    /// Reading was given up until something changes.
    pub(super) read_paused: bool,
    /// It stands in the worker's list of links that wait until batches have left.
    pub(super) held_up: bool,
    /// The shard has asked not to read it, because the store is behind with what it has caused.
    pub(super) held: bool,
    /// Its owner has nudged it while it was held.
    pub(super) nudged: bool,
    /// `leftover` may hold whole packets: the peer was parked, or the link held, when it was offered.
    pub(super) reoffer: bool,
}

/// What a round of writing came to.
pub(super) enum Written {
    /// Nothing waits any more.
    All,
    /// Something waits; `true` if some of it went out.
    Blocked(bool),
    /// The transport has failed.
    Failed(io::Error),
}

impl Link {
    pub(super) fn new(id: LinkId, peer: Box<dyn Peer>, io: Io, ready: &Arc<Ready>) -> Link {
        let mut link = Link {
            peer,
            io,
            websocket: None,
            goodbye: None,
            outbox: Outbox::new(),
            leftover: Vec::new(),
            state: State::Open,
            failure: None,
            wake: None,
            moving: None,
            alarm: Timestamp::NEVER,
            deadline: Timestamp::NEVER,
            permit: None,
            address: None,
            received: 0,
            sent: 0,
            touched: false,
            congested: false,
            write_blocked: false,
            read_paused: false,
            held_up: false,
            held: false,
            nudged: false,
            reoffer: false,
        };
        link.register(id, ready);
        link
    }

    /// Lets the socket, if there is one, wake the link by this id.
    pub(super) fn register(&mut self, id: LinkId, ready: &Arc<Ready>) {
        if matches!(self.io, Io::Tcp(_) | Io::Tls(_)) {
            let wake = SourceWake::new(Source::Link(id), ready.clone());
            self.wake = Some((wake.clone(), Waker::from(wake)));
        }
    }

    /// The peer takes input, as far as the link itself is concerned.
    pub(super) fn takes_input(&self, high_water: usize) -> bool {
        self.state == State::Open
            && self.failure.is_none()
            && self.moving.is_none()
            && !self.held
            && self.outbox.len() < high_water
            && !self.peer.is_parked()
    }

    /// When the peer wants to be called; `NEVER` while it gets no call. A client whose input is not read because it
    /// takes its output slowly is not silent: its sending has a deadline of its own. Neither is one that waits for this
    /// worker or for the store.
    pub(super) fn peer_deadline(&self, high_water: usize) -> Timestamp {
        let is_held_back = self.held_up || self.held || (self.read_paused && self.outbox.len() >= high_water);
        if self.state == State::Open && !is_held_back {
            self.peer.poll_timeout().unwrap_or(Timestamp::NEVER)
        } else {
            Timestamp::NEVER
        }
    }

    /// The peer ends the connection, or somebody does it in its place: whatever waits still goes out.
    pub(super) fn begin_close(&mut self, linger: bool, code: u16) {
        if let Some(websocket) = &mut self.websocket {
            websocket.encoder.close(code);
        }
        self.leftover = Vec::new();
        self.reoffer = false;
        self.goodbye = None;
        self.state = State::Closing { linger };
    }

    /// Bytes into `buffer`. Pending also means that the link will be woken.
    pub(super) fn poll_read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some((_, waker)) = &self.wake else {
            return Poll::Pending;
        };
        let mut context = Context::from_waker(waker);
        let mut buffer = ReadBuf::new(buffer);
        let result = match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_read(&mut context, &mut buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(&mut context, &mut buffer),
            Io::Datagram(_) | Io::Internal(_) => Poll::Pending,
        };
        result.map(|result| result.map(|()| buffer.filled().len()))
    }

    /// Writes what the transport takes.
    pub(super) fn write(&mut self) -> Written {
        let Some((_, waker)) = &self.wake else {
            self.write_internal();
            return Written::All;
        };
        let waker = waker.clone();
        let mut context = Context::from_waker(&waker);
        let mut progress = false;
        loop {
            match self.write_some(&mut context) {
                Some(Poll::Ready(Ok(0))) => return Written::Failed(io::ErrorKind::WriteZero.into()),
                Some(Poll::Ready(Ok(_))) => progress = true,
                Some(Poll::Ready(Err(error))) => return Written::Failed(error),
                Some(Poll::Pending) => return Written::Blocked(progress),
                None => break,
            }
        }
        let flushed = match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_flush(&mut context),
            Io::Tcp(_) | Io::Datagram(_) | Io::Internal(_) => Poll::Ready(Ok(())),
        };
        match flushed {
            Poll::Ready(Ok(())) => Written::All,
            Poll::Ready(Err(error)) => Written::Failed(error),
            Poll::Pending => Written::Blocked(progress),
        }
    }

    fn write_internal(&mut self) {
        if !self.outbox.is_empty() {
            let bytes = self.outbox.take();
            self.sent += bytes.len() as u64;
            if let Io::Internal(Some(sink)) = &mut self.io {
                sink(bytes);
            }
        }
    }

    /// One write; `None` if nothing waits.
    ///
    /// Small packets already lie one after the other in the outbox, so there is nothing to gain by copying slices
    /// together here.
    fn write_some(&mut self, context: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let mut payload = self.outbox.len();
        if let Some(websocket) = &mut self.websocket {
            payload = websocket.encoder.prepare(payload);
            if payload == 0 && websocket.encoder.prefix().is_empty() {
                // What was put after the Close frame can no longer be said (RFC 6455 §5.5.1).
                self.outbox.take();
                return None;
            }
        } else if payload == 0 {
            return None;
        }
        let mut waiting = [IoSlice::new(&[]); SLICES - 1];
        let count = self.outbox.slices(&mut waiting);
        let result = match &self.websocket {
            None => write_slices(&mut self.io, context, &waiting[..count]),
            Some(websocket) => {
                let mut framed = [IoSlice::new(&[]); SLICES];
                framed[0] = IoSlice::new(websocket.encoder.prefix());
                let from = usize::from(framed[0].is_empty());
                let count = 1 + limit(&waiting[..count], payload, &mut framed[1..]);
                write_slices(&mut self.io, context, &framed[from..count])
            }
        };
        if let Poll::Ready(Ok(count)) = result {
            self.sent += count as u64;
            let payload = match &mut self.websocket {
                None => count,
                Some(websocket) => websocket.encoder.advance(count),
            };
            self.outbox.advance(payload);
        }
        Some(result)
    }

    /// Tells the other side that nothing follows.
    pub(super) fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        let Some((_, waker)) = &self.wake else {
            return Poll::Ready(Ok(()));
        };
        let mut context = Context::from_waker(waker);
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(&mut context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(&mut context),
            Io::Datagram(_) | Io::Internal(_) => Poll::Ready(Ok(())),
        }
    }

    /// How the datagrams of the link go; `None` for another kind of link.
    pub(super) fn route(&self) -> Option<&Route> {
        match &self.io {
            Io::Datagram(route) => Some(route),
            _ => None,
        }
    }

    /// Who the client is to the network, for the log.
    fn remote(&self) -> Option<Box<dyn Display + '_>> {
        match &self.io {
            Io::Datagram(route) => route.remote.as_ref().map(|remote| Box::new(remote) as _),
            _ => self.address.map(|address| Box::new(address) as _),
        }
    }

    /// One line for the log. Anybody can have a datagram peer opened, so of those whose clients were not admitted there
    /// is one line a second.
    pub(super) fn log_end(&self, id: LinkId, close: &Close, now: Timestamp) {
        let is_stranger = self.route().is_some() && self.peer.client_id().is_none();
        let mut suppressed = None;
        if let Some(permit) = self.permit.as_ref().filter(|_| is_stranger) {
            suppressed = permit.allows_line(now);
            if suppressed.is_none() {
                return;
            }
        }
        let listener = self.permit.as_ref().map_or("internal", Permit::listener_name);
        tracing::info!(
            link = id.0,
            client = self.peer.client_id(),
            listener,
            peer = self.remote().map(tracing::field::display),
            reason = close.reason,
            detail = close.detail,
            received = self.received,
            sent = self.sent,
            suppressed,
            "disconnected"
        );
    }
}

fn write_slices(io: &mut Io, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    match (io, slices) {
        (Io::Tcp(stream), [one]) => Pin::new(stream).poll_write(context, one),
        (Io::Tcp(stream), many) => Pin::new(stream).poll_write_vectored(context, many),
        (Io::Tls(stream), many) => Pin::new(stream).poll_write_vectored(context, many),
        (Io::Datagram(_) | Io::Internal(_), _) => Poll::Pending,
    }
}

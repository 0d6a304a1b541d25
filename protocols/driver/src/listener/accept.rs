//! The task that accepts, and how a socket comes to its worker.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use broker_core::Request;
use tokio::net::{TcpListener, TcpStream};

use super::{Core, Mailbox, Permit, handshake};
use crate::{
    CallError, ConnectionMeta, Counters, PeerFactory, Service,
    socket::Socket,
    worker::{Command, Io, Link},
};

/// Pause after an error that lasts, such as no free file descriptor: doubled up to the second value.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What comes to a worker from listeners.
pub(crate) enum Arrival {
    /// Accept on this worker.
    Listener(Task),
    /// A new socket.
    Socket(Accepted),
    /// A connection whose handshakes are done.
    Established(Box<Established>),
    /// A link whose client belongs to this worker's shard, and what its peer has asked so far.
    Moved(Box<Link>, Vec<Request>),
}

/// A connection that can become a link.
pub(crate) struct Established {
    pub(crate) io: Io,
    pub(crate) permit: Permit,
    pub(crate) meta: ConnectionMeta,
    pub(crate) factory: PeerFactory,
    /// Present for a WebSocket: largest message accepted, bytes.
    pub(crate) message_bytes_max: Option<u64>,
    /// Bytes that came in together with the handshake.
    pub(crate) early: Vec<u8>,
}

/// One listening socket and where it stands in giving out sockets.
pub(crate) struct Task {
    core: Arc<Core>,
    socket: std::net::TcpListener,
    /// The worker that runs this task.
    home: usize,
}

impl Task {
    pub(super) fn new(core: Arc<Core>, socket: std::net::TcpListener, home: usize) -> Task {
        Task { core, socket, home }
    }

    /// Runs on the runtime of the calling worker.
    pub(crate) fn start(self) {
        match TcpListener::from_std(self.socket) {
            Ok(socket) => drop(tokio::spawn(accept(self.core, socket, self.home))),
            Err(error) => {
                let listener = &*self.core.config.info.name;
                tracing::error!(listener, %error, "cannot accept connections");
            }
        }
    }
}

async fn accept(core: Arc<Core>, socket: TcpListener, home: usize) {
    let mut next = home;
    let mut pause = BACKOFF.0;
    while !core.is_stopped.load(Relaxed) {
        let accepted = tokio::select! {
            () = core.stop.notified() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = BACKOFF.0;
                core.counters.accepted.fetch_add(1, Relaxed);
                let Some(permit) = core.seats.admit() else {
                    core.refuse("max_connections");
                    continue;
                };
                pass_on(&core, stream, peer, permit, next, home);
                next = (next + 1) % core.workers.len();
            }
            // The client has given up already; there may be others.
            Err(error) if is_of_one_connection(&error) => {
                core.counters.errors.fetch_add(1, Relaxed);
            }
            Err(error) => {
                core.counters.errors.fetch_add(1, Relaxed);
                if let Some(suppressed) = core.failures.allows(core.clock.now()) {
                    let listener = &*core.config.info.name;
                    tracing::warn!(listener, %error, suppressed, "cannot accept; raise the limit of open files?");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn pass_on(core: &Arc<Core>, stream: TcpStream, peer: SocketAddr, permit: Permit, to: usize, home: usize) {
    let mut stream = Socket::new(stream);
    if to != home && stream.leave().is_err() {
        return core.refuse("socket error");
    }
    let accepted = Accepted {
        core: core.clone(),
        stream,
        peer,
        permit,
    };
    match core.workers[to]
        .mailbox()
        .send(Command::Arrival(Arrival::Socket(accepted)))
    {
        Ok(()) => {}
        Err(CallError::Busy) => core.refuse("worker overloaded"),
        Err(CallError::Ended) => core.refuse("shutting down"),
    }
}

/// A socket on its way to its worker.
pub(crate) struct Accepted {
    core: Arc<Core>,
    stream: Socket,
    peer: SocketAddr,
    permit: Permit,
}

impl Accepted {
    /// On its worker now: a plain connection is established at once, for the others the handshakes begin, as a task
    /// of their own.
    pub(crate) fn begin(
        mut self,
        mailbox: &Arc<Mailbox>,
        counters: &Arc<Counters>,
    ) -> io::Result<Option<Box<Established>>> {
        self.stream.join()?;
        let core = self.core;
        #[cfg(not(target_os = "linux"))]
        self.stream.stream()?.set_nodelay(core.config.nodelay)?;
        let local = if core.is_wildcard {
            self.stream.stream()?.local_addr()?
        } else {
            core.address
        };
        let meta = ConnectionMeta {
            listener: core.config.info.clone(),
            peer: canonical(self.peer),
            local: canonical(local),
            certificate: None,
            websocket: None,
        };
        if let (None, Service::Stream(factory)) = (&core.tls, &core.config.service) {
            return Ok(Some(Box::new(Established {
                io: Io::Tcp(self.stream),
                permit: self.permit,
                meta,
                factory: factory.clone(),
                message_bytes_max: None,
                early: Vec::new(),
            })));
        }
        handshake::spawn(
            core,
            self.stream,
            meta,
            self.permit,
            mailbox.clone(),
            counters.clone(),
        );
        Ok(None)
    }
}

/// An IPv4 client of an IPv6 socket appears with its IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

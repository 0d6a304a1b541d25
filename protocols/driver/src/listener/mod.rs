//! Listening sockets: TCP, TLS, WebSocket and WebSocket over TLS are one type.

mod accept;
mod handshake;
mod seats;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use broker_core::Timestamp;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Notify;

pub(crate) use accept::{Arrival, Established};
pub(crate) use seats::{Permit, Seats};

use crate::{
    BindError, Clock, ListenError, ListenerConfig, TlsError, TlsSettings, WorkerHandle, tls,
    worker::{Command, Mailbox},
};

/// A listening socket. Dropping it stops it; connections that it has accepted live on.
pub struct Listener {
    core: Arc<Core>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Listener({} on {})",
            self.core.config.info.name, self.core.address
        )
    }
}

/// Counters of one listener, since it was opened.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    accepted: AtomicU64,
    refused: AtomicU64,
    errors: AtomicU64,
}

impl ListenerCounters {
    /// Connections accepted, those refused afterwards included.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections closed at once, because `max_connections` was reached or a worker had too much to do.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Errors of the system on accepting, such as no free file descriptor.
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }
}

/// What the listener, its accepting task and its connections share.
pub(crate) struct Core {
    config: ListenerConfig,
    address: SocketAddr,
    /// The local address of a connection must be asked of the system.
    is_wildcard: bool,
    tls: Option<Mutex<Arc<ServerConfig>>>,
    workers: Vec<WorkerHandle>,
    clock: Clock,
    seats: Arc<Seats>,
    counters: ListenerCounters,
    is_stopped: AtomicBool,
    stop: Notify,
    refusals: LogLimit,
    failures: LogLimit,
}

impl Listener {
    pub(crate) fn open(
        config: ListenerConfig,
        workers: &[WorkerHandle],
        clock: Clock,
    ) -> Result<Listener, ListenError> {
        let name = config.info.name.clone();
        let tls = match &config.tls {
            Some(settings) => Some(Mutex::new(tls::load(settings).map_err(|error| {
                ListenError::Tls {
                    listener: name.clone(),
                    error,
                }
            })?)),
            None => None,
        };
        let cannot_bind = |cause| BindError {
            listener: name.clone(),
            address: config.bind,
            cause,
        };
        let socket = bind(&config).map_err(cannot_bind)?;
        let address = socket.local_addr().map_err(cannot_bind)?;
        let core = Arc::new(Core {
            address,
            is_wildcard: address.ip().is_unspecified(),
            tls,
            workers: workers.to_vec(),
            clock,
            seats: Seats::new(config.info.clone(), config.max_connections, None),
            counters: ListenerCounters::default(),
            is_stopped: AtomicBool::new(false),
            stop: Notify::new(),
            refusals: LogLimit::default(),
            failures: LogLimit::default(),
            config,
        });
        // Listeners are spread over workers by their ports.
        let home = usize::from(address.port()) % workers.len();
        let task = accept::Task::new(core.clone(), socket, home);
        workers[home]
            .mailbox()
            .send(Command::Arrival(Arrival::Listener(task)))
            .map_err(|_| ListenError::Workers(name))?;
        Ok(Listener { core })
    }

    /// Its name, such as `tcp:default`.
    pub fn name(&self) -> &Arc<str> {
        &self.core.config.info.name
    }

    /// The address that it listens on, with the port that the system chose if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.core.address
    }

    /// Connections that it has accepted and that still exist, handshakes included. After [`Listener::stop`] it is
    /// drained once this is 0.
    pub fn connections(&self) -> usize {
        self.core.seats.taken()
    }

    /// Its counters.
    pub fn counters(&self) -> &ListenerCounters {
        &self.core.counters
    }

    /// Accepts nothing more and frees the port soon. Connections that exist are not touched.
    pub fn stop(&self) {
        self.core.is_stopped.store(true, Relaxed);
        self.core.stop.notify_one();
    }

    /// Reads the TLS files again. Handshakes that begin later use them; on an error the old ones stay in use.
    /// Without effect on a listener without TLS.
    pub fn reload_tls(&self, settings: &TlsSettings) -> Result<(), TlsError> {
        if let Some(current) = &self.core.tls {
            let new = tls::load(settings)?;
            *current.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Core {
    fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        let tls = self.tls.as_ref()?;
        Some(tls.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn refuse(&self, why: &str) {
        self.counters.refused.fetch_add(1, Relaxed);
        if let Some(suppressed) = self.refusals.allows(self.clock.now()) {
            let listener = &*self.config.info.name;
            tracing::warn!(listener, reason = why, suppressed, "connection refused");
        }
    }
}

/// Lets one log line through per second and counts the others.
#[derive(Default)]
pub(crate) struct LogLimit {
    next_millis: AtomicU64,
    suppressed: AtomicU64,
}

impl LogLimit {
    /// How many lines were suppressed before this one; `None` if this one is, too.
    pub(crate) fn allows(&self, now: Timestamp) -> Option<u64> {
        let next = self.next_millis.load(Relaxed);
        let now = now.as_millis();
        let is_mine = now >= next
            && self
                .next_millis
                .compare_exchange(next, now + 1000, Relaxed, Relaxed)
                .is_ok();
        if is_mine {
            return Some(self.suppressed.swap(0, Relaxed));
        }
        self.suppressed.fetch_add(1, Relaxed);
        None
    }
}

fn bind(config: &ListenerConfig) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(config.bind),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if config.bind.is_ipv6() {
        socket.set_only_v6(config.ipv6_only)?;
    }
    // A restart must not wait for connections of the last run to time out.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Linux hands this on to accepted sockets, which saves a system call for each.
    socket.set_tcp_nodelay(config.nodelay)?;
    socket.set_nonblocking(true)?;
    socket.bind(&config.bind.into())?;
    socket.listen(config.backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_let_through_once_a_second() {
        let limit = LogLimit::default();
        let at = Timestamp::from_millis;
        assert_eq!(limit.allows(at(5000)), Some(0));
        assert_eq!(limit.allows(at(5001)), None);
        assert_eq!(limit.allows(at(5999)), None);
        assert_eq!(limit.allows(at(6000)), Some(2));
    }
}

//! A datagram listener: one socket on each worker, and what they share.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{DatagramConfig, DatagramCounters, DtlsSettings, counters::Tally, parcel::Parcel, socket};
use crate::{
    BindError, ListenError, TlsError, WorkerHandle,
    dtls::DtlsServer,
    listener::{LogLimit, Seats},
    worker::Command,
};

/// An open datagram listener. Dropping it stops it.
pub struct DatagramListener {
    core: Arc<Core>,
}

impl fmt::Debug for DatagramListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DatagramListener({} on {})",
            self.core.config.info.name, self.core.address
        )
    }
}

/// What the sockets of a listener share.
pub(crate) struct Core {
    pub(crate) config: DatagramConfig,
    /// Names it among workers. Never used again.
    pub(crate) number: u32,
    pub(crate) address: SocketAddr,
    pub(crate) seats: Arc<Seats>,
    /// Lets a line about dropped datagrams through now and then.
    pub(crate) drops: LogLimit,
    pub(crate) is_stopped: Arc<AtomicBool>,
    /// Sockets that are open.
    sockets: AtomicUsize,
    tallies: Vec<Arc<Tally>>,
    workers: Vec<WorkerHandle>,
}

/// News for a worker about datagrams. Only parcels may be refused.
pub(crate) enum DatagramCommand {
    /// Serve this socket, from the next [`DatagramCommand::Start`] on.
    Open(Box<Opening>),
    /// Every worker has the socket of this listener now.
    Start(u32),
    /// The listener was stopped, or has no peers any more.
    Stop(u32),
    /// New handshakes are made with this.
    Reload(u32, Arc<DtlsServer>),
    /// From another worker.
    Parcel(Parcel),
}

/// A worker's part of a listener.
pub(crate) struct Opening {
    pub(crate) core: Arc<Core>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) socket: socket2::Socket,
    /// Where the group is heard; the first worker has it, if any has.
    pub(crate) group: Option<socket2::Socket>,
    pub(crate) is_first: bool,
    pub(crate) dtls: Option<Arc<DtlsServer>>,
}

impl DatagramListener {
    pub(crate) fn open(
        config: DatagramConfig,
        number: u32,
        workers: &[WorkerHandle],
    ) -> Result<DatagramListener, ListenError> {
        let name = config.info.name.clone();
        let dtls = config.dtls.as_ref().map(DtlsServer::load).transpose();
        let dtls = dtls.map_err(|error| ListenError::Tls {
            listener: name.clone(),
            error,
        })?;
        let bound = socket::bind(&config, workers.len()).map_err(|(address, cause)| BindError {
            listener: name.clone(),
            address,
            cause,
        })?;
        let is_stopped = Arc::new(AtomicBool::new(false));
        let emptied = {
            let (workers, is_stopped) = (workers.to_vec(), is_stopped.clone());
            move || {
                if is_stopped.load(Relaxed) {
                    tell_stop(&workers, number);
                }
            }
        };
        let core = Arc::new(Core {
            number,
            address: bound.address,
            seats: Seats::new(
                config.info.clone(),
                config.max_connections,
                Some(Box::new(emptied)),
            ),
            drops: LogLimit::default(),
            is_stopped,
            sockets: AtomicUsize::new(workers.len()),
            tallies: workers.iter().map(|_| Arc::default()).collect(),
            workers: workers.to_vec(),
            config,
        });
        let mut group = bound.group;
        for (index, (worker, socket)) in workers.iter().zip(bound.sockets).enumerate() {
            let opening = Opening {
                core: core.clone(),
                tally: core.tallies[index].clone(),
                socket,
                group: group.take(),
                is_first: index == 0,
                dtls: dtls.clone(),
            };
            core.tell(worker, DatagramCommand::Open(Box::new(opening)))?;
        }
        // Only now: what one worker passes on to another must find the socket there.
        for worker in workers {
            core.tell(worker, DatagramCommand::Start(number))?;
        }
        Ok(DatagramListener { core })
    }

    /// Its name, such as `udp:default`.
    pub fn name(&self) -> &Arc<str> {
        &self.core.config.info.name
    }

    /// The address that it is bound to, with the port that the system chose if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.core.address
    }

    /// Peers that exist, the common one not counted.
    pub fn connections(&self) -> usize {
        self.core.seats.taken()
    }

    /// Its counters.
    pub fn counters(&self) -> DatagramCounters {
        let mut sum = DatagramCounters::default();
        for tally in &self.core.tallies {
            tally.add_to(&mut sum);
        }
        sum
    }

    /// Takes no new peers. Those that exist are not touched, and as they need the sockets, these are closed once the
    /// last of them has ended, soon after [`DatagramListener::connections`] is 0.
    pub fn stop(&self) {
        if !self.core.is_stopped.swap(true, Relaxed) {
            tell_stop(&self.core.workers, self.core.number);
        }
    }

    /// Reads certificates and keys again. Handshakes that begin later use them; on an error the old ones stay in use.
    /// Without effect on a listener without DTLS.
    ///
    /// # Errors
    /// The first fault that is found.
    pub fn reload_dtls(&self, settings: &DtlsSettings) -> Result<(), TlsError> {
        if self.core.config.dtls.is_none() {
            return Ok(());
        }
        let server = DtlsServer::load(settings)?;
        for worker in &self.core.workers {
            let reload = DatagramCommand::Reload(self.core.number, server.clone());
            // One that has ended makes no handshakes.
            let _ = worker.mailbox().send(Command::Datagrams(reload));
        }
        Ok(())
    }

    /// True once a stopped listener has closed its sockets, so that its port is free.
    pub fn is_closed(&self) -> bool {
        self.core.sockets.load(Relaxed) == 0
    }
}

impl Drop for DatagramListener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets the workers look whether a stopped listener's sockets can be closed.
fn tell_stop(workers: &[WorkerHandle], number: u32) {
    for worker in workers {
        // One that has ended has closed them.
        let _ = worker
            .mailbox()
            .send(Command::Datagrams(DatagramCommand::Stop(number)));
    }
}

impl Core {
    fn tell(&self, worker: &WorkerHandle, command: DatagramCommand) -> Result<(), ListenError> {
        worker
            .mailbox()
            .send(Command::Datagrams(command))
            .map_err(|_| ListenError::Workers(self.config.info.name.clone()))
    }

    /// Where [`Destination::Broadcast`](broker_core::Destination) goes.
    pub(crate) fn broadcast(&self) -> Option<SocketAddr> {
        self.config.broadcast.filter(|_| self.config.dtls.is_none())
    }

    /// A worker has closed its socket.
    pub(crate) fn socket_closed(&self) {
        self.sockets.fetch_sub(1, Relaxed);
    }
}

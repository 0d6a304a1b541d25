//! A worker's sockets of datagram listeners: opened, timed and closed.

use std::{
    collections::VecDeque,
    io, mem,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Waker},
};

use broker_core::{Close, Endpoint, LinkId, Remote, ShardId, Timestamp, Transmit};

use super::{
    Worker,
    arena::Arena,
    link::Link,
    newcomers::Newcomer,
    secured::Secured,
    wake::{Source, SourceWake},
};
use crate::{
    datagram::{
        Core, DATAGRAM_BYTES_MAX, DatagramCommand, Datagrams, EndpointMeta, Groups, Opening, Parcel,
        RECEIVE_BATCH, RemoteRef, Table, Tally, Track,
    },
    dtls::{AssociationId, Outcome},
};

/// What a worker has of datagram listeners.
#[derive(Default)]
pub(super) struct DatagramSide {
    /// By the number of the listener.
    ports: Vec<Option<Box<Port>>>,
    /// Datagrams are read into it. Empty while in use, and before there is a socket.
    pub(super) buffer: Vec<u8>,
    groups: Groups,
    /// Who has sent the datagram that was read last, for the log.
    pub(super) last_from: Option<SocketAddr>,
    /// What other workers are told at the end of the turn, by [`ShardId`].
    pub(super) parcels: Vec<Parcel>,
    pub(super) transmits: Vec<Transmit>,
    pub(super) outcomes: Vec<Outcome>,
}

/// This worker's socket of one listener, and what belongs to it.
pub(super) struct Port {
    pub(super) core: Arc<Core>,
    pub(super) tally: Arc<Tally>,
    pub(super) io: Datagrams,
    /// Where the group is heard, if `io` does not hear it.
    pub(super) group: Option<Datagrams>,
    /// What is sent to a group reaches the sockets of all workers. This one's counts.
    pub(super) is_first: bool,
    /// On a DTLS listener.
    pub(super) secured: Option<Secured>,
    pub(super) endpoint: Box<dyn Endpoint>,
    pub(super) table: Table,
    /// Peers that were opened here, the oldest first: all of which only one datagram has come, and some others.
    pub(super) newcomers: VecDeque<Newcomer>,
    /// When the others were last asked to make room.
    pub(super) crowded_at: Timestamp,
    pub(super) common: Option<LinkId>,
    pub(super) wake: (Arc<SourceWake>, Waker),
    /// When the endpoint must be called.
    pub(super) alarm: Timestamp,
    /// Links whose datagrams the socket did not take.
    pub(super) blocked: Vec<LinkId>,
    /// It stands in the worker's list of those that wait until batches have left.
    pub(super) is_held_up: bool,
}

/// How the datagrams of a link go.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The number of the listener.
    pub(super) listener: u32,
    /// `None` for the common peer of an endpoint, which answers nobody.
    pub(super) remote: Option<Remote>,
    /// The address of this machine to which the client last sent something.
    pub(super) local: Option<IpAddr>,
    pub(super) track: Track,
    /// More than its first datagram has come for it.
    pub(super) has_gone_on: bool,
    /// The association on a DTLS listener, until it has ended.
    pub(super) association: Option<AssociationId>,
}

impl Port {
    /// No peer of another worker needs the socket.
    fn is_done(&self) -> bool {
        self.secured.is_none() || self.table.away() == 0
    }

    fn next_alarm(&self) -> Timestamp {
        let secured = self.secured.as_ref().map(Secured::alarm);
        secured.unwrap_or(Timestamp::NEVER).min(self.alarm)
    }

    /// Lets the socket wake the worker once it takes more.
    pub(super) fn wake_when_writable(&self) {
        let woken = self.io.poll_writable(&mut Context::from_waker(&self.wake.1));
        if woken {
            self.wake.1.wake_by_ref();
        }
    }
}

/// True if the link is the peer of this remote.
pub(super) fn is_peer_of(links: &Arena<Link>, id: LinkId, remote: RemoteRef<'_>) -> bool {
    let route = links.get(id).and_then(Link::route);
    route
        .and_then(|route| route.remote.as_ref())
        .is_some_and(|known| RemoteRef::of(known) == remote)
}

impl DatagramSide {
    pub(super) fn new(id: ShardId, workers: usize) -> DatagramSide {
        DatagramSide {
            parcels: (0..workers).map(|_| Parcel::new(id)).collect(),
            ..DatagramSide::default()
        }
    }

    pub(super) fn port(&mut self, listener: u32) -> Option<&mut Port> {
        self.ports.get_mut(listener as usize)?.as_deref_mut()
    }

    /// True if what is sent to this local address may reach every worker.
    pub(super) fn is_group(&mut self, address: IpAddr) -> bool {
        self.groups.contains(address)
    }

    /// No socket here is needed by peers of other workers. Those of a DTLS listener send through the front.
    pub(super) fn is_done(&self) -> bool {
        let mut ports = self.ports.iter().flatten();
        ports.all(|port| port.is_done())
    }

    /// The associations of a DTLS listener.
    pub(super) fn secured(&mut self, listener: u32) -> Option<&mut Secured> {
        self.port(listener)?.secured.as_mut()
    }

    /// When an endpoint must be called, if at all.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let alarms = self.ports.iter().flatten().map(|port| port.next_alarm());
        alarms.min().filter(|at| *at < Timestamp::NEVER)
    }
}

impl Worker {
    /// A listener has news.
    pub(super) fn datagram_news(&mut self, command: DatagramCommand) {
        match command {
            DatagramCommand::Open(opening) => self.open_port(*opening),
            DatagramCommand::Start(listener) => self.poll_port(listener),
            DatagramCommand::Stop(listener) => self.close_port(listener),
            DatagramCommand::Reload(listener, server) => {
                if let Some(secured) = self.datagrams.secured(listener) {
                    secured.associations.reconfigure(server);
                }
            }
            DatagramCommand::Parcel(parcel) => self.unpack(parcel),
        }
    }

    fn open_port(&mut self, opening: Opening) {
        let Opening {
            core,
            tally,
            socket,
            group,
            is_first,
            dtls,
        } = opening;
        let max = core.config.max_connections;
        let open = || {
            let no_keys = |_| io::Error::other("the system has no random numbers");
            let secured = dtls.map(|server| Secured::new(server, max).map_err(no_keys));
            let group = group.map(Datagrams::new).transpose()?;
            Ok((Datagrams::new(socket)?, group, secured.transpose()?))
        };
        let (io, group, secured) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                let error: io::Error = error;
                self.counters.accept_errors.add(1);
                core.socket_closed();
                let listener = &*core.config.info.name;
                return tracing::error!(listener, %error, "a datagram socket cannot be used");
            }
        };
        let endpoint = (core.config.endpoint)(EndpointMeta {
            shard: self.id,
            is_first,
            seed: crate::datagram::random_seed(),
        });
        let wake = SourceWake::new(Source::Socket(core.number), self.ready.clone());
        let index = core.number as usize;
        let port = Port {
            alarm: endpoint.poll_timeout().unwrap_or(Timestamp::NEVER),
            core,
            tally,
            io,
            group,
            is_first,
            secured,
            endpoint,
            table: Table::default(),
            newcomers: VecDeque::new(),
            common: None,
            wake: (wake.clone(), Waker::from(wake)),
            blocked: Vec::new(),
            crowded_at: Timestamp::from_millis(0),
            is_held_up: false,
        };
        let side = &mut self.datagrams;
        if side.buffer.is_empty() {
            // Fresh from the system: pages that no long datagram ever reaches take no memory.
            side.buffer = vec![0; RECEIVE_BATCH * DATAGRAM_BYTES_MAX];
        }
        if side.ports.len() <= index {
            side.ports.resize_with(index + 1, || None);
        }
        side.ports[index] = Some(Box::new(port));
    }

    /// Closes the socket of a stopped listener that has no peers any more.
    pub(super) fn close_port(&mut self, listener: u32) {
        let is_idle = |port: &mut Port| {
            port.core.is_stopped.load(Relaxed) && port.core.seats.taken() == 0 && port.is_done()
        };
        if !self.datagrams.port(listener).is_some_and(is_idle) {
            return;
        }
        self.close_associations(listener);
        let Some(port) = self.datagrams.ports[listener as usize].take() else {
            return;
        };
        if let Some(id) = port.common {
            let close = Close {
                reason: "listener_stopped",
                detail: String::new(),
            };
            self.end_link(id, &close, false, |counters| &counters.closed_by_server);
        }
        let core = port.core.clone();
        drop(port);
        core.socket_closed();
    }

    /// Endpoints whose time has come.
    pub(super) fn fire_endpoints(&mut self) {
        let now = self.now;
        if self.datagrams.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        for index in 0..self.datagrams.ports.len() {
            let listener = index as u32;
            let mut transmits = mem::take(&mut self.datagrams.transmits);
            if let Some(port) = self.datagrams.port(listener)
                && port.alarm <= now
            {
                port.endpoint.handle_timeout(now, &mut transmits);
                port.alarm = port.endpoint.poll_timeout().unwrap_or(Timestamp::NEVER);
            }
            self.transmit(listener, None, &mut transmits);
            self.datagrams.transmits = transmits;
            let secured = self.datagrams.secured(listener);
            if secured.is_some_and(|secured| secured.alarm() <= now) {
                self.fire_associations(listener);
            }
        }
    }

    /// The worker ends: says goodbye to those who would else wait.
    pub(super) fn close_all_associations(&mut self) {
        for index in 0..self.datagrams.ports.len() {
            self.close_associations(index as u32);
        }
    }

    /// Counts a datagram that is dropped, and says so in the log now and then.
    pub(super) fn drop_datagram(&mut self, listener: u32, reason: &'static str) {
        self.counters.datagrams_dropped.add(1);
        let now = self.now;
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        port.tally.drop_one(reason);
        if let Some(suppressed) = port.core.drops.allows(now) {
            let core = port.core.clone();
            let (listener, from) = (&*core.config.info.name, self.datagrams.last_from);
            let from = from.map(tracing::field::display);
            tracing::info!(listener, reason, from, suppressed, "datagram dropped");
        }
    }
}

//! The program around the state machines: sockets, connections to the broker, the clock, signals. One thread.

mod links;
mod tcp;
mod tls;
mod udp;

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use broker_core::{Addressed, LinkId, Outbox, Peer, Remote, Request, Stranger, Timestamp, Transmit, Verdict};
use driver::Clock;
use mqtt_sn::endpoint::Endpoint;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    aggregated::{Aggregated, Introduction},
    client::Credentials,
    connection::Timing,
    deliveries::QueueLimits,
    settings::{self, Mode},
    transparent::Transparent,
    upstream::{Command, ConnId, Notice, Output, Terms, Transport, Upstream},
};
use crate::config::{Bind, DatagramKind, MqttSn};
use links::{Left, Links};
use tcp::{Happening, Target, Tcp};
use udp::Socket;

/// Largest datagram of UDP.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Datagrams of one socket that are looked at before anything else is.
const DATAGRAMS_PER_TURN: usize = 64;

/// What the connections to the broker tell, and was not looked at.
const HAPPENINGS_MAX: usize = 256;

/// Time to take leave of the broker at the end.
const LEAVE: Duration = Duration::from_secs(3);

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot be used.
    #[error("{0}")]
    Settings(String),
    /// A listener cannot be opened.
    #[error("cannot listen on {listener} at {bind}: {cause}")]
    Listen {
        /// Which.
        listener: String,
        /// Where.
        bind: Bind,
        /// Why not.
        cause: io::Error,
    },
    /// The operating system refuses something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT. Prints on standard output what listens where, then `ready`.
///
/// # Errors
///
/// If it cannot start.
pub fn run(upstream: &settings::Upstream, downstream: &MqttSn) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before the listeners: a signal that comes early must not kill the process half-way.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (mut relay, mut happenings) = Relay::start(upstream, downstream).await?;
        tokio::select! {
            () = relay.serve(&mut happenings) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        relay.end(&mut happenings).await;
        Ok(())
    })
}

struct Relay {
    clock: Clock,
    sockets: Vec<Socket>,
    links: Links,
    upstream: Box<dyn Upstream>,
    connections: HashMap<ConnId, Tcp>,
    target: Arc<Target>,
    tell: mpsc::Sender<(ConnId, Happening)>,
    requests: VecDeque<(LinkId, Request)>,
    /// When it was last said that there are too many clients.
    refused: Timestamp,
}

fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn state_machine(settings: &settings::Upstream, seed: u64) -> Box<dyn Upstream> {
    let terms = Terms {
        timing: Timing {
            keep_alive: settings.keep_alive,
            connect_timeout: Duration::from_secs(30),
        },
        queue: QueueLimits {
            messages: settings.queue_messages,
            bytes: settings.queue_bytes,
        },
        credentials: Credentials {
            username: settings.username.clone(),
            password: settings.password.clone(),
        },
        sessions_max: settings.sessions_max,
        seed,
    };
    match &settings.mode {
        Mode::Transparent => Box::new(Transparent::new(terms)),
        Mode::Aggregated {
            client_id,
            is_persistent,
        } => {
            let introduction = Introduction {
                client_id: client_id.clone(),
                is_persistent: *is_persistent,
            };
            Box::new(Aggregated::new(terms, introduction))
        }
    }
}

async fn open_sockets(downstream: &MqttSn) -> Result<Vec<Socket>, RunError> {
    let mut sockets = Vec::new();
    for listener in downstream.enabled_listeners() {
        if listener.kind != DatagramKind::Udp {
            println!(
                "not listening {}: this gateway serves UDP without DTLS only",
                listener.id()
            );
            continue;
        }
        if !downstream.mountpoint_of(listener).is_empty() {
            let text = format!("{}: this gateway knows no mountpoints", listener.id());
            return Err(RunError::Settings(text));
        }
        let settings = Arc::new(settings::of_listener(downstream, listener));
        let endpoint = Box::new(Endpoint::new(settings, true, seed()?));
        let max = listener.max_connections.unwrap_or(usize::MAX);
        let broadcast = downstream.broadcast.address();
        let socket = Socket::open(listener.id(), &listener.bind, broadcast, max, endpoint).await;
        sockets.push(socket.map_err(|cause| RunError::Listen {
            listener: listener.id(),
            bind: listener.bind,
            cause,
        })?);
    }
    match sockets.is_empty() {
        true => Err(RunError::Settings(
            "no UDP listener of gateway.mqttsn is switched on".to_owned(),
        )),
        false => Ok(sockets),
    }
}

type Happenings = mpsc::Receiver<(ConnId, Happening)>;

impl Relay {
    async fn start(
        settings: &settings::Upstream,
        downstream: &MqttSn,
    ) -> Result<(Relay, Happenings), RunError> {
        let tls = match settings.broker.is_tls {
            true => Some(tls::connector(settings).map_err(RunError::Settings)?),
            false => None,
        };
        let sockets = open_sockets(downstream).await?;
        let (tell, happenings) = mpsc::channel(HAPPENINGS_MAX);
        let mut out = io::stdout().lock();
        for Socket { name, local, .. } in &sockets {
            writeln!(out, "listening {name} {local}")?;
        }
        writeln!(out, "ready")?;
        out.flush()?;
        drop(out);
        let mut relay = Relay {
            clock: Clock::start(),
            sockets,
            links: Links::new(),
            upstream: state_machine(settings, seed()?),
            connections: HashMap::new(),
            target: Arc::new(Target {
                url: settings.broker.clone(),
                tls,
            }),
            tell,
            requests: VecDeque::new(),
            refused: Timestamp::from_millis(0),
        };
        let mut output = Output::default();
        relay.upstream.start(relay.clock.now(), &mut output);
        relay.settle(output);
        Ok((relay, happenings))
    }

    /// Until the future is dropped.
    async fn serve(&mut self, happenings: &mut Happenings) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let deadline = self.deadline();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(self.clock.instant(at).into()).await,
                    None => std::future::pending().await,
                }
            };
            let sockets = &self.sockets;
            tokio::select! {
                received = receive(sockets, &mut buffer) => {
                    let (socket, len, from) = received;
                    self.datagram(socket, from, &buffer[..len]);
                    self.more_datagrams(socket, &mut buffer).await;
                }
                happening = happenings.recv() => {
                    if let Some((id, happening)) = happening {
                        self.happened(id, happening);
                    }
                }
                () = sleep => {}
            }
            self.fire();
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        let endpoints = self
            .sockets
            .iter()
            .filter_map(|socket| socket.endpoint.poll_timeout());
        let others = [self.links.next(), self.upstream.poll_timeout()];
        endpoints.chain(others.into_iter().flatten()).min()
    }

    /// What has come in on the same socket meanwhile.
    async fn more_datagrams(&mut self, socket: usize, buffer: &mut [u8]) {
        for _ in 0..DATAGRAMS_PER_TURN {
            let here = &self.sockets[socket];
            let next = poll_fn(|context| match here.poll_receive(context, buffer) {
                Poll::Ready(Ok(received)) => Poll::Ready(Some(received)),
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
            });
            let Some((len, from)) = next.await else {
                return;
            };
            self.datagram(socket, from, &buffer[..len]);
        }
    }

    fn datagram(&mut self, socket: usize, from: SocketAddr, datagram: &[u8]) {
        let now = self.clock.now();
        let sender = |node| Remote { address: from, node };
        let (remote, inner) = match self.sockets[socket].endpoint.address(datagram) {
            Addressed::Sender(inner) => (sender(None), inner),
            Addressed::Node { node, inner } => (sender(Some(node.into())), inner),
            Addressed::Endpoint(inner) => {
                // Discovery opens no peer.
                let _ = self.stranger(now, socket, &sender(None), inner);
                return;
            }
            Addressed::Common(inner) => return self.common(now, socket, inner),
            Addressed::Garbage(word) => return tracing::debug!(%from, word, "datagram dropped"),
        };
        let place = (socket, Some(remote.clone()));
        let known = self.links.find(&place);
        let Some(link) = known.or_else(|| self.stranger(now, socket, &remote, inner)) else {
            return;
        };
        self.call(link, |peer, effects| {
            peer.handle_input(now, inner, effects);
        });
    }

    /// A datagram of a sender without a peer. It may get one.
    fn stranger(
        &mut self,
        now: Timestamp,
        socket: usize,
        remote: &Remote,
        datagram: &[u8],
    ) -> Option<LinkId> {
        let here = &mut self.sockets[socket];
        let stranger = Stranger {
            remote,
            local: here.local,
            identity: None,
        };
        let mut transmits: Vec<Transmit> = Vec::new();
        let verdict = here
            .endpoint
            .handle_stranger(now, &stranger, datagram, &mut transmits);
        for transmit in &transmits {
            here.transmit(transmit);
        }
        match verdict {
            Verdict::Done => None,
            Verdict::Drop(word) => {
                tracing::debug!(%remote, word, "datagram dropped");
                None
            }
            Verdict::Open(_) if self.links.len() >= here.max_connections => {
                if now.since(self.refused) >= Duration::from_secs(1) {
                    self.refused = now;
                    tracing::warn!(
                        listener = here.name,
                        "too many clients: strangers are not answered"
                    );
                }
                None
            }
            Verdict::Open(peer) => Some(self.links.insert(peer, (socket, Some(remote.clone())))),
        }
    }

    /// PUBLISH of QoS −1.
    fn common(&mut self, now: Timestamp, socket: usize, datagram: &[u8]) {
        let here = &mut self.sockets[socket];
        let known = here
            .common
            .filter(|&link| self.links.find(&(socket, None)) == Some(link));
        let link = known.unwrap_or_else(|| {
            let peer = here.endpoint.common_peer(now);
            self.links.insert(peer, (socket, None))
        });
        here.common = Some(link);
        self.call(link, |peer, effects| {
            peer.handle_input(now, datagram, effects);
        });
    }

    fn happened(&mut self, id: ConnId, happening: Happening) {
        let now = self.clock.now();
        let transport = match &happening {
            Happening::Opened => Transport::Opened,
            Happening::Input(bytes) => Transport::Input(bytes),
            Happening::Closed(reason) => {
                self.connections.remove(&id);
                Transport::Closed(reason)
            }
        };
        let mut output = Output::default();
        self.upstream.handle_transport(now, id, transport, &mut output);
        self.settle(output);
    }

    /// Everything whose time has come.
    fn fire(&mut self) {
        let now = self.clock.now();
        for socket in &mut self.sockets {
            let mut transmits = Vec::new();
            if socket.endpoint.poll_timeout().is_some_and(|at| at <= now) {
                socket.endpoint.handle_timeout(now, &mut transmits);
            }
            for transmit in &transmits {
                socket.transmit(transmit);
            }
        }
        while let Some(link) = self.links.pop_due(now) {
            self.call(link, |peer, effects| peer.handle_timeout(now, effects));
        }
        if self.upstream.poll_timeout().is_some_and(|at| at <= now) {
            let mut output = Output::default();
            self.upstream.handle_timeout(now, &mut output);
            self.settle(output);
        }
    }

    fn call(&mut self, link: LinkId, call: impl FnOnce(&mut dyn Peer, &mut broker_core::Effects<'_>)) {
        self.call_only(link, call);
        self.settle(Output::default());
    }

    fn call_only(&mut self, link: LinkId, call: impl FnOnce(&mut dyn Peer, &mut broker_core::Effects<'_>)) {
        let Left {
            wire,
            requests,
            closed,
            place,
        } = self.links.call(link, call);
        self.requests
            .extend(requests.into_iter().map(|request| (link, request)));
        if let Some((socket, Some(remote))) = &place {
            self.send(*socket, remote.address, wire);
        }
        if let Some((close, client_id)) = closed {
            tracing::debug!(
                client_id,
                reason = close.reason,
                detail = close.detail,
                "peer closed"
            );
        }
    }

    fn send(&self, socket: usize, to: SocketAddr, mut wire: Outbox) {
        while let Some(datagram) = wire.datagram() {
            self.sockets[socket].send(datagram, to);
            wire.pop_datagram();
        }
    }

    /// Does what is wanted, and what that leads to, until nothing is left.
    fn settle(&mut self, mut output: Output) {
        loop {
            let now = self.clock.now();
            for command in std::mem::take(&mut output.commands) {
                self.command(now, command, &mut output);
            }
            for notice in std::mem::take(&mut output.notices) {
                log(notice);
            }
            for (link, event) in std::mem::take(&mut output.events) {
                self.call_only(link, |peer, effects| peer.handle_event(now, event, effects));
            }
            match self.requests.pop_front() {
                Some((link, request)) => {
                    self.upstream.handle_request(now, link, request, &mut output);
                }
                None if output.is_empty() => return,
                None => {}
            }
        }
    }

    fn command(&mut self, now: Timestamp, command: Command, output: &mut Output) {
        match command {
            Command::Open(id) => {
                let tcp = Tcp::open(id, Arc::clone(&self.target), self.tell.clone());
                self.connections.insert(id, tcp);
            }
            Command::Send(id, bytes) => {
                let is_taken = self.connections.get(&id).is_none_or(|tcp| tcp.send(bytes));
                if !is_taken {
                    self.connections.remove(&id);
                    let closed = Transport::Closed("the broker does not take what is sent");
                    self.upstream.handle_transport(now, id, closed, output);
                }
            }
            Command::Pause(id) => self.pause(id, true),
            Command::Resume(id) => self.pause(id, false),
            Command::Close(id) => {
                if let Some(tcp) = self.connections.get(&id) {
                    tcp.close();
                }
            }
        }
    }

    fn pause(&self, id: ConnId, is_paused: bool) {
        if let Some(tcp) = self.connections.get(&id) {
            tcp.pause(is_paused);
        }
    }

    /// Tells clients and the broker, and waits a little for the broker.
    async fn end(&mut self, happenings: &mut Happenings) {
        tracing::info!("shutting down");
        let mut output = Output::default();
        self.upstream.shutdown(self.clock.now(), &mut output);
        self.settle(output);
        let closed = async {
            while !self.connections.is_empty() {
                if let Some((id, Happening::Closed(_))) = happenings.recv().await {
                    self.connections.remove(&id);
                }
            }
        };
        // What the broker has not taken by then it does not get.
        let _ = tokio::time::timeout(LEAVE, closed).await;
        let counters = self.upstream.counters();
        tracing::info!(?counters, "ended");
    }
}

/// A datagram, of whichever socket has one.
async fn receive(sockets: &[Socket], buffer: &mut [u8]) -> (usize, usize, SocketAddr) {
    poll_fn(|context| {
        for (index, socket) in sockets.iter().enumerate() {
            // An error belongs to something sent before (ICMP): the next read goes on.
            while let Poll::Ready(received) = socket.poll_receive(context, buffer) {
                if let Ok((len, from)) = received {
                    return Poll::Ready((index, len, from));
                }
            }
        }
        Poll::Pending
    })
    .await
}

fn log(notice: Notice) {
    match notice {
        Notice::Connected {
            client_id,
            session_present,
        } => {
            tracing::info!(client_id, session_present, "client connected");
        }
        Notice::Refused { client_id, reason } => tracing::info!(client_id, reason, "client refused"),
        Notice::Disconnected { client_id, reason } => {
            tracing::info!(client_id, reason, "client disconnected")
        }
        Notice::QueueFull { client_id } => {
            tracing::warn!(client_id, "its queue is full: messages are dropped")
        }
        Notice::BrokerConnected => tracing::info!("connected to the broker"),
        Notice::BrokerLost(reason) => tracing::warn!(reason, "no connection to the broker"),
    }
}

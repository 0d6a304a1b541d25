//! The program around the state machines: sockets, connections to the broker, the clock, signals. One thread.

mod links;
mod secured;
mod start;
mod tcp;
mod tls;
mod udp;

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use broker_core::{
    Addressed, Destination, LinkId, Outbox, Peer, Remote, Request, Stranger, Timestamp, Transmit, Verdict,
};
use driver::Clock;
use tokio::sync::mpsc;

use super::upstream::{Command, ConnId, Notice, Output, Transport, Upstream};
use links::{Left, Links};
use secured::{Secured, Unsealed};
use tcp::{Happening, Target, Tcp};
use udp::Socket;

pub use start::{RunError, run};

/// Largest datagram of UDP.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Datagrams of one socket that are looked at before anything else is.
const DATAGRAMS_PER_TURN: usize = 64;

/// What connections to the broker have told that is looked at before anything else is.
const HAPPENINGS_PER_TURN: usize = 64;

/// Errors of one socket that are passed over before anything else is looked at.
const ERRORS_PER_TURN: usize = 16;

/// Peers that give way to others in a second: each may cost a connection to the broker.
const DISPLACED_PER_SECOND: u32 = 1000;

/// Time to take leave of the broker at the end.
const LEAVE: Duration = Duration::from_secs(3);

struct Relay {
    clock: Clock,
    sockets: Vec<Socket>,
    links: Links,
    upstream: Box<dyn Upstream>,
    connections: HashMap<ConnId, Tcp>,
    target: Arc<Target>,
    tell: mpsc::Sender<(ConnId, Happening)>,
    requests: VecDeque<(LinkId, Request)>,
    /// What DTLS has left to be done, by socket.
    sealed: Vec<(usize, Unsealed)>,
    /// The socket that is looked at first, so that a busy one does not keep others from being read.
    first: usize,
    /// Peers that have given way to others, since then.
    displaced: (Timestamp, u32),
    /// When it was last said that there are too many clients.
    refused: Timestamp,
}

type Happenings = mpsc::Receiver<(ConnId, Happening)>;

impl Relay {
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
            let (sockets, first) = (&self.sockets, self.first);
            tokio::select! {
                received = receive(sockets, first, &mut buffer) => {
                    let (socket, len, from) = received;
                    self.first = socket + 1;
                    self.received(socket, from, &buffer[..len]);
                    self.more_datagrams(socket, &mut buffer).await;
                }
                happening = happenings.recv() => {
                    if let Some((id, happening)) = happening {
                        self.happened(id, happening);
                    }
                    for _ in 0..HAPPENINGS_PER_TURN {
                        let Ok((id, happening)) = happenings.try_recv() else { break };
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
        let secured = self.sockets.iter().filter_map(|socket| socket.secured.as_ref());
        let associations = secured.filter_map(Secured::poll_timeout);
        let others = [self.links.next(), self.upstream.poll_timeout()];
        endpoints
            .chain(associations)
            .chain(others.into_iter().flatten())
            .min()
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
            self.received(socket, from, &buffer[..len]);
        }
    }

    /// A datagram as it stands on the wire.
    fn received(&mut self, socket: usize, from: SocketAddr, datagram: &[u8]) {
        let now = self.clock.now();
        match &mut self.sockets[socket].secured {
            None => self.datagram(now, socket, from, datagram),
            Some(secured) => {
                let unsealed = secured.receive(now, from, datagram);
                self.unsealed(now, socket, unsealed);
            }
        }
    }

    /// What DTLS has made of a call.
    fn unsealed(&mut self, now: Timestamp, socket: usize, unsealed: Vec<Unsealed>) {
        for one in unsealed {
            match one {
                Unsealed::Transmit(to, datagram) => self.sockets[socket].send(&datagram, to),
                Unsealed::Data(from, plaintext) => self.datagram(now, socket, from, &plaintext),
                Unsealed::Cut(links) => {
                    for link in links {
                        self.call(link, |peer, effects| peer.handle_closed(now, effects));
                        self.links.remove(link);
                    }
                }
            }
        }
    }

    /// What a sender says, in the clear.
    fn datagram(&mut self, now: Timestamp, socket: usize, from: SocketAddr, datagram: &[u8]) {
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
        if let Some(link) = known {
            self.links.go_on(link);
        }
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
        let identity = here.secured.as_ref();
        let stranger = Stranger {
            remote,
            local: here.local,
            identity: identity.and_then(|secured| secured.identity_of(remote.address)),
        };
        let mut transmits: Vec<Transmit> = Vec::new();
        let verdict = here
            .endpoint
            .handle_stranger(now, &stranger, datagram, &mut transmits);
        self.transmit(now, socket, &transmits);
        match verdict {
            Verdict::Done => None,
            Verdict::Drop(word) => {
                tracing::debug!(%remote, word, "datagram dropped");
                None
            }
            Verdict::Open(_)
                if self.links.count(socket) >= self.sockets[socket].max_connections
                    && !self.displace(now, socket) =>
            {
                if now.since(self.refused) >= Duration::from_secs(1) {
                    self.refused = now;
                    tracing::warn!(
                        listener = self.sockets[socket].name,
                        "too many clients: strangers are refused"
                    );
                }
                transmits.clear();
                let here = &mut self.sockets[socket];
                here.endpoint
                    .handle_no_room(now, remote, datagram, &mut transmits);
                self.transmit(now, socket, &transmits);
                None
            }
            Verdict::Open(peer) => {
                let link = self.links.insert(peer, (socket, Some(remote.clone())));
                match &mut self.sockets[socket].secured {
                    Some(secured) => secured.add(remote.address, link, |link| self.links.contains(link)),
                    // No handshake has proven its address.
                    None => self.links.enter_newcomer(link, socket),
                }
                Some(link)
            }
        }
    }

    /// Where no place is left, the oldest peer of which only one datagram has come gives way. False if there is none, or if
    /// too many have lately.
    fn displace(&mut self, now: Timestamp, socket: usize) -> bool {
        let (since, count) = &mut self.displaced;
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        if *count >= DISPLACED_PER_SECOND {
            return false;
        }
        *count += 1;
        let Some(oldest) = self.links.pop_newcomer(socket) else {
            return false;
        };
        self.call(oldest, |peer, effects| peer.handle_closed(now, effects));
        self.links.remove(oldest);
        true
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
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            let mut transmits = Vec::new();
            if socket.endpoint.poll_timeout().is_some_and(|at| at <= now) {
                socket.endpoint.handle_timeout(now, &mut transmits);
            }
            let unsealed = socket.secured.as_mut().map(|secured| secured.handle_timeout(now));
            self.transmit(now, index, &transmits);
            self.unsealed(now, index, unsealed.unwrap_or_default());
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
            self.send_all(self.clock.now(), *socket, remote.address, wire);
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

    fn send_all(&mut self, now: Timestamp, socket: usize, to: SocketAddr, mut wire: Outbox) {
        while let Some(datagram) = wire.datagram() {
            self.send(now, socket, to, datagram);
            wire.pop_datagram();
        }
    }

    /// Sends what a peer or an endpoint says.
    fn send(&mut self, now: Timestamp, socket: usize, to: SocketAddr, datagram: &[u8]) {
        let here = &mut self.sockets[socket];
        match &mut here.secured {
            None => here.send(datagram, to),
            Some(secured) => self.sealed.extend(
                secured
                    .send(now, to, datagram)
                    .into_iter()
                    .map(|unsealed| (socket, unsealed)),
            ),
        }
    }

    fn transmit(&mut self, now: Timestamp, socket: usize, transmits: &[Transmit]) {
        for Transmit { to, datagram } in transmits {
            match to {
                Destination::Remote(remote) => self.send(now, socket, remote.address, datagram),
                Destination::Broadcast { radius } => self.sockets[socket].broadcast(datagram, *radius),
            }
        }
        self.flush(now);
    }

    /// What was sealed goes out. An association that can seal no more ends.
    fn flush(&mut self, now: Timestamp) {
        for (socket, unsealed) in std::mem::take(&mut self.sealed) {
            self.unsealed(now, socket, vec![unsealed]);
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
                None if output.is_empty() => return self.flush(now),
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
                let is_taken = self
                    .connections
                    .get(&id)
                    .is_none_or(|tcp| tcp.send(bytes.freeze()));
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
        let now = self.clock.now();
        for index in 0..self.sockets.len() {
            let secured = self.sockets[index].secured.as_mut();
            let unsealed = secured.map(Secured::close_all).unwrap_or_default();
            self.unsealed(now, index, unsealed);
        }
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

/// A datagram, of whichever socket has one; `first` has precedence.
async fn receive(sockets: &[Socket], first: usize, buffer: &mut [u8]) -> (usize, usize, SocketAddr) {
    poll_fn(|context| {
        for index in (first..).map(|index| index % sockets.len()).take(sockets.len()) {
            let mut errors = 0;
            // An error belongs to something sent before (ICMP): the next read goes on.
            while let Poll::Ready(received) = sockets[index].poll_receive(context, buffer) {
                if let Ok((len, from)) = received {
                    return Poll::Ready((index, len, from));
                }
                errors += 1;
                if errors == ERRORS_PER_TURN {
                    context.waker().wake_by_ref();
                    break;
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

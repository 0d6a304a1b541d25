//! A small datagram protocol.
//!
//! The first byte says whose a datagram is: `S` of the sender, `N` of a node behind it (then the node's name, one byte),
//! `E` for the endpoint, `C` for the common peer. The rest is text. A peer sends every text back; some are orders.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use broker_core::{
    Addressed, Close, ConnectionInfo, Destination, Disconnect, DisconnectCause, Effects, Endpoint, Event,
    Identity, Peer, ReasonCode, Remote, Request, Stranger, Timestamp, Transmit, Verdict, shard::shard_of,
};
use driver::{DatagramConfig, DatagramListener, EndpointMeta, ListenerInfo, Workers};

use super::PATIENCE;

/// What the common peers of a listener have heard: the worker's name and the text.
pub(crate) type Heard = Arc<Mutex<Vec<(String, String)>>>;

pub(crate) fn datagram_config(bind: impl Into<SocketAddr>) -> DatagramConfig {
    heard_config(bind, &Heard::default())
}

pub(crate) fn heard_config(bind: impl Into<SocketAddr>, heard: &Heard) -> DatagramConfig {
    let heard = heard.clone();
    DatagramConfig {
        info: Arc::new(ListenerInfo {
            name: "udp:test".into(),
            zone: "default".into(),
            mountpoint: "".into(),
        }),
        bind: bind.into(),
        ipv6_only: false,
        receive_buffer_bytes: None,
        send_buffer_bytes: None,
        max_connections: 0,
        broadcast: None,
        dtls: None,
        endpoint: Arc::new(move |meta| {
            Box::new(ToyEndpoint {
                meta,
                heard: heard.clone(),
                deadline: None,
            })
        }),
    }
}

pub(crate) fn localhost() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(crate) fn listen_datagram(workers: &Workers, config: DatagramConfig) -> DatagramListener {
    workers.listen_datagram(config).expect("a free port")
}

/// A client id of this shard.
pub(crate) fn id_of(shard: u16, shards: u16, nth: usize) -> String {
    let ids = (0..).map(|n| format!("client-{n}"));
    let mut ids = ids.filter(|id| shard_of(id, shards).0 == shard);
    ids.nth(nth).expect("ids without end")
}

struct ToyEndpoint {
    meta: EndpointMeta,
    heard: Heard,
    deadline: Option<Timestamp>,
}

fn answer(to: &Remote, text: &str) -> Transmit {
    Transmit {
        to: Destination::Remote(to.clone()),
        datagram: text.to_owned().into(),
    }
}

impl Endpoint for ToyEndpoint {
    fn address<'d>(&self, datagram: &'d [u8]) -> Addressed<'d> {
        match datagram {
            [b'S', inner @ ..] => Addressed::Sender(inner),
            [b'N', rest @ ..] if !rest.is_empty() => Addressed::Node {
                node: &rest[..1],
                inner: &rest[1..],
            },
            [b'E', inner @ ..] => Addressed::Endpoint(inner),
            [b'C', inner @ ..] => Addressed::Common(inner),
            _ => Addressed::Garbage("unreadable"),
        }
    }

    fn handle_stranger(
        &mut self,
        now: Timestamp,
        stranger: &Stranger<'_>,
        datagram: &[u8],
        transmits: &mut Vec<Transmit>,
    ) -> Verdict {
        let text = std::str::from_utf8(datagram).unwrap_or_default();
        match text.split_once(' ').unwrap_or((text, "")) {
            ("where", _) => transmits.push(answer(stranger.remote, &format!("at {}", stranger.local))),
            ("shout", radius) => transmits.push(Transmit {
                to: Destination::Broadcast {
                    radius: radius.parse().ok(),
                },
                datagram: "shouted".into(),
            }),
            ("alarm", _) => {
                assert!(self.deadline.is_none(), "alarm {}", self.meta.shard.0);
                self.deadline = Some(now.after(Duration::from_millis(1)));
            }
            ("connect" | "open", _) => {
                return Verdict::Open(Box::new(ToyPeer {
                    remote: Some(stranger.remote.clone()),
                    identity: stranger.identity.cloned(),
                    client: None,
                    connected: None,
                    next: None,
                    heard: None,
                }));
            }
            ("nothing", _) => return Verdict::Drop("nothing"),
            _ => transmits.push(answer(stranger.remote, "who")),
        }
        Verdict::Done
    }

    fn handle_no_room(&mut self, _: Timestamp, _: &Remote, _: &[u8], _: &mut Vec<Transmit>) {}

    fn common_client_id(&self) -> Option<&str> {
        Some("common")
    }

    fn common_peer(&mut self, _: Timestamp) -> Box<dyn Peer> {
        Box::new(ToyPeer {
            remote: None,
            identity: None,
            client: None,
            connected: None,
            next: None,
            heard: Some(self.heard.clone()),
        })
    }

    fn handle_timeout(&mut self, _: Timestamp, transmits: &mut Vec<Transmit>) {
        self.deadline = None;
        transmits.push(Transmit {
            to: Destination::Broadcast { radius: None },
            datagram: "alarm".into(),
        });
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadline
    }
}

/// The server's end of the protocol.
struct ToyPeer {
    remote: Option<Remote>,
    identity: Option<Identity>,
    /// Whom it asked to be.
    client: Option<String>,
    connected: Option<String>,
    /// Whom it asks to be once it is connected.
    next: Option<String>,
    /// Set for the common peer.
    heard: Option<Heard>,
}

fn put(effects: &mut Effects<'_>, text: &[u8]) {
    effects.wire.put_datagram(|to| to.extend_from_slice(text));
}

fn worker_name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

impl ToyPeer {
    fn leave(&mut self, cause: DisconnectCause, effects: &mut Effects<'_>) {
        if self.client.take().is_some() {
            effects.requests.push(Request::Disconnect(Box::new(Disconnect {
                cause,
                session_expiry_interval: None,
                keeps_will: false,
                user_properties: Vec::new(),
            })));
        }
    }

    fn connect(&mut self, client_id: &str, effects: &mut Effects<'_>) {
        self.leave(DisconnectCause::Normal, effects);
        self.client = Some(client_id.to_owned());
        effects
            .requests
            .push(Request::Connect(Box::new(broker_core::Connect {
                client_id: client_id.to_owned(),
                username: None,
                password: None,
                peer: self.remote.as_ref().map(|remote| remote.address),
                local: None,
                connection: Arc::new(ConnectionInfo {
                    protocol: "toy",
                    proto_name: "toy",
                    proto_ver: 1,
                    listener: "udp:test".into(),
                    zone: "default".into(),
                }),
                certificate: None,
                mountpoint: "".into(),
                clean_start: true,
                session_expiry_interval: 0,
                keep_alive: 0,
                receive_maximum: 10,
                auth: None,
                will: None,
                keeps_will: false,
                user_properties: Vec::new(),
                is_bridge: false,
                may_sleep: false,
                wake: None,
            })));
    }
}

impl Peer for ToyPeer {
    fn handle_input(&mut self, _: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        let text = std::str::from_utf8(input).unwrap_or_default();
        if let Some(heard) = &self.heard {
            let mut heard = heard.lock().expect("no test panics with it");
            heard.push((worker_name(), text.to_owned()));
            return input.len();
        }
        match text.split_once(' ').unwrap_or((text, "")) {
            ("connect", id) => self.connect(id, effects),
            ("next", id) => self.next = Some(id.to_owned()),
            ("identity", _) => match &self.identity {
                Some(Identity::Psk(name)) => put(effects, name.as_bytes()),
                other => put(effects, format!("{other:?}").as_bytes()),
            },
            ("worker", _) => put(effects, worker_name().as_bytes()),
            ("long", len) => put(effects, &vec![b'l'; len.parse().expect("a length")]),
            ("many", count) => {
                for n in 0..count.parse().expect("a count") {
                    put(effects, format!("{n:01000}").as_bytes());
                }
            }
            ("bye", _) => {
                put(effects, b"bye");
                self.leave(DisconnectCause::Normal, effects);
                *effects.close = Some(Close {
                    reason: "bye",
                    detail: String::new(),
                });
            }
            _ => put(effects, input),
        }
        input.len()
    }

    fn handle_event(&mut self, _: Timestamp, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Connected(connected) => {
                let client = connected.client.client_id.to_string();
                put(effects, format!("connected {client}").as_bytes());
                self.connected = Some(client);
                if let Some(next) = self.next.take() {
                    self.connect(&next, effects);
                }
            }
            Event::Close(closing) => {
                self.client = None;
                put(effects, format!("closed {:?}", closing.reason).as_bytes());
                *effects.close = Some(Close {
                    reason: "closed",
                    detail: String::new(),
                });
            }
            other => put(effects, format!("{other:?}").as_bytes()),
        }
    }

    fn handle_timeout(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _: Timestamp, effects: &mut Effects<'_>) {
        self.leave(DisconnectCause::ByServer(ReasonCode::ServerShuttingDown), effects);
        put(effects, b"gone");
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    fn client_id(&self) -> Option<&str> {
        self.connected.as_deref()
    }
}

/// A client's socket.
pub(crate) struct Client(pub(crate) UdpSocket);

impl Client {
    /// Talks to this address only: the kernel drops what comes from others.
    pub(crate) fn to(server: SocketAddr) -> Client {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => "127.0.0.1:0".parse().expect("an address"),
            SocketAddr::V6(_) => "[::1]:0".parse().expect("an address"),
        };
        let socket = UdpSocket::bind(any).expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        socket.connect(server).expect("an address");
        Client(socket)
    }

    pub(crate) fn send(&self, text: &str) {
        self.0.send(text.as_bytes()).expect("there is somebody");
    }

    pub(crate) fn receive(&self) -> String {
        let mut buffer = vec![0; 65_535];
        let len = self.0.recv(&mut buffer).expect("an answer");
        String::from_utf8(buffer[..len].to_vec()).expect("text")
    }

    pub(crate) fn ask(&self, text: &str) -> String {
        self.send(text);
        self.receive()
    }

    /// Sends it until this answer comes, as a client does whose datagrams get lost.
    pub(crate) fn insist(&self, text: &str, answer: &str) {
        let short = Duration::from_millis(100);
        self.0.set_read_timeout(Some(short)).expect("a time");
        wait_until(|| {
            self.send(text);
            let mut buffer = vec![0; 65_535];
            let received = self.0.recv(&mut buffer);
            received.is_ok_and(|len| buffer[..len] == *answer.as_bytes())
        });
        self.0.set_read_timeout(Some(PATIENCE)).expect("a time");
    }

    /// Connects under this id.
    pub(crate) fn connect(&self, id: &str) {
        assert_eq!(self.ask(&format!("Sconnect {id}")), format!("connected {id}"));
    }
}

/// Waits until `what` holds, as told by counters of other threads.
pub(crate) fn wait_until(what: impl Fn() -> bool) {
    let clock = driver::Clock::start();
    let end = clock.now().after(PATIENCE);
    while !what() {
        assert!(clock.now() < end, "the server is stuck");
        std::thread::yield_now();
    }
}

//! A small protocol over real sockets, and the certificates for it.
//!
//! A packet is four bytes of length and a body. The server's peer sends every body back; some bodies are orders.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod datagram;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use broker_core::{
    Close, ConnectionInfo, Delivery, Disconnect, DisconnectCause, Effects, Event, MessageParts, PacketId,
    Peer, Publish, QoS, Request, Subscribe, SubscribeOptions, Timestamp,
    admission::{Admission, AuthenticationChain},
    shard::{Common, Shard, ShardSettings},
    store::{
        Journal,
        memory::{MemoryLimits, MemoryStore},
    },
};
use driver::{
    Clock, ConnectionMeta, Listener, ListenerConfig, PeerFactory, Service, WebSocketRoute, WebSocketSettings,
    WorkerConfig, Workers,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// No test waits longer than this for anything; none passes by waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `count` workers with fresh shards and a store that forgets.
pub(crate) fn workers(count: u16, config: &WorkerConfig) -> Workers {
    let store = MemoryStore::new(MemoryLimits::default());
    let journals = (0..count).map(|_| Box::new(store.journal()) as _);
    workers_on(config, journals.collect())
}

/// A worker with a fresh shard for each handle on the store.
pub(crate) fn workers_on(config: &WorkerConfig, journals: Vec<Box<dyn Journal>>) -> Workers {
    let count = journals.len() as u16;
    let common = Arc::new(Common {
        admission: Admission {
            authentication: AuthenticationChain::new(true),
            ..Admission::default()
        },
        ..Common::default()
    });
    let shards = (0..count)
        .zip(journals)
        .map(|(id, journal)| {
            let settings = ShardSettings {
                id: broker_core::ShardId(id),
                shards: count,
                common: common.clone(),
                seed: 7,
            };
            (move || Shard::new(settings), journal)
        })
        .collect();
    Workers::start(config, Clock::start(), shards, Arc::new(|_, _, _| ())).expect("threads")
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn stream_config() -> ListenerConfig {
    ListenerConfig::new("tcp:test", loopback(), Service::Stream(factory()))
}

pub(crate) fn websocket_config() -> ListenerConfig {
    let route = WebSocketRoute {
        path: "/echo".to_owned(),
        subprotocols: vec!["mqtt".to_owned(), "mqttv3.1".to_owned()],
        subprotocol_required: false,
        factory: factory(),
    };
    ListenerConfig::new(
        "ws:test",
        loopback(),
        Service::WebSocket(WebSocketSettings::new(route)),
    )
}

pub(crate) fn listen(workers: &Workers, config: ListenerConfig) -> Listener {
    workers.listen(config).expect("a free port")
}

pub(crate) fn factory() -> PeerFactory {
    Arc::new(|meta| {
        Box::new(EchoPeer {
            meta,
            deadline: None,
            client: None,
            parked: false,
            kept: 0,
        })
    })
}

/// The server's end of the protocol.
pub(crate) struct EchoPeer {
    meta: ConnectionMeta,
    deadline: Option<Timestamp>,
    client: Option<Arc<broker_core::ClientInfo>>,
    /// Waits to be connected, and takes nothing meanwhile.
    parked: bool,
    /// Messages published to be retained.
    kept: u16,
}

impl EchoPeer {
    fn packet(&mut self, now: Timestamp, body: &[u8], effects: &mut Effects<'_>) {
        let text = std::str::from_utf8(body).unwrap_or_default();
        match text.split_once(' ').unwrap_or((text, "")) {
            ("bye", _) => {
                put(effects, b"bye");
                *effects.close = Some(Close {
                    reason: "bye",
                    detail: String::new(),
                });
            }
            ("whoami", _) => {
                let certificate = self
                    .meta
                    .certificate
                    .as_ref()
                    .map(|certificate| certificate.subject.clone());
                let websocket = self.meta.websocket.as_deref();
                let protocol = websocket.and_then(|websocket| websocket.subprotocol.clone());
                put(
                    effects,
                    format!("{certificate:?} {protocol:?} {}", self.meta.listener.name).as_bytes(),
                );
            }
            ("flood", size) => {
                let body = vec![b'f'; size.parse().expect("a size")];
                put(effects, &body);
            }
            ("alarm", _) => self.deadline = Some(now.after(Duration::from_millis(1))),
            ("connect", id) => {
                self.parked = true;
                effects
                    .requests
                    .push(Request::Connect(Box::new(self.connect(id))));
            }
            ("subscribe", filter) => effects.requests.push(Request::Subscribe(Box::new(Subscribe {
                packet_id: PacketId::FIRST,
                filters: vec![(filter.to_owned(), SubscribeOptions::default())],
                subscription_id: None,
                user_properties: Vec::new(),
            }))),
            ("publish", topic) => {
                let client = self.client.as_ref().expect("connected first");
                let message = MessageParts::new(topic, b"hello")
                    .publish(now, client)
                    .expect("a short topic");
                effects.requests.push(Request::Publish(Publish {
                    message,
                    packet_id: None,
                    dup: false,
                }));
            }
            ("drop", _) => {}
            ("keep", size) => self.keep(now, size.parse().expect("a size"), effects),
            _ => put(effects, body),
        }
    }

    /// Publishes so many bytes to be retained: the acknowledgement waits for the store.
    fn keep(&mut self, now: Timestamp, size: usize, effects: &mut Effects<'_>) {
        let client = self.client.as_ref().expect("connected first");
        let payload = vec![b'k'; size];
        let parts = MessageParts {
            qos: QoS::AtLeastOnce,
            retain: true,
            ..MessageParts::new("kept", &payload)
        };
        let packet_id = PacketId::new(self.kept % u16::MAX + 1);
        self.kept += 1;
        effects.requests.push(Request::Publish(Publish {
            message: parts.publish(now, client).expect("a short topic"),
            packet_id,
            dup: false,
        }));
    }

    fn connect(&self, client_id: &str) -> broker_core::Connect {
        broker_core::Connect {
            client_id: client_id.to_owned(),
            username: None,
            password: None,
            peer: Some(self.meta.peer),
            local: Some(self.meta.local),
            connection: Arc::new(ConnectionInfo {
                protocol: "mqtt",
                proto_name: "MQTT",
                proto_ver: 5,
                listener: self.meta.listener.name.clone(),
                zone: self.meta.listener.zone.clone(),
            }),
            certificate: None,
            mountpoint: "".into(),
            clean_start: true,
            session_expiry_interval: 0,
            keep_alive: 0,
            receive_maximum: 10,
            auth: None,
            will: None,
            user_properties: Vec::new(),
            is_bridge: false,
            keeps_will: false,
            may_sleep: false,
            wake: None,
        }
    }
}

fn put(effects: &mut Effects<'_>, body: &[u8]) {
    effects.wire.put(&packet(body));
}

impl Peer for EchoPeer {
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        let mut used = 0;
        while let Some((len, rest)) = input[used..].split_first_chunk::<4>() {
            let Some(body) = rest.get(..u32::from_be_bytes(*len) as usize) else {
                break;
            };
            self.packet(now, body, effects);
            used += 4 + body.len();
            if effects.close.is_some() || self.parked {
                break;
            }
        }
        used
    }

    fn handle_event(&mut self, _: Timestamp, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Connected(connected) => {
                self.client = Some(connected.client);
                self.parked = false;
                put(effects, b"connected");
            }
            Event::PubAck(packet_id, _) => put(effects, format!("acked {}", packet_id.get()).as_bytes()),
            Event::SubAck(..) => put(effects, b"subscribed"),
            Event::Deliver(Delivery { message, .. }) => put(effects, message.payload()),
            other => put(effects, format!("{other:?}").as_bytes()),
        }
    }

    fn handle_timeout(&mut self, _: Timestamp, effects: &mut Effects<'_>) {
        self.deadline = None;
        put(effects, b"alarm");
    }

    fn handle_closed(&mut self, _: Timestamp, effects: &mut Effects<'_>) {
        if self.client.is_some() {
            effects.requests.push(Request::Disconnect(Box::new(Disconnect {
                cause: DisconnectCause::ConnectionLost,
                session_expiry_interval: None,
                keeps_will: false,
                user_properties: Vec::new(),
            })));
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadline
    }

    fn is_parked(&self) -> bool {
        self.parked
    }
}

/// One packet on the wire.
pub(crate) fn packet(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) {
    stream.write_all(&packet(body)).await.expect("writable");
    stream.flush().await.expect("writable");
}

pub(crate) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let len = stream.read_u32().await.expect("a packet");
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await.expect("a whole packet");
    body
}

/// Everything until the server closes; a reset counts as that.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Runs a test's client side.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the server is stuck");
    });
}

/// Waits until `what` holds, as told by counters of another thread.
pub(crate) async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

/// A sum over all workers.
pub(crate) fn count(workers: &Workers, name: &str) -> u64 {
    let all = workers
        .handles()
        .iter()
        .flat_map(|worker| worker.counters().iter());
    all.filter(|(counter, _)| *counter == name)
        .map(|(_, value)| value)
        .sum()
}

/// PEM files in a directory of their own, removed at the end.
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    pub(crate) fn new(name: &str) -> Files {
        let path = std::env::temp_dir().join(format!("driver-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a writable directory");
        Files(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a writable file");
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

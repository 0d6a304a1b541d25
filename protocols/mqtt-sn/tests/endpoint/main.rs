//! What an endpoint does with datagrams of strangers, and what it sends by itself, in virtual time.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use broker_core::{
    Addressed, ConnectionInfo, Destination, Effects, Endpoint as _, Event, Identity, Peer, Remote, Stranger,
    Timestamp, Transmit, Verdict,
};
use bytes::BytesMut;
use mqtt_sn::{
    ClientInfoOverride, Predefined, Roaming, Settings, Transport,
    codec::{Message, Node},
    endpoint::{Endpoint, Neighbours, OtherGateway, Peers, words},
};

mod addressing;
mod discovery;
mod floods;
mod neighbours;
mod strangers;
#[path = "../table/mod.rs"]
mod table;

use table::{valid, wire};

const GATEWAY: u8 = 7;
const US: [u8; 4] = [192, 0, 2, 99];
const GROUP: [u8; 4] = [239, 0, 0, 1];
const EVERYONE: [u8; 4] = [255, 255, 255, 255];
const DISCONNECT: &str = "02 18";
const GWINFO: &str = "03 02 07";
const SEARCHGW: &str = "03 01 02";

/// An endpoint, its peers, and the time.
struct World {
    endpoint: Endpoint,
    opened: Arc<Opened>,
    now: Timestamp,
    local: [u8; 4],
    identity: Option<Identity>,
}

/// What became of a datagram: the word that it was dropped under, if it was, and what its sender was sent at once.
#[derive(Debug, PartialEq)]
struct Outcome {
    dropped: Option<&'static str>,
    opened: bool,
    sent: Vec<(Destination, Vec<u8>)>,
}

impl World {
    fn new() -> World {
        World::with(settings(), true)
    }

    fn with(settings: Settings, is_first: bool) -> World {
        let opened = Arc::new(Opened::default());
        World {
            endpoint: Endpoint::with_peers(Arc::new(settings), is_first, 42, opened.clone()),
            opened,
            now: Timestamp::from_millis(1_700_000_000_000),
            local: US,
            identity: None,
        }
    }

    /// As a driver would do it, for a sender without a peer.
    fn say(&mut self, from: &Remote, datagram: &[u8]) -> Outcome {
        let mut remote = Remote {
            address: from.address,
            node: None,
        };
        let datagram = match self.endpoint.address(datagram) {
            Addressed::Sender(inner) | Addressed::Endpoint(inner) => inner,
            Addressed::Node { node, inner } => {
                remote.node = Some(node.into());
                inner
            }
            Addressed::Garbage(word) => return dropped(word),
            Addressed::Common(_) => panic!("there is a peer for this"),
        };
        let stranger = Stranger {
            remote: &remote,
            local: SocketAddr::from((self.local, 1884)),
            identity: self.identity.as_ref(),
        };
        let mut transmits = Vec::new();
        let verdict = self
            .endpoint
            .handle_stranger(self.now, &stranger, datagram, &mut transmits);
        Outcome {
            dropped: match verdict {
                Verdict::Drop(word) => Some(word),
                _ => None,
            },
            opened: matches!(verdict, Verdict::Open(_)),
            sent: plain(transmits),
        }
    }

    /// The same, from a node behind a forwarder: the datagram goes into an envelope.
    fn say_as(&mut self, from: &Remote, notation: &str) -> Outcome {
        let inner = wire(notation);
        match &from.node {
            None => self.say(from, &inner),
            Some(id) => {
                let mut datagram = BytesMut::new();
                let node = Node {
                    radius: 0,
                    id,
                    inner: &inner,
                };
                node.encode(&mut datagram);
                self.say(from, &datagram)
            }
        }
    }

    /// Time passes; what the endpoint sends meanwhile, with the time since then in milliseconds.
    fn advance(&mut self, by: Duration) -> Vec<(u128, Destination, Vec<u8>)> {
        let (start, end) = (self.now, self.now.after(by));
        let mut sent = Vec::new();
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut transmits = Vec::new();
            self.endpoint.handle_timeout(self.now, &mut transmits);
            let after = self.now.since(start).as_millis();
            sent.extend(plain(transmits).into_iter().map(|(to, bytes)| (after, to, bytes)));
            assert!(
                self.endpoint.poll_timeout().is_none_or(|next| next > self.now),
                "due again at once"
            );
        }
        self.now = end;
        sent
    }
}

fn plain(transmits: Vec<Transmit>) -> Vec<(Destination, Vec<u8>)> {
    transmits
        .into_iter()
        .map(|transmit| (transmit.to, transmit.datagram.to_vec()))
        .collect()
}

fn dropped(word: &'static str) -> Outcome {
    Outcome {
        dropped: Some(word),
        opened: false,
        sent: Vec::new(),
    }
}

fn answered(to: &Remote, notation: &str) -> Outcome {
    Outcome {
        dropped: None,
        opened: false,
        sent: vec![(Destination::Remote(to.clone()), wire(notation))],
    }
}

const DONE: Outcome = Outcome {
    dropped: None,
    opened: false,
    sent: Vec::new(),
};

fn sensor(number: u32) -> Remote {
    let [a, b, c, d] = number.to_be_bytes();
    Remote {
        address: SocketAddr::from(([10 | a, b, c, d], 5000)),
        node: None,
    }
}

fn node(id: &[u8]) -> Remote {
    Remote {
        address: SocketAddr::from(([192, 0, 2, 50], 10_000)),
        node: Some(id.into()),
    }
}

fn everyone(radius: Option<u8>) -> Destination {
    Destination::Broadcast { radius }
}

fn only(remote: &Remote) -> Destination {
    Destination::Remote(remote.clone())
}

fn settings() -> Settings {
    Settings {
        connection: Arc::new(ConnectionInfo {
            protocol: "mqtt-sn",
            proto_name: "MQTT-SN",
            proto_ver: 1,
            listener: Arc::from("udp:default"),
            zone: Arc::from("default"),
        }),
        mountpoint: Arc::from(""),
        gateway_id: GATEWAY,
        advertise_interval: None,
        gwinfo_delay_max: Duration::from_secs(5),
        enable_qos3: true,
        idle_timeout: Duration::from_secs(30),
        retry_interval: Duration::from_secs(10),
        retry_max: 3,
        max_inflight: 1,
        max_waiting: 16,
        max_topic_ids: 64,
        session_expiry_interval: 7200,
        roaming: Roaming::Any,
        predefined: Arc::new(Predefined::default()),
        clientinfo_override: ClientInfoOverride::default(),
        counters: Arc::default(),
    }
}

/// Remembers what peers were made from.
#[derive(Default)]
struct Opened(Mutex<Vec<Transport>>);

impl Opened {
    fn count(&self) -> usize {
        self.0.lock().expect("one thread").len()
    }

    fn last(&self) -> Transport {
        let transports = self.0.lock().expect("one thread");
        transports.last().expect("a peer").clone()
    }
}

impl Peers for Opened {
    fn open(&self, _: Timestamp, transport: Transport) -> Box<dyn Peer> {
        self.0.lock().expect("one thread").push(transport);
        Box::new(Silent)
    }

    fn common(&self, _: &str, _: u64) -> Box<dyn Peer> {
        Box::new(Silent)
    }
}

struct Silent;

impl Peer for Silent {
    fn handle_input(&mut self, _: Timestamp, input: &[u8], _: &mut Effects<'_>) -> usize {
        input.len()
    }

    fn handle_event(&mut self, _: Timestamp, _: Event, _: &mut Effects<'_>) {}

    fn handle_timeout(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

//! What the fuzz target of the endpoint checks: strangers that say anything, at any time. The test `fuzz` shares it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broker_core::{
    Addressed, ConnectionInfo, Destination, Effects, Endpoint as _, Event, Peer, Remote, Stranger, Timestamp,
    Transmit, Verdict,
};
use mqtt_sn::{
    ClientInfoOverride, Predefined, Roaming, Settings, Transport,
    codec::{Message, Node},
    endpoint::{Endpoint, Peers},
};

/// Runs the steps that `data` spells, each one a byte, then:
///
/// ```text
/// bits 0-1   0-2: one byte of length, and a datagram · 3: time passes, one byte
/// bit  2     the datagram was sent to everyone
/// bits 3-7   who sends it
/// ```
///
/// Nothing panics; nobody is answered with more than it has said; datagrams that nobody asked for are few; the endpoint
/// is never due again at once.
pub fn run(data: &[u8]) {
    let first = data.first().copied().unwrap_or_default();
    let mut endpoint = Endpoint::with_peers(
        Arc::new(settings()),
        first & 1 == 0,
        u64::from(first),
        Arc::new(NoPeers),
    );
    let mut now = Timestamp::from_millis(1_700_000_000_000);
    let mut rest = data;
    while let Some((&[step, number], after)) = rest.split_first_chunk::<2>() {
        rest = after;
        if step & 3 == 3 {
            now = now.after(Duration::from_millis(u64::from(number) * u64::from(number) * 10));
            fire(&mut endpoint, now);
            continue;
        }
        let (datagram, after) = rest.split_at(usize::from(number).min(rest.len()));
        rest = after;
        say(&mut endpoint, now, step, datagram);
    }
}

fn say(endpoint: &mut Endpoint, now: Timestamp, step: u8, datagram: &[u8]) {
    let address = SocketAddr::from(([192, 0, 2, 1], 10_000 + u16::from(step >> 3)));
    let local = if step & 4 == 0 {
        [192, 0, 2, 99]
    } else {
        [239, 0, 0, 1]
    };
    let (node, inner) = match endpoint.address(datagram) {
        Addressed::Sender(inner) => (None, inner),
        Addressed::Node { node, inner } => (Some(node.into()), inner),
        Addressed::Endpoint(inner) => (None, inner),
        Addressed::Common(inner) => {
            assert!(endpoint.common_client_id().is_some());
            assert!(inner.len() <= datagram.len());
            return;
        }
        Addressed::Garbage(word) => return assert!(!word.is_empty()),
    };
    let remote = Remote { address, node };
    let stranger = Stranger {
        remote: &remote,
        local: SocketAddr::from((local, 1884)),
        identity: None,
    };
    let mut transmits = Vec::new();
    let verdict = endpoint.handle_stranger(now, &stranger, inner, &mut transmits);
    match verdict {
        Verdict::Drop(word) => assert!(!word.is_empty()),
        Verdict::Open(_) => assert!(transmits.is_empty()),
        Verdict::Done => {}
    }
    assert!(transmits.len() <= 1);
    for transmit in &transmits {
        assert!(transmit.datagram.len() <= datagram.len());
        let Destination::Remote(to) = &transmit.to else {
            panic!("a stranger made the endpoint speak to everyone at once");
        };
        assert_eq!(to.address, address);
        check(transmit);
    }
    if endpoint.poll_timeout().is_some_and(|at| at <= now) {
        fire(endpoint, now);
    }
}

fn fire(endpoint: &mut Endpoint, now: Timestamp) {
    let mut transmits = Vec::new();
    endpoint.handle_timeout(now, &mut transmits);
    assert!(endpoint.poll_timeout().is_none_or(|at| at > now));
    let to_everyone = transmits
        .iter()
        .filter(|transmit| matches!(transmit.to, Destination::Broadcast { .. }));
    assert!(to_everyone.count() <= 2);
    transmits.iter().for_each(check);
}

/// What is sent can be read, and is in an envelope if its receiver is a node.
fn check(transmit: &Transmit) {
    let mut datagram = &transmit.datagram[..];
    if let Destination::Remote(Remote { node: Some(id), .. }) = &transmit.to {
        let node = Node::decode(datagram).expect("an envelope");
        assert_eq!(node.id, &id[..]);
        datagram = node.inner;
    }
    Message::decode(datagram).expect("a message");
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
        gateway_id: 7,
        advertise_interval: Some(Duration::from_secs(60)),
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

/// Peers that do nothing: this is about strangers.
struct NoPeers;

impl Peers for NoPeers {
    fn open(&self, _: Timestamp, _: Transport) -> Box<dyn Peer> {
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

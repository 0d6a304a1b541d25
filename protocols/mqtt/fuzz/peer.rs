//! What the fuzz target of the peer checks: hostile clients on a node, and one that minds its own business. The test
//! `fuzz` shares it.

use std::{sync::Arc, time::Duration};

use broker_core::{
    Effects, Event, LinkId, Outbox, PacketId, Peer, QoS, SubscribeOptions, Timestamp,
    admission::{
        AuthenticationChain, AuthenticationStep, Credentials, EnhancedAuthenticator, ExchangeState, Grant,
    },
    shard::Common,
};
use bytes::BytesMut;
use mqtt::{
    codec::{
        Ack, Connect, Decoder, Packet, ProtocolVersion, Publish, Sender, Subscribe, Subscription,
        decode_connect,
    },
    peer::{PeerSettings, Transport},
};
use testkit::Node;

const MAX_PACKET_SIZE: u32 = 4096;
/// More than this never waits for one client: the mark at which the node stops, and what one step may add to it.
const OUTBOX_BYTES_MAX: usize = Node::HIGH_WATER_BYTES + 1024 * MAX_PACKET_SIZE as usize;
const LINES: usize = 3;

/// Runs the steps that `data` spells:
///
/// ```text
/// bits 0-2   0-3 bytes: two bytes of their number (below 2048), then they · 4 time: one byte
///            5 the transport breaks, a new one opens · 6 shards lose sight of each other · 7 so does the control plane
/// bits 3-4   which client
/// ```
///
/// Nothing panics; what clients are sent can be decoded and stays within bounds; a peer that has ended its connection
/// is still; and a client elsewhere notices nothing.
pub fn run(data: &[u8]) {
    let mut hostile = Hostile::new();
    let mut rest = data;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        let at = usize::from(step >> 3 & 3) % LINES;
        match step & 7 {
            0..=3 => {
                let Some((len, after)) = rest.split_first_chunk::<2>() else {
                    break;
                };
                let len = usize::from(u16::from_be_bytes(*len) % 2048).min(after.len());
                let (chunk, after) = after.split_at(len);
                rest = after;
                hostile.input(at, chunk);
            }
            4 => {
                let Some((&time, after)) = rest.split_first() else {
                    break;
                };
                rest = after;
                let millis = u64::from(time) * u64::from(time) * 10;
                hostile.node.advance(Duration::from_millis(millis));
            }
            5 => hostile.reopen(at),
            6 => hostile.node.hold_batches(step & 0x80 != 0),
            _ => hostile.node.hold_answers(step & 0x80 != 0),
        }
        hostile.check();
    }
    hostile.end();
}

/// A client's end of a connection.
struct Line {
    link: LinkId,
    /// What it sent until its CONNECT was complete.
    first: Vec<u8>,
    version: Option<ProtocolVersion>,
    /// What it was sent and is not decoded.
    output: Vec<u8>,
    said: Said,
}

/// What the broker has said on a connection so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// At most AUTH.
    Nothing,
    Admitted,
    /// A refusal or a goodbye: nothing may follow.
    Farewell,
}

struct Hostile {
    node: Node,
    settings: Arc<PeerSettings>,
    lines: Vec<Line>,
    bystander: LinkId,
}

impl Hostile {
    fn new() -> Hostile {
        let mut common = Common::default();
        common.admission.authentication = AuthenticationChain::new(true);
        common.admission.enhanced.insert(Arc::new(Scram));
        let config = &mut common.config.mqtt;
        config.max_packet_size = MAX_PACKET_SIZE;
        config.max_awaiting_rel = 4;
        config.max_inflight = 4;
        config.max_mqueue_len = 16;
        config.retry_interval = Some(Duration::from_secs(20));
        let config = config.clone();
        let mut node = Node::new(2, common);
        let own = PeerSettings::new(config.clone(), "", "tcp:own", "default");
        let bystander = mqtt::peer::Peer::new(node.now(), Arc::new(own), Transport::default());
        let bystander = node.open(bystander);
        let settings = PeerSettings::new(config, "hostile/", "tcp:default", "default");
        let mut hostile = Hostile {
            node,
            settings: Arc::new(settings),
            lines: Vec::new(),
            bystander,
        };
        hostile.greet();
        for _ in 0..LINES {
            let line = hostile.open();
            hostile.lines.push(line);
        }
        hostile
    }

    fn open(&mut self) -> Line {
        let peer = mqtt::peer::Peer::new(self.node.now(), Arc::clone(&self.settings), Transport::default());
        Line {
            link: self.node.open(Watched::new(peer)),
            first: Vec::new(),
            version: None,
            output: Vec::new(),
            said: Said::Nothing,
        }
    }

    fn reopen(&mut self, at: usize) {
        self.node.cut(self.lines[at].link);
        self.check();
        self.lines[at] = self.open();
    }

    fn input(&mut self, at: usize, chunk: &[u8]) {
        let line = &mut self.lines[at];
        if line.version.is_none() && self.node.closed(line.link).is_none() {
            line.first.extend_from_slice(chunk);
            line.version = match decode_connect(&line.first, MAX_PACKET_SIZE) {
                Ok(connect) => connect.map(|(connect, _)| connect.version),
                Err(error) => error.connect_version,
            };
        }
        let link = line.link;
        self.node.input(link, chunk);
    }

    /// Looks at what every client was sent.
    fn check(&mut self) {
        for at in 0..LINES {
            let link = self.lines[at].link;
            while self.node.output_len(link) > 0 {
                assert!(self.node.output_len(link) <= OUTBOX_BYTES_MAX);
                let bytes = self.node.output(link);
                let line = &mut self.lines[at];
                line.output.extend_from_slice(&bytes);
                let version = line.version.expect("nobody is answered before the CONNECT");
                let (used, said) = listen(version, &line.output, line.said);
                line.output.drain(..used);
                line.said = said;
            }
            assert!(self.lines[at].output.is_empty(), "the broker sends whole packets");
        }
        assert_eq!(self.node.output_len(self.bystander), 0);
    }

    fn say(&mut self, packet: &Packet<'_>) {
        let mut bytes = BytesMut::new();
        packet
            .encode(ProtocolVersion::V5, u32::MAX, &mut bytes)
            .expect("a valid packet");
        self.node.input(self.bystander, &bytes);
    }

    /// The bystander connects under an identifier that nobody else can know, and subscribes outside the mountpoint of
    /// the others.
    fn greet(&mut self) {
        let options = SubscribeOptions {
            qos: QoS::AtLeastOnce,
            ..SubscribeOptions::default()
        };
        let filters = [Subscription {
            filter: "own/#",
            options,
        }];
        self.say(&Packet::Connect(Box::new(Connect::new(ProtocolVersion::V5, ""))));
        self.say(&Packet::Subscribe(Subscribe::new(PacketId::FIRST, &filters)));
        self.node.output(self.bystander);
    }

    /// The bystander still is where it was.
    fn end(&mut self) {
        self.node.hold_batches(false);
        self.node.hold_answers(false);
        self.check();
        let publish = Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(PacketId::FIRST),
            ..Publish::new("own/topic", b"still here")
        };
        self.say(&Packet::Publish(publish.clone()));
        let output = self.node.output(self.bystander);
        let decoder = server_packets(ProtocolVersion::V5);
        let (first, used) = decoder.decode(&output).expect("valid").expect("whole");
        let (second, rest) = decoder.decode(&output[used..]).expect("valid").expect("whole");
        assert_eq!(used + rest, output.len());
        let ack = Ack::new(PacketId::FIRST, broker_core::ReasonCode::Success);
        assert_eq!([first, second], [Packet::Publish(publish), Packet::PubAck(ack)]);
        for at in 0..LINES {
            self.node.cut(self.lines[at].link);
        }
        self.node.advance(Duration::from_secs(3 * 3600));
        assert_eq!(self.node.output_len(self.bystander), 0);
        for shard in 0..2 {
            let sessions = self.node.shard(shard).stats().sessions.get();
            assert!(sessions <= 1, "sessions of clients that are gone have ended");
        }
    }
}

fn server_packets(version: ProtocolVersion) -> Decoder {
    Decoder {
        version,
        sender: Sender::Server,
        max_packet_size: u32::MAX,
    }
}

/// Returns how many bytes are whole packets, and what has been said with them.
fn listen(version: ProtocolVersion, bytes: &[u8], mut said: Said) -> (usize, Said) {
    let mut used = 0;
    while let Some((packet, len)) = server_packets(version)
        .decode(&bytes[used..])
        .expect("the broker sends valid packets")
    {
        used += len;
        // [MQTT-3.2.0-1], [MQTT-3.2.0-2], [MQTT-3.14.0-1]
        said = match (said, packet) {
            (Said::Nothing, Packet::Auth(_)) => Said::Nothing,
            (Said::Nothing, Packet::ConnAck(connack)) if connack.reason.is_error() => Said::Farewell,
            (Said::Nothing, Packet::ConnAck(_)) => Said::Admitted,
            (Said::Admitted, Packet::Disconnect(_)) => Said::Farewell,
            (Said::Admitted, packet) if !matches!(packet, Packet::ConnAck(_)) => Said::Admitted,
            (said, packet) => panic!("{packet:?} after {said:?}"),
        };
    }
    (used, said)
}

/// Holds a peer to the contract of [`Peer`].
struct Watched {
    peer: mqtt::peer::Peer,
    is_closed: bool,
}

impl Watched {
    fn new(peer: mqtt::peer::Peer) -> Watched {
        Watched {
            peer,
            is_closed: false,
        }
    }

    /// A peer that has ended its connection does nothing more, whatever comes.
    fn after(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        if effects.close.is_none() || std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        let (mut wire, mut requests, mut close) = (Outbox::new(), Vec::new(), None);
        let mut effects = Effects {
            wire: &mut wire,
            requests: &mut requests,
            close: &mut close,
        };
        let ack = Event::PubAck(PacketId::FIRST, broker_core::ReasonCode::Success);
        assert_eq!(self.peer.handle_input(now, &[0xc0, 0x00], &mut effects), 2);
        self.peer.handle_event(now, ack, &mut effects);
        self.peer.handle_timeout(now.after_secs(1_000_000), &mut effects);
        self.peer.handle_closed(now, &mut effects);
        assert_eq!(self.peer.poll_timeout(), None);
        assert!(!self.peer.is_parked());
        assert!(wire.is_empty() && requests.is_empty() && close.is_none());
    }
}

impl Peer for Watched {
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        let was_parked = self.peer.is_parked();
        let used = self.peer.handle_input(now, input, effects);
        assert!(used <= input.len());
        assert!(used == 0 || !was_parked);
        self.after(now, effects);
        used
    }

    fn handle_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        self.peer.handle_event(now, event, effects);
        self.after(now, effects);
    }

    fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.peer.handle_timeout(now, effects);
        self.after(now, effects);
    }

    fn handle_closed(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.peer.handle_closed(now, effects);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.peer.poll_timeout()
    }

    fn is_parked(&self) -> bool {
        self.peer.is_parked()
    }
}

/// Asks again until it is given little enough.
struct Scram;

impl EnhancedAuthenticator for Scram {
    fn method(&self) -> &str {
        "SCRAM"
    }

    fn start(&self, _: Timestamp, _: &Credentials<'_>, data: Option<&[u8]>) -> AuthenticationStep {
        match data {
            Some(data) => AuthenticationStep::Continue {
                data: Some(data.to_vec()),
                state: Box::new(()),
            },
            None => AuthenticationStep::Success {
                data: None,
                grant: Grant::default(),
            },
        }
    }

    fn step(
        &self,
        now: Timestamp,
        credentials: &Credentials<'_>,
        _: ExchangeState,
        data: Option<&[u8]>,
    ) -> AuthenticationStep {
        self.start(now, credentials, data.filter(|data| data.len() > 8))
    }
}

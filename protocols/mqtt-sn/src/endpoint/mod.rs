//! One socket: whose a datagram is, what becomes of those of strangers, and gateway discovery (§6.1).
//!
//! A stranger that says CONNECT, or PINGREQ with its client id to wake, gets a peer. Whoever says something that only a
//! connected client may say, is told by a DISCONNECT that it is not (§6.12, §6.13), which is as short as the shortest
//! question: each stranger once a second at most, those of one host a hundred times, all together a thousand times.
//! Everything else is dropped and counted under one of the [words].

mod answers;
mod discovery;
mod neighbours;
mod peers;
pub mod words;

use std::{net::IpAddr, sync::Arc, time::Duration};

use broker_core::{Addressed, Peer, Remote, Stranger, Timestamp, Transmit, Verdict, random::Random};

pub use neighbours::{Neighbours, OtherGateway};

use crate::{
    Settings, Transport,
    codec::{Concern, DecodeError, Message, Node, PublishQoS, ReturnCode},
};
use answers::Answers;
use discovery::Discovery;

/// Makes the peers of an endpoint.
pub trait Peers: Send + Sync {
    /// That of one client.
    fn open(&self, now: Timestamp, transport: Transport) -> Box<dyn Peer>;

    /// The one that takes PUBLISH of QoS −1 (§6.8), and the client id that it has.
    fn common(&self, client_id: &str, seed: u64) -> Box<dyn Peer>;
}

/// The endpoint of one socket on one worker.
pub struct Endpoint {
    settings: Arc<Settings>,
    peers: Arc<dyn Peers>,
    /// True for one endpoint of a listener: it alone speaks to everyone and listens to other gateways, since every
    /// worker's socket hears what is sent to a group.
    is_first: bool,
    common_client_id: String,
    discovery: Discovery,
    neighbours: Arc<Neighbours>,
    answers: Answers,
    /// Of searchers that do not wait: others must not be able to use these up.
    search_answers: Answers,
    random: Random,
}

impl Endpoint {
    /// The endpoint of one worker; `is_first` for one of those of a listener. `seed` is that of random numbers, each
    /// endpoint has another.
    pub fn new(settings: Arc<Settings>, is_first: bool, seed: u64) -> Endpoint {
        let peers = Arc::new(peers::Own(Arc::clone(&settings)));
        Endpoint::with_peers(settings, is_first, seed, peers)
    }

    /// Like [`Endpoint::new`]; its peers are made by `peers`.
    pub fn with_peers(settings: Arc<Settings>, is_first: bool, seed: u64, peers: Arc<dyn Peers>) -> Endpoint {
        let mut random = Random::new(seed);
        Endpoint {
            common_client_id: common_client_id(&settings),
            discovery: Discovery::new(&settings, is_first),
            answers: Answers::new(random.next()),
            search_answers: Answers::new(random.next()),
            neighbours: Arc::default(),
            settings,
            peers,
            is_first,
            random,
        }
    }

    /// Keeps the other gateways that it hears in `neighbours`, for others to read.
    pub fn with_neighbours(mut self, neighbours: Arc<Neighbours>) -> Endpoint {
        self.neighbours = neighbours;
        self
    }

    fn discover(
        &mut self,
        now: Timestamp,
        remote: &Remote,
        local: IpAddr,
        message: &Message<'_>,
        transmits: &mut Vec<Transmit>,
    ) -> Result<(), &'static str> {
        match *message {
            Message::SearchGw { radius } => {
                let to_everyone = is_group(local);
                if to_everyone && !self.is_first {
                    return Ok(());
                }
                let delay = discovery::delay(&self.settings, &mut self.random);
                let searched = self.discovery.search(now, remote, radius, to_everyone, delay);
                if searched.is_err() && self.search_answers.allow(now, remote).is_ok() {
                    // A flood of searchers must not hide the gateway. The delay only spares the air.
                    transmits.push(discovery::gw_info(remote, radius, self.settings.gateway_id));
                    return Ok(());
                }
                searched
            }
            Message::Advertise { gateway_id, duration } => {
                let interval = Duration::from_secs(u64::from(duration));
                self.hear_gateway(now, remote, gateway_id, Some(interval))
            }
            Message::GwInfo { gateway_id, address } => {
                if gateway_id == self.settings.gateway_id {
                    self.discovery.suppress();
                }
                if address.is_empty() {
                    self.hear_gateway(now, remote, gateway_id, None)
                } else {
                    Ok(())
                }
            }
            _ => Err(words::GATEWAY_MESSAGE),
        }
    }

    fn hear_gateway(
        &self,
        now: Timestamp,
        remote: &Remote,
        gateway_id: u8,
        interval: Option<Duration>,
    ) -> Result<(), &'static str> {
        let is_mine = gateway_id == self.settings.gateway_id;
        if !self.is_first || is_mine && self.discovery.may_be_echo(now) {
            return Ok(());
        }
        self.neighbours.hear(now, gateway_id, remote.address, interval);
        if is_mine {
            return Err(words::GATEWAY_ID_CONFLICT);
        }
        Ok(())
    }

    /// A datagram that cannot be read. Where it would be refused if its sender were known, the answer is the one that
    /// a stranger gets.
    fn refuse(
        &mut self,
        now: Timestamp,
        remote: &Remote,
        datagram: &[u8],
        error: &DecodeError,
        transmits: &mut Vec<Transmit>,
    ) -> Result<(), &'static str> {
        let answer = match (error.refusal, Concern::of(datagram)) {
            (Some(refusal), Ok(Concern::Connect)) => refusal,
            (Some(_), _) => Message::Disconnect(None),
            (None, _) => return Err(error.word()),
        };
        self.answer(now, remote, &answer, transmits)?;
        Err(error.word())
    }

    fn answer(
        &mut self,
        now: Timestamp,
        remote: &Remote,
        message: &Message<'_>,
        transmits: &mut Vec<Transmit>,
    ) -> Result<(), &'static str> {
        self.answers.allow(now, remote)?;
        transmits.push(discovery::reply(remote, 0, message));
        Ok(())
    }
}

impl broker_core::Endpoint for Endpoint {
    fn address<'d>(&self, datagram: &'d [u8]) -> Addressed<'d> {
        let (node, inner) = if Node::is_envelope(datagram) {
            match Node::decode(datagram) {
                Ok(node) => (Some(node.id), node.inner),
                Err(error) => return Addressed::Garbage(error.word()),
            }
        } else {
            (None, datagram)
        };
        match (Concern::of(inner), node) {
            (Err(error), _) => Addressed::Garbage(error.word()),
            (Ok(Concern::Discovery), _) => Addressed::Endpoint(datagram),
            (Ok(Concern::WithoutConnection), _) if self.settings.enable_qos3 => Addressed::Common(inner),
            (Ok(Concern::WithoutConnection), _) => Addressed::Garbage(words::QOS3_DISABLED),
            (Ok(Concern::Connect | Concern::Client), Some(node)) => Addressed::Node { node, inner },
            (Ok(Concern::Connect | Concern::Client), None) => Addressed::Sender(inner),
        }
    }

    fn handle_stranger(
        &mut self,
        now: Timestamp,
        stranger: &Stranger<'_>,
        datagram: &[u8],
        transmits: &mut Vec<Transmit>,
    ) -> Verdict {
        let (remote, inner);
        let (remote, datagram) = match Node::decode(datagram) {
            Ok(node) => {
                remote = Remote {
                    address: stranger.remote.address,
                    node: Some(node.id.into()),
                };
                inner = node.inner;
                (&remote, inner)
            }
            Err(_) => (stranger.remote, datagram),
        };
        let done = match Message::decode(datagram) {
            Err(error) => self.refuse(now, remote, datagram, &error, transmits),
            Ok(message) => match on_stranger(&message) {
                OnStranger::Discovery => self.discover(now, remote, stranger.local.ip(), &message, transmits),
                OnStranger::Answer => self.answer(now, remote, &Message::Disconnect(None), transmits),
                OnStranger::Drop(word) => Err(word),
                OnStranger::Open => {
                    let transport = Transport {
                        remote: remote.clone(),
                        local: Some(stranger.local),
                        identity: stranger.identity.cloned(),
                        seed: self.random.next(),
                    };
                    return Verdict::Open(self.peers.open(now, transport));
                }
            },
        };
        done.map_or_else(Verdict::Drop, |()| Verdict::Done)
    }

    /// Who connects is told of congestion (§6.2); who sleeps asks again.
    fn handle_no_room(
        &mut self,
        now: Timestamp,
        remote: &Remote,
        datagram: &[u8],
        transmits: &mut Vec<Transmit>,
    ) {
        if let Ok(Message::Connect(_)) = Message::decode(datagram) {
            let refusal = Message::ConnAck(ReturnCode::Congestion);
            // One that is not said counts as dropped all the same.
            let _ = self.answer(now, remote, &refusal, transmits);
        }
    }

    fn common_client_id(&self) -> Option<&str> {
        self.settings.enable_qos3.then_some(&*self.common_client_id)
    }

    fn common_peer(&mut self, _: Timestamp) -> Box<dyn Peer> {
        let seed = self.random.next();
        self.peers.common(&self.common_client_id, seed)
    }

    fn handle_timeout(&mut self, now: Timestamp, transmits: &mut Vec<Transmit>) {
        self.discovery.fire(now, &self.settings, transmits);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.discovery.next()
    }
}

/// What a stranger's message leads to.
enum OnStranger {
    Open,
    Answer,
    Discovery,
    Drop(&'static str),
}

fn on_stranger(message: &Message<'_>) -> OnStranger {
    match message {
        Message::Advertise { .. } | Message::SearchGw { .. } | Message::GwInfo { .. } => {
            OnStranger::Discovery
        }
        Message::Connect(_) => OnStranger::Open,
        Message::PingReq(client_id) if !client_id.is_empty() => OnStranger::Open,
        Message::Publish(publish) if publish.qos == PublishQoS::WithoutConnection => {
            OnStranger::Drop(words::QOS3_DISABLED)
        }
        // A DISCONNECT would tell it that its sleep has begun (§6.14), and nobody would gather its messages.
        Message::Disconnect(Some(1..)) => OnStranger::Drop(words::SLEEP_OF_STRANGER),
        Message::ConnAck(_)
        | Message::WillTopicReq
        | Message::WillMsgReq
        | Message::SubAck { .. }
        | Message::UnsubAck(_)
        | Message::PingResp
        | Message::WillTopicResp(_)
        | Message::WillMsgResp(_) => OnStranger::Drop(words::GATEWAY_MESSAGE),
        Message::WillTopic(_)
        | Message::WillMsg(_)
        | Message::Register { .. }
        | Message::RegAck { .. }
        | Message::Publish(_)
        | Message::PubAck { .. }
        | Message::PubRec(_)
        | Message::PubRel(_)
        | Message::PubComp(_)
        | Message::Subscribe(_)
        | Message::Unsubscribe { .. }
        | Message::PingReq(_)
        | Message::Disconnect(_)
        | Message::WillTopicUpd(_)
        | Message::WillMsgUpd(_) => OnStranger::Answer,
    }
}

/// What is sent to such an address reaches every worker's socket.
fn is_group(local: IpAddr) -> bool {
    match local {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

/// One for each listener, since a client id has one session. EMQX's name for the listener `default`.
fn common_client_id(settings: &Settings) -> String {
    const NAME: &str = "NegQoS-Client";
    let listener = &*settings.connection.listener;
    let listener = listener.strip_prefix("mqttsn:").unwrap_or(listener);
    match listener.rsplit_once(':') {
        None | Some(("udp", "default")) => NAME.to_owned(),
        Some(("udp", name)) => format!("{NAME}-{name}"),
        Some(_) => format!("{NAME}-{listener}"),
    }
}

//! The values that pass between a peer and its shard. A peer never calls the broker, and the broker never calls
//! a peer: a test needs neither socket nor thread.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{CertificateInfo, ClientInfo, ConnectionInfo, Message, PacketId, QoS, ReasonCode};

/// What a peer asks of its shard.
#[derive(Debug)]
pub enum Request {
    /// First of all: who is there. Answered by [`Event::Connected`], [`Event::Refused`] or [`Event::Auth`].
    Connect(Box<Connect>),
    /// A step of enhanced authentication (MQTT 5 §4.12). Answered like [`Request::Connect`] before the client is
    /// connected, by [`Event::Auth`] or [`Event::Close`] afterwards.
    Auth(Box<AuthData>),
    /// An application message. QoS 1 is answered by [`Event::PubAck`], QoS 2 by [`Event::PubRec`].
    Publish(Publish),
    /// A delivery of QoS 1 is complete.
    PubAck(PacketId, ReasonCode),
    /// A delivery of QoS 2 has arrived; answered by [`Event::PubRel`] unless the reason is an error.
    PubRec(PacketId, ReasonCode),
    /// The publisher releases a QoS 2 message; answered by [`Event::PubComp`].
    PubRel(PacketId, ReasonCode),
    /// A delivery of QoS 2 is complete.
    PubComp(PacketId, ReasonCode),
    /// A delivery cannot be put on the wire (larger than the client's Maximum Packet Size): it is dropped as if
    /// delivered [MQTT-3.1.2-25]. `None` for QoS 0.
    Undeliverable(Option<PacketId>),
    /// Answered by [`Event::SubAck`].
    Subscribe(Box<Subscribe>),
    /// Answered by [`Event::UnsubAck`].
    Unsubscribe(Box<Unsubscribe>),
    /// Something that the protocol needs to know when the session goes on, also after a restart of the broker: kept
    /// under a number of the protocol's choice, replaced or (`None`) removed. Answered by [`Event::Noted`] once it is
    /// as safe as the session. All notes of a session come back in [`Connected::notes`]; together they take at most
    /// [`NOTES_BYTES_MAX`]. If the store does not take it, the answer says why; it may be stored later nevertheless, and
    /// so may a Will.
    Note(u16, Option<Bytes>),
    /// Replaces the Will of a connected client, or (`None`) removes it (MQTT-SN §6.4). Checked and authorized as one in
    /// CONNECT; answered by [`Event::WillSet`] once it is as safe as the session. Refused, the old one stays.
    SetWill(Option<Box<Will>>),
    /// The client takes its leave, or its connection ended. Nothing is delivered to the link after it but
    /// [`Event::Asleep`]; it may be connected again.
    Disconnect(Box<Disconnect>),
}

/// A client that asks to be admitted.
#[derive(Clone, Debug)]
pub struct Connect {
    /// As sent; empty asks the broker to assign one.
    pub client_id: String,
    /// User name, if any.
    pub username: Option<String>,
    /// Password or token, if any.
    pub password: Option<Vec<u8>>,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// Protocol, version and listener.
    pub connection: Arc<ConnectionInfo>,
    /// Its verified certificate, if any.
    pub certificate: Option<Arc<CertificateInfo>>,
    /// Template of the listener's mountpoint; mostly empty.
    pub mountpoint: Arc<str>,
    /// Discard an existing session.
    pub clean_start: bool,
    /// Seconds that the session outlives its connection; `u32::MAX`: for ever (§3.1.2.11.2).
    pub session_expiry_interval: u32,
    /// Seconds of keep alive that the client proposed; 0: none. The peer enforces it; the broker may lower it.
    pub keep_alive: u16,
    /// Deliveries of QoS 1 and 2 that the client accepts at once.
    pub receive_maximum: u16,
    /// Enhanced authentication (§4.12): method and first data.
    pub auth: Option<AuthData>,
    /// Published if the connection ends without a proper goodbye.
    pub will: Option<Will>,
    /// Without a `will` that of the session which is found stays in force (MQTT-SN §6.3), and comes back in
    /// [`Connected::will`]. One that has been published, as at the end of a lost connection or at a takeover, is no longer
    /// there [MQTT-3.1.2-10], nor is one that went with a goodbye that did not [keep](Disconnect::keeps_will) it. MQTT's own clients have the Will that their CONNECT brings, or none.
    pub keeps_will: bool,
    /// User properties of the CONNECT, for hooks.
    pub user_properties: Vec<(String, String)>,
    /// A bridge marks itself so (the high bit of the protocol level in 3.1 and 3.1.1): it gets retain as published.
    pub is_bridge: bool,
    /// The client may fall asleep ([`DisconnectCause::Asleep`]): its session is stored, even if it ends with its
    /// connection. If the process is killed while the client is connected, it then ends at the next start.
    pub may_sleep: bool,
    /// Set if the client did not connect but wakes for what waits for it: then only a session whose client sleeps and
    /// whose note 0 is this is taken, without a word to those who watch presence, and [`Event::Drained`] follows its
    /// deliveries. Any other client is refused as [`ReasonCode::BadUserNameOrPassword`], before anybody is asked who it
    /// is; bans and authentication apply as to every client.
    ///
    /// The session goes on as it was: `clean_start`, `session_expiry_interval`, `will`, `keeps_will`, `may_sleep` and
    /// what only hooks want to know (`user_properties`, `keep_alive`) are of no account. `receive_maximum` is: a window
    /// is one of a connection. If the link ends without another sleep, the client is lost; if it is the broker that ends
    /// it (a takeover, a shut-down, a store that does not answer), or the process is killed, the client sleeps on, as
    /// long as it had wanted to before it woke.
    pub wake: Option<Bytes>,
}

/// Bytes of all notes of a session ([`Request::Note`]), each with [`NOTE_BYTES`] of its own. More are refused as
/// [`ReasonCode::QuotaExceeded`], and change nothing.
pub const NOTES_BYTES_MAX: usize = 128 << 10;
/// Bytes that a note counts for beyond its value.
pub const NOTE_BYTES: usize = 32;

impl Connect {
    /// The Will of the session that is found stays in force.
    pub(crate) fn keeps_old_will(&self) -> bool {
        self.wake.is_some() || (self.keeps_will && self.will.is_none())
    }
}

#[cfg(test)]
impl Connect {
    /// A clean MQTT 5 client without anything special, for unit tests to vary.
    pub(crate) fn plain(client_id: &str) -> Connect {
        Connect {
            client_id: client_id.to_owned(),
            username: None,
            password: None,
            peer: None,
            local: None,
            connection: Arc::clone(&ClientInfo::system().connection),
            certificate: None,
            mountpoint: "".into(),
            clean_start: true,
            session_expiry_interval: 0,
            keep_alive: 0,
            receive_maximum: 1,
            auth: None,
            will: None,
            keeps_will: false,
            user_properties: Vec::new(),
            is_bridge: false,
            may_sleep: false,
            wake: None,
        }
    }
}

/// A Will message (MQTT 5 §3.1.2.5).
#[derive(Clone, Debug)]
pub struct Will {
    /// Topic without the mountpoint.
    pub topic: String,
    /// The application's bytes.
    pub payload: Vec<u8>,
    /// Quality of service to publish it with.
    pub qos: QoS,
    /// Retain it.
    pub retain: bool,
    /// Seconds to wait before it is published (§3.1.3.2.2).
    pub delay_interval: u32,
    /// Message expiry interval, counted from its publication.
    pub expiry_interval: Option<u32>,
    /// The properties that travel with it, encoded (see [`crate::Properties`]).
    pub properties: Vec<u8>,
}

/// A step of enhanced authentication (MQTT 5 §3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthData {
    /// Success, continue, or re-authenticate.
    pub reason: ReasonCode,
    /// Name of the method, such as `SCRAM-SHA-256`.
    pub method: String,
    /// Data of the method.
    pub data: Option<Vec<u8>>,
}

/// An application message from a client.
#[derive(Debug)]
pub struct Publish {
    /// The message, with the publisher's mountpoint.
    pub message: Message,
    /// Present for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// The client says that it sent this before.
    pub dup: bool,
}

/// A request for subscriptions.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Comes back in the answer.
    pub packet_id: PacketId,
    /// Filters in the client's words (`$share/…` and the like included, no mountpoint), already checked to be
    /// valid topic filters, with their options.
    pub filters: Vec<(String, SubscribeOptions)>,
    /// Subscription identifier (§3.8.2.1.2).
    pub subscription_id: Option<u32>,
    /// User properties, for hooks.
    pub user_properties: Vec<(String, String)>,
}

/// Options of one subscription (MQTT 5 §3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SubscribeOptions {
    /// Highest quality of service of deliveries.
    pub qos: QoS,
    /// Do not send the client its own messages.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When a subscription gets retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE.
    #[default]
    Send = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// A request to end subscriptions.
#[derive(Clone, Debug)]
pub struct Unsubscribe {
    /// Comes back in the answer.
    pub packet_id: PacketId,
    /// Filters in the client's words.
    pub filters: Vec<String>,
    /// User properties, for hooks.
    pub user_properties: Vec<(String, String)>,
}

/// The end of a connection.
#[derive(Clone, Debug)]
pub struct Disconnect {
    /// Why, in the words of the log and of `client.disconnected`.
    pub cause: DisconnectCause,
    /// A new session expiry interval, if the client gave one.
    pub session_expiry_interval: Option<u32>,
    /// After [`DisconnectCause::Normal`], the Will is not discarded but stays with the session, for a next connection that
    /// [keeps](Connect::keeps_will) it (MQTT-SN §6.12). It is not published before that, also if the session ends.
    pub keeps_will: bool,
    /// User properties, for hooks.
    pub user_properties: Vec<(String, String)>,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectCause {
    /// The client said goodbye: the Will is discarded [MQTT-3.14.4-3], unless it is [kept](Disconnect::keeps_will).
    Normal,
    /// The client said goodbye and wants its Will published, or gave an error as its reason.
    ByClient(ReasonCode),
    /// The transport ended without a goodbye.
    ConnectionLost,
    /// The client sleeps and will be back within this many seconds (MQTT-SN §6.14): what comes for it is kept, also QoS 0
    /// ([`mqueue_store_qos0`](crate::MqttConfig::mqueue_store_qos0)), which does not survive a kill. If it is not back
    /// then, it counts as lost: its Will is published, and its session ends or begins to expire. If it is, its Will is
    /// not published, also at a clean start. If it comes back and the store does not take its connection, it sleeps on.
    /// A session that is not stored ends as if the connection were lost.
    Asleep(u32),
    /// The broker or the peer ended it, for this reason.
    ByServer(ReasonCode),
}

impl DisconnectCause {
    /// The reason as EMQX writes it in `client.disconnected`.
    pub fn text(self) -> &'static str {
        match self {
            DisconnectCause::Normal => "normal",
            DisconnectCause::ByClient(reason) => reason.text(),
            DisconnectCause::ConnectionLost => "tcp_closed",
            DisconnectCause::Asleep(_) => "asleep",
            DisconnectCause::ByServer(ReasonCode::SessionTakenOver) => "takenover",
            DisconnectCause::ByServer(ReasonCode::KeepAliveTimeout) => "keepalive_timeout",
            DisconnectCause::ByServer(ReasonCode::AdministrativeAction) => "kicked",
            DisconnectCause::ByServer(reason) => reason.text(),
        }
    }
}

/// What a shard tells a peer.
#[derive(Clone, Debug)]
pub enum Event {
    /// The client is admitted.
    Connected(Box<Connected>),
    /// The client is not admitted; the link is already forgotten by the shard.
    Refused(Box<Closing>),
    /// A step of enhanced authentication.
    Auth(Box<AuthData>),
    /// A message for the client.
    Deliver(Delivery),
    /// Answers a QoS 1 [`Request::Publish`].
    PubAck(PacketId, ReasonCode),
    /// Answers a QoS 2 [`Request::Publish`].
    PubRec(PacketId, ReasonCode),
    /// The second half of a QoS 2 delivery.
    PubRel(PacketId, ReasonCode),
    /// Answers [`Request::PubRel`].
    PubComp(PacketId, ReasonCode),
    /// Answers [`Request::Subscribe`]: one code per filter, in order.
    SubAck(PacketId, Vec<ReasonCode>),
    /// Answers [`Request::Unsubscribe`]: one code per filter, in order.
    UnsubAck(PacketId, Vec<ReasonCode>),
    /// Answers [`Request::Note`].
    Noted(u16, ReasonCode),
    /// Answers a [`Request::Disconnect`] of the cause [`DisconnectCause::Asleep`] once the sleep is as safe as the
    /// session: the client may be told that it may sleep. Left out if the store does not take it, if the session was not
    /// found or [stored](Connect::may_sleep), and if the link has been connected again meanwhile.
    Asleep,
    /// Answers [`Request::SetWill`].
    WillSet(ReasonCode),
    /// A client that [woke](Connect::wake) has been given everything that waited for it when it woke, and has
    /// acknowledged it; told once. What is published at QoS 1 or 2 after it woke waits for the next time, whether or not
    /// this has been told; QoS 0 is delivered as it comes. Shared groups do not count on a client that is only awake.
    Drained,
    /// The broker ends the connection; the link is already forgotten by the shard.
    Close(Box<Closing>),
}

/// The terms on which a client was admitted.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Who it is to the broker; the origin of its messages.
    pub client: Arc<ClientInfo>,
    /// State of an earlier connection was found.
    pub session_present: bool,
    /// The client sent no identifier and got this one's.
    pub client_id_assigned: bool,
    /// Seconds the session will be kept.
    pub session_expiry_interval: u32,
    /// Keep alive that the broker imposes instead of the client's.
    pub server_keep_alive: Option<u16>,
    /// Final data of enhanced authentication.
    pub auth: Option<AuthData>,
    /// User properties that hooks added.
    pub user_properties: Vec<(String, String)>,
    /// What the protocol has noted with the session, by number.
    pub notes: Vec<(u16, Bytes)>,
    /// The Will in force, if the session had it before: the client [kept](Connect::keeps_will) it, or
    /// [woke](Connect::wake).
    pub will: Option<Box<Will>>,
}

/// Why a client is refused or its connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The code that MQTT 5 clients see.
    pub reason: ReasonCode,
    /// A text for people.
    pub text: Option<String>,
    /// Where to go instead (§4.11).
    pub server_reference: Option<String>,
}

impl Closing {
    /// Only a code.
    pub fn new(reason: ReasonCode) -> Closing {
        Closing {
            reason,
            text: None,
            server_reference: None,
        }
    }

    /// A code and a text for people.
    pub fn because(reason: ReasonCode, text: impl Into<String>) -> Closing {
        Closing {
            reason,
            text: Some(text.into()),
            server_reference: None,
        }
    }
}

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What is delivered. The peer strips the client's mountpoint from its topic and replaces its expiry by the
    /// remaining time.
    pub message: Message,
    /// Present for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Quality of service of this delivery.
    pub qos: QoS,
    /// Sent before, on this connection or an earlier one.
    pub dup: bool,
    /// The retain flag of this delivery.
    pub retain: bool,
    /// Identifiers of all subscriptions that it matches (§3.3.2.3.8).
    pub subscription_ids: SubscriptionIds,
}

/// Subscription identifiers of a delivery; mostly none or one.
pub type SubscriptionIds = SmallVec<[u32; 2]>;

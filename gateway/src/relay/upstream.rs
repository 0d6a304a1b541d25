//! What lies between the driver of the relay and a state machine that speaks to the broker for MQTT-SN clients: values
//! in, values out, for either [`Mode`](super::settings::Mode).

use broker_core::{Event, LinkId, Request, Timestamp};
use bytes::BytesMut;

use super::{client::Credentials, connection::Timing, deliveries::QueueLimits};

/// One connection to the broker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u64);

/// What the driver is to do with a connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Open it. Answered by [`Transport::Opened`] or [`Transport::Closed`].
    Open(ConnId),
    /// Send this.
    Send(ConnId, BytesMut),
    /// Read no more from it.
    Pause(ConnId),
    /// Read on.
    Resume(ConnId),
    /// Send what was given, then close it. Answered by [`Transport::Closed`], soon, whatever the broker does.
    Close(ConnId),
}

/// What has happened to a connection to the broker.
#[derive(Clone, Debug)]
pub(crate) enum Transport<'a> {
    /// It is open.
    Opened,
    /// Bytes have come in.
    Input(&'a [u8]),
    /// It is closed, or could not be opened, for this reason. Nothing more comes of it.
    Closed(&'a str),
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A client is connected to the broker.
    Connected {
        /// Who.
        client_id: String,
        /// The broker had a session of it.
        session_present: bool,
    },
    /// A client was not connected.
    Refused {
        /// Who.
        client_id: String,
        /// Why.
        reason: String,
    },
    /// A client's connection has ended.
    Disconnected {
        /// Who.
        client_id: String,
        /// Why.
        reason: String,
    },
    /// Messages of a client were dropped, as its queue is full: said once until it has been empty.
    QueueFull {
        /// Whose.
        client_id: String,
    },
    /// The one connection to the broker stands.
    BrokerConnected,
    /// It does not, for this reason.
    BrokerLost(String),
}

/// What a state machine wants done, in order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// For peers.
    pub(crate) events: Vec<(LinkId, Event)>,
    /// For connections to the broker.
    pub(crate) commands: Vec<Command>,
    /// For the log.
    pub(crate) notices: Vec<Notice>,
}

impl Output {
    /// Nothing is left to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.commands.is_empty() && self.notices.is_empty()
    }
}

/// Settings of either way of relaying.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) timing: Timing,
    /// What waits for one client.
    pub(crate) queue: QueueLimits,
    /// Of clients that bring none, or of the one connection.
    pub(crate) credentials: Credentials,
    /// Sessions that are kept for clients that are away (one connection for all clients only).
    pub(crate) sessions_max: usize,
    /// Of random numbers.
    pub(crate) seed: u64,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Messages of QoS 0 for a client, dropped as its queue was full.
    pub(crate) dropped_qos0: u64,
    /// Messages of QoS 1 and 2 for a client, dropped as its queue was full (one connection for all clients only).
    pub(crate) dropped_queue_full: u64,
    /// Messages of the broker that are larger than a datagram can be.
    pub(crate) dropped_too_large: u64,
    /// Messages of the broker that nobody has subscribed to (any more).
    pub(crate) dropped_unmatched: u64,
    /// Messages of QoS 0 of clients that came while there was no connection to the broker.
    pub(crate) dropped_unconnected: u64,
}

/// A state machine between MQTT-SN peers and a broker.
pub(crate) trait Upstream {
    /// Before anything else.
    fn start(&mut self, now: Timestamp, out: &mut Output);

    /// A peer asks for something.
    fn handle_request(&mut self, now: Timestamp, link: LinkId, request: Request, out: &mut Output);

    /// Something has happened to a connection to the broker.
    fn handle_transport(&mut self, now: Timestamp, conn: ConnId, happening: Transport<'_>, out: &mut Output);

    /// The time that [`Upstream::poll_timeout`] named has come.
    fn handle_timeout(&mut self, now: Timestamp, out: &mut Output);

    /// When [`Upstream::handle_timeout`] must be called, if at all.
    fn poll_timeout(&self) -> Option<Timestamp>;

    /// The process ends in good order: takes leave of the broker. No Will is published, as no client was lost.
    fn shutdown(&mut self, now: Timestamp, out: &mut Output);

    /// What was counted.
    fn counters(&self) -> Counters;
}

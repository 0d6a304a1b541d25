//! Frames between the nodes of a cluster.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use bytes::Bytes;
use thiserror::Error;

use super::Retry;
use crate::{Timestamp, shard::Ticket};

/// One run of one node: a node that starts again is another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// The node's configured name.
    pub name: Arc<str>,
    /// Higher at each start.
    pub incarnation: u64,
}

/// Where the answer to a request of another node goes. Only the fabric that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo(pub Bytes);

/// What is asked of a [`Fabric`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FabricCommand {
    /// A frame to one node, at most once. It is lost without a word if the node is not there, the way breaks or
    /// the receiver is behind.
    Send {
        /// To whom.
        to: NodeId,
        /// The bytes.
        frame: Bytes,
    },
    /// The same, to all other nodes.
    SendAll {
        /// The bytes.
        frame: Bytes,
    },
    /// A frame that wants an answer: [`FabricEvent::Replied`] comes back, once, at the deadline at the latest.
    Request {
        /// Comes back with the answer.
        ticket: Ticket,
        /// To whom.
        to: NodeId,
        /// The bytes.
        frame: Bytes,
        /// When waiting is over. Whoever set it polls at that time.
        deadline: Timestamp,
    },
    /// The answer to [`FabricEvent::Request`]; lost if nobody waits for it any more.
    Reply {
        /// From the request.
        to: ReplyTo,
        /// The bytes.
        frame: Bytes,
    },
}

/// What a [`Fabric`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FabricEvent {
    /// Another node is there. Comes before any of its frames; at first, once for each that was there before.
    Joined(NodeId),
    /// It is not there any more; none of its frames comes after it.
    Left(NodeId),
    /// A frame of another node.
    Frame {
        /// From whom.
        from: NodeId,
        /// The bytes.
        frame: Bytes,
    },
    /// A frame of another node that wants an answer.
    Request {
        /// From whom.
        from: NodeId,
        /// Where to.
        reply_to: ReplyTo,
        /// The bytes.
        frame: Bytes,
    },
    /// The answer to a request, or why there is none.
    Replied {
        /// From the request.
        ticket: Ticket,
        /// The bytes.
        reply: Result<Bytes, FabricError>,
    },
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FabricError {
    /// There was no such node when the frame was to be sent.
    #[error("no such node")]
    NoSuchNode,
    /// The receiver is behind, and the frame was not delivered.
    #[error("the node is busy")]
    Busy,
    /// The frame is larger than [`FabricLimits::frame_bytes_max`].
    #[error("the frame is too large")]
    TooLarge,
    /// The node left before it answered.
    #[error("the node left before it answered")]
    Left,
    /// No answer until the deadline.
    #[error("no answer in time")]
    TimedOut,
}

impl FabricError {
    /// Whether asking again helps; [`Retry::Unsure`]: the node may have got and executed the request.
    pub const fn retry(self) -> Retry {
        match self {
            FabricError::TooLarge => Retry::Never,
            FabricError::Busy => Retry::Later,
            FabricError::NoSuchNode => Retry::Refresh,
            FabricError::Left | FabricError::TimedOut => Retry::Unsure,
        }
    }
}

/// What one handle accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FabricLimits {
    /// Bytes of the largest frame. A larger one is not sent: a request is answered, others are counted.
    pub frame_bytes_max: usize,
    /// Requests whose answer has not been polled.
    pub requests_max: usize,
    /// Frames and requests of other nodes that have not been polled. More are not delivered, and counted.
    pub inbox_frames_max: usize,
}

/// The way to the other nodes; on one machine there are none.
///
/// Frames from one node to another arrive in the order they were sent, requests among them, perhaps with gaps.
pub trait Fabric: Send {
    /// What this handle accepts.
    fn limits(&self) -> FabricLimits;

    /// This node.
    fn node(&self) -> &NodeId;

    /// Frames that this node did not send or not receive because of a limit.
    fn dropped(&self) -> u64;

    /// Takes commands from the front until none is left or the next is a request beyond `requests_max`.
    fn submit(&mut self, now: Timestamp, commands: &mut VecDeque<FabricCommand>);

    /// The next event. `None`: nothing yet, and `waker`, in place of an earlier one, will be woken when there is,
    /// except for deadlines and for what the node's own `submit` brings about.
    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<FabricEvent>;
}

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    task::Waker,
};

use bytes::Bytes;

use super::lock;
use crate::{
    Timestamp,
    shard::Ticket,
    store::{Fabric, FabricCommand, FabricError, FabricEvent, FabricLimits, NodeId, ReplyTo},
};

/// Connects nodes that live in one process: none but itself for a node on its own, several in a test.
#[derive(Clone)]
pub struct MemoryHub {
    hub: Arc<Mutex<Hub>>,
    limits: FabricLimits,
}

/// A node's end of a [`MemoryHub`]; the node leaves when it is dropped.
pub struct MemoryFabric {
    hub: Arc<Mutex<Hub>>,
    limits: FabricLimits,
    node: NodeId,
}

#[derive(Default)]
struct Hub {
    incarnations: u64,
    requests: u64,
    members: BTreeMap<NodeId, Member>,
}

#[derive(Default)]
struct Member {
    inbox: VecDeque<FabricEvent>,
    /// Frames and requests in the inbox.
    frames: usize,
    /// Answers in the inbox.
    answers: usize,
    /// The member's own requests without an answer, by number.
    asked: BTreeMap<u64, Asked>,
    dropped: u64,
    waker: Option<Waker>,
}

struct Asked {
    ticket: Ticket,
    to: NodeId,
    deadline: Timestamp,
}

impl MemoryHub {
    /// A hub without nodes; the limits are each node's.
    pub fn new(limits: FabricLimits) -> MemoryHub {
        MemoryHub {
            hub: Arc::default(),
            limits,
        }
    }

    /// A node joins. One of the same name that is still there stays: it is another incarnation.
    pub fn join(&self, name: &str) -> MemoryFabric {
        let mut hub = lock(&self.hub);
        hub.incarnations += 1;
        let node = NodeId {
            name: name.into(),
            incarnation: hub.incarnations,
        };
        let mut joined = Member::default();
        for (other, member) in &mut hub.members {
            joined.push(FabricEvent::Joined(other.clone()));
            member.push(FabricEvent::Joined(node.clone()));
        }
        hub.members.insert(node.clone(), joined);
        MemoryFabric {
            hub: Arc::clone(&self.hub),
            limits: self.limits,
            node,
        }
    }
}

impl Fabric for MemoryFabric {
    fn limits(&self) -> FabricLimits {
        self.limits
    }

    fn node(&self) -> &NodeId {
        &self.node
    }

    fn dropped(&self) -> u64 {
        lock(&self.hub).member(&self.node).dropped
    }

    fn submit(&mut self, _: Timestamp, commands: &mut VecDeque<FabricCommand>) {
        let mut hub = lock(&self.hub);
        while let Some(command) = commands.front() {
            let member = hub.member(&self.node);
            if matches!(command, FabricCommand::Request { .. })
                && member.asked.len() + member.answers >= self.limits.requests_max
            {
                return;
            }
            match commands.pop_front() {
                Some(FabricCommand::Send { to, frame }) => self.send(&mut hub, &to, frame),
                Some(FabricCommand::SendAll { frame }) => {
                    let others = hub.members.keys().filter(|other| **other != self.node).cloned();
                    for to in others.collect::<Vec<_>>() {
                        self.send(&mut hub, &to, frame.clone());
                    }
                }
                Some(FabricCommand::Request {
                    ticket,
                    to,
                    frame,
                    deadline,
                }) => self.request(&mut hub, Asked { ticket, to, deadline }, frame),
                Some(FabricCommand::Reply { to, frame }) => self.reply(&mut hub, &to, frame),
                None => {}
            }
        }
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<FabricEvent> {
        let mut hub = lock(&self.hub);
        let member = hub.member(&self.node);
        member.fail(FabricError::TimedOut, |asked| asked.deadline <= now);
        let event = member.inbox.pop_front();
        match &event {
            Some(FabricEvent::Frame { .. } | FabricEvent::Request { .. }) => member.frames -= 1,
            Some(FabricEvent::Replied { .. }) => member.answers -= 1,
            Some(FabricEvent::Joined(_) | FabricEvent::Left(_)) => {}
            None => member.waker = Some(waker.clone()),
        }
        event
    }
}

impl MemoryFabric {
    fn send(&self, hub: &mut Hub, to: &NodeId, frame: Bytes) {
        if frame.len() > self.limits.frame_bytes_max {
            hub.member(&self.node).dropped += 1;
            return;
        }
        let from = self.node.clone();
        if let Some(member) = hub.members.get_mut(to) {
            member.receive(self.limits, FabricEvent::Frame { from, frame });
        }
    }

    fn request(&self, hub: &mut Hub, asked: Asked, frame: Bytes) {
        hub.requests += 1;
        let number = hub.requests;
        let [hi, lo] = [self.node.incarnation.to_be_bytes(), number.to_be_bytes()];
        let event = FabricEvent::Request {
            from: self.node.clone(),
            reply_to: ReplyTo([hi, lo].concat().into()),
            frame: frame.clone(),
        };
        let refusal = if frame.len() > self.limits.frame_bytes_max {
            Some(FabricError::TooLarge)
        } else if let Some(member) = hub.members.get_mut(&asked.to) {
            (!member.receive(self.limits, event)).then_some(FabricError::Busy)
        } else {
            Some(FabricError::NoSuchNode)
        };
        let own = hub.member(&self.node);
        match refusal {
            None => {
                own.asked.insert(number, asked);
            }
            Some(error) => own.answer(asked.ticket, Err(error)),
        }
    }

    fn reply(&self, hub: &mut Hub, to: &ReplyTo, frame: Bytes) {
        let too_large = frame.len() > self.limits.frame_bytes_max;
        if too_large {
            hub.member(&self.node).dropped += 1;
        }
        let Some((incarnation, number)) = to.0.split_first_chunk() else {
            return;
        };
        let Ok(number) = number.try_into().map(u64::from_be_bytes) else {
            return;
        };
        let incarnation = u64::from_be_bytes(*incarnation);
        let asker = hub
            .members
            .iter_mut()
            .find(|(node, _)| node.incarnation == incarnation);
        if let Some((_, asker)) = asker
            && !too_large
            && let Some(asked) = asker.asked.remove(&number)
        {
            asker.answer(asked.ticket, Ok(frame));
        }
    }
}

impl Drop for MemoryFabric {
    fn drop(&mut self) {
        let mut hub = lock(&self.hub);
        hub.members.remove(&self.node);
        for member in hub.members.values_mut() {
            member.fail(FabricError::Left, |asked| asked.to == self.node);
            member.push(FabricEvent::Left(self.node.clone()));
        }
    }
}

impl Hub {
    fn member(&mut self, node: &NodeId) -> &mut Member {
        self.members
            .get_mut(node)
            .expect("a node is a member until it is dropped")
    }
}

impl Member {
    fn push(&mut self, event: FabricEvent) {
        self.inbox.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// False if there is no room.
    fn receive(&mut self, limits: FabricLimits, event: FabricEvent) -> bool {
        let has_room = self.frames < limits.inbox_frames_max;
        if has_room {
            self.frames += 1;
            self.push(event);
        } else {
            self.dropped += 1;
        }
        has_room
    }

    fn answer(&mut self, ticket: Ticket, reply: Result<Bytes, FabricError>) {
        self.answers += 1;
        self.push(FabricEvent::Replied { ticket, reply });
    }

    fn fail(&mut self, error: FabricError, is_meant: impl Fn(&Asked) -> bool) {
        let failed: Vec<_> = self.asked.extract_if(.., |_, asked| is_meant(asked)).collect();
        for (_, asked) in failed {
            self.answer(asked.ticket, Err(error));
        }
    }
}

use std::collections::VecDeque;

use bytes::Bytes;

use super::{text, wait};
use crate::{
    Timestamp,
    shard::Ticket,
    store::{Fabric, FabricCommand, FabricError, FabricEvent, NodeId, ReplyTo, Retry},
};

/// Makes the nodes to be tested.
pub trait FabricFactory {
    /// A node's end.
    type Fabric: Fabric;

    /// Forgets earlier nodes: those that join from now on do not see them.
    fn reset(&mut self);

    /// A node joins.
    fn join(&mut self, name: &str) -> Self::Fabric;
}

fn submit(fabric: &mut impl Fabric, now: Timestamp, command: FabricCommand) {
    let mut commands = VecDeque::from([command]);
    fabric.submit(now, &mut commands);
    assert!(
        commands.is_empty(),
        "a command was not taken though there was room"
    );
}

fn send(fabric: &mut impl Fabric, now: Timestamp, to: &NodeId, frame: Bytes) {
    submit(
        fabric,
        now,
        FabricCommand::Send {
            to: to.clone(),
            frame,
        },
    );
}

fn request(ticket: u64, to: &NodeId, frame: Bytes, deadline: Timestamp) -> FabricCommand {
    FabricCommand::Request {
        ticket: Ticket(ticket),
        to: to.clone(),
        frame,
        deadline,
    }
}

fn event(fabric: &mut impl Fabric, now: Timestamp) -> FabricEvent {
    wait(|waker| fabric.poll(now, waker))
}

fn frame(from: &NodeId, frame: Bytes) -> FabricEvent {
    let from = from.clone();
    FabricEvent::Frame { from, frame }
}

fn replied(ticket: u64, reply: Result<Bytes, FabricError>) -> FabricEvent {
    let ticket = Ticket(ticket);
    FabricEvent::Replied { ticket, reply }
}

fn asked(fabric: &mut impl Fabric, now: Timestamp) -> (NodeId, ReplyTo, Bytes) {
    match event(fabric, now) {
        FabricEvent::Request {
            from,
            reply_to,
            frame,
        } => (from, reply_to, frame),
        other => panic!("instead of a request came {other:?}"),
    }
}

/// Two nodes that know each other.
fn pair<F: FabricFactory>(factory: &mut F, now: Timestamp) -> (F::Fabric, F::Fabric) {
    factory.reset();
    let mut a = factory.join("a");
    let mut b = factory.join("b");
    assert_eq!(event(&mut a, now), FabricEvent::Joined(b.node().clone()));
    assert_eq!(event(&mut b, now), FabricEvent::Joined(a.node().clone()));
    (a, b)
}

/// Everything below.
pub fn fabric<F: FabricFactory>(factory: &mut F, now: Timestamp) {
    fabric_membership(factory, now);
    fabric_frames(factory, now);
    fabric_requests(factory, now);
    fabric_limits(factory, now);
}

/// Nodes see each other come and go; a node that starts again is another one.
pub fn fabric_membership<F: FabricFactory>(factory: &mut F, now: Timestamp) {
    let (mut a, b) = pair(factory, now);
    assert!(a.node() != b.node() && &*a.node().name == "a");
    let old = b.node().clone();
    drop(b);
    assert_eq!(event(&mut a, now), FabricEvent::Left(old.clone()));
    let mut again = factory.join("b");
    let new = again.node().clone();
    assert!(new.name == old.name && new.incarnation > old.incarnation);
    assert_eq!(event(&mut a, now), FabricEvent::Joined(new.clone()));
    assert_eq!(event(&mut again, now), FabricEvent::Joined(a.node().clone()));
    send(&mut a, now, &old, text("for the dead"));
    send(&mut a, now, &new, text("for the living"));
    assert_eq!(event(&mut again, now), frame(a.node(), text("for the living")));

    // Alone, as on one machine: frames go nowhere, requests are answered.
    factory.reset();
    let mut alone = factory.join("a");
    let frame = text("x");
    submit(&mut alone, now, FabricCommand::SendAll { frame: frame.clone() });
    send(&mut alone, now, &old, frame.clone());
    submit(&mut alone, now, request(1, &old, frame, Timestamp::NEVER));
    assert_eq!(event(&mut alone, now), replied(1, Err(FabricError::NoSuchNode)));
}

/// Frames arrive in order, to one or to all others, not to the sender.
pub fn fabric_frames<F: FabricFactory>(factory: &mut F, now: Timestamp) {
    let (mut a, mut b) = pair(factory, now);
    let mut c = factory.join("c");
    assert_eq!(event(&mut a, now), FabricEvent::Joined(c.node().clone()));
    assert_eq!(event(&mut b, now), FabricEvent::Joined(c.node().clone()));
    event(&mut c, now);
    event(&mut c, now);
    let from = a.node().clone();
    send(&mut a, now, b.node(), text("one"));
    submit(&mut a, now, FabricCommand::SendAll { frame: text("two") });
    send(&mut a, now, b.node(), Bytes::new());
    for expected in ["one", "two", ""] {
        assert_eq!(event(&mut b, now), frame(&from, text(expected)));
    }
    assert_eq!(event(&mut c, now), frame(&from, text("two")));
    send(&mut b, now, &from, text("back"));
    assert_eq!(event(&mut a, now), frame(b.node(), text("back")));
}

/// Every request is answered once: by the node, or by its absence, or by the time.
pub fn fabric_requests<F: FabricFactory>(factory: &mut F, now: Timestamp) {
    let (mut a, mut b) = pair(factory, now);
    let deadline = now.after_secs(3600);
    submit(&mut a, now, request(1, b.node(), text("q1"), deadline));
    submit(&mut a, now, request(2, b.node(), text("q2"), deadline));
    let (from, to_first, question) = asked(&mut b, now);
    assert_eq!((&from, question), (a.node(), text("q1")));
    let (_, to, question) = asked(&mut b, now);
    assert_eq!(question, text("q2"));
    for (to, frame) in [
        (to, text("a2")),
        (to_first.clone(), text("a1")),
        (to_first, text("again")),
    ] {
        submit(&mut b, now, FabricCommand::Reply { to, frame });
    }
    assert_eq!(event(&mut a, now), replied(2, Ok(text("a2"))));
    assert_eq!(event(&mut a, now), replied(1, Ok(text("a1"))));

    // In time or never: the late answer is dropped, as is the second one above.
    submit(&mut a, now, request(3, b.node(), text("q3"), deadline));
    let (_, to, _) = asked(&mut b, now);
    assert_eq!(event(&mut a, deadline), replied(3, Err(FabricError::TimedOut)));
    let frame = text("late");
    submit(&mut b, deadline, FabricCommand::Reply { to, frame });
    submit(
        &mut a,
        deadline,
        request(4, b.node(), text("q4"), Timestamp::NEVER),
    );
    asked(&mut b, deadline);
    let node = b.node().clone();
    drop(b);
    let events = [event(&mut a, deadline), event(&mut a, deadline)];
    assert!(events.contains(&replied(4, Err(FabricError::Left))), "{events:?}");
    assert!(events.contains(&FabricEvent::Left(node)), "{events:?}");
    assert_eq!(FabricError::TimedOut.retry(), Retry::Unsure);
}

/// What is too large or too much is not delivered, and counted or answered.
pub fn fabric_limits<F: FabricFactory>(factory: &mut F, now: Timestamp) {
    let (mut a, mut b) = pair(factory, now);
    let (limits, to, never) = (a.limits(), b.node().clone(), Timestamp::NEVER);
    let largest = Bytes::from(vec![7; limits.frame_bytes_max]);
    let too_large = Bytes::from(vec![7; limits.frame_bytes_max + 1]);
    send(&mut a, now, &to, too_large.clone());
    submit(&mut a, now, request(1, &to, too_large, never));
    assert_eq!(event(&mut a, now), replied(1, Err(FabricError::TooLarge)));
    assert_eq!(a.dropped(), 1);
    send(&mut a, now, &to, largest.clone());
    assert_eq!(event(&mut b, now), frame(a.node(), largest));

    let count = limits.requests_max as u64;
    let mut commands: VecDeque<_> = (0..count + 1)
        .map(|ticket| request(ticket, &to, text("q"), never))
        .chain([FabricCommand::SendAll { frame: text("after") }])
        .collect();
    a.submit(now, &mut commands);
    assert_eq!(
        commands.len(),
        2,
        "the order is kept: nothing passes a request that waits"
    );
    for _ in 0..count {
        let (_, to, _) = asked(&mut b, now);
        let frame = text("r");
        submit(&mut b, now, FabricCommand::Reply { to, frame });
    }
    for _ in 0..count {
        event(&mut a, now);
        a.submit(now, &mut commands);
    }
    assert!(commands.is_empty());
    asked(&mut b, now);
    assert_eq!(event(&mut b, now), frame(a.node(), text("after")));
}

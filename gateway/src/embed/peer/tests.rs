use broker_core::{
    ClientInfo, Delivery, Message, MessageParts, Outbox, PacketId, Peer as _, QoS, ReasonCode,
    SubscriptionIds,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::*;
use crate::embed::{queue::Queue, shared::AlreadySubscribed};

/// A peer without a worker: what the broker and the application would do is done by the test.
struct Harness {
    shared: Arc<Shared>,
    peer: Peer,
    requests: Vec<Request>,
    close: Option<Close>,
    admission: oneshot::Receiver<Result<Connected, Closing>>,
    permits: Arc<Semaphore>,
}

const NOW: Timestamp = Timestamp::from_millis(1_000);

impl Harness {
    fn new() -> Harness {
        let shared = Arc::new(Shared::default());
        let (reply, admission) = oneshot::channel();
        let info = ClientInfo::internal("app", false);
        let connect = Connect {
            client_id: "app".to_owned(),
            username: None,
            password: None,
            peer: None,
            local: None,
            connection: info.connection,
            certificate: None,
            mountpoint: "".into(),
            clean_start: true,
            session_expiry_interval: 0,
            keep_alive: 0,
            receive_maximum: 8,
            auth: None,
            will: None,
            user_properties: Vec::new(),
            is_bridge: false,
            keeps_will: false,
            may_sleep: false,
            wake: None,
        };
        Harness {
            peer: Peer::new(Arc::clone(&shared), connect, reply),
            shared,
            requests: Vec::new(),
            close: None,
            admission,
            permits: Arc::new(Semaphore::new(4)),
        }
    }

    /// A client that is connected, to a session of `expiry` seconds.
    fn connected(session_present: bool, expiry: u32) -> Harness {
        let mut harness = Harness::new();
        assert!(matches!(harness.nudge()[..], [Request::Connect(_)]));
        let connected = Connected {
            client: Arc::new(ClientInfo {
                mountpoint: "home/".into(),
                ..ClientInfo::internal("app", false)
            }),
            session_present,
            client_id_assigned: false,
            session_expiry_interval: expiry,
            server_keep_alive: None,
            auth: None,
            user_properties: Vec::new(),
            notes: Vec::new(),
            will: None,
        };
        assert!(harness.event(Event::Connected(Box::new(connected))).is_empty());
        assert!(harness.admission.try_recv().unwrap().is_ok());
        harness
    }

    fn call(&mut self, call: impl FnOnce(&mut Peer, &mut Effects<'_>)) -> Vec<Request> {
        let mut wire = Outbox::new();
        let mut effects = Effects {
            wire: &mut wire,
            requests: &mut self.requests,
            close: &mut self.close,
        };
        call(&mut self.peer, &mut effects);
        mem::take(&mut self.requests)
    }

    fn nudge(&mut self) -> Vec<Request> {
        self.call(|peer, effects| {
            peer.handle_input(NOW, &[], effects);
        })
    }

    fn event(&mut self, event: Event) -> Vec<Request> {
        self.call(|peer, effects| peer.handle_event(NOW, event, effects))
    }

    fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.permits).try_acquire_owned().unwrap()
    }

    /// Subscribes and has it granted; the queue and the subscription identifier.
    fn subscribe(&mut self, filter: &str) -> (Arc<Queue>, u32) {
        let queue = Queue::new(2);
        let (reply, mut answer) = oneshot::channel();
        let command = Command::Subscribe {
            filter: filter.to_owned(),
            options: broker_core::SubscribeOptions::default(),
            queue: Arc::clone(&queue),
            reply,
            permit: self.permit(),
        };
        self.shared.send(command).unwrap();
        let requests = self.nudge();
        let [Request::Subscribe(subscribe)] = &requests[..] else {
            panic!("{requests:?}");
        };
        self.event(Event::SubAck(subscribe.packet_id, vec![ReasonCode::GrantedQoS1]));
        assert!(matches!(answer.try_recv(), Ok(Ok(ReasonCode::GrantedQoS1))));
        (queue, subscribe.subscription_id.unwrap())
    }

    fn deliver(&mut self, qos: u8, packet_id: u16, ids: &[u32]) -> Vec<Request> {
        self.event(Event::Deliver(Delivery {
            message: message("home/t", QoS::new(qos).unwrap()),
            packet_id: PacketId::new(packet_id),
            qos: QoS::new(qos).unwrap(),
            dup: false,
            retain: false,
            subscription_ids: SubscriptionIds::from_slice(ids),
        }))
    }
}

fn message(topic: &str, qos: QoS) -> Message {
    let parts = MessageParts {
        qos,
        ..MessageParts::new(topic, b"x")
    };
    parts.publish(NOW, ClientInfo::system()).unwrap()
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

#[test]
fn a_delivery_is_acknowledged_once_all_its_streams_have_given_it() {
    let mut harness = Harness::connected(false, 0);
    let (wide, wide_id) = harness.subscribe("#");
    let (narrow, narrow_id) = harness.subscribe("t");
    assert!(harness.deliver(1, 7, &[wide_id, narrow_id]).is_empty());
    let item = wide.pop().unwrap();
    assert_eq!(item.received.topic(), "t", "without the mountpoint");
    drop(item);
    assert!(harness.nudge().is_empty(), "one stream still has it");
    drop(narrow.pop());
    assert!(matches!(
        harness.nudge()[..],
        [Request::PubAck(packet_id, ReasonCode::Success)] if packet_id == id(7)
    ));
}

#[test]
fn a_delivery_of_qos_2_is_received_when_it_is_taken_and_then_completed() {
    let mut harness = Harness::connected(false, 0);
    let (queue, stream) = harness.subscribe("t");
    harness.deliver(2, 3, &[stream]);
    drop(queue.pop());
    assert!(matches!(harness.nudge()[..], [Request::PubRec(packet_id, _)] if packet_id == id(3)));
    let completed = harness.event(Event::PubRel(id(3), ReasonCode::Success));
    assert!(matches!(completed[..], [Request::PubComp(packet_id, _)] if packet_id == id(3)));
}

#[test]
fn qos_0_above_the_bound_is_dropped_and_counted_and_qos_1_is_not() {
    let mut harness = Harness::connected(false, 0);
    let (queue, stream) = harness.subscribe("t");
    for _ in 0..5 {
        harness.deliver(0, 0, &[stream]);
    }
    harness.deliver(1, 1, &[stream]);
    assert_eq!(queue.dropped(), 3);
    let qos: Vec<_> = std::iter::from_fn(|| queue.pop())
        .map(|item| item.received.qos() as u8)
        .collect();
    assert_eq!(qos, [0, 0, 1]);
    harness.deliver(0, 0, &[stream]);
    assert!(queue.pop().is_some(), "there is room again");
}

#[test]
fn what_a_resumed_session_sends_waits_for_its_subscription() {
    let mut harness = Harness::connected(true, 60);
    let stream = subscription_id("t");
    harness.deliver(1, 1, &[stream]);
    harness.deliver(1, 2, &[stream]);
    harness.deliver(0, 0, &[stream]);
    assert!(harness.nudge().is_empty(), "nothing is acknowledged");
    assert_eq!(harness.shared.unclaimed(), 1, "QoS 0 does not wait");
    let (queue, granted) = harness.subscribe("t");
    assert_eq!(granted, stream, "the same in every process");
    harness.deliver(1, 3, &[stream]);
    for packet_id in 1..=3 {
        drop(queue.pop());
        assert!(matches!(harness.nudge()[..], [Request::PubAck(taken, _)] if taken == id(packet_id)));
    }
}

#[test]
fn what_nobody_subscribes_to_is_given_up_by_unsubscribing() {
    let mut harness = Harness::connected(true, 60);
    let stream = subscription_id("t");
    harness.deliver(1, 1, &[stream]);
    let unsubscribe = Command::Unsubscribe {
        filter: "t".to_owned(),
        only: None,
        reply: None,
    };
    harness.shared.send(unsubscribe).unwrap();
    assert!(matches!(&harness.nudge()[..], [Request::Unsubscribe(_)]));
    // What the broker had queued before it knew is acknowledged at once.
    harness.deliver(1, 2, &[stream]);
    let acknowledged: Vec<_> = harness
        .nudge()
        .into_iter()
        .map(|request| matches!(request, Request::PubAck(..)))
        .collect();
    assert_eq!(acknowledged, [true, true]);
}

#[test]
fn a_detached_subscription_keeps_what_was_not_taken() {
    let mut harness = Harness::connected(false, 60);
    let (queue, stream) = harness.subscribe("t");
    harness.deliver(1, 1, &[stream]);
    let detach = Command::Detach {
        filter: "t".to_owned(),
        queue,
    };
    harness.shared.send(detach).unwrap();
    assert!(harness.nudge().is_empty());
    harness.deliver(1, 2, &[stream]);
    assert!(harness.nudge().is_empty());
    let (queue, _) = harness.subscribe("t");
    assert!(queue.pop().is_some() && queue.pop().is_some() && queue.pop().is_none());
}

#[test]
fn a_second_subscription_to_a_filter_is_refused_and_leaves_the_first() {
    let mut harness = Harness::connected(false, 0);
    let (first, stream) = harness.subscribe("t");
    let second = Queue::new(2);
    let (reply, mut answer) = oneshot::channel();
    let command = Command::Subscribe {
        filter: "t".to_owned(),
        options: broker_core::SubscribeOptions::default(),
        queue: Arc::clone(&second),
        reply,
        permit: harness.permit(),
    };
    harness.shared.send(command).unwrap();
    assert!(harness.nudge().is_empty());
    assert!(matches!(answer.try_recv(), Ok(Err(AlreadySubscribed))));
    let unsubscribe = Command::Unsubscribe {
        filter: "t".to_owned(),
        only: Some(second),
        reply: None,
    };
    harness.shared.send(unsubscribe).unwrap();
    assert!(harness.nudge().is_empty(), "it is not the second's");
    harness.deliver(1, 1, &[stream]);
    assert!(first.pop().is_some());
}

#[test]
fn a_publish_of_qos_2_is_answered_when_it_is_complete_and_returns_its_permit() {
    let mut harness = Harness::connected(false, 0);
    let (reply, mut answer) = oneshot::channel();
    let command = Command::Publish {
        message: message("t", QoS::ExactlyOnce),
        reply: Some(reply),
        permit: harness.permit(),
    };
    harness.shared.send(command).unwrap();
    let requests = harness.nudge();
    let [Request::Publish(publish)] = &requests[..] else {
        panic!("{requests:?}");
    };
    let packet_id = publish.packet_id.unwrap();
    let released = harness.event(Event::PubRec(packet_id, ReasonCode::NoMatchingSubscribers));
    assert!(matches!(released[..], [Request::PubRel(released, _)] if released == packet_id));
    assert!(answer.try_recv().is_err());
    assert_eq!(harness.permits.available_permits(), 3);
    harness.event(Event::PubComp(packet_id, ReasonCode::Success));
    assert_eq!(answer.try_recv(), Ok(ReasonCode::NoMatchingSubscribers));
    assert_eq!(harness.permits.available_permits(), 4);
}

#[test]
fn a_connect_that_is_given_up_is_a_disconnect() {
    let mut harness = Harness::new();
    let command = Command::Disconnect {
        disconnect: Disconnect {
            cause: DisconnectCause::Normal,
            session_expiry_interval: None,
            keeps_will: false,
            user_properties: Vec::new(),
        },
        reply: None,
    };
    harness.shared.send(command).unwrap();
    let requests = harness.nudge();
    assert!(matches!(
        &requests[..],
        [Request::Connect(_), Request::Disconnect(_)]
    ));
    assert!(harness.close.is_some());
    assert_eq!(harness.shared.end(), Some(End::Disconnected));
}

#[test]
fn the_end_reaches_everybody_who_waits() {
    for expiry in [0, 60] {
        let mut harness = Harness::connected(false, expiry);
        let (queue, stream) = harness.subscribe("t");
        harness.deliver(0, 0, &[stream]);
        harness.deliver(1, 1, &[stream]);
        let (reply, mut answer) = oneshot::channel();
        let command = Command::Publish {
            message: message("t", QoS::AtLeastOnce),
            reply: Some(reply),
            permit: harness.permit(),
        };
        harness.shared.send(command).unwrap();
        harness.nudge();
        let closing = Closing::new(ReasonCode::SessionTakenOver);
        assert!(harness.event(Event::Close(Box::new(closing.clone()))).is_empty());
        assert_eq!(harness.shared.end(), Some(End::Closed(closing)));
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(harness.permits.available_permits(), 4);
        // A kept session sends again what was not acknowledged: it must not come twice.
        let left = std::iter::from_fn(|| queue.pop()).count();
        assert_eq!(left, if expiry == 0 { 2 } else { 1 });
        let context = &std::task::Context::from_waker(std::task::Waker::noop());
        assert!(matches!(queue.poll(context), std::task::Poll::Ready(None)));
    }
}

#[test]
fn a_worker_that_is_gone_ends_its_clients() {
    let mut harness = Harness::connected(false, 0);
    let (queue, _) = harness.subscribe("t");
    let Harness { shared, peer, .. } = harness;
    drop(peer);
    assert_eq!(shared.end(), Some(End::BrokerEnded));
    assert!(shared.send(Command::Taken(id(1), QoS::AtLeastOnce)).is_err());
    let context = &std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(queue.poll(context), std::task::Poll::Ready(None)));
}

#[test]
fn identifiers_of_subscriptions_are_within_their_range() {
    for filter in ["", "#", "a/b/+", "$share/g/t"] {
        assert!((1..=SUBSCRIPTION_ID_MAX).contains(&subscription_id(filter)));
    }
    assert_eq!(next_subscription_id(SUBSCRIPTION_ID_MAX), 1);
    assert_eq!(next_subscription_id(1), 2);
}

//! The broker as a library, as an application uses it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use futures_core::Stream;
use tidegate::embed::{
    Broker, Client, ClientError, ClientInfo, Connect, End, Message, MessageParts, QoS, ReasonCode, Received,
    RetainHandling, SubscribeOptions, Subscription, Will,
    admission::{Action, Verdict},
    block_on,
    hooks::{Hook, HookContext, HookPoint, HookPoints, PublishVerdict},
};

/// With one worker all clients share a shard: what one does happens before what another does after it.
fn broker(workers: u8) -> Broker {
    Broker::builder()
        .set("node.workers", &workers.to_string())
        .start()
        .expect("a broker without listeners")
}

async fn connect(broker: &Broker, id: &str) -> Client {
    broker.client(id).connect().await.expect("anybody may connect")
}

fn text(received: Option<Received>) -> String {
    let received = received.expect("a message");
    String::from_utf8(received.payload().to_vec()).expect("text")
}

fn metric(broker: &Broker, name: &str) -> u64 {
    let metrics = broker.metrics();
    let found = metrics.iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no metric {name}")).1
}

#[test]
fn a_message_goes_from_one_client_to_another_with_all_its_properties() {
    let broker = broker(2);
    block_on(async {
        let (sender, receiver) = (
            connect(&broker, "sender").await,
            connect(&broker, "receiver").await,
        );
        let mut stream = receiver.subscribe("a/+", QoS::ExactlyOnce).await.unwrap();
        assert_eq!(stream.granted(), ReasonCode::GrantedQoS2);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let sent = sender
                .publish("a/b", "{}")
                .qos(qos)
                .expiry(Duration::from_secs(60))
                .text()
                .content_type("application/json")
                .response_topic("answers")
                .correlation_data(b"7")
                .user_property("k", "1")
                .user_property("k", "2");
            assert_eq!(sent.await.unwrap(), ReasonCode::Success);
            let received = stream.next().await.expect("a message");
            assert_eq!((received.topic(), received.payload()), ("a/b", &b"{}"[..]));
            assert_eq!(
                (received.qos(), received.retain(), received.dup()),
                (qos, false, false)
            );
            assert_eq!(received.content_type(), Some("application/json"));
            assert_eq!(received.response_topic(), Some("answers"));
            assert_eq!(received.correlation_data(), Some(&b"7"[..]));
            assert_eq!(
                received.user_properties().collect::<Vec<_>>(),
                [("k", "1"), ("k", "2")]
            );
            assert!(received.message().properties().payload_is_utf8());
        }
        let nobody = sender.publish("b", "").qos(QoS::AtLeastOnce).await;
        assert_eq!(nobody, Ok(ReasonCode::NoMatchingSubscribers));
    });
    broker.shutdown();
}

#[test]
fn what_no_packet_could_carry_is_refused() {
    let broker = broker(1);
    block_on(async {
        let client = connect(&broker, "").await;
        assert!(!client.id().is_empty(), "the broker assigns one");
        let invalid = |topic: &str| Err(ClientError::InvalidTopic(topic.to_owned()));
        assert_eq!(client.publish("a/#", "").await, invalid("a/#"));
        assert_eq!(client.publish("a", "").response_topic("+").await, invalid("+"));
        let named = client.publish("a", "").user_property("a\0", "b").await;
        assert_eq!(named, Err(ClientError::InvalidProperty("user property")));
        let long = vec![0; 65_536];
        let data = client.publish("a", "").correlation_data(&long).await;
        assert_eq!(data, Err(ClientError::InvalidProperty("correlation data")));
        let filter = client.subscribe("a#", QoS::AtMostOnce).await.unwrap_err();
        assert_eq!(filter, ClientError::InvalidFilter("a#".to_owned()));
        let will = Will {
            topic: "t".to_owned(),
            payload: Vec::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            delay_interval: 0,
            expiry_interval: None,
            properties: b"\x03\0\x09short".to_vec(),
        };
        let refused = broker.client("c").will(will).connect().await.unwrap_err();
        assert_eq!(refused, ClientError::InvalidProperty("will properties"));
        let lied = client.publish("a", b"\xff").qos(QoS::AtLeastOnce).text().await;
        assert_eq!(lied, Err(ClientError::Refused(ReasonCode::PayloadFormatInvalid)));
    });
}

#[test]
fn a_slow_application_is_sent_no_more_than_it_can_hold() {
    let broker = broker(1);
    block_on(async {
        let receiver = broker.client("slow").receive_maximum(2).connect().await.unwrap();
        let mut stream = receiver.subscribe("t", QoS::AtLeastOnce).await.unwrap();
        let sender = connect(&broker, "sender").await;
        for number in 0..5 {
            let payload = format!("{number}");
            sender.publish("t", &payload).qos(QoS::AtLeastOnce).await.unwrap();
        }
        assert_eq!(metric(&broker, "messages.qos1.sent"), 2);
        for number in 0..5 {
            assert_eq!(text(stream.next().await), format!("{number}"));
        }
    });
}

#[test]
fn qos_0_above_the_bound_is_dropped_and_counted() {
    let broker = broker(1);
    block_on(async {
        let receiver = broker.client("slow").qos0_queue(3).connect().await.unwrap();
        let mut stream = receiver.subscribe("t", QoS::AtLeastOnce).await.unwrap();
        let sender = connect(&broker, "sender").await;
        for _ in 0..10 {
            sender.publish("t", "0").await.unwrap();
        }
        sender.publish("t", "1").qos(QoS::AtLeastOnce).await.unwrap();
        assert_eq!(stream.dropped(), 7);
        let all: String = std::iter::from_fn(|| stream.try_next())
            .map(|m| text(Some(m)))
            .collect();
        assert_eq!(all, "0001");
    });
}

#[test]
fn a_stream_that_is_dropped_unsubscribes() {
    let broker = broker(1);
    block_on(async {
        let client = connect(&broker, "c").await;
        let stream = client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
        let again = client.subscribe("t", QoS::AtLeastOnce).await.unwrap_err();
        assert_eq!(again, ClientError::AlreadySubscribed("t".to_owned()));
        let matched = client.publish("t", "").qos(QoS::AtLeastOnce).await;
        assert_eq!(matched, Ok(ReasonCode::Success));
        drop(stream);
        let matched = client.publish("t", "").qos(QoS::AtLeastOnce).await;
        assert_eq!(matched, Ok(ReasonCode::NoMatchingSubscribers));
        let stream = client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
        assert_eq!(stream.unsubscribe().await, Ok(ReasonCode::Success));
        let none = client.unsubscribe("t").await;
        assert_eq!(none, Ok(ReasonCode::NoSubscriptionExisted));
    });
}

#[test]
fn callbacks_run_elsewhere_and_survive_their_panics() {
    let broker = broker(2);
    let (report, reports) = mpsc::channel();
    block_on(async {
        let client = connect(&broker, "c").await;
        let callback = move |received: Received| {
            let name = thread::current().name().map(str::to_owned);
            report
                .send((name, text(Some(received.clone()))))
                .expect("the test waits");
            assert_ne!(received.payload(), b"panic", "as the test wants it");
        };
        client.on_message("t", QoS::AtLeastOnce, callback).await.unwrap();
        for payload in ["panic", "after"] {
            client.publish("t", payload).qos(QoS::AtLeastOnce).await.unwrap();
        }
        for payload in ["panic", "after"] {
            let expected = (Some("callbacks".to_owned()), payload.to_owned());
            assert_eq!(reports.recv().unwrap(), expected);
        }
        client.unsubscribe("t").await.unwrap();
        assert!(reports.recv().is_err(), "the callback is gone");
    });
    broker.shutdown();
}

#[test]
fn callbacks_get_what_is_left_at_the_end() {
    let broker = broker(1);
    let (report, reports) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let client = block_on(connect(&broker, "c"));
    let callback = move |received: Received| {
        // The first waits until all are queued.
        let _ = gate.recv();
        report.send(text(Some(received))).expect("the test waits");
    };
    block_on(client.on_message("t", QoS::AtLeastOnce, callback)).unwrap();
    for number in 0..100 {
        let payload = format!("{number}");
        block_on(client.publish("t", &payload).into_future()).unwrap();
    }
    // A round trip behind them: they are in the queue.
    block_on(client.publish("other", "").qos(QoS::AtLeastOnce).into_future()).unwrap();
    drop(go);
    broker.shutdown();
    let reported: Vec<String> = reports.iter().collect();
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(reported, expected);
}

#[test]
fn a_kept_session_brings_everything_in_order() {
    let broker = broker(2);
    block_on(async {
        let persistent = || {
            broker
                .client("kept")
                .clean_start(false)
                .session_expiry(Duration::from_secs(60))
        };
        let client = persistent().connect().await.unwrap();
        assert!(!client.session_present());
        client.subscribe("t", QoS::ExactlyOnce).await.unwrap().detach();
        client.disconnect().await.unwrap();
        assert_eq!(client.end(), Some(End::Disconnected));
        let sender = connect(&broker, "sender").await;
        for number in 0..100 {
            let payload = format!("{number}");
            let sent = sender.publish("t", &payload).qos(QoS::ExactlyOnce).await;
            assert_eq!(sent, Ok(ReasonCode::Success));
        }
        let client = persistent().connect().await.unwrap();
        assert!(client.session_present());
        let never = SubscribeOptions {
            qos: QoS::ExactlyOnce,
            retain_handling: RetainHandling::DoNotSend,
            ..SubscribeOptions::default()
        };
        let mut stream = client.subscribe("t", never).await.unwrap();
        for number in 0..100 {
            assert_eq!(text(stream.next().await), format!("{number}"));
        }
        client.disconnect_for(Duration::ZERO).await.unwrap();
        assert!(!persistent().connect().await.unwrap().session_present());
    });
}

#[test]
fn a_takeover_ends_the_streams_and_publishes_the_will() {
    let broker = broker(1);
    block_on(async {
        let watcher = connect(&broker, "watcher").await;
        let mut wills = watcher.subscribe("wills", QoS::AtLeastOnce).await.unwrap();
        let will = Will {
            topic: "wills".to_owned(),
            payload: b"gone".to_vec(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_interval: 0,
            expiry_interval: None,
            properties: Vec::new(),
        };
        let first = broker.client("c").will(will).connect().await.unwrap();
        let mut stream = first.subscribe("t", QoS::AtMostOnce).await.unwrap();
        let second = connect(&broker, "c").await;
        assert!(stream.next().await.is_none());
        let Some(End::Closed(closing)) = first.end() else {
            panic!("{:?}", first.end());
        };
        assert_eq!(closing.reason, ReasonCode::SessionTakenOver);
        assert!(matches!(
            first.publish("t", "").await,
            Err(ClientError::Ended(End::Closed(_)))
        ));
        assert_eq!(text(wills.next().await), "gone");
        assert_eq!(second.end(), None);
    });
}

#[test]
fn the_last_handle_disconnects() {
    let broker = broker(1);
    block_on(async {
        let client = connect(&broker, "c").await;
        let stream = client.subscribe("t", QoS::AtMostOnce).await.unwrap();
        drop(client);
        let other = connect(&broker, "other").await;
        let matched = other.publish("t", "").qos(QoS::AtLeastOnce).await;
        assert_eq!(matched, Ok(ReasonCode::Success), "the stream keeps its client");
        drop(stream);
        let matched = other.publish("t", "").qos(QoS::AtLeastOnce).await;
        assert_eq!(matched, Ok(ReasonCode::NoMatchingSubscribers));
        assert_eq!(metric(&broker, "client.disconnected"), 1);
    });
}

/// Edits messages, keeps one client out and one topic secret.
struct Guard(Arc<Mutex<Vec<String>>>);

impl Hook for Guard {
    fn name(&self) -> &str {
        "guard"
    }

    fn points(&self) -> HookPoints {
        HookPoints::of(&[
            HookPoint::ClientConnect,
            HookPoint::ClientAuthorize,
            HookPoint::MessagePublish,
        ])
    }

    fn client_connect(&self, _: &mut HookContext<'_>, connect: &mut Connect) -> Result<(), ReasonCode> {
        let protocol = connect.connection.protocol.to_owned();
        self.0.lock().expect("no panics").push(protocol);
        if connect.client_id == "bad" {
            return Err(ReasonCode::NotAuthorized);
        }
        Ok(())
    }

    fn client_authorize(&self, _: &mut HookContext<'_>, _: &ClientInfo, _: Action, topic: &str) -> Verdict {
        if topic == "secret" {
            Verdict::Deny
        } else {
            Verdict::Ignore
        }
    }

    fn message_publish(&self, ctx: &mut HookContext<'_>, message: &Message) -> PublishVerdict {
        let payload = message.payload().to_ascii_uppercase();
        let parts = MessageParts {
            qos: message.qos(),
            ..MessageParts::new(message.topic(), &payload)
        };
        let edited = parts.publish_absolute(ctx.now, message.origin());
        edited.map_or(PublishVerdict::Continue, PublishVerdict::Replace)
    }
}

#[test]
fn hooks_see_embedded_clients_like_any_other() {
    let protocols = Arc::default();
    let broker = Broker::builder()
        .set("node.workers", "1")
        .hook(10, Guard(Arc::clone(&protocols)))
        .start()
        .unwrap();
    block_on(async {
        let refused = broker.client("bad").connect().await.unwrap_err();
        let ClientError::NotAdmitted(closing) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(closing.reason, ReasonCode::NotAuthorized);
        let client = connect(&broker, "good").await;
        let denied = client.subscribe("secret", QoS::AtMostOnce).await.unwrap_err();
        assert_eq!(denied, ClientError::Refused(ReasonCode::NotAuthorized));
        let denied = client.publish("secret", "").qos(QoS::ExactlyOnce).await;
        assert_eq!(denied, Err(ClientError::Refused(ReasonCode::NotAuthorized)));
        let mut stream = client.subscribe("t", QoS::AtMostOnce).await.unwrap();
        client.publish("t", "loud").await.unwrap();
        assert_eq!(text(stream.next().await), "LOUD");
    });
    assert_eq!(*protocols.lock().unwrap(), ["internal", "internal"]);
}

#[test]
fn the_network_and_the_process_talk_to_each_other() {
    let mut broker = Broker::builder()
        .set("listeners.tcp.default.bind", "127.0.0.1:0")
        .set("listeners.ws.default.enable", "false")
        .set("gateway.mqttsn.enable", "false")
        .start()
        .unwrap();
    broker.listen().unwrap();
    let (_, address) = broker.listening().next().expect("one listener");
    let client = block_on(connect(&broker, "inside"));
    let mut stream = block_on(client.subscribe("up", QoS::AtMostOnce)).unwrap();

    let mut socket = TcpStream::connect(address).unwrap();
    // CONNECT of 3.1.1: clean session, no keep alive, client identifier "out". SUBSCRIBE to "down". PUBLISH to "up".
    socket
        .write_all(b"\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03out\x82\x09\0\x01\0\x04down\0\x30\x06\0\x02uphi")
        .unwrap();
    let mut answers = [0; 9];
    socket.read_exact(&mut answers).unwrap();
    assert_eq!(answers, *b"\x20\x02\0\0\x90\x03\0\x01\0");
    assert_eq!(text(block_on(stream.next())), "hi");

    block_on(client.publish("down", "ho").qos(QoS::AtLeastOnce).into_future()).unwrap();
    let mut publish = [0; 10];
    socket.read_exact(&mut publish).unwrap();
    assert_eq!(publish, *b"\x30\x08\0\x04downho");
    broker.shutdown();
    assert!(block_on(stream.next()).is_none());
    assert!(
        matches!(client.end(), Some(End::Closed(closing)) if closing.reason == ReasonCode::ServerShuttingDown)
    );
}

#[test]
fn many_threads_publish_exactly_once() {
    const THREADS: usize = 4;
    const EACH: usize = 250;
    let broker = broker(2);
    let receiver = block_on(connect(&broker, "receiver"));
    let mut stream = block_on(receiver.subscribe("t/+", QoS::ExactlyOnce)).unwrap();
    let shared = block_on(connect(&broker, "sender"));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = shared.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let (topic, payload) = (format!("t/{thread}"), format!("{number}"));
                    let sent = client.publish(&topic, &payload).qos(QoS::ExactlyOnce);
                    assert_eq!(block_on(sent.into_future()), Ok(ReasonCode::Success));
                }
            });
        }
        let mut next = [0; THREADS];
        for _ in 0..THREADS * EACH {
            let received = block_on(stream.next()).expect("a message");
            let thread: usize = received.topic()["t/".len()..].parse().expect("its number");
            assert_eq!(received.payload(), next[thread].to_string().as_bytes());
            next[thread] += 1;
        }
    });
    assert!(stream.try_next().is_none());
}

#[test]
fn a_subscription_is_a_stream_and_everything_may_change_threads() {
    fn stream<S: Stream<Item = Received> + Unpin + Send + 'static>(_: &S) {}
    fn shared<T: Send + Sync>(_: &T) {}
    let broker = broker(1);
    shared(&broker);
    block_on(async {
        let client = connect(&broker, "c").await;
        shared(&client);
        let subscription: Subscription = client.subscribe("t", QoS::AtMostOnce).await.unwrap();
        stream(&subscription);
    });
}

#[test]
fn a_wrong_configuration_does_not_start() {
    let error = Broker::builder()
        .set("mqtt.max_inflght", "5")
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("mqtt.max_inflight"), "{error}");
}

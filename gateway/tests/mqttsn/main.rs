//! MQTT-SN through a whole node: sensors on real sockets, and clients of MQTT inside this process.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

use std::{fs, net::SocketAddr};

use tidegate::{
    auth::{HashAlgorithm, hash_password},
    embed::{Broker, Client, QoS, Subscription, block_on},
};

mod dtls;
#[allow(dead_code, reason = "the tests of the executable use the rest")]
#[path = "../common/secured.rs"]
mod secured;
#[allow(dead_code, reason = "the tests of the executable use the rest")]
#[path = "../common/sensor.rs"]
mod sensor;

use sensor::*;

/// A broker with these settings besides, and where its sensors find it.
fn start(settings: &[(&str, &str)]) -> (Broker, SocketAddr) {
    let mut builder = Broker::builder()
        .set("listeners.tcp.default.enable", "false")
        .set("listeners.ws.default.enable", "false")
        .set("gateway.mqttsn.listeners.udp.default.bind", "127.0.0.1:0");
    for (key, value) in settings {
        builder = builder.set(key, value);
    }
    let mut broker = builder.start().unwrap();
    broker.listen().unwrap();
    let listening: Vec<_> = broker.listening().collect();
    let [(name, address)] = &listening[..] else {
        panic!("{listening:?}")
    };
    assert_eq!(name, "mqttsn:udp:default");
    (broker, *address)
}

fn listen(broker: &Broker, filter: &str) -> (Client, Subscription) {
    block_on(async {
        let client = broker.client("application").connect().await.unwrap();
        let stream = client.subscribe(filter, QoS::ExactlyOnce).await.unwrap();
        (client, stream)
    })
}

/// Topic and payload of the next message.
fn next(stream: &mut Subscription) -> (String, String) {
    let message = block_on(stream.next()).unwrap();
    let payload = String::from_utf8(message.payload().to_vec()).unwrap();
    (message.topic().to_owned(), payload)
}

fn seen(topic: &str, payload: &str) -> (String, String) {
    (topic.to_owned(), payload.to_owned())
}

fn metric(broker: &Broker, name: &str) -> u64 {
    let metrics = broker.metrics();
    let found = metrics.iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no metric {name}")).1
}

#[test]
fn an_mqtt_client_sees_what_a_sensor_publishes() {
    let (broker, gateway) = start(&[
        ("gateway.mqttsn.predefined.3", "plant/all"),
        ("gateway.mqttsn.clients.pump.1.predefined.3", "plant/pump"),
    ]);
    let (_application, mut stream) = listen(&broker, "#");
    let sensor = Sensor::new(gateway);
    assert_eq!(sensor.ask(SEARCHGW, &[&[0]]), (GWINFO, vec![1]));
    sensor.connect("pump.1", CLEAN, 60);
    let id = sensor.register("plant/1/level");

    sensor.say(PUBLISH, &[&[0], &id, &[0, 0], b"zero"]);
    assert_eq!(next(&mut stream), seen("plant/1/level", "zero"));
    let puback = sensor.ask(PUBLISH, &[&[QOS_1], &id, &[0, 1], b"one"]);
    assert_eq!(puback, (PUBACK, [&id[..], &[0, 1, 0]].concat()));
    assert_eq!(next(&mut stream), seen("plant/1/level", "one"));
    let pubrec = sensor.ask(PUBLISH, &[&[QOS_2], &id, &[0, 2], b"two"]);
    assert_eq!(pubrec, (PUBREC, vec![0, 2]));
    assert_eq!(sensor.ask(PUBREL, &[&[0, 2]]), (PUBCOMP, vec![0, 2]));
    assert_eq!(next(&mut stream), seen("plant/1/level", "two"));

    let predefined = [&[QOS_1 | PREDEFINED, 0, 3, 0, 4][..], b"own"];
    assert_eq!(sensor.ask(PUBLISH, &predefined), (PUBACK, vec![0, 3, 0, 4, 0]));
    assert_eq!(next(&mut stream), seen("plant/pump", "own"));

    // Without a connection.
    let other = Sensor::new(gateway);
    other.say(PUBLISH, &[&[QOS_MINUS_1 | PREDEFINED, 0, 3, 0, 0], b"minus one"]);
    assert_eq!(next(&mut stream), seen("plant/all", "minus one"));
    other.say(PUBLISH, &[&[QOS_MINUS_1 | SHORT, b'a', b'b', 0, 0], b"short"]);
    assert_eq!(next(&mut stream), seen("ab", "short"));

    assert_eq!(sensor.ask(DISCONNECT, &[]), (DISCONNECT, vec![]));
    assert!(metric(&broker, "mqttsn.datagrams.received") >= 9);
    assert_eq!(metric(&broker, "mqttsn.clients.opened"), 1);
    broker.shutdown();
}

#[test]
fn a_sensor_gets_what_it_subscribes_to() {
    let (broker, gateway) = start(&[]);
    let sensor = Sensor::new(gateway);
    sensor.connect("valve", CLEAN, 60);
    let id = sensor.subscribe("valve/set");
    assert_eq!(sensor.subscribe("all/+"), [0, 0]);
    let application = block_on(broker.client("application").connect()).unwrap();
    let publish = |topic: &str, payload: &str| {
        let publish = application.publish(topic, payload);
        block_on(async { publish.qos(QoS::AtLeastOnce).await }).unwrap();
    };
    publish("valve/set", "open");
    assert_eq!(sensor.receive(id), b"open");
    // What a wildcard finds gets an id first (§6.10).
    publish("all/stop", "now");
    let (kind, body) = sensor.hear();
    assert_eq!((kind, &body[4..]), (REGISTER, &b"all/stop"[..]));
    let id = [body[0], body[1]];
    sensor.say(REGACK, &[&body[..4], &[0]]);
    assert_eq!(sensor.receive(id), b"now");
    broker.shutdown();
}

#[test]
fn a_mountpoint_holds_for_topics_predefined_ones_and_the_will() {
    let (broker, gateway) = start(&[("gateway.mqttsn.mountpoint", "sn/${clientid}/")]);
    let (_application, mut stream) = listen(&broker, "#");
    let sensor = Sensor::new(gateway);
    let id = [CLEAN | WILL, 1, 0, 1];
    assert_eq!(sensor.ask(CONNECT, &[&id, b"m"]), (WILLTOPICREQ, vec![]));
    assert_eq!(sensor.ask(WILLTOPIC, &[&[QOS_1], b"gone"]), (WILLMSGREQ, vec![]));
    assert_eq!(sensor.ask(WILLMSG, &[b"lost"]), (CONNACK, vec![0]));
    let id = sensor.register("x");
    sensor.say(PUBLISH, &[&[0], &id, &[0, 0], b"1"]);
    assert_eq!(next(&mut stream), seen("sn/m/x", "1"));
    // It says nothing more for longer than its duration of one second.
    assert_eq!(next(&mut stream), seen("sn/m/gone", "lost"));
    broker.shutdown();
}

#[test]
fn users_and_rules_are_those_of_mqtt() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let hash = hash_password(HashAlgorithm::Argon2id, b"secret", &[7; 16]).unwrap();
    let users = file("users.conf", &format!("alice:{hash}\n"));
    let rules = file(
        "acl.conf",
        "{allow, {listener, \"mqttsn:udp:default\"}, publish, [\"from/${username}\"]}.\n{deny, all}.\n",
    );
    let settings = [
        ("allow_anonymous", "false"),
        ("authentication.users_file", users.as_str()),
        ("acl_file", rules.as_str()),
        (
            "gateway.mqttsn.clientinfo_override.username",
            "${Packet.headers.clientid}",
        ),
        ("gateway.mqttsn.clientinfo_override.password", "secret"),
    ];
    let (broker, gateway) = start(&settings);
    let stranger = Sensor::new(gateway);
    let (kind, body) = stranger.ask(CONNECT, &[&[CLEAN, 1, 0, 60], b"bob"]);
    assert!(kind == CONNACK && body != [0], "{kind} {body:?}");
    let sensor = Sensor::new(gateway);
    sensor.connect("alice", CLEAN, 60);
    for (topic, accepted) in [("from/alice", true), ("from/bob", false)] {
        let id = sensor.register(topic);
        let (kind, body) = sensor.ask(PUBLISH, &[&[QOS_1], &id, &[0, 1], b"x"]);
        assert_eq!((kind, body[4] == 0), (PUBACK, accepted), "{topic} {body:?}");
    }
    let (kind, body) = sensor.ask(SUBSCRIBE, &[&[QOS_1, 0, 8], b"from/alice"]);
    assert!(kind == SUBACK && body[5] != 0, "{body:?}");
    broker.shutdown();
}

/// Sessions are spread over the workers, datagrams arrive at whichever the system chooses.
#[test]
fn sensors_of_all_workers_are_served() {
    let (broker, gateway) = start(&[("node.workers", "3")]);
    let application = block_on(broker.client("application").connect()).unwrap();
    let sensors: Vec<_> = (0..12)
        .map(|number| {
            let sensor = Sensor::new(gateway);
            sensor.connect(&format!("sensor {number}"), CLEAN, 60);
            let id = sensor.subscribe(&format!("to/{number}"));
            (number, sensor, id)
        })
        .collect();
    for round in ["first", "second"] {
        for (number, ..) in &sensors {
            let topic = format!("to/{number}");
            let publish = application.publish(&topic, round);
            block_on(async { publish.qos(QoS::AtLeastOnce).await }).unwrap();
        }
        for (_, sensor, id) in &sensors {
            assert_eq!(sensor.receive(*id), round.as_bytes());
            assert_eq!(sensor.ask(PINGREQ, &[]), (PINGRESP, vec![]));
        }
    }
    assert!(
        metric(&broker, "mqttsn.datagrams.forwarded") > 0,
        "some are not where they belong"
    );
    broker.shutdown();
}

#[test]
fn who_may_wake_a_sensor_is_configured() {
    for (roaming, wakes) in [("any", true), ("host", true), ("never", false)] {
        let (broker, gateway) = start(&[("gateway.mqttsn.roaming", roaming)]);
        let application = block_on(broker.client("application").connect()).unwrap();
        let sensor = Sensor::new(gateway);
        sensor.connect("s", CLEAN, 60);
        let id = sensor.subscribe("t");
        sensor.sleep(60);
        let publish = application.publish("t", "x");
        block_on(async { publish.qos(QoS::AtLeastOnce).await }).unwrap();
        let elsewhere = Sensor::new(gateway);
        elsewhere.say(PINGREQ, &[b"s"]);
        if wakes {
            // Sleep and waking belong to one connection, in which the client knows the id.
            assert_eq!(elsewhere.receive(id), b"x");
            assert_eq!(elsewhere.hear(), (PINGRESP, vec![]));
        } else {
            assert_eq!(elsewhere.hear(), (DISCONNECT, vec![]));
            sensor.say(PINGREQ, &[b"s"]);
            assert_eq!(sensor.receive(id), b"x");
            assert_eq!(sensor.hear(), (PINGRESP, vec![]));
        }
        broker.shutdown();
    }
}

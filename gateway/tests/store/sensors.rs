//! MQTT-SN and the executable: sleep over a restart, SIGHUP, addresses in use.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    process::Stdio,
};

use super::{
    process::{Node, publish, run},
    sensor::*,
};

/// A sensor that sleeps never learns that the gateway was restarted: its topic ids and its messages are there.
#[test]
fn a_sensor_sleeps_while_the_node_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let mut sensor = Sensor::new(node.gateway);
    sensor.connect("sensor", 0, 60);
    let id = sensor.subscribe("t");
    let own = sensor.register("own");
    sensor.sleep(200);
    publish(&mut node.connect("p").0, b'1');
    node.kill();

    let node = Node::start(dir.path());
    publish(&mut node.connect("p").0, b'2');
    sensor.turn_to(node.gateway);
    sensor.say(PINGREQ, &[b"sensor"]);
    let mut received = Vec::new();
    loop {
        let (kind, body) = sensor.hear();
        match kind {
            // The gateway may name an id again, but it is the same one (§6.10).
            REGISTER => {
                assert_eq!((&body[..2], &body[4..]), (&id[..], &b"t"[..]));
                sensor.say(REGACK, &[&body[..4], &[0]]);
            }
            PUBLISH => {
                assert_eq!((body[0] & 0x63, &body[1..3]), (QOS_1, &id[..]));
                sensor.say(PUBACK, &[&body[1..5], &[0]]);
                received.push(body[5]);
            }
            PINGRESP => break,
            other => panic!("{other:02x} {body:?}"),
        }
    }
    assert_eq!(received, b"12");
    node.kill();

    let node = Node::start(dir.path());
    sensor.turn_to(node.gateway);
    assert_eq!(sensor.ask(PINGREQ, &[b"sensor"]), (PINGRESP, vec![]));
    sensor.connect("sensor", 0, 60);
    let puback = sensor.ask(PUBLISH, &[&[QOS_1], &own, &[0, 1], b"x"]);
    assert_eq!(puback, (PUBACK, [&own[..], &[0, 1, 0]].concat()));
    assert!(node.stop().success());
}

#[test]
fn a_reload_gives_new_sensors_new_topics() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidegate.conf");
    let configure = |topic: &str| {
        let text = format!("gateway.mqttsn.predefined.1 = {topic}\ngateway.mqttsn.mountpoint = m/\n");
        fs::write(&file, text).unwrap();
    };
    configure("t");
    let data = dir.path().join("data");
    let arguments = ["--config", file.to_str().unwrap()];
    let mut node = Node::start_with(&data, &arguments, Stdio::piped());
    let mut log = BufReader::new(node.log()).lines().map(Result::unwrap);
    let mut reload = |expected: &str| {
        node.hang_up();
        let line = log.find(|line| line.contains("reloaded")).unwrap();
        assert!(line.contains(expected), "{line}");
    };
    // What topic new sensors mean by the id 1.
    let is_topic = |topic: &str| {
        let sensor = Sensor::new(node.gateway);
        sensor.connect("s", CLEAN, 60);
        let (kind, _) = sensor.ask(SUBSCRIBE, &[&[QOS_1 | PREDEFINED, 0, 8, 0, 1]]);
        assert_eq!(kind, SUBACK);
        let publisher = Sensor::new(node.gateway);
        publisher.connect("p", CLEAN, 60);
        let named = publisher.register(topic);
        publisher.say(PUBLISH, &[&[QOS_1], &named, &[0, 1], topic.as_bytes()]);
        assert_eq!(sensor.receive([0, 1]), topic.as_bytes());
    };
    is_topic("t");
    configure("u v");
    reload("configuration reloaded");
    is_topic("u v");
    configure("u/+");
    reload("configuration not reloaded");
    assert!(node.stop().success());
}

#[test]
fn an_address_in_use_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let setting = format!(
        "gateway.mqttsn.listeners.udp.b.bind={}",
        taken.local_addr().unwrap()
    );
    let output = run(dir.path(), &["start", "--set", &setting]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let place = "--set gateway.mqttsn.listeners.udp.b.bind=";
    assert!(text.contains(place) && text.contains("in use"), "{text}");
}

//! What sensors and applications see of each other.

use std::net::UdpSocket;

use broker_core::QoS;
use mqtt_sn::codec::{Message, MsgId, Publish, PublishQoS, ReturnCode, Topic, TopicId, Will};

use crate::{
    application::{Application, Received},
    process::{PATIENCE, everywhere, gateway, tidegate, tidegate_broker},
    sensor::Sensor,
};

pub(crate) fn received(topic: &str, qos: u8, retain: bool, payload: &str) -> Received {
    (topic.to_owned(), qos, retain, payload.to_owned())
}

const WILL: Will<'static> = Will {
    qos: QoS::AtLeastOnce,
    retain: false,
    topic: "will",
};

#[test]
fn messages_go_both_ways() {
    everywhere(|broker, gateway| {
        let mut application = Application::subscribed(&broker.address, "up/#");
        let mut sensor = Sensor::connected(&gateway.address, "sensor");
        let topic = sensor.register("up/1");
        for (qos, level) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1), (QoS::ExactlyOnce, 2)] {
            sensor.publish(topic, qos, false, "from the sensor");
            assert_eq!(
                application.message(),
                received("up/1", level, false, "from the sensor")
            );
        }
        sensor.publish(topic, QoS::AtLeastOnce, true, "kept");
        assert_eq!(application.message(), received("up/1", 1, false, "kept"));
        let mut late = Application::subscribed(&broker.address, "up/#");
        assert_eq!(late.message(), received("up/1", 1, true, "kept"));

        late.publish("down/1", 1, true, "kept");
        sensor.subscribe("down/+", QoS::ExactlyOnce);
        assert_eq!(sensor.message(), Some(received("down/1", 1, true, "kept")));
        for level in 0..3 {
            late.publish("down/2", level, false, "for the sensor");
            assert_eq!(
                sensor.message(),
                Some(received("down/2", level, false, "for the sensor"))
            );
        }
        // A second one that subscribes to the same gets what is retained, and the first gets nothing for that.
        let mut second = Sensor::connected(&gateway.address, "second");
        second.subscribe("down/+", QoS::AtMostOnce);
        assert_eq!(second.message(), Some(received("down/1", 0, true, "kept")));
        late.publish("down/3", 2, false, "for both");
        assert_eq!(second.message(), Some(received("down/3", 0, false, "for both")));
        assert_eq!(sensor.message(), Some(received("down/3", 2, false, "for both")));
    });
}

#[test]
fn wills() {
    everywhere(|broker, gateway| {
        let mut application = Application::subscribed(&broker.address, "#");
        let mut leaves = Sensor::new(&gateway.address, "leaves");
        assert_eq!(leaves.connect(60, true, Some(WILL)), ReturnCode::Accepted);
        leaves.send(&Message::Disconnect(None));
        leaves.expect(&Message::Disconnect(None));
        // Who falls silent is lost, and so is who sleeps for too long, with the Will that it has by then.
        let mut silent = Sensor::new(&gateway.address, "silent");
        assert_eq!(silent.connect(1, true, Some(WILL)), ReturnCode::Accepted);
        assert_eq!(application.message(), received("will", 1, false, "gone"));
        silent.expect(&Message::Disconnect(None));
        let mut sleeps = Sensor::new(&gateway.address, "sleeps");
        assert_eq!(sleeps.connect(60, true, Some(WILL)), ReturnCode::Accepted);
        let qos = QoS::ExactlyOnce;
        sleeps.send(&Message::WillTopicUpd(Some(Will {
            qos,
            topic: "changed",
            retain: false,
        })));
        sleeps.expect(&Message::WillTopicResp(ReturnCode::Accepted));
        sleeps.send(&Message::WillMsgUpd(b"slept"));
        sleeps.expect(&Message::WillMsgResp(ReturnCode::Accepted));
        sleeps.sleep(1);
        assert_eq!(application.message(), received("changed", 2, false, "slept"));
        // It is no longer known.
        sleeps.send(&Message::PingReq("sleeps"));
        sleeps.expect(&Message::Disconnect(None));
    });
}

#[test]
fn a_sleeping_sensor_gets_what_has_waited() {
    everywhere(|broker, gateway| {
        let mut application = Application::connect(&broker.address, "application");
        let mut sensor = Sensor::connected(&gateway.address, "sensor");
        sensor.subscribe("t/#", QoS::ExactlyOnce);
        sensor.sleep(600);
        assert_eq!(sensor.wake(), []);
        let mut sent = Vec::new();
        for number in 0..50 {
            let (topic, text) = (format!("t/{}", number % 3), number.to_string());
            application.publish(&topic, 1, false, &text);
            sent.push(received(&topic, 1, false, &text));
        }
        application.publish("t/0", 2, false, "last");
        sent.push(received("t/0", 2, false, "last"));
        // From another address, as behind NAT. What the broker holds back until others are acknowledged may come later.
        let mut elsewhere = Sensor::new(&gateway.address, "sensor");
        let mut got = Vec::new();
        while got.len() < sent.len() {
            got.extend(elsewhere.wake());
        }
        assert_eq!(got, sent);
        // Awake by CONNECT without CleanSession, it is subscribed still.
        assert_eq!(elsewhere.connect(60, false, None), ReturnCode::Accepted);
        application.publish("t/1", 1, false, "live");
        assert_eq!(elsewhere.message(), Some(received("t/1", 1, false, "live")));
    });
}

#[test]
fn publish_without_connection() {
    everywhere(|broker, gateway| {
        let mut application = Application::subscribed(&broker.address, "predefined/#");
        let sensor = Sensor::new(&gateway.address, "");
        sensor.send(&Message::Publish(Publish {
            dup: false,
            qos: PublishQoS::WithoutConnection,
            retain: false,
            topic: Topic::Predefined(TopicId(7)),
            msg_id: MsgId(0),
            data: b"minus one",
        }));
        assert_eq!(
            application.message(),
            received("predefined/seven", 0, false, "minus one")
        );
    });
}

#[test]
fn the_end_of_the_gateway_is_told_to_sensors_and_publishes_no_will() {
    everywhere(|broker, gateway| {
        let mut application = Application::subscribed(&broker.address, "#");
        let mut sensor = Sensor::new(&gateway.address, "sensor");
        assert_eq!(sensor.connect(60, true, Some(WILL)), ReturnCode::Accepted);
        assert!(gateway.stop().success());
        sensor.expect(&Message::Disconnect(None));
        application.publish("end", 0, false, "");
        assert_eq!(application.message(), received("end", 0, false, ""));
    });
}

#[test]
fn a_broker_that_cannot_be_reached_is_congestion() {
    // A port at which nobody listens TCP.
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let broker = format!("mqtt://{}", taken.local_addr().unwrap());
    for options in [&[][..], &["--aggregate"]] {
        let gateway = gateway(&broker, options);
        let mut sensor = Sensor::new(&gateway.address, "sensor");
        assert_eq!(sensor.connect_once(60, true, None), ReturnCode::Congestion);
    }
}

#[test]
fn a_broker_that_is_started_again() {
    for options in [&[][..], &["--aggregate"]] {
        let broker = tidegate_broker("tcp:default", &[]);
        let address = broker.address.clone();
        let gateway = gateway(&format!("mqtt://{address}"), options);
        let mut sensor = Sensor::connected(&gateway.address, "sensor");
        sensor.subscribe("t/#", QoS::AtLeastOnce);
        assert!(broker.stop().success());
        let has_own_connection = options.is_empty();
        if has_own_connection {
            sensor.expect(&Message::Disconnect(None));
        }
        let bind = format!("listeners.tcp.default.bind={address}");
        let broker = tidegate_broker("tcp:default", &[bind]);
        let mut application = Application::connect(&broker.address, "application");
        application.publish("t/1", 1, true, "kept");
        if has_own_connection {
            assert_eq!(sensor.connect(60, true, None), ReturnCode::Accepted);
            sensor.subscribe("t/#", QoS::AtLeastOnce);
        }
        assert_eq!(sensor.message(), Some(received("t/1", 1, true, "kept")));
    }
}

#[test]
fn a_broker_with_tls() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs").display().to_string();
    assert!(
        tidegate(&["cert", "--out", &certs])
            .output()
            .unwrap()
            .status
            .success()
    );
    let options = "listeners.ssl.default.ssl_options";
    let settings = [
        "listeners.ssl.default.bind=127.0.0.1:0".to_owned(),
        format!("{options}.certfile={certs}/server.pem"),
        format!("{options}.keyfile={certs}/server-key.pem"),
    ];
    let broker = tidegate_broker("ssl:default", &settings);
    let url = format!("mqtts://{}", broker.address);
    let ca = format!("{certs}/ca.pem");
    let trusting = gateway(&url, &["--ca-file", &ca]);
    let mut sensor = Sensor::connected(&trusting.address, "sensor");
    sensor.subscribe("t", QoS::AtLeastOnce);
    let topic = sensor.register("t");
    sensor.publish(topic, QoS::AtMostOnce, false, "through TLS");
    sensor.next(|message| match message {
        Message::Publish(publish) => assert_eq!(publish.data, b"through TLS"),
        other => panic!("no PUBLISH: {other:?}"),
    });
    // Not signed by who is trusted.
    let distrusting = gateway(&url, &["--ca-file", &format!("{certs}/client.pem")]);
    let mut sensor = Sensor::new(&distrusting.address, "sensor");
    assert_eq!(sensor.connect_once(60, true, None), ReturnCode::Congestion);
}

#[test]
fn wrong_options_are_told() {
    for (options, text) in [
        (
            &["--broker", "localhost:1883"][..],
            "starts neither with mqtt:// nor with mqtts://",
        ),
        (&["--broker", "mqtts://localhost"], "--ca-file"),
        (
            &["--broker", "mqtt://localhost", "--password-file", "x"],
            "--username",
        ),
        (
            &[
                "--broker",
                "mqtt://localhost",
                "--username",
                "u",
                "--password-file",
                "/nonexistent",
            ],
            "cannot read /nonexistent",
        ),
        (
            &[
                "--broker",
                "mqtt://localhost",
                "--set",
                "gateway.mqttsn.mountpoint=m/",
            ],
            "knows no mountpoints",
        ),
    ] {
        let output = tidegate(&["mqttsn-gateway"]).args(options).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn what_is_sent_to_everyone_is_heard() {
    let broker = tidegate_broker("tcp:default", &[]);
    // A port that nobody else has, of the network of all that is 127.x.x.x.
    let port = UdpSocket::bind("127.255.255.255:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let everyone = format!("127.255.255.255:{port}");
    let broadcast = format!("gateway.mqttsn.broadcast={everyone}");
    let gateway = gateway(&format!("mqtt://{}", broker.address), &["--set", &broadcast]);
    let searcher = UdpSocket::bind("127.0.0.1:0").unwrap();
    searcher.set_broadcast(true).unwrap();
    searcher.set_read_timeout(Some(PATIENCE)).unwrap();
    searcher.send_to(b"\x03\x01\x01", &everyone).unwrap();
    let mut buffer = [0; 16];
    let (len, from) = searcher.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"\x03\x02\x01", "GWINFO of gateway 1");
    assert_eq!(from.to_string(), gateway.address);
}

#[test]
fn a_port_in_use_is_told() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let bind = format!("gateway.mqttsn.listeners.udp.default.bind=127.0.0.1:{port}");
    let options = ["mqttsn-gateway", "--broker", "mqtt://localhost", "--set", &bind];
    let output = tidegate(&options).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("port {port} is in use")), "{told}");
    assert!(
        told.contains("gateway.mqttsn.listeners.udp.default.bind"),
        "{told}"
    );
}

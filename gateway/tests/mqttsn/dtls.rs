//! Sensors with pre-shared keys: who they are, and who may wake them. Clauses are those of MQTT-SN 1.2.

use std::net::SocketAddr;

use tempfile::TempDir;
use tidegate::embed::{Broker, Client, QoS, Subscription, block_on};

use crate::{listen, next, secured::Secured, seen, sensor::*};

/// A broker that listens for plain and for secured sensors; their user names are their identities.
struct Gateway {
    broker: Broker,
    plain: SocketAddr,
    secured: SocketAddr,
    _dir: TempDir,
}

const LISTENER: &str = "gateway.mqttsn.listeners.dtls.default";

impl Gateway {
    fn start(settings: &[(&str, &str)]) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let keys = file("psk.conf", "pump:the key of pump\nvalve:hex:76616c7665\n");
        let rules = file(
            "acl.conf",
            "{allow, {listener, \"mqttsn:dtls:default\"}, publish, [\"from/${username}\"]}.\n\
             {deny, {listener, \"mqttsn:dtls:default\"}, publish, [\"from/#\"]}.\n\
             {allow, all}.\n",
        );
        let psk_file = format!("{LISTENER}.dtls_options.psk_file");
        let bind = format!("{LISTENER}.bind");
        let mut builder = Broker::builder()
            .set("node.workers", "2")
            .set("listeners.tcp.default.enable", "false")
            .set("listeners.ws.default.enable", "false")
            .set("gateway.mqttsn.listeners.udp.default.bind", "127.0.0.1:0")
            .set(&bind, "127.0.0.1:0")
            .set(&psk_file, &keys)
            .set("acl_file", &rules)
            .set(
                "gateway.mqttsn.clientinfo_override.username",
                "${ConnInfo.identity}",
            );
        for (key, value) in settings {
            builder = builder.set(key, value);
        }
        let mut broker = builder.start().unwrap();
        broker.listen().unwrap();
        let address = |name: &str| {
            let mut listening = broker.listening();
            listening.find(|(known, _)| known == name).unwrap().1
        };
        Gateway {
            plain: address("mqttsn:udp:default"),
            secured: address("mqttsn:dtls:default"),
            broker,
            _dir: dir,
        }
    }

    fn pump(&self) -> Sensor<Secured> {
        Secured::dial(self.secured, "pump", "the key of pump").unwrap()
    }

    fn valve(&self) -> Sensor<Secured> {
        Secured::dial(self.secured, "valve", "valve").unwrap()
    }

    fn publish(&self, client: &Client, topic: &str, payload: &str) {
        let publish = client.publish(topic, payload);
        block_on(async { publish.qos(QoS::AtLeastOnce).await }).unwrap();
    }

    /// An application that sees Wills.
    fn mourner(&self) -> (Client, Subscription) {
        listen(&self.broker, "wills/#")
    }
}

/// CONNECT with a Will to `wills/NAME` (§6.3).
fn connect_with_will(sensor: &Sensor<Secured>, name: &str, duration: u8) {
    let id = [CLEAN | WILL, 1, 0, duration];
    let topic = format!("wills/{name}");
    assert_eq!(
        sensor.ask(CONNECT, &[&id, name.as_bytes()]),
        (WILLTOPICREQ, vec![])
    );
    assert_eq!(
        sensor.ask(WILLTOPIC, &[&[QOS_1], topic.as_bytes()]),
        (WILLMSGREQ, vec![])
    );
    assert_eq!(sensor.ask(WILLMSG, &[b"gone"]), (CONNACK, vec![0]));
}

/// Wakes the client of this name: one message, then nothing more.
fn wake_for<C: Carrier>(sensor: &Sensor<C>, name: &str, id: [u8; 2], payload: &str) {
    sensor.say(PINGREQ, &[name.as_bytes()]);
    assert_eq!(sensor.receive(id), payload.as_bytes());
    assert_eq!(sensor.hear(), (PINGRESP, vec![]));
}

/// Tries to wake it, and is told to connect (§6.14).
fn is_not_woken<C: Carrier>(sensor: &Sensor<C>, name: &str) {
    assert_eq!(sensor.ask(PINGREQ, &[name.as_bytes()]), (DISCONNECT, vec![]));
}

#[test]
fn the_identity_is_the_user_name() {
    let gateway = Gateway::start(&[]);
    let (application, mut stream) = listen(&gateway.broker, "from/#");
    for (sensor, name, other) in [
        (gateway.pump(), "pump", "valve"),
        (gateway.valve(), "valve", "pump"),
    ] {
        sensor.connect(&format!("a {name}"), CLEAN, 60);
        let id = sensor.register(&format!("from/{name}"));
        let (kind, body) = sensor.ask(PUBLISH, &[&[QOS_1], &id, &[0, 1], b"own"]);
        assert_eq!((kind, body[4]), (PUBACK, 0));
        assert_eq!(next(&mut stream), seen(&format!("from/{name}"), "own"));
        let id = sensor.register(&format!("from/{other}"));
        let (kind, body) = sensor.ask(PUBLISH, &[&[QOS_1], &id, &[0, 2], b"not its own"]);
        assert!(kind == PUBACK && body[4] != 0, "{body:?}");

        let id = sensor.subscribe("to/all");
        gateway.publish(&application, "to/all", name);
        assert_eq!(sensor.receive(id), name.as_bytes());
        assert_eq!(sensor.ask(DISCONNECT, &[]), (DISCONNECT, vec![]));
    }
    assert!(stream.try_next().is_none());
    assert!(Secured::dial(gateway.secured, "pump", "the key of valve").is_err());
    assert!(Secured::dial(gateway.secured, "nobody", "valve").is_err());
    gateway.broker.shutdown();
}

#[test]
fn only_who_fell_asleep_wakes() {
    let gateway = Gateway::start(&[]);
    let application = block_on(gateway.broker.client("application").connect()).unwrap();
    let (pump, valve) = (gateway.pump(), gateway.valve());
    pump.connect("c", CLEAN, 60);
    let id = pump.subscribe("t");
    pump.sleep(200);
    valve.connect("v", CLEAN, 60);
    for payload in ["first", "second"] {
        gateway.publish(&application, "t", payload);
        is_not_woken(&gateway.valve(), "c");
        is_not_woken(&Sensor::new(gateway.plain), "c");
        wake_for(&pump, "c", id, payload);
        // Over another association of the same identity, as after a restart of the device.
        gateway.publish(&application, "t", payload);
        wake_for(&gateway.pump(), "c", id, payload);
    }
    // Nor can what sleeps in plain sight be woken by who has a name.
    let plain = Sensor::new(gateway.plain);
    plain.connect("p", CLEAN, 60);
    plain.sleep(200);
    is_not_woken(&gateway.pump(), "p");
    assert_eq!(plain.ask(PINGREQ, &[b"p"]), (PINGRESP, vec![]));
    gateway.broker.shutdown();
}

/// Its session sleeps on: a new handshake by the same identity wakes it.
#[test]
fn an_association_that_has_ended_while_its_client_sleeps() {
    let idle_timeout = format!("{LISTENER}.dtls_options.idle_timeout");
    for is_idle in [false, true] {
        let gateway = Gateway::start(&[(&idle_timeout, "10s")]);
        let (application, mut wills) = gateway.mourner();
        let pump = gateway.pump();
        connect_with_will(&pump, "c", 60);
        let id = pump.subscribe("t");
        let own = pump.register("from/pump");
        pump.sleep(200);
        gateway.publish(&application, "t", "waited");
        if is_idle {
            pump.0.wait_for_close();
        } else {
            pump.0.close();
        }
        is_not_woken(&gateway.valve(), "c");
        let pump = gateway.pump();
        wake_for(&pump, "c", id, "waited");
        // It connects, and all is as it was.
        assert_eq!(pump.ask(CONNECT, &[&[0, 1, 0, 60], b"c"]), (CONNACK, vec![0]));
        gateway.publish(&application, "t", "at once");
        // The gateway names it in a new connection, and it is the same (§6.10).
        let (kind, body) = pump.hear();
        assert_eq!((kind, &body[..2], &body[4..]), (REGISTER, &id[..], &b"t"[..]));
        pump.say(REGACK, &[&body[..4], &[0]]);
        assert_eq!(pump.receive(id), b"at once");
        let puback = pump.ask(PUBLISH, &[&[QOS_1], &own, &[0, 1], b"x"]);
        assert_eq!(puback, (PUBACK, [&own[..], &[0, 1, 0]].concat()));
        assert!(wills.try_next().is_none(), "nobody was lost");
        gateway.broker.shutdown();
    }
}

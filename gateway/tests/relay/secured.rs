//! A sensor that speaks DTLS: OpenSSL.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use broker_core::QoS;
use bytes::BytesMut;
use mqtt_sn::codec::{Connect, Message, MsgId, Publish, PublishQoS, ReturnCode, Topic};

use crate::{
    application::Application,
    process::{PATIENCE, Process, gateway_at, tidegate_broker},
    stories::received,
};

const OPENSSL: &str = "/usr/bin/openssl";
const KEY: &str = "000102030405060708090a0b0c0d0e0f";

/// What is written to it becomes records, one for each time.
struct Sensor {
    openssl: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Sensor {
    fn new(gateway: &str, identity: &str) -> Sensor {
        let mut openssl = Command::new(OPENSSL)
            .args(["s_client", "-quiet", "-dtls1_2", "-psk_identity", identity])
            .args(["-psk", KEY, "-connect", gateway])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Sensor {
            input: openssl.stdin.take().unwrap(),
            output: openssl.stdout.take().unwrap(),
            openssl,
        }
    }

    fn send(&mut self, message: &Message<'_>) {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        self.input.write_all(&bytes).unwrap();
    }

    #[track_caller]
    fn expect(&mut self, message: &Message<'_>) {
        assert!(self.hears(message), "the association has ended");
    }

    /// Whether this comes next; `false`, if nothing comes any more.
    #[track_caller]
    fn hears(&mut self, message: &Message<'_>) -> bool {
        let mut expected = BytesMut::new();
        message.encode(&mut expected);
        let mut bytes = vec![0; expected.len()];
        let is_read = self.output.read_exact(&mut bytes).is_ok();
        assert!(!is_read || bytes == expected, "{bytes:?}");
        is_read
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}

const CONNECT: Message<'static> = Message::Connect(Connect {
    will: false,
    clean_session: true,
    duration: 60,
    client_id: "any",
});

/// Listens for DTLS, with these pre-shared keys.
fn gateway_with(keys: &Path, broker: &Process) -> Process {
    let listener = "gateway.mqttsn.listeners.dtls.default";
    let bind = format!("{listener}.bind=127.0.0.1:0");
    let psk_file = format!("{listener}.dtls_options.psk_file={}", keys.display());
    let client_id = "gateway.mqttsn.clientinfo_override.clientid=${ConnInfo.identity}";
    let options = ["--set", &bind, "--set", &psk_file, "--set", client_id];
    let url = format!("mqtt://{}", broker.address);
    gateway_at("mqttsn:dtls:default", &url, &options)
}

#[test]
fn a_sensor_with_a_pre_shared_key() {
    if !Path::new(OPENSSL).exists() {
        return println!("not tested with DTLS: there is no {OPENSSL}");
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, format!("plant:hex:{KEY}\n")).unwrap();
    let broker = tidegate_broker("tcp:default", &[]);
    let mut application = Application::subscribed(&broker.address, "#");
    let gateway = gateway_with(&keys, &broker);
    let mut sensor = Sensor::new(&gateway.address, "plant");
    sensor.send(&CONNECT);
    sensor.expect(&Message::ConnAck(ReturnCode::Accepted));
    sensor.send(&Message::Publish(Publish {
        dup: false,
        qos: PublishQoS::Level(QoS::AtMostOnce),
        retain: false,
        topic: Topic::Short(*b"ab"),
        msg_id: MsgId(0),
        data: b"sealed",
    }));
    assert_eq!(application.message(), received("ab", 0, false, "sealed"));
    // Its client id at the broker is the identity that DTLS has proven: who else uses it, takes its place.
    drop(Application::connect(&broker.address, "plant"));
    sensor.expect(&Message::Disconnect(None));
}

#[test]
fn keys_are_read_again_at_sighup() {
    if !Path::new(OPENSSL).exists() {
        return println!("not tested with DTLS: there is no {OPENSSL}");
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, format!("plant:hex:{KEY}\n")).unwrap();
    let broker = tidegate_broker("tcp:default", &[]);
    let gateway = gateway_with(&keys, &broker);
    let accepts = |identity| {
        let mut sensor = Sensor::new(&gateway.address, identity);
        sensor.send(&CONNECT);
        sensor
            .hears(&Message::ConnAck(ReturnCode::Accepted))
            .then_some(sensor)
    };
    let mut first = accepts("plant").unwrap();
    assert!(accepts("pump").is_none());
    std::fs::write(&keys, format!("pump:hex:{KEY}\n")).unwrap();
    gateway.signal("-HUP");
    let deadline = Instant::now() + PATIENCE;
    while accepts("pump").is_none() {
        assert!(Instant::now() < deadline, "the new key is never known");
    }
    assert!(accepts("plant").is_none());
    // Who was there before stays.
    first.send(&Message::PingReq(""));
    first.expect(&Message::PingResp);
}

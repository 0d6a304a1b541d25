//! A sensor that speaks DTLS: OpenSSL.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use broker_core::QoS;
use bytes::BytesMut;
use mqtt_sn::codec::{Connect, Message, MsgId, Publish, PublishQoS, ReturnCode, Topic};

use crate::{
    application::Application,
    process::{gateway_at, tidegate_broker},
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
        let mut expected = BytesMut::new();
        message.encode(&mut expected);
        let mut bytes = vec![0; expected.len()];
        self.output.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}

#[test]
fn a_sensor_with_a_pre_shared_key() {
    if !Path::new(OPENSSL).exists() {
        return println!("not tested with DTLS: there is no {OPENSSL}");
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, format!("plant:hex:{KEY}\n")).unwrap();
    let listener = "gateway.mqttsn.listeners.dtls.default";
    let bind = format!("{listener}.bind=127.0.0.1:0");
    let psk_file = format!("{listener}.dtls_options.psk_file={}", keys.display());
    let client_id = "gateway.mqttsn.clientinfo_override.clientid=${ConnInfo.identity}";
    let broker = tidegate_broker("tcp:default", &[]);
    let mut application = Application::subscribed(&broker.address, "#");
    let options = ["--set", &bind, "--set", &psk_file, "--set", client_id];
    let url = format!("mqtt://{}", broker.address);
    let gateway = gateway_at("mqttsn:dtls:default", &url, &options);
    let mut sensor = Sensor::new(&gateway.address, "plant");
    sensor.send(&Message::Connect(Connect {
        will: false,
        clean_session: true,
        duration: 60,
        client_id: "any",
    }));
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

//! rumqttc, versions 3.1.1 and 5, against the executable named by `BROKER_BIN`. Without it every test here passes
//! with a line that says so: `interop-tests/run` sets it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

/// Longest wait for what has to come at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A broker process on a free port; it ends with the value.
struct Broker {
    process: Child,
    port: u16,
    data: std::path::PathBuf,
}

impl Broker {
    /// `None`, with a printed reason, where there is no executable.
    fn start() -> Option<Broker> {
        let Some(binary) = std::env::var_os("BROKER_BIN") else {
            println!("skipped: BROKER_BIN is not set");
            return None;
        };
        let data =
            std::env::temp_dir().join(format!("tidegate-rumqttc-{}-{}", std::process::id(), unique("")));
        let mut command = Command::new(binary);
        command
            .args(["--set", "listeners.tcp.default.bind=127.0.0.1:0"])
            .args(["--set", "gateway.mqttsn.enable=false"])
            .arg("--set")
            .arg(format!("node.data_dir={}", data.display()));
        for kind in ["ssl", "ws", "wss"] {
            command
                .arg("--set")
                .arg(format!("listeners.{kind}.default.enable=false"));
        }
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("BROKER_BIN can be started");
        let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let mut port = None;
        for line in lines.map_while(Result::ok) {
            if line.contains("tcp:default") {
                port = line
                    .split_whitespace()
                    .filter_map(|word| word.rsplit_once(':'))
                    .find_map(|(_, end)| end.parse().ok());
            }
            if line == "ready" {
                break;
            }
        }
        let port = port.expect("the broker prints where tcp:default listens");
        Some(Broker { process, port, data })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// A name that no other test of this process uses.
fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// What the tests look at, of either version.
#[derive(Debug, PartialEq)]
enum Seen {
    Connected {
        session_present: bool,
    },
    Subscribed,
    Message {
        topic: String,
        payload: Vec<u8>,
        qos: u8,
        retain: bool,
    },
    /// The broker acknowledged a publication to its end.
    Acknowledged,
}

/// A client of either version behind the calls that the tests need.
struct Link {
    client: Version,
    seen: Receiver<Seen>,
}

enum Version {
    V4(rumqttc::Client),
    V5(rumqttc::v5::Client),
}

/// How a client connects.
#[derive(Clone, Default)]
struct Connect {
    id: String,
    keep_session: bool,
    will: Option<(String, Vec<u8>)>,
}

impl Connect {
    fn new() -> Connect {
        Connect {
            id: unique("rumqttc-"),
            ..Connect::default()
        }
    }
}

impl Link {
    fn open(broker: &Broker, version: u8, connect: &Connect) -> (Link, bool) {
        let (sender, seen) = channel();
        let client = if version == 4 {
            v4(broker, connect, sender)
        } else {
            v5(broker, connect, sender)
        };
        let link = Link { client, seen };
        match link.next() {
            Seen::Connected { session_present } => (link, session_present),
            other => panic!("awaited CONNACK, got {other:?}"),
        }
    }

    fn connect(broker: &Broker, version: u8) -> Link {
        Link::open(broker, version, &Connect::new()).0
    }

    fn next(&self) -> Seen {
        self.seen
            .recv_timeout(PATIENCE)
            .expect("an event arrives in time")
    }

    fn subscribe(&self, filter: &str) {
        match &self.client {
            Version::V4(client) => client
                .subscribe(filter, rumqttc::QoS::ExactlyOnce)
                .expect("the request is queued"),
            Version::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::QoS::ExactlyOnce;
                client.subscribe(filter, qos).expect("the request is queued");
            }
        }
        assert_eq!(self.next(), Seen::Subscribed);
    }

    /// Publishes and waits for the acknowledgement.
    fn publish(&self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        match &self.client {
            Version::V4(client) => {
                let qos = rumqttc::qos(qos).expect("0, 1 or 2");
                client
                    .publish(topic, qos, retain, payload)
                    .expect("the request is queued");
            }
            Version::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::qos(qos).expect("0, 1 or 2");
                client
                    .publish(topic, qos, retain, payload.to_vec())
                    .expect("the request is queued");
            }
        }
        if qos > 0 {
            assert_eq!(self.next(), Seen::Acknowledged);
        }
    }

    fn message(&self) -> (String, Vec<u8>, u8, bool) {
        match self.next() {
            Seen::Message {
                topic,
                payload,
                qos,
                retain,
            } => (topic, payload, qos, retain),
            other => panic!("awaited a message, got {other:?}"),
        }
    }

    fn disconnect(self) {
        match &self.client {
            Version::V4(client) => client.disconnect().expect("the request is queued"),
            Version::V5(client) => client.disconnect().expect("the request is queued"),
        }
        // The connection's thread ends, and its sender with it, when the broker has closed.
        while self.seen.recv_timeout(PATIENCE).is_ok() {}
    }
}

/// A connected client of version 3.1.1 whose packets go to `sender` until the connection ends.
fn v4(broker: &Broker, connect: &Connect, sender: Sender<Seen>) -> Version {
    let mut options = rumqttc::MqttOptions::new(&connect.id, "127.0.0.1", broker.port);
    options
        .set_clean_session(!connect.keep_session)
        .set_max_packet_size(2 << 20, 2 << 20);
    if let Some((topic, payload)) = &connect.will {
        let will = rumqttc::LastWill::new(topic, payload.clone(), rumqttc::QoS::AtLeastOnce, false);
        options.set_last_will(will);
    }
    let (client, mut connection) = rumqttc::Client::new(options, 512);
    thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(rumqttc::Event::Incoming(packet)) => {
                    if of_v4(packet).is_some_and(|seen| sender.send(seen).is_err()) {
                        return;
                    }
                }
                Ok(rumqttc::Event::Outgoing(_)) => {}
                Err(error) => return println!("connection ended: {error}"),
            }
        }
    });
    Version::V4(client)
}

/// The same for version 5.
fn v5(broker: &Broker, connect: &Connect, sender: Sender<Seen>) -> Version {
    let mut options = rumqttc::v5::MqttOptions::new(&connect.id, "127.0.0.1", broker.port);
    options.set_clean_start(!connect.keep_session);
    options.set_session_expiry_interval(connect.keep_session.then_some(300));
    options.set_max_packet_size(Some(2 << 20));
    if let Some((topic, payload)) = &connect.will {
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        let will = rumqttc::v5::mqttbytes::v5::LastWill::new(topic, payload.clone(), qos, false, None);
        options.set_last_will(will);
    }
    let (client, mut connection) = rumqttc::v5::Client::new(options, 512);
    thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(rumqttc::v5::Event::Incoming(packet)) => {
                    if of_v5(packet).is_some_and(|seen| sender.send(seen).is_err()) {
                        return;
                    }
                }
                Ok(rumqttc::v5::Event::Outgoing(_)) => {}
                Err(error) => return println!("connection ended: {error}"),
            }
        }
    });
    Version::V5(client)
}

fn of_v4(packet: rumqttc::Packet) -> Option<Seen> {
    match packet {
        rumqttc::Packet::ConnAck(ack) => {
            assert_eq!(ack.code, rumqttc::ConnectReturnCode::Success);
            Some(Seen::Connected {
                session_present: ack.session_present,
            })
        }
        rumqttc::Packet::SubAck(_) => Some(Seen::Subscribed),
        rumqttc::Packet::PubAck(_) | rumqttc::Packet::PubComp(_) => Some(Seen::Acknowledged),
        rumqttc::Packet::Publish(publish) => Some(Seen::Message {
            topic: publish.topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
        }),
        _ => None,
    }
}

fn of_v5(packet: rumqttc::v5::mqttbytes::v5::Packet) -> Option<Seen> {
    use rumqttc::v5::mqttbytes::v5::Packet;
    match packet {
        Packet::ConnAck(ack) => {
            assert_eq!(ack.code, rumqttc::v5::mqttbytes::v5::ConnectReturnCode::Success);
            Some(Seen::Connected {
                session_present: ack.session_present,
            })
        }
        Packet::SubAck(_) => Some(Seen::Subscribed),
        Packet::PubAck(_) | Packet::PubComp(_) => Some(Seen::Acknowledged),
        Packet::Publish(publish) => Some(Seen::Message {
            topic: String::from_utf8(publish.topic.to_vec()).expect("a topic is UTF-8"),
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
        }),
        _ => None,
    }
}

#[test]
fn every_qos_between_every_pair_of_versions() {
    let Some(broker) = Broker::start() else { return };
    for (writer, reader) in [(4, 4), (4, 5), (5, 4), (5, 5)] {
        let topic = unique("pair/");
        let (subscriber, publisher) = (Link::connect(&broker, reader), Link::connect(&broker, writer));
        subscriber.subscribe(&topic);
        for qos in 0..3 {
            for number in 0..20 {
                publisher.publish(&topic, format!("{qos} {number}").as_bytes(), qos, false);
                let awaited = (topic.clone(), format!("{qos} {number}").into_bytes(), qos, false);
                assert_eq!(
                    subscriber.message(),
                    awaited,
                    "version {writer} to version {reader}"
                );
            }
        }
    }
}

#[test]
fn a_kept_session_has_what_came_while_it_was_away() {
    let Some(broker) = Broker::start() else { return };
    for version in [4, 5] {
        let connect = Connect {
            keep_session: true,
            ..Connect::new()
        };
        let topic = unique("kept/");
        let (first, present) = Link::open(&broker, version, &connect);
        assert!(!present);
        first.subscribe(&topic);
        first.disconnect();
        let publisher = Link::connect(&broker, 4);
        for number in 0..10_u8 {
            publisher.publish(&topic, &[number], 1 + number % 2, false);
        }
        let (second, present) = Link::open(&broker, version, &connect);
        assert!(present);
        for number in 0..10_u8 {
            assert_eq!(second.message().1, [number]);
        }
    }
}

#[test]
fn retained_messages_and_their_removal() {
    let Some(broker) = Broker::start() else { return };
    for version in [4, 5] {
        let topic = unique("retained/");
        let publisher = Link::connect(&broker, version);
        publisher.publish(&topic, b"kept", 1, true);
        let reader = Link::connect(&broker, version);
        reader.subscribe(&topic);
        assert_eq!(reader.message(), (topic.clone(), b"kept".to_vec(), 1, true));
        publisher.publish(&topic, b"", 1, true);
        assert_eq!(reader.message(), (topic.clone(), Vec::new(), 1, false));
    }
}

#[test]
fn a_takeover_fires_the_will() {
    let Some(broker) = Broker::start() else { return };
    for version in [4, 5] {
        let topic = unique("will/");
        let watcher = Link::connect(&broker, 5);
        watcher.subscribe(&topic);
        let connect = Connect {
            will: Some((topic, b"gone".to_vec())),
            ..Connect::new()
        };
        let (_first, _) = Link::open(&broker, version, &connect);
        let (_second, _) = Link::open(
            &broker,
            version,
            &Connect {
                will: None,
                ..connect
            },
        );
        assert_eq!(watcher.message().1, b"gone");
    }
}

#[test]
fn a_large_message() {
    let Some(broker) = Broker::start() else { return };
    let payload: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    for version in [4, 5] {
        let topic = unique("large/");
        let reader = Link::connect(&broker, version);
        reader.subscribe(&topic);
        Link::connect(&broker, version).publish(&topic, &payload, 2, false);
        assert_eq!(reader.message().1, payload);
    }
}

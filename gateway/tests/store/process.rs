//! The executable: what it prints, how it ends, and what is there when it starts again.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

/// No test waits longer than this for anything; none passes by waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// The executable with arguments for a node on this directory.
pub(crate) fn tidegate(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear().args(arguments);
    for (key, value) in [
        ("node.data_dir", dir.display().to_string().as_str()),
        ("listeners.tcp.default.bind", "127.0.0.1:0"),
        ("listeners.ws.default.enable", "false"),
        ("gateway.mqttsn.listeners.udp.default.bind", "127.0.0.1:0"),
    ] {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    command
}

pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    tidegate(dir, arguments).output().unwrap()
}

/// A running node.
pub(crate) struct Node {
    process: Child,
    address: String,
    /// Where it speaks MQTT-SN.
    pub(crate) gateway: SocketAddr,
    /// The same over DTLS, if it does.
    pub(crate) secured: Option<SocketAddr>,
}

impl Node {
    pub(crate) fn start(dir: &Path) -> Node {
        Node::start_with(dir, &[], Stdio::null())
    }

    /// With these arguments besides, and its log here.
    pub(crate) fn start_with(dir: &Path, arguments: &[&str], log: Stdio) -> Node {
        let mut process = tidegate(dir, arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let (mut address, mut gateway, mut secured) = (None, None, None);
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            match line
                .strip_prefix("listening ")
                .and_then(|rest| rest.split_once(' '))
            {
                Some(("tcp:default", found)) => address = Some(found.to_owned()),
                Some(("mqttsn:udp:default", found)) => gateway = Some(found.parse().unwrap()),
                Some(("mqttsn:dtls:default", found)) => secured = Some(found.parse().unwrap()),
                _ if line == "ready" => break,
                _ => {}
            }
        }
        Node {
            process,
            address: address.expect("the node says where it listens"),
            gateway: gateway.expect("the node says where it listens"),
            secured,
        }
    }

    /// Its log, if it is a pipe.
    pub(crate) fn log(&mut self) -> ChildStderr {
        self.process.stderr.take().unwrap()
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        self.process.wait().unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// A client of MQTT 3.1.1 with a session that is kept. Says whether there was one.
    pub(crate) fn connect(&self, id: &str) -> (TcpStream, bool) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let len = u8::try_from(id.len()).unwrap();
        let mut packet = vec![0x10, 12 + len, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0, len];
        packet.extend_from_slice(id.as_bytes());
        stream.write_all(&packet).unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        (stream, connack[2] == 1)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Subscribes to `t` with QoS 1.
pub(crate) fn subscribe(stream: &mut TcpStream) {
    stream.write_all(&[0x82, 6, 0, 1, 0, 1, b't', 1]).unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).unwrap();
    assert_eq!(suback, [0x90, 3, 0, 1, 1]);
}

/// Publishes one byte to `t` with QoS 1, and waits for the acknowledgement.
pub(crate) fn publish(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[0x32, 6, 0, 1, b't', 0, 9, byte]).unwrap();
    let mut puback = [0; 4];
    stream.read_exact(&mut puback).unwrap();
    assert_eq!(puback, [0x40, 2, 0, 9]);
}

/// The payload of the next message, which is acknowledged.
pub(crate) fn receive(stream: &mut TcpStream) -> u8 {
    let mut message = [0; 8];
    stream.read_exact(&mut message).unwrap();
    assert_eq!((message[0] & 0xF6, message[1]), (0x32, 6));
    stream.write_all(&[0x40, 2, message[5], message[6]]).unwrap();
    message[7]
}

/// Keeps messages for the session `s`.
pub(crate) fn fill(node: &Node, bytes: &[u8]) {
    let (mut subscriber, is_present) = node.connect("s");
    if !is_present {
        subscribe(&mut subscriber);
    }
    drop(subscriber);
    let (mut publisher, _) = node.connect("p");
    for byte in bytes {
        publish(&mut publisher, *byte);
    }
}

/// What the session `s` gets.
pub(crate) fn drain(node: &Node, count: usize) -> Vec<u8> {
    let (mut subscriber, is_present) = node.connect("s");
    assert!(is_present);
    (0..count).map(|_| receive(&mut subscriber)).collect()
}

#[test]
fn what_was_acknowledged_is_there_after_sigterm_and_after_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    fill(&node, b"abc");
    node.kill();
    let node = Node::start(dir.path());
    fill(&node, b"def");
    assert!(node.stop().success());
    let node = Node::start(dir.path());
    assert_eq!(drain(&node, 6), b"abcdef");
    assert!(node.stop().success());
}

#[test]
fn a_directory_that_cannot_be_used_ends_the_start_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("x"), "").unwrap();
    let told = |output: Output, status: i32, reason: &str| {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert!(
            text.contains("--set node.data_dir=") && text.contains(reason),
            "{text}"
        );
    };
    told(run(&foreign, &[]), 3, "is not empty and holds no store");
    let file = dir.path().join("foreign/x/data");
    told(run(&file, &[]), 1, "Not a directory");
    let used = dir.path().join("used");
    let node = Node::start(&used);
    told(run(&used, &[]), 1, "is used by another process");
    assert!(node.stop().success());
}

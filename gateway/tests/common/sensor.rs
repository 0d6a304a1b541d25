//! An MQTT-SN client by hand: datagrams as they are on the wire. Clauses are those of MQTT-SN 1.2.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

/// No test waits longer than this for anything; none passes by waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What brings datagrams to the gateway and back.
pub(crate) trait Carrier {
    fn send(&self, datagram: &[u8]);

    /// Fills the buffer with the next one and says how long it is.
    fn receive(&self, buffer: &mut [u8]) -> usize;
}

/// Plain UDP, from a socket of its own.
pub(crate) struct Plain {
    socket: UdpSocket,
    gateway: SocketAddr,
}

impl Carrier for Plain {
    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.gateway).unwrap();
    }

    fn receive(&self, buffer: &mut [u8]) -> usize {
        let (len, from) = self.socket.recv_from(buffer).unwrap();
        assert_eq!(from, self.gateway);
        len
    }
}

/// One client.
pub(crate) struct Sensor<C = Plain>(pub(crate) C);

impl Sensor {
    pub(crate) fn new(gateway: SocketAddr) -> Sensor {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Sensor(Plain { socket, gateway })
    }

    /// The gateway is at another address from now on.
    pub(crate) fn turn_to(&mut self, gateway: SocketAddr) {
        self.0.gateway = gateway;
    }
}

impl<C: Carrier> Sensor<C> {
    /// Sends a message of this type (§5.2.2).
    pub(crate) fn say(&self, kind: u8, parts: &[&[u8]]) {
        let body = parts.concat();
        let mut message = vec![u8::try_from(body.len() + 2).unwrap(), kind];
        message.extend_from_slice(&body);
        self.0.send(&message);
    }

    /// Type and body of the next message.
    pub(crate) fn hear(&self) -> (u8, Vec<u8>) {
        let mut buffer = [0; 1024];
        let len = self.0.receive(&mut buffer);
        assert_eq!(usize::from(buffer[0]), len);
        (buffer[1], buffer[2..len].to_vec())
    }

    /// Sends a message and takes the answer.
    pub(crate) fn ask(&self, kind: u8, parts: &[&[u8]]) -> (u8, Vec<u8>) {
        self.say(kind, parts);
        self.hear()
    }

    /// CONNECT (§5.4.4) with these flags and this duration; accepted.
    pub(crate) fn connect(&self, id: &str, flags: u8, duration: u8) {
        let answer = self.ask(CONNECT, &[&[flags, 1, 0, duration], id.as_bytes()]);
        assert_eq!(answer, (CONNACK, vec![0]));
    }

    /// REGISTER (§5.4.10); returns the topic id.
    pub(crate) fn register(&self, topic: &str) -> [u8; 2] {
        let (kind, body) = self.ask(REGISTER, &[&[0, 0, 0, 7], topic.as_bytes()]);
        assert_eq!((kind, &body[2..]), (REGACK, &[0, 7, 0][..]));
        [body[0], body[1]]
    }

    /// SUBSCRIBE (§5.4.15) by name with QoS 1; returns the topic id.
    pub(crate) fn subscribe(&self, filter: &str) -> [u8; 2] {
        let (kind, body) = self.ask(SUBSCRIBE, &[&[QOS_1, 0, 8], filter.as_bytes()]);
        assert_eq!((kind, &body[3..]), (SUBACK, &[0, 8, 0][..]));
        [body[1], body[2]]
    }

    /// The next message is a PUBLISH of QoS 1 under this topic id: acknowledges it, returns its payload.
    pub(crate) fn receive(&self, id: [u8; 2]) -> Vec<u8> {
        let (kind, body) = self.hear();
        assert_eq!((kind, body[0] & 0x60, &body[1..3]), (PUBLISH, QOS_1, &id[..]));
        self.say(PUBACK, &[&body[1..5], &[0]]);
        body[5..].to_vec()
    }

    /// DISCONNECT with a duration (§6.14), confirmed.
    pub(crate) fn sleep(&self, seconds: u8) {
        assert_eq!(self.ask(DISCONNECT, &[&[0, seconds]]), (DISCONNECT, vec![]));
    }
}

pub(crate) const SEARCHGW: u8 = 0x01;
pub(crate) const GWINFO: u8 = 0x02;
pub(crate) const CONNECT: u8 = 0x04;
pub(crate) const CONNACK: u8 = 0x05;
pub(crate) const WILLTOPICREQ: u8 = 0x06;
pub(crate) const WILLTOPIC: u8 = 0x07;
pub(crate) const WILLMSGREQ: u8 = 0x08;
pub(crate) const WILLMSG: u8 = 0x09;
pub(crate) const REGISTER: u8 = 0x0A;
pub(crate) const REGACK: u8 = 0x0B;
pub(crate) const PUBLISH: u8 = 0x0C;
pub(crate) const PUBACK: u8 = 0x0D;
pub(crate) const PUBCOMP: u8 = 0x0E;
pub(crate) const PUBREC: u8 = 0x0F;
pub(crate) const PUBREL: u8 = 0x10;
pub(crate) const SUBSCRIBE: u8 = 0x12;
pub(crate) const SUBACK: u8 = 0x13;
pub(crate) const PINGREQ: u8 = 0x16;
pub(crate) const PINGRESP: u8 = 0x17;
pub(crate) const DISCONNECT: u8 = 0x18;

/// Flags (§5.3.4).
pub(crate) const CLEAN: u8 = 0x04;
pub(crate) const WILL: u8 = 0x08;
pub(crate) const QOS_1: u8 = 0x20;
pub(crate) const QOS_2: u8 = 0x40;
pub(crate) const QOS_MINUS_1: u8 = 0x60;
pub(crate) const PREDEFINED: u8 = 0x01;
pub(crate) const SHORT: u8 = 0x02;

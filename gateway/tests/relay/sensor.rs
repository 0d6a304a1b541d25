//! A sensor: datagrams.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    time::Instant,
};

use broker_core::QoS;
use bytes::BytesMut;
use mqtt_sn::codec::{
    Connect, Message, MsgId, Publish, PublishQoS, ReturnCode, Subscribe, Topic, TopicId, TopicName, Will,
};

use crate::{application::Received, process::PATIENCE};

pub(crate) struct Sensor {
    socket: UdpSocket,
    pub(crate) client_id: String,
    topics: HashMap<u16, String>,
    msg_id: u16,
}

impl Sensor {
    pub(crate) fn new(gateway: &str, client_id: &str) -> Sensor {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(gateway).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Sensor {
            socket,
            client_id: client_id.to_owned(),
            topics: HashMap::new(),
            msg_id: 0,
        }
    }

    /// A connected one.
    pub(crate) fn connected(gateway: &str, client_id: &str) -> Sensor {
        let mut sensor = Sensor::new(gateway, client_id);
        assert_eq!(sensor.connect(60, true, None), ReturnCode::Accepted);
        sensor
    }

    pub(crate) fn send(&self, message: &Message<'_>) {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        self.socket.send(&bytes).unwrap();
    }

    fn receive(&self, buffer: &mut [u8]) -> usize {
        loop {
            match self.socket.recv(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => return received.unwrap(),
            }
        }
    }

    /// Gives the next datagram to `read`.
    pub(crate) fn next<T>(&self, read: impl FnOnce(Message<'_>) -> T) -> T {
        let mut buffer = [0; 2048];
        let len = self.receive(&mut buffer);
        read(Message::decode(&buffer[..len]).unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(&self, expected: &Message<'_>) {
        self.next(|message| assert_eq!(message, *expected));
    }

    fn number(&mut self) -> MsgId {
        self.msg_id += 1;
        MsgId(self.msg_id)
    }

    /// Connects; again and again while there is congestion, as there is until the gateway has reached the broker.
    pub(crate) fn connect(
        &mut self,
        duration: u16,
        clean_session: bool,
        will: Option<Will<'_>>,
    ) -> ReturnCode {
        let start = Instant::now();
        loop {
            let code = self.connect_once(duration, clean_session, will);
            if code != ReturnCode::Congestion || start.elapsed() > PATIENCE {
                return code;
            }
        }
    }

    pub(crate) fn connect_once(
        &mut self,
        duration: u16,
        clean_session: bool,
        will: Option<Will<'_>>,
    ) -> ReturnCode {
        self.send(&Message::Connect(Connect {
            will: will.is_some(),
            clean_session,
            duration,
            client_id: &self.client_id,
        }));
        if will.is_some() {
            self.expect(&Message::WillTopicReq);
            self.send(&Message::WillTopic(will));
            self.expect(&Message::WillMsgReq);
            self.send(&Message::WillMsg(b"gone"));
        }
        self.next(|message| match message {
            Message::ConnAck(code) => code,
            other => panic!("no CONNACK: {other:?}"),
        })
    }

    pub(crate) fn register(&mut self, topic_name: &str) -> Topic {
        let msg_id = self.number();
        self.send(&Message::Register {
            topic_id: TopicId(0),
            msg_id,
            topic_name,
        });
        self.next(|message| match message {
            Message::RegAck {
                topic_id,
                return_code: ReturnCode::Accepted,
                ..
            } => Topic::Normal(topic_id),
            other => panic!("no REGACK: {other:?}"),
        })
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) {
        let msg_id = self.number();
        let topic = TopicName::Name(filter);
        self.send(&Message::Subscribe(Subscribe {
            dup: false,
            qos,
            msg_id,
            topic,
        }));
        self.next(|message| match message {
            Message::SubAck {
                qos: granted,
                return_code,
                ..
            } => {
                assert_eq!((granted, return_code), (qos, ReturnCode::Accepted));
            }
            other => panic!("no SUBACK: {other:?}"),
        });
    }

    /// Publishes, and waits until the gateway has taken it.
    pub(crate) fn publish(&mut self, topic: Topic, qos: QoS, retain: bool, data: &str) {
        let msg_id = if qos == QoS::AtMostOnce {
            MsgId(0)
        } else {
            self.number()
        };
        self.send(&Message::Publish(Publish {
            dup: false,
            qos: PublishQoS::Level(qos),
            retain,
            topic,
            msg_id,
            data: data.as_bytes(),
        }));
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.next(|message| match message {
                Message::PubAck { return_code, .. } => assert_eq!(return_code, ReturnCode::Accepted),
                other => panic!("no PUBACK: {other:?}"),
            }),
            QoS::ExactlyOnce => {
                self.expect(&Message::PubRec(msg_id));
                self.send(&Message::PubRel(msg_id));
                self.expect(&Message::PubComp(msg_id));
            }
        }
    }

    /// The next message, taken with all that belongs to it; `None`, if PINGRESP comes first.
    pub(crate) fn message(&mut self) -> Option<Received> {
        loop {
            let mut buffer = [0; 2048];
            let len = self.receive(&mut buffer);
            match Message::decode(&buffer[..len]).unwrap() {
                Message::PingResp => return None,
                Message::Register {
                    topic_id,
                    msg_id,
                    topic_name,
                } => {
                    self.topics.insert(topic_id.0, topic_name.to_owned());
                    let return_code = ReturnCode::Accepted;
                    self.send(&Message::RegAck {
                        topic_id,
                        msg_id,
                        return_code,
                    });
                }
                Message::Publish(publish) => return Some(self.take(&publish)),
                other => panic!("no message: {other:?}"),
            }
        }
    }

    fn take(&self, publish: &Publish<'_>) -> Received {
        let Topic::Normal(topic_id) = publish.topic else {
            panic!("a topic that was not registered: {publish:?}");
        };
        let PublishQoS::Level(qos) = publish.qos else {
            panic!("QoS -1 goes to gateways only");
        };
        let (msg_id, return_code) = (publish.msg_id, ReturnCode::Accepted);
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.send(&Message::PubAck {
                topic_id,
                msg_id,
                return_code,
            }),
            QoS::ExactlyOnce => {
                self.send(&Message::PubRec(msg_id));
                self.expect(&Message::PubRel(msg_id));
                self.send(&Message::PubComp(msg_id));
            }
        }
        let data = String::from_utf8_lossy(publish.data).into_owned();
        (self.topics[&topic_id.0].clone(), qos as u8, publish.retain, data)
    }

    /// Goes to sleep.
    pub(crate) fn sleep(&self, seconds: u16) {
        self.send(&Message::Disconnect(Some(seconds)));
        self.expect(&Message::Disconnect(None));
    }

    /// Wakes, and takes what has waited.
    pub(crate) fn wake(&mut self) -> Vec<Received> {
        self.send(&Message::PingReq(&self.client_id));
        std::iter::from_fn(|| self.message()).collect()
    }
}

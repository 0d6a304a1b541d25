//! A client as the specification describes it: it repeats what is not answered (§6.13) and answers what it is told.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::{QoS, Timestamp};
use bytes::Bytes;
use mqtt_sn::codec::{
    Connect, Message, MsgId, Publish, PublishQoS, ReturnCode, Subscribe, Topic, TopicId, TopicName, Will,
};

use crate::{net::encode, probe::Got};

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `will`: topic and message.
    Connect {
        clean: bool,
        will: Option<(&'static str, &'static str)>,
    },
    Register(&'static str),
    Publish(&'static str, &'static str, QoS),
    Subscribe(&'static str, QoS),
    Unsubscribe(&'static str),
    WillTopic(Option<&'static str>),
    WillMsg(&'static str),
    Ping,
    Sleep(u16),
    Wake,
    Leave,
    /// Somebody else publishes.
    Inject(&'static str, &'static str, QoS),
    /// Seconds pass.
    Pass(u64),
    /// The client is cut off for good.
    Vanish,
}

pub(crate) const CLIENT_ID: &str = "device";
const T_RETRY_SECS: u64 = 10;
/// More than the specification's best practice (§7.2), for storms.
const N_RETRY: u32 = 20;

/// What it waits for.
#[derive(Debug)]
struct Outstanding {
    step: Step,
    message: Message<'static>,
    at: Timestamp,
    left: u32,
}

#[derive(Debug)]
pub(crate) struct Device {
    /// Its radio is off: asleep, or gone.
    is_deaf: bool,
    msg_id: u16,
    outstanding: Option<Outstanding>,
    ids: BTreeMap<&'static str, TopicId>,
    names: BTreeMap<TopicId, String>,
    /// Of QoS 2, not released.
    received: BTreeSet<MsgId>,
    /// Of QoS 2, completed: copies that the network has kept are no new messages.
    completed: Vec<(MsgId, Vec<u8>)>,
    pub(crate) got: Vec<Got>,
    /// The Will of its CONNECT.
    will: Option<(&'static str, &'static str)>,
    pub(crate) out: Vec<Bytes>,
}

impl Device {
    pub(crate) fn new() -> Device {
        Device {
            is_deaf: false,
            msg_id: 0,
            outstanding: None,
            ids: BTreeMap::new(),
            names: BTreeMap::new(),
            received: BTreeSet::new(),
            completed: Vec::new(),
            got: Vec::new(),
            will: None,
            out: Vec::new(),
        }
    }

    /// True if its step is done.
    pub(crate) fn is_done(&self) -> bool {
        self.outstanding.is_none()
    }

    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        self.outstanding.as_ref().map(|outstanding| outstanding.at)
    }

    /// Sends again what was not answered.
    ///
    /// # Panics
    ///
    /// After the last time: a single fault of the network must not lead there.
    pub(crate) fn fire(&mut self, now: Timestamp) {
        let Some(outstanding) = self
            .outstanding
            .as_mut()
            .filter(|outstanding| outstanding.at <= now)
        else {
            return;
        };
        assert!(outstanding.left > 0, "nobody answers {:?}", outstanding.step);
        outstanding.left -= 1;
        outstanding.at = now.after_secs(T_RETRY_SECS);
        outstanding.message = match outstanding.message {
            Message::Publish(publish) => Message::Publish(Publish { dup: true, ..publish }),
            Message::Subscribe(subscribe) => Message::Subscribe(Subscribe {
                dup: true,
                ..subscribe
            }),
            other => other,
        };
        let datagram = encode(&outstanding.message);
        self.out.push(datagram);
    }

    pub(crate) fn begin(&mut self, now: Timestamp, step: Step) {
        self.is_deaf = false;
        self.msg_id += 1;
        let msg_id = MsgId(self.msg_id);
        let message = match step {
            Step::Connect { clean, will } => {
                if clean {
                    self.ids.clear();
                }
                self.will = will;
                Message::Connect(Connect {
                    will: will.is_some(),
                    clean_session: clean,
                    duration: 3600,
                    client_id: CLIENT_ID,
                })
            }
            Step::Register(topic_name) => Message::Register {
                topic_id: TopicId::NONE,
                msg_id,
                topic_name,
            },
            Step::Publish(topic, data, qos) => Message::Publish(Publish {
                dup: false,
                qos: PublishQoS::Level(qos),
                retain: false,
                topic: Topic::Normal(self.ids[topic]),
                msg_id: if qos == QoS::AtMostOnce { MsgId(0) } else { msg_id },
                data: data.as_bytes(),
            }),
            Step::Subscribe(name, qos) => Message::Subscribe(Subscribe {
                dup: false,
                qos,
                msg_id,
                topic: TopicName::Name(name),
            }),
            Step::Unsubscribe(name) => Message::Unsubscribe {
                msg_id,
                topic: TopicName::Name(name),
            },
            Step::WillTopic(topic) => Message::WillTopicUpd(topic.map(|topic| Will {
                qos: QoS::AtLeastOnce,
                retain: false,
                topic,
            })),
            Step::WillMsg(message) => Message::WillMsgUpd(message.as_bytes()),
            Step::Ping => Message::PingReq(""),
            Step::Sleep(seconds) => Message::Disconnect(Some(seconds)),
            Step::Wake => Message::PingReq(CLIENT_ID),
            Step::Leave => Message::Disconnect(None),
            Step::Vanish => {
                self.is_deaf = true;
                return;
            }
            Step::Inject(..) | Step::Pass(_) => return,
        };
        self.out.push(encode(&message));
        if !matches!(step, Step::Publish(_, _, QoS::AtMostOnce)) {
            self.wait_for(now, step, message);
        }
    }

    fn wait_for(&mut self, now: Timestamp, step: Step, message: Message<'static>) {
        self.outstanding = Some(Outstanding {
            step,
            message,
            at: now.after_secs(T_RETRY_SECS),
            left: N_RETRY,
        });
    }

    /// The same step goes on with another message.
    fn go_on(&mut self, now: Timestamp, step: Step, message: Message<'static>) {
        self.out.push(encode(&message));
        self.wait_for(now, step, message);
    }

    pub(crate) fn hear(&mut self, now: Timestamp, datagram: &[u8]) {
        if self.is_deaf {
            return;
        }
        let message = Message::decode(datagram).expect("a gateway's message");
        if self.answer(&message) {
            return;
        }
        let Some(outstanding) = &self.outstanding else {
            assert!(
                !matches!(message, Message::Disconnect(_)),
                "the gateway has ended the connection"
            );
            return;
        };
        let (step, sent) = (outstanding.step, outstanding.message);
        if let Some(next) = self.next(sent, message) {
            return self.go_on(now, step, next);
        }
        if self.is_answer(sent, message) {
            self.outstanding = None;
        }
    }

    /// What is said next in an exchange of several steps.
    fn next(&self, sent: Message<'_>, heard: Message<'_>) -> Option<Message<'static>> {
        let (topic, text) = self.will.unwrap_or_default();
        let will = Will {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
        };
        match (sent, heard) {
            (Message::Connect(_) | Message::WillTopic(_), Message::WillTopicReq) => {
                Some(Message::WillTopic(Some(will)))
            }
            (Message::Connect(_) | Message::WillTopic(_), Message::WillMsgReq) => {
                Some(Message::WillMsg(text.as_bytes()))
            }
            (Message::Publish(publish), Message::PubRec(msg_id)) if publish.msg_id == msg_id => {
                Some(Message::PubRel(msg_id))
            }
            _ => None,
        }
    }

    /// True if `heard` answers what was `sent`; an answer to something earlier does not.
    fn is_answer(&mut self, sent: Message<'static>, heard: Message<'_>) -> bool {
        let code = match (sent, heard) {
            (Message::Connect(_) | Message::WillTopic(_) | Message::WillMsg(_), Message::ConnAck(code))
            | (Message::WillTopicUpd(_), Message::WillTopicResp(code))
            | (Message::WillMsgUpd(_), Message::WillMsgResp(code)) => code,
            (
                Message::Register {
                    msg_id, topic_name, ..
                },
                Message::RegAck {
                    topic_id,
                    msg_id: to,
                    return_code,
                },
            ) if msg_id == to => {
                self.learn(topic_name, topic_id);
                return_code
            }
            (
                Message::Publish(publish),
                Message::PubAck {
                    msg_id, return_code, ..
                },
            ) if publish.msg_id == msg_id => {
                assert_eq!(publish.qos, PublishQoS::Level(QoS::AtLeastOnce));
                return_code
            }
            (
                Message::Subscribe(subscribe),
                Message::SubAck {
                    topic_id,
                    msg_id,
                    return_code,
                    ..
                },
            ) if subscribe.msg_id == msg_id => {
                if let (TopicName::Name(name), false) = (subscribe.topic, topic_id == TopicId::NONE) {
                    self.learn(name, topic_id);
                }
                return_code
            }
            (Message::PubRel(msg_id), Message::PubComp(to))
            | (Message::Unsubscribe { msg_id, .. }, Message::UnsubAck(to)) => return msg_id == to,
            (Message::PingReq(client_id), Message::PingResp) => {
                self.is_deaf = !client_id.is_empty();
                return true;
            }
            (Message::Disconnect(_), Message::Disconnect(_)) => {
                self.is_deaf = true;
                return true;
            }
            (_, Message::Disconnect(_)) => panic!("the gateway has ended the connection after {sent:?}"),
            _ => return false,
        };
        assert_eq!(code, ReturnCode::Accepted, "{sent:?}");
        true
    }

    fn learn(&mut self, name: &'static str, id: TopicId) {
        self.ids.insert(name, id);
        self.names.insert(id, name.to_owned());
    }

    /// What the gateway asks. False if it is an answer.
    fn answer(&mut self, message: &Message<'_>) -> bool {
        let answer = match *message {
            Message::Register {
                topic_id,
                msg_id,
                topic_name,
            } => {
                self.names.insert(topic_id, topic_name.to_owned());
                Message::RegAck {
                    topic_id,
                    msg_id,
                    return_code: ReturnCode::Accepted,
                }
            }
            Message::Publish(publish) => return self.receive(&publish),
            Message::PubRel(msg_id) => {
                self.received.remove(&msg_id);
                Message::PubComp(msg_id)
            }
            _ => return false,
        };
        self.out.push(encode(&answer));
        true
    }

    fn receive(&mut self, publish: &Publish<'_>) -> bool {
        let PublishQoS::Level(qos) = publish.qos else {
            panic!("a gateway does not publish without a connection");
        };
        let topic_id = publish.topic.as_topic_id();
        let ack = |return_code| Message::PubAck {
            topic_id,
            msg_id: publish.msg_id,
            return_code,
        };
        let name = match publish.topic {
            Topic::Normal(id) => self.names.get(&id).cloned(),
            Topic::Predefined(_) => None,
            Topic::Short(octets) => Some(String::from_utf8_lossy(&octets).into_owned()),
        };
        let Some(name) = name else {
            self.out.push(encode(&ack(ReturnCode::InvalidTopicId)));
            return true;
        };
        let copy = (publish.msg_id, publish.data.to_vec());
        let is_new = match qos {
            QoS::ExactlyOnce
                if self.completed.contains(&copy) && !self.received.contains(&publish.msg_id) =>
            {
                return true;
            }
            QoS::ExactlyOnce => {
                self.completed.push(copy);
                self.received.insert(publish.msg_id)
            }
            _ => true,
        };
        if is_new {
            let payload = String::from_utf8_lossy(publish.data).into_owned();
            self.got.push((name, payload, qos, publish.retain));
        }
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.out.push(encode(&ack(ReturnCode::Accepted))),
            QoS::ExactlyOnce => self.out.push(encode(&Message::PubRec(publish.msg_id))),
        }
        true
    }
}

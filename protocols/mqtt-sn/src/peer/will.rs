//! The Will: prompts after CONNECT (§6.2, §6.3), updates (§6.4).

use broker_core::{Effects, ReasonCode, Request, Timestamp, Will};

use super::{
    Io, Peer,
    state::{Asked, AwaitWill, Connection, Prompt, Setup, State},
};
use crate::{
    codec::{self, Message, ReturnCode},
    map,
};

impl Peer {
    /// CONNECT has the Will flag: WILLTOPICREQ. Like WILLMSGREQ it is sent once for each message that asks for it: the
    /// client repeats those (§6.13), and who has lied about its address is sent no more than it has paid for.
    pub(super) fn ask_for_will(&mut self, now: Timestamp, setup: Setup, effects: &mut Effects<'_>) {
        self.put(&Message::WillTopicReq, effects);
        self.state = State::AwaitWill(Box::new(AwaitWill {
            setup,
            prompt: Prompt::Topic,
            until: now.after(self.settings.idle_timeout),
        }));
    }

    pub(super) fn handle_will_topic(
        &mut self,
        now: Timestamp,
        topic: Option<codec::Will<'_>>,
        effects: &mut Effects<'_>,
    ) {
        let State::AwaitWill(will) = &mut self.state else {
            return self.settings.counters.received_unexpected.inc();
        };
        match (&will.prompt, topic) {
            (Prompt::Topic, Some(topic)) => {
                will.prompt = Prompt::Message {
                    qos: topic.qos,
                    retain: topic.retain,
                    topic: topic.topic.into(),
                };
                self.put(&Message::WillMsgReq, effects);
            }
            // It has a Will flag and no Will: an old one does not stay in force either (§6.3).
            (Prompt::Topic, None) => {
                let setup = will.setup.clone();
                self.request_connect(now, setup, None, effects);
            }
            // A copy; or WILLMSGREQ was lost.
            (Prompt::Message { .. }, _) => {
                self.settings.counters.received_duplicate.inc();
                self.put(&Message::WillMsgReq, effects);
            }
        }
    }

    pub(super) fn handle_will_msg(&mut self, now: Timestamp, message: &[u8], effects: &mut Effects<'_>) {
        match &mut self.state {
            State::AwaitWill(awaited) => {
                let Prompt::Message { qos, retain, topic } = &awaited.prompt else {
                    return self.settings.counters.received_unexpected.inc();
                };
                let will = Box::new(will(topic, message, *qos, *retain));
                let setup = awaited.setup.clone();
                self.request_connect(now, setup, Some(will), effects);
            }
            // CONNACK, the answer, was lost.
            State::Connected(connection) if now < connection.fresh_until && connection.will_flag => {
                self.settings.counters.received_duplicate.inc();
                self.put(&Message::ConnAck(ReturnCode::Accepted), effects);
            }
            _ => self.settings.counters.received_unexpected.inc(),
        }
    }
}

impl Connection {
    pub(super) fn handle_will_topic_upd(&mut self, topic: Option<codec::Will<'_>>, io: &mut Io<'_, '_>) {
        let print = topic.map(|topic| (topic.topic, topic.qos as u8, topic.retain));
        if self.is_late(("topic", print), io) {
            return io.settings.counters.received_duplicate.inc();
        }
        let updated = topic.map(|topic| {
            let message = self.will.as_ref().map_or(&[][..], |will| &will.payload);
            Box::new(will(topic.topic, message, topic.qos, topic.retain))
        });
        self.set_will(updated, Asked::WillTopic, io);
    }

    pub(super) fn handle_will_msg_upd(&mut self, message: &[u8], io: &mut Io<'_, '_>) {
        if self.is_late(("message", message), io) {
            return io.settings.counters.received_duplicate.inc();
        }
        let Some(old) = &self.will else {
            // There is no topic to send it to.
            return io.put(&Message::WillMsgResp(ReturnCode::NotSupported));
        };
        let updated = Some(Box::new(will(&old.topic, message, old.qos, old.retain)));
        self.set_will(updated, Asked::WillMsg, io);
    }

    /// One update at a time; the client repeats another, as it repeats one whose answer it misses.
    fn set_will(
        &mut self,
        will: Option<Box<Will>>,
        asked: fn(Option<Box<Will>>) -> Asked,
        io: &mut Io<'_, '_>,
    ) {
        let is_will = |asked: &Asked| matches!(asked, Asked::WillTopic(_) | Asked::WillMsg(_));
        if self.asked.iter().any(is_will) {
            return io.settings.counters.received_duplicate.inc();
        }
        io.request(Request::SetWill(will.clone()));
        self.asked.push(asked(will));
    }

    pub(super) fn will_set(&mut self, reason: ReasonCode, io: &mut Io<'_, '_>) {
        let code = map::return_code(reason);
        let taken = self.take_asked(|asked| matches!(asked, Asked::WillTopic(_) | Asked::WillMsg(_)));
        let will = match taken {
            Some(Asked::WillTopic(will)) => {
                io.put(&Message::WillTopicResp(code));
                will
            }
            Some(Asked::WillMsg(will)) => {
                io.put(&Message::WillMsgResp(code));
                will
            }
            _ => return,
        };
        if code == ReturnCode::Accepted {
            self.will = will;
        }
    }
}

fn will(topic: &str, message: &[u8], qos: broker_core::QoS, retain: bool) -> Will {
    Will {
        topic: topic.to_owned(),
        payload: message.to_vec(),
        qos,
        retain,
        delay_interval: 0,
        expiry_interval: None,
        properties: Vec::new(),
    }
}

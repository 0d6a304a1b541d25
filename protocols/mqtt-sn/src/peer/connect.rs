//! CONNECT (§6.2, §6.3), and whose affair a message is in each state.

use std::sync::Arc;

use broker_core::{ClientInfo, DisconnectCause, Effects, Request, Timestamp, Will};

use super::{
    Peer, late,
    state::{Connecting, Connection, Goal, Greeting, Nap, Phase, Setup, State},
};
use crate::codec::{Connect, DecodeError, Message, Publish, PublishQoS, ReturnCode};

impl Peer {
    pub(super) fn handle_message(&mut self, now: Timestamp, message: Message<'_>, effects: &mut Effects<'_>) {
        if let State::Common(_) = self.state {
            return self.handle_common(now, &message, effects);
        }
        // QoS −1 is for the common peer, whoever sends it; the endpoint has let this one pass.
        if let Message::Publish(Publish {
            qos: PublishQoS::WithoutConnection,
            ..
        }) = message
        {
            return self.settings.counters.received_unexpected.inc();
        }
        match (&mut self.state, message) {
            (State::Closed, _) => {}
            (State::FallingAsleep(falling), _) if now < falling.patience_until => {
                self.settings.counters.received_duplicate.inc();
            }
            (State::FallingAsleep(_), message) => self.stir(now, message, effects),
            (_, Message::Connect(connect)) => self.handle_connect(now, &connect, effects),
            (State::AwaitConnect { .. }, Message::PingReq(client_id)) if !client_id.is_empty() => {
                self.wake_stranger(now, client_id, effects);
            }
            (State::AwaitConnect { .. }, _) => {
                // §6.12: a gateway that does not know the client asks it so to connect.
                self.put(&Message::Disconnect(None), effects);
                self.close("not_connected", "a message before CONNECT", effects);
            }
            (_, Message::Disconnect(duration)) => {
                self.handle_disconnect(now, duration.filter(|&seconds| seconds > 0), effects);
            }
            (_, Message::PingReq(client_id)) => self.handle_ping(now, client_id, effects),
            (_, Message::WillTopic(will)) => self.handle_will_topic(now, will, effects),
            (_, Message::WillMsg(message)) => self.handle_will_msg(now, message, effects),
            (State::Connected(_), message) => {
                self.with_connection(now, effects, |connection, io| {
                    connection.handle_message(&message, io)
                });
            }
            _ => self.settings.counters.received_unexpected.inc(),
        }
    }

    /// What is no message is refused where the specification has words for it, and where they are no more than the
    /// question.
    pub(super) fn handle_malformed(&mut self, error: &DecodeError, effects: &mut Effects<'_>) {
        self.settings.counters.received_malformed.inc();
        match (&self.state, error.refusal) {
            (State::Connected(_), Some(refusal)) => self.put(&refusal, effects),
            (State::AwaitConnect { .. } | State::AwaitWill(_), Some(refusal @ Message::ConnAck(_))) => {
                self.put(&refusal, effects);
                self.close(error.word(), error.to_string(), effects);
            }
            _ => {}
        }
    }

    fn handle_connect(&mut self, now: Timestamp, connect: &Connect<'_>, effects: &mut Effects<'_>) {
        let setup = self.setup(connect);
        match &mut self.state {
            State::Connected(connection) if connection.was_answered(now, &setup) => {
                self.settings.counters.received_duplicate.inc();
                connection.heard_at = now;
                self.put(&Message::ConnAck(ReturnCode::Accepted), effects);
            }
            State::Connected(connection) if connection.greeting.is_late_copy(now, &setup) => {
                self.settings.counters.received_duplicate.inc();
            }
            State::Asleep(asleep) if !setup.will && asleep.greeting.is_late_copy(now, &setup) => {
                let nap = asleep.nap;
                self.reconnect(now, setup, nap, effects);
            }
            State::Connected(connection) => {
                let cause = match connection.phase {
                    Phase::Awake(nap) | Phase::Drained(nap) => nap.cause(now),
                    Phase::Active => {
                        let client = Arc::clone(&connection.client);
                        self.makes_way(&client, &setup)
                    }
                };
                Peer::leave(cause, effects);
                self.begin(now, setup, effects);
            }
            State::Connecting(connecting)
                if connecting.goal == Goal::Connect && connecting.setup == setup =>
            {
                self.settings.counters.received_duplicate.inc();
                connecting.next = None;
            }
            State::Connecting(connecting) => connecting.next = Some(setup),
            // A copy, or what it was asked is lost: it is asked again, the topic first.
            State::AwaitConnect { .. } | State::AwaitWill(_) | State::Asleep(_) => {
                self.begin(now, setup, effects);
            }
            State::FallingAsleep(_) | State::Common(_) | State::Closed => {}
        }
    }

    fn setup(&self, connect: &Connect<'_>) -> Setup {
        let client_id = self.effective_client_id(connect.client_id);
        Setup {
            // Who does not know its client id cannot come back to its session.
            clean_session: connect.clean_session || client_id.is_empty(),
            client_id,
            will: connect.will,
            duration: connect.duration,
        }
    }

    /// A CONNECT is seen to from the start.
    pub(super) fn begin(&mut self, now: Timestamp, setup: Setup, effects: &mut Effects<'_>) {
        if setup.will {
            self.ask_for_will(now, setup, effects);
        } else {
            self.request_connect(now, setup, None, effects);
        }
    }

    /// Everything that belongs to the CONNECT is here.
    pub(super) fn request_connect(
        &mut self,
        now: Timestamp,
        setup: Setup,
        will: Option<Box<Will>>,
        effects: &mut Effects<'_>,
    ) {
        let mut connect = self.setup_request(&setup);
        connect.will = will.as_deref().cloned();
        effects.requests.push(Request::Connect(Box::new(connect)));
        self.state = State::Connecting(Box::new(Connecting {
            greeting: Greeting::new(now, &setup),
            setup,
            will,
            goal: Goal::Connect,
            fallback: None,
            next: None,
        }));
    }

    /// A client that has just fallen asleep says its CONNECT again: it has changed its mind, or this is a copy that the
    /// network has held back. It is connected, but nothing of its session is given up; until it says something more, it
    /// counts as one that sleeps.
    fn reconnect(&mut self, now: Timestamp, setup: Setup, nap: Nap, effects: &mut Effects<'_>) {
        let mut connect = self.setup_request(&setup);
        connect.clean_start = false;
        connect.keeps_will = true;
        effects.requests.push(Request::Connect(Box::new(connect)));
        self.state = State::Connecting(Box::new(Connecting {
            greeting: Greeting::new(now, &setup),
            setup,
            will: None,
            goal: Goal::Connect,
            fallback: Some(nap),
            next: None,
        }));
    }
}

impl Peer {
    /// How a connection ends when its client says another CONNECT. It is there, so that it is like one that slept: its
    /// Will is replaced, discarded or kept as the CONNECT says (§6.3), not published, unless it does not come to the end
    /// of its CONNECT. A client of another name has taken the place of one that is lost.
    pub(super) fn makes_way(&self, client: &ClientInfo, next: &Setup) -> DisconnectCause {
        if *client.client_id.as_str() == *next.client_id {
            let seconds = self.settings.idle_timeout.as_secs() + 1;
            DisconnectCause::Asleep(u32::try_from(seconds).unwrap_or(u32::MAX))
        } else {
            DisconnectCause::ConnectionLost
        }
    }
}

impl Connection {
    /// The CONNECT is the one that was answered: its CONNACK was lost, or the network has doubled it.
    fn was_answered(&self, now: Timestamp, setup: &Setup) -> bool {
        now < self.fresh_until && self.phase == Phase::Active && self.greeting.print == late::print(setup)
    }

    /// A message of an admitted client that changes nothing about the connection.
    fn handle_message(&mut self, message: &Message<'_>, io: &mut super::Io<'_, '_>) {
        self.heard_at = io.now;
        self.fallback = None;
        // A client that goes on knows that it is connected.
        self.fresh_until = self.fresh_until.min(self.greeting.late_until);
        match *message {
            Message::Register {
                msg_id, topic_name, ..
            } => self.handle_register(msg_id, topic_name, io),
            Message::RegAck {
                topic_id,
                msg_id,
                return_code,
            } => self.handle_reg_ack(topic_id, msg_id, return_code, io),
            Message::Publish(publish) => self.handle_publish(&publish, io),
            Message::PubAck {
                topic_id,
                msg_id,
                return_code,
            } => self.handle_pub_ack(topic_id, msg_id, return_code, io),
            Message::PubRec(msg_id) => self.handle_pub_rec(msg_id, io),
            Message::PubRel(msg_id) => self.handle_pub_rel(msg_id, io),
            Message::PubComp(msg_id) => self.handle_pub_comp(msg_id, io),
            Message::Subscribe(subscribe) => self.handle_subscribe(&subscribe, io),
            Message::Unsubscribe { msg_id, topic } => self.handle_unsubscribe(msg_id, topic, io),
            Message::WillTopicUpd(will) => self.handle_will_topic_upd(will, io),
            Message::WillMsgUpd(message) => self.handle_will_msg_upd(message, io),
            // What a gateway says to clients, or to all.
            _ => io.settings.counters.received_unexpected.inc(),
        }
    }
}

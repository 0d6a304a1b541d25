//! Packets of an admitted client.

use broker_core::{
    Disconnect, DisconnectCause, Effects, MessageParts, Publish, ReasonCode, Request, Subscribe, Timestamp,
    Unsubscribe,
};

use super::{Peer, State, put};
use crate::codec::{self, Packet};

impl Peer {
    pub(super) fn handle_publish(
        &mut self,
        now: Timestamp,
        publish: &codec::Publish<'_>,
        effects: &mut Effects<'_>,
    ) {
        let alias_max = self.settings.config.max_topic_alias;
        let State::Connected(connection) = &mut self.state else {
            return;
        };
        let mut topic = publish.topic;
        if let Some(alias) = publish.topic_alias {
            if alias.get() > alias_max {
                let text = "topic alias above Topic Alias Maximum";
                return self.violation(ReasonCode::TopicAliasInvalid, "MQTT-3.3.2-9", text, effects);
            }
            if topic.is_empty() {
                match connection.incoming_aliases.get(alias) {
                    Some(known) => topic = known,
                    None => {
                        let text = "topic alias without a topic";
                        return self.violation(ReasonCode::ProtocolError, "MQTT 5 §3.3.4", text, effects);
                    }
                }
            } else if !connection.incoming_aliases.set(alias, topic) {
                let text = "the topics of the aliases are too long in all";
                return self.violation(ReasonCode::QuotaExceeded, "MQTT 5 §3.3.2.3.4", text, effects);
            }
        }
        let parts = MessageParts {
            topic,
            qos: publish.qos,
            retain: publish.retain,
            expiry_interval: publish.expiry_interval,
            properties: publish.message_properties(),
            payload: publish.payload,
        };
        match parts.publish(now, &connection.client) {
            Some(message) => effects.requests.push(Request::Publish(Publish {
                message,
                packet_id: publish.packet_id,
                dup: publish.dup,
            })),
            None => {
                let text = "the topic with its mountpoint is longer than 65535 bytes";
                self.violation(ReasonCode::TopicNameInvalid, "MQTT-4.7.3-3", text, effects);
            }
        }
    }

    pub(super) fn handle_other(&mut self, packet: Packet<'_>, effects: &mut Effects<'_>) {
        match (&mut self.state, packet) {
            (State::Connected(_) | State::Authenticating { .. }, Packet::Auth(auth)) => {
                self.handle_auth(&auth, effects);
            }
            (State::Connected(_) | State::Authenticating { .. }, Packet::Disconnect(disconnect)) => {
                self.handle_disconnect(&disconnect, effects);
            }
            (State::Connected(connection), packet) => {
                let request = match packet {
                    Packet::PubAck(ack) => Request::PubAck(ack.packet_id, ack.reason),
                    Packet::PubRec(ack) => Request::PubRec(ack.packet_id, ack.reason),
                    Packet::PubRel(ack) => Request::PubRel(ack.packet_id, ack.reason),
                    Packet::PubComp(ack) => Request::PubComp(ack.packet_id, ack.reason),
                    Packet::Subscribe(subscribe) => {
                        connection.awaited = Some(subscribe.packet_id);
                        request_subscribe(&subscribe)
                    }
                    Packet::Unsubscribe(unsubscribe) => {
                        connection.awaited = Some(unsubscribe.packet_id);
                        Request::Unsubscribe(Box::new(Unsubscribe {
                            packet_id: unsubscribe.packet_id,
                            filters: unsubscribe.filters.iter().map(str::to_owned).collect(),
                            user_properties: unsubscribe.properties.user.to_vec(),
                        }))
                    }
                    Packet::PingReq => return put(effects, connection.version, &Packet::PingResp),
                    _ => {
                        let text = "a second CONNECT, or a packet that only a server sends";
                        return self.violation(ReasonCode::ProtocolError, "MQTT-3.1.0-2", text, effects);
                    }
                };
                effects.requests.push(request);
            }
            _ => {
                // [MQTT-3.1.2-30]: until CONNACK only AUTH and DISCONNECT.
                let text = "a packet that is not allowed before CONNACK";
                self.violation(ReasonCode::ProtocolError, "MQTT-3.1.2-30", text, effects);
            }
        }
    }

    fn handle_disconnect(&mut self, disconnect: &codec::Disconnect<'_>, effects: &mut Effects<'_>) {
        let session_expiry_interval = disconnect.properties.session_expiry_interval;
        if let State::Connected(connection) = &self.state
            && connection.session_expiry_interval == 0
            && session_expiry_interval.is_some_and(|interval| interval > 0)
        {
            let text = "DISCONNECT raises the session expiry interval from 0";
            return self.violation(ReasonCode::ProtocolError, "MQTT 5 §3.14.2.2.2", text, effects);
        }
        let cause = match disconnect.reason {
            ReasonCode::Success => DisconnectCause::Normal,
            reason => DisconnectCause::ByClient(reason),
        };
        effects.requests.push(Request::Disconnect(Box::new(Disconnect {
            cause,
            session_expiry_interval,
            keeps_will: false,
            user_properties: disconnect.properties.user.to_vec(),
        })));
        self.close("normal", cause.text().to_owned(), effects);
    }
}

fn request_subscribe(subscribe: &codec::Subscribe<'_>) -> Request {
    Request::Subscribe(Box::new(Subscribe {
        packet_id: subscribe.packet_id,
        filters: subscribe
            .subscriptions
            .iter()
            .map(|subscription| (subscription.filter.to_owned(), subscription.options))
            .collect(),
        subscription_id: subscribe.subscription_id,
        user_properties: subscribe.user.to_vec(),
    }))
}

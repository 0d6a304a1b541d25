//! Publishes who comes and goes: `$SYS/brokers/NODE/clients/CLIENTID/connected` and its relatives, as EMQX does.

use std::sync::Arc;

use super::{
    ClientConnected, ClientDisconnected, Hook, HookContext, HookPoint, HookPoints, json::JsonObject,
};
use crate::{ClientInfo, MessageParts, SubscribeOptions};

/// The hook that publishes events of clients, QoS 0 and not retained, with a JSON object as payload. Times are
/// milliseconds since the Unix epoch, intervals seconds; what a client does not have is `null`.
///
/// `sys_topics.sys_event_messages.*`; the defaults are EMQX's: only connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// `client_connected`; default true.
    pub connected: bool,
    /// `client_disconnected`; default true.
    pub disconnected: bool,
    /// `client_subscribed`; default false.
    pub subscribed: bool,
    /// `client_unsubscribed`; default false.
    pub unsubscribed: bool,
}

impl Default for Presence {
    fn default() -> Presence {
        Presence {
            connected: true,
            disconnected: true,
            subscribed: false,
            unsubscribed: false,
        }
    }
}

impl Hook for Presence {
    fn name(&self) -> &str {
        "presence"
    }

    fn points(&self) -> HookPoints {
        [
            (self.connected, HookPoint::ClientConnected),
            (self.disconnected, HookPoint::ClientDisconnected),
            (self.subscribed, HookPoint::SessionSubscribed),
            (self.unsubscribed, HookPoint::SessionUnsubscribed),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(HookPoints::NONE, |points, (_, point)| {
            points.union(HookPoints::of(&[point]))
        })
    }

    fn client_connected(&self, ctx: &mut HookContext<'_>, connected: &ClientConnected<'_>) {
        let client = connected.client;
        let object = connection(client)
            .number("connected_at", connected.connected_at.as_millis())
            .number("ts", ctx.now.as_millis())
            .object("conn_props", user_properties(connected.user_properties))
            .number("receive_maximum", connected.receive_maximum.into())
            .number("keepalive", connected.keep_alive.into())
            .boolean("clean_start", connected.clean_start)
            .number("expiry_interval", connected.session_expiry_interval.into())
            .texts("client_attrs", attributes(client));
        publish(ctx, client, "connected", object);
    }

    fn client_disconnected(&self, ctx: &mut HookContext<'_>, disconnected: &ClientDisconnected<'_>) {
        let client = disconnected.client;
        let object = connection(client)
            .number("connected_at", disconnected.connected_at.as_millis())
            .number("ts", ctx.now.as_millis())
            .object("disconn_props", user_properties(disconnected.user_properties))
            .texts("client_attrs", attributes(client))
            .text("reason", disconnected.cause.text())
            .number("disconnected_at", ctx.now.as_millis());
        publish(ctx, client, "disconnected", object);
    }

    fn session_subscribed(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        filter: &str,
        options: SubscribeOptions,
        _is_new: bool,
    ) {
        let object = subscription(ctx, client, filter, options);
        publish(ctx, client, "subscribed", object);
    }

    fn session_unsubscribed(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        filter: &str,
        options: SubscribeOptions,
    ) {
        let object = subscription(ctx, client, filter, options);
        publish(ctx, client, "unsubscribed", object);
    }
}

fn connection(client: &ClientInfo) -> JsonObject {
    let address = client.peer.map(|peer| peer.ip().to_canonical().to_string());
    let object = JsonObject::new()
        .text("clientid", client.client_id.as_str())
        .text_or_null("username", client.username.as_deref())
        .text_or_null("ipaddress", address.as_deref());
    match client.local {
        Some(local) => object.number("sockport", local.port().into()),
        None => object.text_or_null("sockport", None),
    }
    .text("protocol", client.connection.protocol)
    .text("proto_name", client.connection.proto_name)
    .number("proto_ver", client.connection.proto_ver.into())
}

fn subscription(
    ctx: &HookContext<'_>,
    client: &ClientInfo,
    filter: &str,
    options: SubscribeOptions,
) -> JsonObject {
    let subopts = JsonObject::new()
        .number("qos", options.qos as u64)
        .number("nl", options.no_local.into())
        .number("rap", options.retain_as_published.into())
        .number("rh", options.retain_handling as u64);
    JsonObject::new()
        .text("clientid", client.client_id.as_str())
        .text_or_null("username", client.username.as_deref())
        .text("protocol", client.connection.protocol)
        .text("topic", filter)
        .object("subopts", subopts)
        .number("ts", ctx.now.as_millis())
}

fn user_properties(properties: &[(String, String)]) -> JsonObject {
    if properties.is_empty() {
        return JsonObject::new();
    }
    let members = properties
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    JsonObject::new().texts("User-Property", members)
}

fn attributes(client: &ClientInfo) -> impl Iterator<Item = (&str, &str)> {
    client.attributes.iter().map(|(name, value)| (&**name, &**value))
}

fn publish(ctx: &mut HookContext<'_>, client: &ClientInfo, event: &str, object: JsonObject) {
    let topic = format!(
        "$SYS/brokers/{}/clients/{}/{event}",
        ctx.node_name,
        topic_safe(client.client_id.as_str())
    );
    ctx.publish(&MessageParts::new(&topic, object.finish().as_bytes()));
}

/// A client id may hold what a topic name must not [MQTT-3.3.2-2]: `+` and `#` become `%2B` and `%23`. The
/// payload has the id as it is.
fn topic_safe(client_id: &str) -> String {
    client_id.replace('+', "%2B").replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ClientId, ConnectionInfo, DisconnectCause, Message, QoS, ReasonCode, RetainHandling, Timestamp,
        hooks::{HookEffect, HookEffects, Hooks},
    };

    fn client(id: &str) -> Arc<ClientInfo> {
        Arc::new(ClientInfo {
            client_id: ClientId::new(id),
            username: Some("al\"ice".into()),
            peer: Some("[::ffff:192.0.2.7]:50123".parse().unwrap()),
            local: Some("0.0.0.0:1883".parse().unwrap()),
            connection: Arc::new(ConnectionInfo {
                protocol: "mqtt",
                proto_name: "MQTT",
                proto_ver: 5,
                listener: "tcp:default".into(),
                zone: "default".into(),
            }),
            certificate: None,
            attributes: vec![("site".into(), "north".into())],
            mountpoint: "".into(),
            is_superuser: false,
        })
    }

    fn only_message(effects: &mut HookEffects) -> Message {
        let mut all: Vec<HookEffect> = effects.drain().collect();
        assert_eq!(all.len(), 1);
        match all.pop() {
            Some(HookEffect::Publish(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    fn hooks() -> Hooks {
        let mut hooks = Hooks::new();
        hooks.register(
            0,
            Arc::new(Presence {
                subscribed: true,
                unsubscribed: true,
                ..Presence::default()
            }),
        );
        hooks
    }

    #[test]
    fn connected_and_disconnected_have_the_fields_of_emqx() {
        let (client, mut effects) = (client("c1"), HookEffects::default());
        let mut ctx = HookContext::new(Timestamp::from_millis(1001), "n@h", &mut effects);
        hooks().client_connected(
            &mut ctx,
            &ClientConnected {
                client: &client,
                connected_at: Timestamp::from_millis(1000),
                keep_alive: 60,
                clean_start: true,
                session_expiry_interval: 7200,
                receive_maximum: 32,
                is_bridge: false,
                session_present: false,
                user_properties: &[("k".to_owned(), "v".to_owned())],
            },
        );
        let message = only_message(&mut effects);
        assert_eq!(message.topic(), "$SYS/brokers/n@h/clients/c1/connected");
        assert_eq!((message.qos(), message.retain()), (QoS::AtMostOnce, false));
        assert_eq!(
            str::from_utf8(message.payload()).unwrap(),
            r#"{"clientid":"c1","username":"al\"ice","ipaddress":"192.0.2.7","sockport":1883,"protocol":"mqtt","#
                .to_owned()
                + r#""proto_name":"MQTT","proto_ver":5,"connected_at":1000,"ts":1001,"#
                + r#""conn_props":{"User-Property":{"k":"v"}},"receive_maximum":32,"keepalive":60,"#
                + r#""clean_start":true,"expiry_interval":7200,"client_attrs":{"site":"north"}}"#
        );
        let mut ctx = HookContext::new(Timestamp::from_millis(5000), "n@h", &mut effects);
        hooks().client_disconnected(
            &mut ctx,
            &ClientDisconnected {
                client: &client,
                connected_at: Timestamp::from_millis(1000),
                cause: DisconnectCause::ByServer(ReasonCode::KeepAliveTimeout),
                user_properties: &[],
            },
        );
        let message = only_message(&mut effects);
        assert_eq!(message.topic(), "$SYS/brokers/n@h/clients/c1/disconnected");
        assert_eq!(
            str::from_utf8(message.payload()).unwrap(),
            r#"{"clientid":"c1","username":"al\"ice","ipaddress":"192.0.2.7","sockport":1883,"protocol":"mqtt","#
                .to_owned()
                + r#""proto_name":"MQTT","proto_ver":5,"connected_at":1000,"ts":5000,"disconn_props":{},"#
                + r#""client_attrs":{"site":"north"},"reason":"keepalive_timeout","disconnected_at":5000}"#
        );
    }

    #[test]
    fn subscriptions_are_told_with_their_options() {
        let (client, mut effects) = (client("a/+/#"), HookEffects::default());
        let options = SubscribeOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: false,
            retain_handling: RetainHandling::DoNotSend,
        };
        let expected = concat!(
            r#"{"clientid":"a/+/#","username":"al\"ice","protocol":"mqtt","topic":"$share/g/t/#","#,
            r#""subopts":{"qos":1,"nl":1,"rap":0,"rh":2},"ts":7}"#
        );
        for event in ["subscribed", "unsubscribed"] {
            let mut ctx = HookContext::new(Timestamp::from_millis(7), "n", &mut effects);
            if event == "subscribed" {
                hooks().session_subscribed(&mut ctx, &client, "$share/g/t/#", options, true);
            } else {
                hooks().session_unsubscribed(&mut ctx, &client, "$share/g/t/#", options);
            }
            let message = only_message(&mut effects);
            assert_eq!(
                message.topic(),
                format!("$SYS/brokers/n/clients/a/%2B/%23/{event}")
            );
            assert_eq!(str::from_utf8(message.payload()).unwrap(), expected);
        }
    }

    #[test]
    fn only_the_events_asked_for_cost_anything() {
        let mut hooks = Hooks::new();
        hooks.register(0, Arc::new(Presence::default()));
        assert!(hooks.wants(HookPoint::ClientConnected));
        assert!(!hooks.wants(HookPoint::SessionSubscribed));
    }
}

//! Name and password, enhanced authentication (§4.12), and what becomes of those who may not.

use std::sync::Arc;

use broker_core::{
    ClientInfo, DenyAction, ReasonCode, Timestamp,
    admission::{
        Action, Authentication, AuthenticationStep, Authenticator, Authorization, Authorizer, Ban, BannedBy,
        CacheConfig, Credentials, EnhancedAuthenticator, ExchangeState, Grant, NoMatch, Verdict,
    },
    shard::Common,
};
use mqtt::codec::{Auth, Connect, Packet};

use crate::net::*;

/// Knows one user.
pub(crate) struct Users;

impl Authenticator for Users {
    fn name(&self) -> &str {
        "users"
    }

    fn authenticate(&self, _: Timestamp, credentials: &Credentials<'_>) -> Authentication {
        match (credentials.username, credentials.password) {
            (Some("ann"), Some(b"secret")) => Authentication::Allow(Grant::default()),
            (Some("ann"), _) => Authentication::Deny(ReasonCode::BadUserNameOrPassword),
            (Some("eve"), _) => Authentication::Deny(ReasonCode::Banned),
            _ => Authentication::Ignore,
        }
    }
}

/// Asks for the answer to a question: `?` → `!`, then `final`.
struct Riddle;

impl EnhancedAuthenticator for Riddle {
    fn method(&self) -> &str {
        "RIDDLE"
    }

    fn start(&self, _: Timestamp, _: &Credentials<'_>, data: Option<&[u8]>) -> AuthenticationStep {
        match data {
            Some(b"at once") => AuthenticationStep::Success {
                data: None,
                grant: Grant::default(),
            },
            _ => AuthenticationStep::Continue {
                data: Some(b"?".to_vec()),
                state: Box::new(7u8),
            },
        }
    }

    fn step(
        &self,
        _: Timestamp,
        _: &Credentials<'_>,
        state: ExchangeState,
        data: Option<&[u8]>,
    ) -> AuthenticationStep {
        assert_eq!(state.downcast_ref(), Some(&7u8));
        match data {
            Some(b"!") => AuthenticationStep::Success {
                data: Some(b"final".to_vec()),
                grant: Grant::default(),
            },
            _ => AuthenticationStep::Fail(ReasonCode::BadUserNameOrPassword),
        }
    }
}

/// `no/...` may be neither published nor subscribed.
struct Nowhere;

impl Authorizer for Nowhere {
    fn name(&self) -> &str {
        "nowhere"
    }

    fn authorize(&self, _: &ClientInfo, _: Action, topic: &str) -> Verdict {
        if topic.starts_with("no/") {
            Verdict::Deny
        } else {
            Verdict::Ignore
        }
    }
}

fn common() -> Common {
    let mut common = anonymous();
    common.admission.enhanced.insert(Arc::new(Riddle));
    common
}

fn auth(reason: ReasonCode, data: &str) -> Packet<'_> {
    Packet::Auth(Auth::new(reason, "RIDDLE", Some(data.as_bytes())))
}

fn riddle(data: &str) -> Connect<'_> {
    let mut connect = Connect::new(V5, "a");
    connect.properties.authentication_method = Some("RIDDLE");
    connect.properties.authentication_data = Some(data.as_bytes());
    connect
}

#[test]
fn name_and_password_are_checked_while_the_client_waits() {
    let mut common = anonymous();
    common.admission.authentication.push(Arc::new(Users));
    let mut net = Net::with_common(1, common, "");
    for version in [V3, V4, V5] {
        for (name, password, reason) in [
            ("ann", "secret", ReasonCode::Success),
            ("ann", "guess", ReasonCode::BadUserNameOrPassword),
        ] {
            let mut connect = Connect::new(version, "a");
            connect.username = Some(name);
            connect.password = Some(password.as_bytes());
            net.node.hold_answers(true);
            let client = net.dial(connect);
            net.send(client, Packet::PingReq);
            net.expect_nothing(client);
            net.node.hold_answers(false);
            let packets = net.take(client);
            assert!(matches!(&packets[0], Packet::ConnAck(connack) if connack.reason == reason));
            assert_eq!(packets.len(), if reason.is_error() { 1 } else { 2 });
            assert_eq!(net.node.closed(client.link).is_some(), reason.is_error());
        }
    }
    let mut connect = Connect::new(V5, "a");
    connect.username = Some("eve");
    let client = net.dial(connect);
    assert_eq!(net.connack(client).reason, ReasonCode::Banned);
}

#[test]
fn a_ban_ends_connections_and_keeps_out_until_it_ends_or_is_lifted() {
    let mut net = Net::new();
    let eve = net.client(V5, "eve");
    let bystander = net.client(V5, "b");
    let who = BannedBy::ClientId("eve".into());
    for is_lifted in [false, true] {
        let banned = who.clone();
        net.node.with_shard(0, |shard, now| {
            let ban = Ban {
                until: now.after_secs(60),
                reason: "test".into(),
                by: "test".into(),
            };
            shard.ban(now, banned, ban).unwrap();
        });
        let kept_out = net.dial(Connect::new(V5, "eve"));
        assert_eq!(net.connack(kept_out).reason, ReasonCode::Banned);
        if is_lifted {
            assert!(net.node.with_shard(0, |shard, _| shard.unban(&who)).is_some());
        } else {
            net.expect_end(eve, ReasonCode::AdministrativeAction);
            net.pass(61);
        }
        let back = net.client(V5, "eve");
        net.disconnect(back);
    }
    net.expect_open(bystander);
}

#[test]
fn nobody_comes_in_anonymously_if_that_is_off() {
    let mut net = Net::with_common(1, Common::default(), "");
    for version in [V3, V4, V5] {
        let client = net.dial(Connect::new(version, "a"));
        assert_eq!(net.connack(client).reason, ReasonCode::NotAuthorized);
        net.expect_closed(client);
    }
}

#[test]
fn a_client_that_leaves_during_its_authentication_leaves_nothing() {
    let mut net = Net::with_common(1, common(), "");
    net.node.hold_answers(true);
    let client = net.dial(riddle(""));
    net.cut(client);
    net.node.hold_answers(false);
    net.expect_nothing(client);
    net.client(V5, "a");
}

#[test]
fn an_exchange_in_two_steps() {
    let mut net = Net::with_common(2, common(), "");
    let client = net.dial(riddle("hello"));
    net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
    net.send(client, auth(ReasonCode::ContinueAuthentication, "!"));
    let connack = net.connack(client);
    assert_eq!(connack.reason, ReasonCode::Success);
    assert_eq!(connack.properties.authentication_method, Some("RIDDLE"));
    assert_eq!(connack.properties.authentication_data, Some(&b"final"[..]));

    net.send(client, auth(ReasonCode::ReAuthenticate, ""));
    net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
    // The client goes on working meanwhile.
    net.send(client, Packet::PingReq);
    net.expect(client, Packet::PingResp);
    net.send(client, auth(ReasonCode::ContinueAuthentication, "!"));
    net.expect(client, auth(ReasonCode::Success, "final"));
    net.send(client, auth(ReasonCode::ReAuthenticate, "at once"));
    net.expect(
        client,
        Packet::Auth(Auth::new(ReasonCode::Success, "RIDDLE", None)),
    );
}

#[test]
fn a_wrong_answer() {
    let mut net = Net::with_common(1, common(), "");
    let client = net.dial(riddle("hello"));
    net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
    net.send(client, auth(ReasonCode::ContinueAuthentication, "?"));
    assert_eq!(net.connack(client).reason, ReasonCode::BadUserNameOrPassword);
    net.expect_closed(client);

    let client = net.connect(riddle("at once"));
    net.send(client, auth(ReasonCode::ReAuthenticate, ""));
    net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
    net.send(client, auth(ReasonCode::ContinueAuthentication, "?"));
    // DISCONNECT has no code for a bad password (§3.14.2.1).
    net.expect_end(client, ReasonCode::NotAuthorized);
}

#[test]
fn an_unknown_method_is_refused() {
    let mut net = Net::with_common(1, common(), "");
    let mut connect = riddle("");
    connect.properties.authentication_method = Some("riddle");
    let client = net.dial(connect);
    assert_eq!(net.connack(client).reason, ReasonCode::BadAuthenticationMethod);
    net.expect_closed(client);
}

#[test]
fn an_exchange_that_is_not_gone_on_with() {
    let mut net = Net::with_common(1, common(), "");
    let client = net.dial(riddle(""));
    net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
    net.pass(15);
    assert_eq!(net.connack(client).reason, ReasonCode::NotAuthorized);
    net.expect_closed(client);
}

/// [MQTT-3.1.2-30]
#[test]
fn until_connack_only_auth_and_disconnect_may_come() {
    for packet in [Packet::PingReq, Packet::Publish(message("t", "x"))] {
        let mut net = Net::with_common(1, common(), "");
        let client = net.dial(riddle(""));
        net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
        net.send(client, packet);
        assert_eq!(net.connack(client).reason, ReasonCode::ProtocolError);
        net.expect_closed(client);
    }
    let mut net = Net::with_common(1, common(), "");
    let client = net.dial(riddle(""));
    net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
    net.disconnect(client);
}

#[test]
fn auth_at_the_wrong_time() {
    let mut net = Net::with_common(1, common(), "");
    // [MQTT-4.12.0-6]: never by a client without a method.
    let client = net.client(V5, "b");
    net.send(client, auth(ReasonCode::ReAuthenticate, ""));
    net.expect_end(client, ReasonCode::ProtocolError);
    // No exchange to continue.
    let client = net.connect(riddle("at once"));
    net.send(client, auth(ReasonCode::ContinueAuthentication, "!"));
    net.expect_end(client, ReasonCode::ProtocolError);
    // [MQTT-4.12.1-1]: another method.
    let client = net.connect(riddle("at once"));
    let other = Auth::new(ReasonCode::ReAuthenticate, "OTHER", None);
    net.send(client, Packet::Auth(other));
    net.expect_end(client, ReasonCode::ProtocolError);
    // [MQTT-4.12.0-2..4] during the first exchange.
    let client = net.dial(riddle(""));
    net.expect(client, auth(ReasonCode::ContinueAuthentication, "?"));
    net.send(client, auth(ReasonCode::ReAuthenticate, "!"));
    assert_eq!(net.connack(client).reason, ReasonCode::ProtocolError);
    // MQTT 3.1.1 has no such packet.
    let client = net.client(V4, "c");
    net.send_bytes(client, &[0xf0, 0x00]);
    net.expect_end(client, ReasonCode::MalformedPacket);
}

fn restricted(deny_action: DenyAction) -> Net {
    let mut common = anonymous();
    common.config.deny_action = deny_action;
    common.admission.authorization =
        Authorization::new(vec![Arc::new(Nowhere)], NoMatch::Allow, CacheConfig::default());
    Net::with_common(1, common, "")
}

#[test]
fn what_is_denied_is_answered() {
    let mut net = restricted(DenyAction::Ignore);
    let watcher = net.subscriber(V5, "w", &[("#", Q2)]);
    for (version, code, denied) in [
        (V5, ReasonCode::NotAuthorized, ReasonCode::NotAuthorized),
        (V4, ReasonCode::UnspecifiedError, ReasonCode::Success),
        (V3, ReasonCode::UnspecifiedError, ReasonCode::Success),
    ] {
        let client = net.client(version, "a");
        net.send(client, subscribe(1, &[sub("no/t", Q1), sub("t", Q1)]));
        net.expect(client, suback(1, &[code, ReasonCode::GrantedQoS1]));
        net.send(client, Packet::Publish(message("no/t", "x")));
        net.expect_nothing(client);
        net.send(client, Packet::Publish(acked("no/t", "x", Q1, 1)));
        net.expect(client, because(puback(1), denied));
        net.send(client, Packet::Publish(acked("no/t", "x", Q2, 2)));
        net.expect(client, because(pubrec(2), denied));
        if version != V5 {
            net.send(client, pubrel(2));
            net.expect(client, pubcomp(2));
        }
        // What is authorized is where the message ends up.
        net.send(client, Packet::Publish(acked("$delayed/1/no/t", "x", Q1, 3)));
        net.expect(client, because(puback(3), denied));
        net.send(client, subscribe(4, &[sub("$share/g/no/t", Q0)]));
        net.expect(client, suback(4, &[code]));
        net.disconnect(client);
    }
    net.pass(2);
    net.expect_nothing(watcher);
}

/// MQTT 5 §4.7.2: what the server says of itself, clients cannot say.
#[test]
fn nobody_speaks_for_the_broker() {
    let mut net = Net::new();
    let watcher = net.subscriber(V5, "w", &[("$SYS/#", Q2)]);
    let client = net.client(V5, "a");
    for topic in ["$SYS/brokers", "$delayed/1/$SYS/brokers"] {
        net.send(client, Packet::Publish(acked(topic, "forged", Q1, 1)));
        net.expect(client, because(puback(1), ReasonCode::NotAuthorized));
    }
    net.pass(2);
    net.expect_nothing(watcher);
}

#[test]
fn or_it_ends_the_connection() {
    let mut net = restricted(DenyAction::Disconnect);
    for version in [V4, V5] {
        let client = net.client(version, "a");
        net.send(client, subscribe(1, &[sub("no/t", Q1)]));
        net.expect_end(client, ReasonCode::NotAuthorized);
        for packet in [
            message("no/t", "x"),
            acked("no/t", "x", Q1, 1),
            acked("no/t", "x", Q2, 1),
        ] {
            let client = net.client(version, "a");
            net.send(client, Packet::Publish(packet));
            net.expect_end(client, ReasonCode::NotAuthorized);
        }
    }
}

/// A Will is a message of its client: what it may not publish, it may not have published.
#[test]
fn a_will_that_is_denied_is_not_published() {
    let mut net = restricted(DenyAction::Ignore);
    let watcher = net.subscriber(V5, "w", &[("#", Q2)]);
    let client = net.connect(with_will(Connect::new(V5, "a"), "no/will"));
    net.cut(client);
    net.expect_nothing(watcher);
}

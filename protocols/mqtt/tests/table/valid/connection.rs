//! CONNECT, CONNACK, DISCONNECT, AUTH and the pings.
#![expect(clippy::too_many_lines, reason = "tables, not procedures")]

use std::{
    borrow::Cow,
    num::{NonZeroU16, NonZeroU32},
};

use broker_core::{QoS, ReasonCode};
use mqtt::codec::{
    Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, ProtocolVersion, Will,
};

use super::{
    super::{V3, V4, V5, wire},
    C, S, Valid, user, valid,
};

pub(super) fn connects() -> Vec<Valid> {
    vec![
        valid(
            "CONNECT 3.1",
            V3,
            C,
            r#"10 | "MQIsdp" 03 02 003c "c""#,
            connect(|it| it.keep_alive = 60, V3, "c"),
        ),
        valid(
            "CONNECT 3.1.1 with everything",
            V4,
            C,
            r#"10 | "MQTT" 04 ee 000a "c" "w/t" "bye" "user" "pass""#,
            connect(
                |it| {
                    it.keep_alive = 10;
                    it.will = Some(Will {
                        qos: QoS::AtLeastOnce,
                        retain: true,
                        ..Will::new("w/t", b"bye")
                    });
                    it.username = Some("user");
                    it.password = Some(b"pass");
                },
                V4,
                "c",
            ),
        ),
        valid(
            "CONNECT of a 3.1 bridge",
            V3,
            C,
            r#"10 | "MQIsdp" 83 00 0000 "c""#,
            connect(
                |it| {
                    it.is_bridge = true;
                    it.clean_start = false;
                },
                V3,
                "c",
            ),
        ),
        valid(
            "CONNECT of a 3.1.1 bridge",
            V4,
            C,
            r#"10 | "MQTT" 84 02 0000 "c""#,
            connect(|it| it.is_bridge = true, V4, "c"),
        ),
        valid(
            "CONNECT without client id",
            V4,
            C,
            r#"10 | "MQTT" 04 02 0000 """#,
            connect(|_| (), V4, ""),
        ),
        valid(
            "CONNECT 3.1 whose flags promise a user name that is not there",
            V3,
            C,
            r#"10 | "MQIsdp" 03 c2 003c "c""#,
            connect(|it| it.keep_alive = 60, V3, "c"),
        )
        .also_valid(),
        valid(
            "CONNECT 3.1 with disregarded Will bits and reserved bit",
            V3,
            C,
            r#"10 | "MQIsdp" 03 2b 0000 "c""#,
            connect(|_| (), V3, "c"),
        )
        .also_valid(),
        valid(
            "CONNECT 5",
            V5,
            C,
            r#"10 | "MQTT" 05 02 0000 {} "c""#,
            connect(|_| (), V5, "c"),
        ),
        valid(
            "CONNECT 5 with a password but no user name",
            V5,
            C,
            r#"10 | "MQTT" 05 42 0000 {} "c" "token""#,
            connect(|it| it.password = Some(b"token"), V5, "c"),
        ),
        valid(
            "CONNECT 5 with everything",
            V5,
            C,
            r#"10 | "MQTT" 05 f6 0014 { 11 0000000a 21 0014 27 00000100 22 000a 19 01 17 00 15 "SCRAM" 16 "data" 26 "k" "v" 26 "k" "w" }
               "client" { 18 00000005 02 0000003c 01 01 03 "text" 08 "re/ply" 09 "corr" 26 "a" "b" } "will" "gone" "u" "p""#,
            connect(full_connect, V5, "client"),
        ),
    ]
}

fn connect(
    edit: impl FnOnce(&mut Connect<'static>),
    version: ProtocolVersion,
    client_id: &'static str,
) -> Packet<'static> {
    let mut connect = Connect::new(version, client_id);
    edit(&mut connect);
    Packet::Connect(Box::new(connect))
}

fn full_connect(it: &mut Connect<'static>) {
    it.keep_alive = 20;
    it.properties = ConnectProperties {
        session_expiry_interval: Some(10),
        receive_maximum: NonZeroU16::new(20),
        maximum_packet_size: NonZeroU32::new(256),
        topic_alias_maximum: Some(10),
        request_response_information: Some(true),
        request_problem_information: Some(false),
        authentication_method: Some("SCRAM"),
        authentication_data: Some(b"data"),
        user: user(&[("k", "v"), ("k", "w")]),
    };
    it.will = Some(Will {
        qos: QoS::ExactlyOnce,
        retain: true,
        delay_interval: 5,
        expiry_interval: Some(60),
        properties: Cow::Owned(wire(r#"01 01 03 "text" 08 "re/ply" 09 "corr" 26 "a" "b""#)),
        ..Will::new("will", b"gone")
    });
    it.username = Some("u");
    it.password = Some(b"p");
}

pub(super) fn connacks() -> Vec<Valid> {
    let none = ConnAckProperties::default;
    let full = ConnAckProperties {
        session_expiry_interval: Some(1),
        receive_maximum: NonZeroU16::new(2),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: NonZeroU32::new(3),
        assigned_client_identifier: Some("id"),
        topic_alias_maximum: Some(4),
        reason_string: Some("why"),
        wildcard_subscription_available: Some(true),
        subscription_identifier_available: Some(false),
        shared_subscription_available: Some(true),
        server_keep_alive: Some(5),
        response_information: Some("r"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(b"d"),
        user: user(&[("k", "v")]),
    };
    vec![
        valid(
            "CONNACK 3.1",
            V3,
            S,
            "20 | 00 00",
            connack(false, ReasonCode::Success, none()),
        ),
        valid(
            "CONNACK 3.1 with its unused byte",
            V3,
            S,
            "20 | 01 00",
            connack(false, ReasonCode::Success, none()),
        )
        .also_valid(),
        valid(
            "CONNACK 3.1.1 with a session",
            V4,
            S,
            "20 | 01 00",
            connack(true, ReasonCode::Success, none()),
        ),
        valid(
            "CONNACK 3.1.1 version",
            V4,
            S,
            "20 | 00 01",
            connack(false, ReasonCode::UnsupportedProtocolVersion, none()),
        ),
        valid(
            "CONNACK 3.1.1 client id",
            V4,
            S,
            "20 | 00 02",
            connack(false, ReasonCode::ClientIdentifierNotValid, none()),
        ),
        valid(
            "CONNACK 3.1.1 server",
            V4,
            S,
            "20 | 00 03",
            connack(false, ReasonCode::ServerUnavailable, none()),
        ),
        valid(
            "CONNACK 3.1.1 password",
            V4,
            S,
            "20 | 00 04",
            connack(false, ReasonCode::BadUserNameOrPassword, none()),
        ),
        valid(
            "CONNACK 3.1.1 authorization",
            V4,
            S,
            "20 | 00 05",
            connack(false, ReasonCode::NotAuthorized, none()),
        ),
        valid(
            "CONNACK 5",
            V5,
            S,
            "20 | 00 00 {}",
            connack(false, ReasonCode::Success, none()),
        ),
        valid(
            "CONNACK 5 refused",
            V5,
            S,
            "20 | 00 8a {}",
            connack(false, ReasonCode::Banned, none()),
        ),
        valid(
            "CONNACK 5 with everything",
            V5,
            S,
            r#"20 | 01 00 { 11 00000001 21 0002 24 01 25 00 27 00000003 12 "id" 22 0004 1f "why" 28 01 29 00 2a 01 13 0005
               1a "r" 1c "s" 15 "m" 16 "d" 26 "k" "v" }"#,
            connack(true, ReasonCode::Success, full),
        ),
    ]
}

fn connack(
    session_present: bool,
    reason: ReasonCode,
    properties: ConnAckProperties<'static>,
) -> Packet<'static> {
    Packet::ConnAck(Box::new(ConnAck {
        session_present,
        reason,
        properties,
    }))
}

pub(super) fn others() -> Vec<Valid> {
    let goodbye = |reason| Packet::Disconnect(Disconnect::new(reason));
    vec![
        valid("PINGREQ 3.1", V3, C, "c0 00", Packet::PingReq),
        valid("PINGREQ 5", V5, C, "c0 00", Packet::PingReq),
        valid(
            "PINGREQ 3.1.1 with a needlessly long length",
            V4,
            C,
            "c0 8000",
            Packet::PingReq,
        )
        .also_valid(),
        valid("PINGRESP", V4, S, "d0 00", Packet::PingResp),
        valid("DISCONNECT 3.1.1", V4, C, "e0 00", goodbye(ReasonCode::Success)),
        valid(
            "DISCONNECT 5 of no byte",
            V5,
            C,
            "e0 00",
            goodbye(ReasonCode::Success),
        ),
        valid(
            "DISCONNECT 5 of one byte",
            V5,
            C,
            "e0 | 04",
            goodbye(ReasonCode::DisconnectWithWill),
        ),
        valid(
            "DISCONNECT 5 with explicit success",
            V5,
            C,
            "e0 | 00 {}",
            goodbye(ReasonCode::Success),
        )
        .also_valid(),
        valid(
            "DISCONNECT 5 of a server",
            V5,
            S,
            "e0 | 8e",
            goodbye(ReasonCode::SessionTakenOver),
        ),
        valid(
            "DISCONNECT 5 with everything",
            V5,
            C,
            r#"e0 | 00 { 11 00000001 1f "why" 1c "s" 26 "k" "v" }"#,
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::Success,
                properties: DisconnectProperties {
                    session_expiry_interval: Some(1),
                    reason_string: Some("why"),
                    server_reference: Some("s"),
                    user: user(&[("k", "v")]),
                },
            }),
        ),
        valid(
            "AUTH success, short",
            V5,
            S,
            "f0 00",
            Packet::Auth(Auth {
                reason: ReasonCode::Success,
                properties: AuthProperties::default(),
            }),
        ),
        valid(
            "AUTH success, written out",
            V5,
            S,
            "f0 | 00 {}",
            Packet::Auth(Auth {
                reason: ReasonCode::Success,
                properties: AuthProperties::default(),
            }),
        )
        .also_valid(),
        valid(
            "AUTH continue",
            V5,
            C,
            r#"f0 | 18 { 15 "SCRAM" 16 "data" }"#,
            Packet::Auth(Auth::new(
                ReasonCode::ContinueAuthentication,
                "SCRAM",
                Some(b"data"),
            )),
        ),
        valid(
            "AUTH again",
            V5,
            C,
            r#"f0 | 19 { 15 "SCRAM" }"#,
            Packet::Auth(Auth::new(ReasonCode::ReAuthenticate, "SCRAM", None)),
        ),
    ]
}

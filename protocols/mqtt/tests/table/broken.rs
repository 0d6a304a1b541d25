//! Packets that must be refused, with the fault and the clause.

use broker_core::ReasonCode::{self, *};
use mqtt::codec::{Fault, ProtocolVersion, Sender};

use super::valid::{C, S};
use super::{V3, V4, V5, wire};

pub(crate) struct Broken {
    pub(crate) version: ProtocolVersion,
    pub(crate) sender: Sender,
    pub(crate) notation: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fault: Fault,
    pub(crate) reason: ReasonCode,
    pub(crate) clause: &'static str,
}

const M: (Fault, ReasonCode) = (Fault::Malformed, MalformedPacket);
const P: (Fault, ReasonCode) = (Fault::Protocol, ProtocolError);
const NAME: (Fault, ReasonCode) = (Fault::Protocol, TopicNameInvalid);
const ALIAS: (Fault, ReasonCode) = (Fault::Protocol, TopicAliasInvalid);
const VERSION: (Fault, ReasonCode) = (Fault::UnsupportedVersion, UnsupportedProtocolVersion);

pub(crate) fn all() -> Vec<Broken> {
    [HEADERS, CONNECTS, PUBLISHES, FILTERS, ANSWERS]
        .into_iter()
        .flatten()
        .map(|&(version, sender, notation, (fault, reason), clause)| Broken {
            version,
            sender,
            notation,
            bytes: wire(notation),
            fault,
            reason,
            clause,
        })
        .collect()
}

type Row = (
    ProtocolVersion,
    Sender,
    &'static str,
    (Fault, ReasonCode),
    &'static str,
);

const HEADERS: &[Row] = &[
    (V4, C, "00 00", M, "MQTT 5 §2.1.2"),
    (V4, C, "f0 00", M, "MQTT 5 §2.1.2"),
    (V3, C, "f0 00", M, "MQTT 5 §2.1.2"),
    (V5, C, "f1 00", M, "MQTT-2.1.3-1"),
    (V5, C, "c1 00", M, "MQTT-2.1.3-1"),
    (V4, C, "e8 00", M, "MQTT-2.1.3-1"),
    (V4, C, "60 | 0001", M, "MQTT-2.1.3-1"),
    (V4, C, "6a | 0001", M, "MQTT-2.1.3-1"),
    (V3, C, "60 | 0001", M, "MQTT-2.1.3-1"),
    (V5, C, r#"80 | 0001 {} "a" 00"#, M, "MQTT-2.1.3-1"),
    (V4, C, r#"a0 | 0001 "a""#, M, "MQTT-2.1.3-1"),
    (V4, C, r#"11 | "MQTT" 04 02 0000 "c""#, M, "MQTT-2.1.3-1"),
    (V4, C, "c0 ffffffff 01", M, "MQTT 5 §1.5.5"),
    (V5, C, "c0 8000", M, "MQTT-1.5.5-1"),
    (V4, C, "c0 | 00", M, "MQTT 5 §2.1.4"),
    (V5, C, "c0 | 00", M, "MQTT 5 §2.1.4"),
    (V4, C, "40 | 0001 00", M, "MQTT 5 §2.1.4"),
    (V4, C, "40 | 00", M, "MQTT 5 §2.1.4"),
    (V4, C, "e0 | 00", M, "MQTT 5 §2.1.4"),
    (V4, C, "20 | 0000", P, "MQTT 5 §2.1.2"),
    (V5, C, "90 | 0001 {} 00", P, "MQTT 5 §2.1.2"),
    (V4, S, "c0 00", P, "MQTT 5 §2.1.2"),
    (V4, S, "e0 00", P, "MQTT 5 §2.1.2"),
    (V5, S, r#"82 | 0001 {} "a" 00"#, P, "MQTT 5 §2.1.2"),
];

const CONNECTS: &[Row] = &[
    (V4, C, r#"10 | "MQTT" 03 02 0000 "c""#, VERSION, "MQTT-3.1.2-2"),
    (V4, C, r#"10 | "MQTT" 06 02 0000 {} "c""#, VERSION, "MQTT-3.1.2-2"),
    (V4, C, r#"10 | "MQTT" 85 02 0000 {} "c""#, VERSION, "MQTT-3.1.2-2"),
    (V4, C, r#"10 | "MQIsdp" 04 02 0000 "c""#, VERSION, "MQTT-3.1.2-2"),
    (V4, C, r#"10 | "mqtt" 04 02 0000 "c""#, VERSION, "MQTT-3.1.2-2"),
    (V4, C, r#"10 | "MQTT" 04 03 0000 "c""#, M, "MQTT-3.1.2-3"),
    (V5, C, r#"10 | "MQTT" 05 03 0000 {} "c""#, M, "MQTT-3.1.2-3"),
    (V4, C, r#"10 | "MQTT" 04 0a 0000 "c""#, M, "MQTT-3.1.2-11"),
    (V4, C, r#"10 | "MQTT" 04 22 0000 "c""#, M, "MQTT-3.1.2-13"),
    (V4, C, r#"10 | "MQTT" 04 1e 0000 "c" "t" "p""#, M, "MQTT-3.1.2-12"),
    (
        V3,
        C,
        r#"10 | "MQIsdp" 03 1e 0000 "c" "t" "p""#,
        M,
        "MQTT-3.1.2-12",
    ),
    (V4, C, r#"10 | "MQTT" 04 42 0000 "c" "p""#, M, "MQTT3-3.1.2-22"),
    (V3, C, r#"10 | "MQIsdp" 03 42 0000 "c" "p""#, M, "MQTT3-3.1.2-22"),
    (V4, C, r#"10 | "MQTT" 04 82 0000 "c""#, M, "MQTT 5 §4.13.1"),
    (V4, C, r#"10 | "MQTT" 04 02 0000 "c" "more""#, M, "MQTT 5 §2.1.4"),
    (V4, C, r#"10 | "MQTT" 04 02 0000 0001 ff"#, M, "MQTT-1.5.4-1"),
    (V4, C, r#"10 | "MQTT" 04 02 0000 0003 eda080"#, M, "MQTT-1.5.4-1"),
    (V4, C, r#"10 | "MQTT" 04 02 0000 0001 00"#, M, "MQTT-1.5.4-2"),
    (
        V4,
        C,
        r#"10 | "MQTT" 04 06 0000 "c" "a/+" "p""#,
        NAME,
        "MQTT-3.3.2-2",
    ),
    (V4, C, r#"10 | "MQTT" 04 06 0000 "c" "" "p""#, M, "MQTT-4.7.3-1"),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 21 0000 } "c""#,
        P,
        "MQTT 5 §3.1.2.11",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 27 00000000 } "c""#,
        P,
        "MQTT 5 §3.1.2.11",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 17 02 } "c""#,
        P,
        "MQTT 5 §3.1.2.11",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 19 ff } "c""#,
        P,
        "MQTT 5 §3.1.2.11",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 16 "d" } "c""#,
        P,
        "MQTT 5 §3.1.2.11.10",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 11 00000001 11 00000001 } "c""#,
        P,
        "MQTT 5 §2.2.2.2",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 23 0001 } "c""#,
        M,
        "MQTT 5 §2.2.2.2",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 7f 00 } "c""#,
        M,
        "MQTT 5 §2.2.2.2",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 02 0000 { 11 0000 } "c""#,
        M,
        "MQTT 5 §4.13.1",
    ),
    (V5, C, r#"10 | "MQTT" 05 02 0000 ff"#, M, "MQTT 5 §4.13.1"),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 06 0000 {} "c" { 23 0001 } "t" "p""#,
        M,
        "MQTT 5 §2.2.2.2",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 06 0000 {} "c" { 01 02 } "t" "p""#,
        P,
        "MQTT 5 §3.1.2.11",
    ),
    (
        V5,
        C,
        r#"10 | "MQTT" 05 06 0000 {} "c" { 08 "a/#" } "t" "p""#,
        P,
        "MQTT-3.3.2-14",
    ),
];

const PUBLISHES: &[Row] = &[
    (V4, C, r#"36 | "a" 0001"#, M, "MQTT-3.3.1-4"),
    (V4, C, r#"38 | "a""#, M, "MQTT-3.3.1-2"),
    (V4, C, r#"32 | "a" 0000"#, P, "MQTT-2.2.1-3"),
    (V4, C, r#"32 | "a" 00"#, M, "MQTT 5 §4.13.1"),
    (V4, C, r#"30 | "a/+""#, NAME, "MQTT-3.3.2-2"),
    (V5, C, r#"30 | "a/#" {}"#, NAME, "MQTT-3.3.2-2"),
    (V4, C, r#"30 | """#, M, "MQTT-4.7.3-1"),
    (V5, C, r#"30 | "" {}"#, P, "MQTT 5 §3.3.2.1"),
    (V4, C, r#"30 | 0001 00"#, M, "MQTT-1.5.4-2"),
    (V4, C, r#"30 | 0002 c080"#, M, "MQTT-1.5.4-1"),
    (V4, C, r#"30 | 0005 'abc'"#, M, "MQTT 5 §4.13.1"),
    (V4, C, "30 00", M, "MQTT 5 §4.13.1"),
    (V5, C, r#"30 | "a""#, M, "MQTT 5 §4.13.1"),
    (V5, C, r#"30 | "a" 8000"#, M, "MQTT-1.5.5-1"),
    (V5, C, r#"30 | "a" { 23 0000 }"#, ALIAS, "MQTT-3.3.2-8"),
    (V5, C, r#"30 | "a" { 0b 01 }"#, P, "MQTT-3.3.4-6"),
    (V5, S, r#"30 | "a" { 0b 00 }"#, P, "MQTT 5 §3.3.2.3.8"),
    (V5, C, r#"30 | "a" { 01 02 }"#, P, "MQTT 5 §3.1.2.11"),
    (V5, C, r#"30 | "a" { 01 00 01 00 }"#, P, "MQTT 5 §2.2.2.2"),
    (
        V5,
        C,
        r#"30 | "a" { 02 00000001 02 00000001 }"#,
        P,
        "MQTT 5 §2.2.2.2",
    ),
    (V5, C, r#"30 | "a" { 08 "x/+" }"#, P, "MQTT-3.3.2-14"),
    (V5, C, r#"30 | "a" { 18 00000001 }"#, M, "MQTT 5 §2.2.2.2"),
    (V5, C, r#"30 | "a" { 26 "k" 0001 00 }"#, M, "MQTT-1.5.4-2"),
];

const FILTERS: &[Row] = &[
    (V4, C, r#"82 | 0000 "a" 00"#, P, "MQTT-2.2.1-3"),
    (V4, C, "82 | 0001", P, "MQTT-3.8.3-2"),
    (V5, C, "82 | 0001 {}", P, "MQTT-3.8.3-2"),
    (V4, C, r#"82 | 0001 "a" 03"#, M, "MQTT3-3.8.3-4"),
    (V3, C, r#"82 | 0001 "a" 03"#, M, "MQTT3-3.8.3-4"),
    (V4, C, r#"82 | 0001 "a" 04"#, M, "MQTT-3.8.3-5"),
    (V5, C, r#"82 | 0001 {} "a" 40"#, M, "MQTT-3.8.3-5"),
    (V5, C, r#"82 | 0001 {} "a" 03"#, P, "MQTT 5 §3.8.3.1"),
    (V5, C, r#"82 | 0001 {} "a" 30"#, P, "MQTT 5 §3.8.3.1"),
    (V5, C, r#"82 | 0001 {} "$share/g/a" 04"#, P, "MQTT-3.8.3-4"),
    (V5, C, r#"82 | 0001 { 0b 00 } "a" 00"#, P, "MQTT 5 §3.3.2.3.8"),
    (
        V5,
        C,
        r#"82 | 0001 { 0b 01 0b 02 } "a" 00"#,
        P,
        "MQTT 5 §3.8.2.1.2",
    ),
    (V5, C, r#"82 | 0001 { 1f "x" } "a" 00"#, M, "MQTT 5 §2.2.2.2"),
    (V4, C, r#"82 | 0001 "a""#, M, "MQTT 5 §4.13.1"),
    (V4, C, r#"82 | 0001 "a" 00 00"#, M, "MQTT 5 §4.13.1"),
    (V4, C, r#"82 | 0001 "a#" 00"#, M, "MQTT-4.7.1-1"),
    (V4, C, r#"82 | 0001 "" 00"#, M, "MQTT-4.7.1-1"),
    (V4, C, r#"82 | 0001 "$share/g" 00"#, M, "MQTT-4.7.1-1"),
    (V5, C, r#"82 | 0001 {} 0001 ff 00"#, M, "MQTT-1.5.4-1"),
    (V4, C, "a2 | 0001", P, "MQTT-3.10.3-2"),
    (V4, C, r#"a2 | 0001 "a/+b""#, M, "MQTT-4.7.1-1"),
    (V4, C, r#"a2 | 0000 "a""#, P, "MQTT-2.2.1-3"),
    (V5, C, r#"a2 | 0001 {} 0001 00"#, M, "MQTT-1.5.4-2"),
    (V5, C, r#"a2 | 0001 { 0b 01 } "a""#, M, "MQTT 5 §2.2.2.2"),
];

const ANSWERS: &[Row] = &[
    (V4, S, "20 | 02 00", M, "MQTT-3.2.2-1"),
    (V4, S, "20 | 00 06", M, "MQTT 3.1.1 §3.2.2.3"),
    (V4, S, "20 | 01 05", P, "MQTT-3.2.2-6"),
    (V5, S, "20 | 01 80 {}", P, "MQTT-3.2.2-6"),
    (V5, S, "20 | 00 01 {}", P, "MQTT 5 §2.4"),
    (V5, S, "20 | 00 05 {}", M, "MQTT 5 §2.4"),
    (V5, S, "20 | 00 00", M, "MQTT 5 §4.13.1"),
    (V5, S, "20 | 00 00 { 24 02 }", P, "MQTT 5 §3.2.2.3.4"),
    (V5, S, r#"20 | 00 00 { 16 "d" }"#, P, "MQTT 5 §3.1.2.11.10"),
    (V5, C, "40 | 0000", P, "MQTT-2.2.1-3"),
    (V5, C, "40 | 0001 92", P, "MQTT 5 §2.4"),
    (V5, C, "40 | 0001 03", M, "MQTT 5 §2.4"),
    (V5, C, "40 | 0001 00 {} 00", M, "MQTT 5 §2.1.4"),
    (V5, C, "40 | 0001 00 01", M, "MQTT 5 §4.13.1"),
    (V5, C, r#"40 | 0001 00 { 1f "a" 1f "a" }"#, P, "MQTT 5 §2.2.2.2"),
    (V5, C, "62 | 0001 80", P, "MQTT 5 §2.4"),
    (V4, S, "90 | 0001", P, "MQTT-3.8.4-6"),
    (V4, S, "90 | 0001 03", M, "MQTT 5 §2.4"),
    (V4, S, "90 | 0001 87", P, "MQTT 5 §2.4"),
    (V5, S, "b0 | 0001 {} 01", P, "MQTT 5 §2.4"),
    (V5, C, "e0 | 8e", P, "MQTT 5 §2.4"),
    (V5, S, "e0 | 04", P, "MQTT 5 §2.4"),
    (V5, C, "e0 | 05", M, "MQTT 5 §2.4"),
    (V5, C, "e0 | 00 {} 00", M, "MQTT 5 §2.1.4"),
    (V5, S, "e0 | 00 { 11 00000001 }", P, "MQTT-3.14.2-2"),
    (V5, C, "f0 00", P, "MQTT 5 §2.4"),
    (V5, C, "f0 | 18", M, "MQTT 5 §4.13.1"),
    (V5, C, "f0 | 18 {}", P, "MQTT 5 §3.15.2.2.2"),
    (V5, S, r#"f0 | 19 { 15 "m" }"#, P, "MQTT 5 §2.4"),
    (V5, C, r#"f0 | 18 { 16 "d" }"#, P, "MQTT 5 §3.1.2.11.10"),
];

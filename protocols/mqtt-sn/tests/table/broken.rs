//! Datagrams that are no messages, with the fault, the clause, and what their senders are told.

use mqtt_sn::codec::Fault;

/// One datagram that is refused.
pub(crate) struct Broken {
    pub(crate) notation: &'static str,
    pub(crate) fault: Fault,
    pub(crate) clause: &'static str,
    /// The bytes of the refusal; empty: none.
    pub(crate) refusal: &'static str,
}

const LEN: &str = "MQTT-SN §5.2.1";
const FIELDS: &str = "MQTT-SN §5.4";
const TYPE: &str = "MQTT-SN §5.2.2";
const FLAGS: &str = "MQTT-SN §5.3.4";
const MSG_ID: &str = "MQTT-SN §5.3.7";
const PROTOCOL: &str = "MQTT-SN §5.3.8";
const TOPIC_ID: &str = "MQTT-SN §5.3.11";
const UTF8: &str = "MQTT-SN §5.3";
const NUL: &str = "MQTT 3.1.1 §1.5.3";
const WILD: &str = "MQTT 3.1.1 §4.7.1";
const EMPTY: &str = "MQTT 3.1.1 §4.7.3";

pub(crate) fn all() -> Vec<Broken> {
    [
        LENGTHS,
        TYPES,
        FIXED,
        CONNECTION,
        WILL,
        REGISTER,
        PUBLISH,
        SUBSCRIBE,
        UNSUBSCRIBE,
    ]
    .concat()
    .into_iter()
    .map(|(notation, fault, clause, refusal)| Broken {
        notation,
        fault,
        clause,
        refusal,
    })
    .collect()
}

type Line = (&'static str, Fault, &'static str, &'static str);

const LENGTHS: &[Line] = &[
    ("", Fault::Length, LEN, ""),
    ("02", Fault::Length, LEN, ""),
    ("00", Fault::Length, LEN, ""),
    ("01", Fault::Length, LEN, ""),
    ("01 00", Fault::Length, LEN, ""),
    ("01 00 03", Fault::Length, LEN, ""),
    ("01 16", Fault::Length, LEN, ""),
    ("00 16", Fault::Length, LEN, ""),
    ("03 16", Fault::Length, LEN, ""),
    ("02 16 00", Fault::Length, LEN, ""),
    ("FF 16", Fault::Length, LEN, ""),
    ("01 00 00 16", Fault::Length, LEN, ""),
    ("01 00 01 16", Fault::Length, LEN, ""),
    ("01 00 02 16", Fault::Length, LEN, ""),
    ("01 00 03 16", Fault::Length, LEN, ""),
    ("01 00 05 16", Fault::Length, LEN, ""),
    ("01 FF FF 16", Fault::Length, LEN, ""),
    ("01 00 04 16 00", Fault::Length, LEN, ""),
    ("02 16 02 16", Fault::Length, LEN, ""),
];

const TYPES: &[Line] = &[
    ("02 03", Fault::MsgType, TYPE, ""),
    ("02 11", Fault::MsgType, TYPE, ""),
    ("02 19", Fault::MsgType, TYPE, ""),
    ("02 1E", Fault::MsgType, TYPE, ""),
    ("02 7F", Fault::MsgType, TYPE, ""),
    ("02 FD", Fault::MsgType, TYPE, ""),
    ("02 FE", Fault::MsgType, TYPE, ""),
    ("04 FE 00 01", Fault::MsgType, TYPE, ""),
    ("02 FF", Fault::MsgType, TYPE, ""),
    ("01 00 04 FF", Fault::MsgType, TYPE, ""),
];

/// Messages of a fixed length that have another.
const FIXED: &[Line] = &[
    ("06 00 07 03 84 00", Fault::Length, FIELDS, ""),
    ("04 01 02 00", Fault::Length, FIELDS, ""),
    ("02 02", Fault::Length, FIELDS, ""),
    ("04 05 00 00", Fault::Length, FIELDS, ""),
    ("03 06 00", Fault::Length, FIELDS, ""),
    ("03 08 00", Fault::Length, FIELDS, ""),
    ("08 0B 04 01 12 34 00 00", Fault::Length, FIELDS, ""),
    ("08 0D 04 01 12 34 00 00", Fault::Length, FIELDS, ""),
    ("05 0E 12 34 00", Fault::Length, FIELDS, ""),
    ("05 0F 12 34 00", Fault::Length, FIELDS, ""),
    ("05 10 12 34 00", Fault::Length, FIELDS, ""),
    ("09 13 20 04 01 12 34 00 00", Fault::Length, FIELDS, ""),
    ("05 15 12 34 00", Fault::Length, FIELDS, ""),
    ("03 17 00", Fault::Length, FIELDS, ""),
    ("03 18 0E", Fault::Length, FIELDS, ""),
    ("05 18 0E 10 00", Fault::Length, FIELDS, ""),
    ("04 1B 00 00", Fault::Length, FIELDS, ""),
    ("04 1D 00 00", Fault::Length, FIELDS, ""),
];

const CONNECTION: &[Line] = &[
    ("06 04 04 00 00 3C", Fault::ProtocolId, PROTOCOL, "03 05 03"),
    ("07 04 04 02 00 3C 'c'", Fault::ProtocolId, PROTOCOL, "03 05 03"),
    // The layout of another version is its own matter: nothing behind the protocol id is looked at.
    ("04 04 04 FF", Fault::ProtocolId, PROTOCOL, "03 05 03"),
    ("03 04 04", Fault::Length, FIELDS, ""),
    ("05 04 04 01 00", Fault::Length, FIELDS, ""),
    ("08 04 04 01 00 3C C3 28", Fault::Text, UTF8, "03 05 03"),
    ("07 04 04 01 00 3C 00", Fault::Text, NUL, "03 05 03"),
    ("03 16 FF", Fault::Text, UTF8, ""),
    ("04 16 'a' 00", Fault::Text, NUL, ""),
    // A surrogate is not UTF-8 (RFC 3629 §3).
    ("05 16 ED A0 80", Fault::Text, UTF8, ""),
    // An overlong form is not UTF-8.
    ("04 16 C0 80", Fault::Text, UTF8, ""),
    ("08 13 60 04 01 12 34 00", Fault::QoS, FLAGS, ""),
];

const WILL: &[Line] = &[
    ("03 07 00", Fault::TopicName, EMPTY, "03 05 03"),
    ("04 07 60 'w'", Fault::QoS, FLAGS, "03 05 03"),
    ("05 07 00 'w' 00", Fault::Text, NUL, "03 05 03"),
    ("04 07 00 FF", Fault::Text, UTF8, "03 05 03"),
    ("05 07 00 'w#'", Fault::TopicName, WILD, "03 05 03"),
    ("03 1A 00", Fault::TopicName, EMPTY, "03 1B 03"),
    ("04 1A 60 'w'", Fault::QoS, FLAGS, "03 1B 03"),
    ("05 1A 00 'w' 00", Fault::Text, NUL, "03 1B 03"),
    ("04 1A 00 FF", Fault::Text, UTF8, "03 1B 03"),
    ("04 1A 00 '+'", Fault::TopicName, WILD, "03 1B 03"),
];

const REGISTER: &[Line] = &[
    ("05 0A 00 00 12", Fault::Length, FIELDS, ""),
    (
        "06 0A 00 00 12 34",
        Fault::TopicName,
        EMPTY,
        "07 0B 00 00 12 34 03",
    ),
    (
        "07 0A 00 00 00 00 'a'",
        Fault::MsgId,
        MSG_ID,
        "07 0B 00 00 00 00 03",
    ),
    ("07 0A 00 00 12 34 FF", Fault::Text, UTF8, "07 0B 00 00 12 34 03"),
    ("07 0A 00 00 12 34 00", Fault::Text, NUL, "07 0B 00 00 12 34 03"),
    (
        "09 0A 00 00 12 34 'a/#'",
        Fault::TopicName,
        WILD,
        "07 0B 00 00 12 34 03",
    ),
    (
        "09 0A 04 01 12 34 '+/a'",
        Fault::TopicName,
        WILD,
        "07 0B 04 01 12 34 03",
    ),
];

const PUBLISH: &[Line] = &[
    ("06 0C 00 04 01 12", Fault::Length, FIELDS, ""),
    (
        "08 0C 03 04 01 00 00 'x'",
        Fault::TopicIdType,
        FLAGS,
        "07 0D 04 01 00 00 03",
    ),
    (
        "08 0C 23 04 01 12 34 'x'",
        Fault::TopicIdType,
        FLAGS,
        "07 0D 04 01 12 34 03",
    ),
    ("08 0C 63 04 01 12 34 'x'", Fault::TopicIdType, FLAGS, ""),
    (
        "08 0C 00 00 00 00 00 'x'",
        Fault::TopicId,
        TOPIC_ID,
        "07 0D 00 00 00 00 02",
    ),
    (
        "08 0C 20 FF FF 12 34 'x'",
        Fault::TopicId,
        TOPIC_ID,
        "07 0D FF FF 12 34 02",
    ),
    (
        "08 0C 41 00 00 12 34 'x'",
        Fault::TopicId,
        TOPIC_ID,
        "07 0D 00 00 12 34 02",
    ),
    ("08 0C 61 FF FF 00 00 'x'", Fault::TopicId, TOPIC_ID, ""),
    (
        "08 0C 20 04 01 00 00 'x'",
        Fault::MsgId,
        MSG_ID,
        "07 0D 04 01 00 00 03",
    ),
    (
        "08 0C 40 04 01 00 00 'x'",
        Fault::MsgId,
        MSG_ID,
        "07 0D 04 01 00 00 03",
    ),
    (
        "07 0C 02 'a#' 00 00",
        Fault::TopicName,
        WILD,
        "07 0D 61 23 00 00 03",
    ),
    (
        "07 0C 02 'a+' 00 00",
        Fault::TopicName,
        WILD,
        "07 0D 61 2B 00 00 03",
    ),
    ("07 0C 02 'a' 00 00 00", Fault::Text, NUL, "07 0D 61 00 00 00 03"),
    ("07 0C 02 C3 28 00 00", Fault::Text, UTF8, "07 0D C3 28 00 00 03"),
    ("07 0C 62 'a#' 00 00", Fault::TopicName, WILD, ""),
];

const SUBSCRIBE: &[Line] = &[
    ("04 12 00 12", Fault::Length, FIELDS, ""),
    (
        "05 12 00 12 34",
        Fault::TopicName,
        EMPTY,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "06 12 00 00 00 'a'",
        Fault::MsgId,
        MSG_ID,
        "08 13 00 00 00 00 00 03",
    ),
    ("06 12 60 12 34 'a'", Fault::QoS, FLAGS, "08 13 00 00 00 12 34 03"),
    (
        "07 12 03 12 34 04 01",
        Fault::TopicIdType,
        FLAGS,
        "08 13 00 00 00 12 34 03",
    ),
    ("06 12 00 12 34 FF", Fault::Text, UTF8, "08 13 00 00 00 12 34 03"),
    ("06 12 00 12 34 00", Fault::Text, NUL, "08 13 00 00 00 12 34 03"),
    (
        "07 12 00 12 34 'a#'",
        Fault::TopicName,
        WILD,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "08 12 00 12 34 '#/a'",
        Fault::TopicName,
        WILD,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "0D 12 00 12 34 '$share/g'",
        Fault::TopicName,
        WILD,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "0E 12 00 12 34 '$share//a'",
        Fault::TopicName,
        WILD,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "0F 12 00 12 34 '$share/+/a'",
        Fault::TopicName,
        WILD,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "0E 12 00 12 34 '$share/g/'",
        Fault::TopicName,
        WILD,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "07 12 01 12 34 00 00",
        Fault::TopicId,
        TOPIC_ID,
        "08 13 00 00 00 12 34 02",
    ),
    (
        "07 12 01 12 34 FF FF",
        Fault::TopicId,
        TOPIC_ID,
        "08 13 00 00 00 12 34 02",
    ),
    (
        "06 12 01 12 34 04",
        Fault::Length,
        FIELDS,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "08 12 01 12 34 04 01 00",
        Fault::Length,
        FIELDS,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "06 12 02 12 34 'a'",
        Fault::Length,
        FIELDS,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "08 12 02 12 34 'abc'",
        Fault::Length,
        FIELDS,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "07 12 02 12 34 '/#'",
        Fault::TopicName,
        WILD,
        "08 13 00 00 00 12 34 03",
    ),
    (
        "07 12 02 12 34 C3 28",
        Fault::Text,
        UTF8,
        "08 13 00 00 00 12 34 03",
    ),
];

const UNSUBSCRIBE: &[Line] = &[
    ("04 14 00 12", Fault::Length, FIELDS, ""),
    ("05 14 00 12 34", Fault::TopicName, EMPTY, "04 15 12 34"),
    ("06 14 00 00 00 'a'", Fault::MsgId, MSG_ID, "04 15 00 00"),
    ("07 14 03 12 34 04 01", Fault::TopicIdType, FLAGS, "04 15 12 34"),
    ("07 14 00 12 34 'a#'", Fault::TopicName, WILD, "04 15 12 34"),
    ("07 14 01 12 34 00 00", Fault::TopicId, TOPIC_ID, "04 15 12 34"),
    ("07 14 01 12 34 FF FF", Fault::TopicId, TOPIC_ID, "04 15 12 34"),
    ("08 14 01 12 34 04 01 00", Fault::Length, FIELDS, "04 15 12 34"),
    ("06 14 02 12 34 'a'", Fault::Length, FIELDS, "04 15 12 34"),
    ("06 14 00 12 34 FF", Fault::Text, UTF8, "04 15 12 34"),
];

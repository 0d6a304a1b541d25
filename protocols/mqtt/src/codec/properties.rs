//! Properties (MQTT 5 §2.2.2): one table of all of them, and one type per packet with those it may carry.

use std::num::{NonZeroU16, NonZeroU32};

use broker_core::QoS;

use super::{
    DecodeError, EncodeError, UserProperties,
    reader::{Reader, VarInt},
    writer::{Counter, Sink, Trim},
};

macro_rules! property_table {
    ($($name:ident($type:ty) = $id:literal;)*) => {
        /// Any property of §2.2.2.2, Table 2-4.
        #[expect(clippy::enum_variant_names, reason = "the specification's term is User Property")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Property<'a> {
            $($name($type),)*
        }

        /// The bit of each property in a set of properties.
        #[expect(non_upper_case_globals, reason = "named like the properties they stand for")]
        pub(super) mod bit {
            $(pub(in crate::codec) const $name: u64 = 1 << $id;)*
        }

        impl<'a> Property<'a> {
            /// The next property and the bit of its kind.
            #[inline]
            pub(super) fn decode(reader: &mut Reader<'a>) -> Result<(Property<'a>, u64), DecodeError> {
                match reader.u8()? {
                    $($id => Ok((Property::$name(Field::read(reader)?), 1 << $id)),)*
                    _ => Err(NOT_ALLOWED),
                }
            }

            pub(super) fn put(self, sink: &mut impl Sink) -> Result<(), EncodeError> {
                match self {
                    $(Property::$name(value) => {
                        sink.put_u8($id);
                        value.put(sink)
                    })*
                }
            }
        }
    };
}

property_table! {
    PayloadFormatIndicator(bool) = 0x01;
    MessageExpiryInterval(u32) = 0x02;
    ContentType(&'a str) = 0x03;
    ResponseTopic(&'a str) = 0x08;
    CorrelationData(&'a [u8]) = 0x09;
    SubscriptionIdentifier(SubscriptionIdentifier) = 0x0b;
    SessionExpiryInterval(u32) = 0x11;
    AssignedClientIdentifier(&'a str) = 0x12;
    ServerKeepAlive(u16) = 0x13;
    AuthenticationMethod(&'a str) = 0x15;
    AuthenticationData(&'a [u8]) = 0x16;
    RequestProblemInformation(bool) = 0x17;
    WillDelayInterval(u32) = 0x18;
    RequestResponseInformation(bool) = 0x19;
    ResponseInformation(&'a str) = 0x1a;
    ServerReference(&'a str) = 0x1c;
    ReasonString(&'a str) = 0x1f;
    ReceiveMaximum(NonZeroU16) = 0x21;
    TopicAliasMaximum(u16) = 0x22;
    TopicAlias(u16) = 0x23;
    MaximumQoS(QoS) = 0x24;
    RetainAvailable(bool) = 0x25;
    UserProperty((&'a str, &'a str)) = 0x26;
    MaximumPacketSize(NonZeroU32) = 0x27;
    WildcardSubscriptionAvailable(bool) = 0x28;
    SubscriptionIdentifierAvailable(bool) = 0x29;
    SharedSubscriptionAvailable(bool) = 0x2a;
}

const NOT_ALLOWED: DecodeError = DecodeError::malformed(
    "MQTT 5 §2.2.2.2",
    "the property is unknown or not of this packet type",
);

/// Properties that may be there more than once. Of Subscription Identifiers only PUBLISH takes several
/// (§3.3.2.3.8); SUBSCRIBE sees to that itself.
const MAY_RECUR: u64 = bit::UserProperty | bit::SubscriptionIdentifier;

/// Keeps `property` from standing where it is not allowed, and from standing there twice.
#[inline]
pub(super) fn check(property: u64, allowed: u64, seen: &mut u64) -> Result<(), DecodeError> {
    if property & allowed == 0 {
        return Err(NOT_ALLOWED);
    }
    if property & *seen & !MAY_RECUR != 0 {
        return Err(DecodeError::protocol(
            "MQTT 5 §2.2.2.2",
            "a property is there twice",
        ));
    }
    *seen |= property;
    Ok(())
}

/// Reads the property length and hands each property to `take`. Returns the whole block.
pub(super) fn read_block<'a>(
    reader: &mut Reader<'a>,
    allowed: u64,
    mut take: impl FnMut(Property<'a>) -> Result<(), DecodeError>,
) -> Result<&'a [u8], DecodeError> {
    let len = reader.var_int()? as usize;
    let block = reader.bytes(len)?;
    let mut rest = Reader::new(block);
    let mut seen = 0;
    while !rest.is_empty() {
        let (property, kind) = Property::decode(&mut rest)?;
        check(kind, allowed, &mut seen)?;
        take(property)?;
    }
    Ok(block)
}

/// A set of properties that can be written.
pub(super) trait PropertyList {
    fn put(&self, trim: Trim, sink: &mut impl Sink) -> Result<(), EncodeError>;

    /// True if nothing would be written.
    fn is_empty(&self, trim: Trim) -> Result<bool, EncodeError> {
        let mut len = Counter::default();
        self.put(trim, &mut len)?;
        Ok(len.0 == 0)
    }
}

/// Writes the property length and the properties.
pub(super) fn put_block(
    list: &impl PropertyList,
    trim: Trim,
    sink: &mut impl Sink,
) -> Result<(), EncodeError> {
    let mut len = Counter::default();
    list.put(trim, &mut len)?;
    if len.0 > VarInt::MAX {
        return Err(EncodeError::PacketTooLarge);
    }
    sink.put_var_int(len.0);
    list.put(trim, sink)
}

/// A value as a property holds it (§2.2.2.2, column "Type").
pub(super) trait Field<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    fn put(self, sink: &mut impl Sink) -> Result<(), EncodeError>;
}

/// A number between 1 and 268 435 455 (§3.3.2.3.8), checked when it is written and when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubscriptionIdentifier(pub(super) u32);

macro_rules! fields {
    ($($type:ty, $read:expr, $put:expr;)*) => {
        $(impl<'a> Field<'a> for $type {
            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                let read: fn(&mut Reader<'a>) -> Result<Self, DecodeError> = $read;
                read(reader)
            }

            #[inline]
            fn put(self, sink: &mut impl Sink) -> Result<(), EncodeError> {
                $put(self, sink)
            }
        })*
    };
}

fields! {
    bool, read_bool, |value, sink: &mut _| { Sink::put_u8(sink, u8::from(value)); Ok(()) };
    QoS, read_maximum_qos, |value, sink: &mut _| { Sink::put_u8(sink, value as u8); Ok(()) };
    u16, |reader| reader.u16(), |value, sink: &mut _| { Sink::put_u16(sink, value); Ok(()) };
    u32, |reader| reader.u32(), |value, sink: &mut _| { Sink::put_u32(sink, value); Ok(()) };
    NonZeroU16, |reader| NonZeroU16::new(reader.u16()?).ok_or(ZERO),
        |value: NonZeroU16, sink: &mut _| { Sink::put_u16(sink, value.get()); Ok(()) };
    NonZeroU32, |reader| NonZeroU32::new(reader.u32()?).ok_or(ZERO),
        |value: NonZeroU32, sink: &mut _| { Sink::put_u32(sink, value.get()); Ok(()) };
    &'a str, |reader| reader.text(), |value, sink: &mut _| Sink::put_text(sink, value);
    &'a [u8], |reader| reader.binary(), |value, sink: &mut _| Sink::put_binary(sink, value);
    (&'a str, &'a str), |reader| Ok((reader.text()?, reader.text()?)),
        |(name, value), sink: &mut _| { Sink::put_text(sink, name)?; Sink::put_text(sink, value) };
    SubscriptionIdentifier, read_subscription_identifier, put_subscription_identifier;
}

const ZERO: DecodeError = DecodeError::protocol(
    "MQTT 5 §3.1.2.11",
    "Receive Maximum or Maximum Packet Size is zero",
);

fn read_bool(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol(
            "MQTT 5 §3.1.2.11",
            "a property that is 0 or 1 has another value",
        )),
    }
}

fn read_maximum_qos(reader: &mut Reader<'_>) -> Result<QoS, DecodeError> {
    match QoS::new(reader.u8()?) {
        Some(qos @ (QoS::AtMostOnce | QoS::AtLeastOnce)) => Ok(qos),
        _ => Err(DecodeError::protocol(
            "MQTT 5 §3.2.2.3.4",
            "Maximum QoS is neither 0 nor 1",
        )),
    }
}

fn read_subscription_identifier(reader: &mut Reader<'_>) -> Result<SubscriptionIdentifier, DecodeError> {
    match reader.var_int()? {
        0 => Err(DecodeError::protocol(
            "MQTT 5 §3.3.2.3.8",
            "a subscription identifier is zero",
        )),
        id => Ok(SubscriptionIdentifier(id)),
    }
}

fn put_subscription_identifier(id: SubscriptionIdentifier, sink: &mut impl Sink) -> Result<(), EncodeError> {
    let value = id.0 as usize;
    if value == 0 || value > VarInt::MAX {
        return Err(EncodeError::FieldTooLong);
    }
    sink.put_var_int(value);
    Ok(())
}

macro_rules! packet_properties {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $property:ident,)* }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $name<'a> {
                $($(#[$field_doc])* pub $field: Option<$type>,)*
                /// User properties.
                pub user: UserProperties<'a>,
            }

            impl<'a> $name<'a> {
                const ALLOWED: u64 = bit::UserProperty $(| bit::$property)*;

                pub(super) fn decode(reader: &mut Reader<'a>) -> Result<$name<'a>, DecodeError> {
                    let mut found = $name::default();
                    let block = read_block(reader, $name::ALLOWED, |property| {
                        match property {
                            $(Property::$property(value) => found.$field = Some(value),)*
                            _ => {}
                        }
                        Ok(())
                    })?;
                    found.user = UserProperties::of_block(block);
                    Ok(found)
                }
            }

            impl PropertyList for $name<'_> {
                fn put(&self, trim: Trim, sink: &mut impl Sink) -> Result<(), EncodeError> {
                    $(if let Some(value) = self.$field {
                        let property = Property::$property(value);
                        let is_text = matches!(property, Property::ReasonString(_));
                        if !(is_text && trim == Trim::UserPropertiesAndReasonString) {
                            property.put(sink)?;
                        }
                    })*
                    self.user.put(trim, sink)
                }
            }
        )*
    };
}

packet_properties! {
    /// Properties of CONNECT (§3.1.2.11). `None`: not sent, so the default of the specification holds.
    ConnectProperties {
        /// Seconds that the session outlives its connection; `u32::MAX`: for ever. Default 0.
        session_expiry_interval: u32 = SessionExpiryInterval,
        /// PUBLISHes of QoS 1 and 2 that the client takes at once. Default 65 535.
        receive_maximum: NonZeroU16 = ReceiveMaximum,
        /// Largest packet that the client takes, bytes. Default: no limit.
        maximum_packet_size: NonZeroU32 = MaximumPacketSize,
        /// Highest topic alias that the client takes. Default 0: none.
        topic_alias_maximum: u16 = TopicAliasMaximum,
        /// The client asks for Response Information in CONNACK. Default false.
        request_response_information: bool = RequestResponseInformation,
        /// The client takes reason strings and user properties in answers [MQTT-3.1.2-29]. Default true.
        request_problem_information: bool = RequestProblemInformation,
        /// Method of enhanced authentication.
        authentication_method: &'a str = AuthenticationMethod,
        /// Data of enhanced authentication.
        authentication_data: &'a [u8] = AuthenticationData,
    }

    /// Properties of CONNACK (§3.2.2.3). `None`: not sent, so the default of the specification holds.
    ConnAckProperties {
        /// The session expiry that the server uses instead of the client's, seconds.
        session_expiry_interval: u32 = SessionExpiryInterval,
        /// PUBLISHes of QoS 1 and 2 that the server takes at once. Default 65 535.
        receive_maximum: NonZeroU16 = ReceiveMaximum,
        /// Highest QoS that the server takes: 0 or 1. 2 is the default and must not be sent (§3.2.2.3.4).
        maximum_qos: QoS = MaximumQoS,
        /// The server supports retained messages. Default true.
        retain_available: bool = RetainAvailable,
        /// Largest packet that the server takes, bytes. Default: no limit.
        maximum_packet_size: NonZeroU32 = MaximumPacketSize,
        /// The identifier of a client that sent none.
        assigned_client_identifier: &'a str = AssignedClientIdentifier,
        /// Highest topic alias that the server takes. Default 0: none.
        topic_alias_maximum: u16 = TopicAliasMaximum,
        /// Why, for people.
        reason_string: &'a str = ReasonString,
        /// The server supports wildcards in filters. Default true.
        wildcard_subscription_available: bool = WildcardSubscriptionAvailable,
        /// The server supports subscription identifiers. Default true.
        subscription_identifier_available: bool = SubscriptionIdentifierAvailable,
        /// The server supports shared subscriptions. Default true.
        shared_subscription_available: bool = SharedSubscriptionAvailable,
        /// Keep alive that the server imposes, seconds.
        server_keep_alive: u16 = ServerKeepAlive,
        /// Basis for the client's response topics.
        response_information: &'a str = ResponseInformation,
        /// Another server to use (§4.11).
        server_reference: &'a str = ServerReference,
        /// Method of enhanced authentication.
        authentication_method: &'a str = AuthenticationMethod,
        /// Data of enhanced authentication.
        authentication_data: &'a [u8] = AuthenticationData,
    }

    /// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    AckProperties {
        /// Why, for people.
        reason_string: &'a str = ReasonString,
    }

    /// Properties of UNSUBSCRIBE (§3.10.2.1).
    UnsubscribeProperties {}

    /// Properties of DISCONNECT (§3.14.2.2).
    DisconnectProperties {
        /// A new session expiry interval, seconds; from clients only [MQTT-3.14.2-2].
        session_expiry_interval: u32 = SessionExpiryInterval,
        /// Why, for people.
        reason_string: &'a str = ReasonString,
        /// Another server to use (§4.11).
        server_reference: &'a str = ServerReference,
    }

    /// Properties of AUTH (§3.15.2.2).
    AuthProperties {
        /// Method of enhanced authentication.
        authentication_method: &'a str = AuthenticationMethod,
        /// Data of enhanced authentication.
        authentication_data: &'a [u8] = AuthenticationData,
        /// Why, for people.
        reason_string: &'a str = ReasonString,
    }
}

//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5 §3.8, §3.10): packet identifier · properties (MQTT 5) · filters.
//!
//! ```text
//! subscription options   reserved (2) · retain handling (2) · retain as published · no local · QoS (2)
//! ```

use std::fmt;

use broker_core::{PacketId, QoS, RetainHandling, SubscribeOptions};

use super::{
    DecodeError, EncodeError, ProtocolVersion, UnsubscribeProperties, UserProperties,
    properties::{self, Property, PropertyList, SubscriptionIdentifier, bit},
    reader::Reader,
    writer::{Sink, Trim},
};

/// A request for subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Comes back in SUBACK.
    pub packet_id: PacketId,
    /// Subscription identifier, 1 to 268 435 455 (§3.8.2.1.2).
    pub subscription_id: Option<u32>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// At least one filter with its options.
    pub subscriptions: Subscriptions<'a>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// As sent. In MQTT 5 it may break the rules for filters: see [`is_valid_filter`].
    pub filter: &'a str,
    /// Its options; only the QoS before MQTT 5.
    pub options: SubscribeOptions,
}

/// The filters of a SUBSCRIBE, in order.
#[derive(Clone, Copy)]
pub struct Subscriptions<'a> {
    source: Source<'a, Subscription<'a>>,
    version: ProtocolVersion,
}

/// A request to end subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Comes back in UNSUBACK.
    pub packet_id: PacketId,
    /// User properties.
    pub properties: UnsubscribeProperties<'a>,
    /// At least one filter.
    pub filters: TopicFilters<'a>,
}

/// The filters of an UNSUBSCRIBE, in order. In MQTT 5 they may break the rules for filters: see
/// [`is_valid_filter`].
#[derive(Clone, Copy)]
pub struct TopicFilters<'a>(Source<'a, &'a str>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    /// Validated.
    Encoded(&'a [u8]),
    List(&'a [T]),
}

impl<'a, T> Source<'a, T> {
    /// One of the two is empty.
    const fn split(self) -> (Reader<'a>, &'a [T]) {
        match self {
            Source::Encoded(payload) => (Reader::new(payload), &[]),
            Source::List(list) => (Reader::new(&[]), list),
        }
    }
}

impl<'a> Subscriptions<'a> {
    /// These filters.
    pub const fn new(list: &'a [Subscription<'a>]) -> Subscriptions<'a> {
        Subscriptions {
            source: Source::List(list),
            version: ProtocolVersion::V5,
        }
    }

    /// The filters with their options.
    pub fn iter(self) -> impl Iterator<Item = Subscription<'a>> {
        let (mut reader, list) = self.source.split();
        let decoded = std::iter::from_fn(move || {
            let filter = reader.text().ok()?;
            let options = options_from(reader.u8().ok()?, self.version)?;
            Some(Subscription { filter, options })
        });
        decoded.chain(list.iter().copied())
    }
}

impl<'a> TopicFilters<'a> {
    /// These filters.
    pub const fn new(list: &'a [&'a str]) -> TopicFilters<'a> {
        TopicFilters(Source::List(list))
    }

    /// The filters.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let (mut reader, list) = self.0.split();
        std::iter::from_fn(move || reader.text().ok()).chain(list.iter().copied())
    }
}

macro_rules! compared_by_items {
    ($($name:ident)*) => {
        $(
            impl PartialEq for $name<'_> {
                fn eq(&self, other: &Self) -> bool {
                    self.iter().eq(other.iter())
                }
            }

            impl Eq for $name<'_> {}

            impl fmt::Debug for $name<'_> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_list().entries(self.iter()).finish()
                }
            }
        )*
    };
}

compared_by_items!(Subscriptions TopicFilters);

/// True if `filter` may be subscribed to: a valid topic filter [MQTT-4.7.1-1, 4.7.3-1], and with `$share/` also a
/// group without wildcards and a filter behind it [MQTT-4.8.2-1, 4.8.2-2].
///
/// The decoder refuses a packet of 3.1 and 3.1.1 with another filter. MQTT 5 can answer each filter by itself
/// (0x8F), so there the decoder leaves it to the peer.
pub fn is_valid_filter(filter: &str) -> bool {
    let Some(shared) = filter.strip_prefix("$share/") else {
        return broker_core::topic::is_valid_filter(filter);
    };
    shared.split_once('/').is_some_and(|(group, filter)| {
        !group.is_empty() && !group.contains(['+', '#']) && broker_core::topic::is_valid_filter(filter)
    })
}

impl<'a> Subscribe<'a> {
    /// Without properties.
    pub const fn new(packet_id: PacketId, subscriptions: &'a [Subscription<'a>]) -> Subscribe<'a> {
        Subscribe {
            packet_id,
            subscription_id: None,
            user: UserProperties::EMPTY,
            subscriptions: Subscriptions::new(subscriptions),
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Subscribe<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let mut subscribe = Subscribe::new(reader.packet_id()?, &[]);
        if version == ProtocolVersion::V5 {
            let allowed = bit::SubscriptionIdentifier | bit::UserProperty;
            let id = &mut subscribe.subscription_id;
            let block = properties::read_block(&mut reader, allowed, |property| match property {
                Property::SubscriptionIdentifier(SubscriptionIdentifier(value)) => match id.replace(value) {
                    None => Ok(()),
                    Some(_) => Err(DecodeError::protocol(
                        "MQTT 5 §3.8.2.1.2",
                        "SUBSCRIBE has two subscription identifiers",
                    )),
                },
                _ => Ok(()),
            })?;
            subscribe.user = UserProperties::of_block(block);
        }
        let payload = reader.take_rest();
        check_payload(payload, NO_SUBSCRIPTION, |reader| {
            let filter = read_filter(reader, version)?;
            let options = reader.u8()?;
            check_options(options, filter, version)
        })?;
        subscribe.subscriptions = Subscriptions {
            source: Source::Encoded(payload),
            version,
        };
        Ok(subscribe)
    }

    pub(super) fn put(&self, version: ProtocolVersion, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            properties::put_block(self, Trim::Nothing, sink)?;
        }
        for Subscription { filter, options } in self.subscriptions.iter() {
            sink.put_text(filter)?;
            sink.put_u8(match version {
                ProtocolVersion::V5 => options_byte(options),
                _ => options.qos as u8,
            });
        }
        Ok(())
    }
}

impl PropertyList for Subscribe<'_> {
    fn put(&self, trim: Trim, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if let Some(id) = self.subscription_id {
            Property::SubscriptionIdentifier(SubscriptionIdentifier(id)).put(sink)?;
        }
        self.user.put(trim, sink)
    }
}

impl<'a> Unsubscribe<'a> {
    /// Without properties.
    pub fn new(packet_id: PacketId, filters: &'a [&'a str]) -> Unsubscribe<'a> {
        Unsubscribe {
            packet_id,
            properties: UnsubscribeProperties::default(),
            filters: TopicFilters::new(filters),
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Unsubscribe<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let mut unsubscribe = Unsubscribe::new(reader.packet_id()?, &[]);
        if version == ProtocolVersion::V5 {
            unsubscribe.properties = UnsubscribeProperties::decode(&mut reader)?;
        }
        let payload = reader.take_rest();
        check_payload(payload, NO_FILTER, |reader| {
            read_filter(reader, version).map(drop)
        })?;
        unsubscribe.filters = TopicFilters(Source::Encoded(payload));
        Ok(unsubscribe)
    }

    pub(super) fn put(&self, version: ProtocolVersion, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            properties::put_block(&self.properties, Trim::Nothing, sink)?;
        }
        self.filters.iter().try_for_each(|filter| sink.put_text(filter))
    }
}

const NO_SUBSCRIPTION: DecodeError = DecodeError::protocol("MQTT-3.8.3-2", "SUBSCRIBE has no topic filter");

const NO_FILTER: DecodeError = DecodeError::protocol("MQTT-3.10.3-2", "UNSUBSCRIBE has no topic filter");

fn check_payload<'a>(
    payload: &'a [u8],
    if_empty: DecodeError,
    mut check: impl FnMut(&mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    if payload.is_empty() {
        return Err(if_empty);
    }
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        check(&mut reader)?;
    }
    Ok(())
}

fn read_filter<'a>(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<&'a str, DecodeError> {
    let filter = reader.text()?;
    if version != ProtocolVersion::V5 && !is_valid_filter(filter) {
        return Err(DecodeError::malformed(
            "MQTT-4.7.1-1",
            "a topic filter is empty or has a misplaced wildcard",
        ));
    }
    Ok(filter)
}

fn check_options(byte: u8, filter: &str, version: ProtocolVersion) -> Result<(), DecodeError> {
    // MQTT 3.1 §3.8 leaves the upper six bits open.
    let reserved = match version {
        ProtocolVersion::V3 => 0,
        ProtocolVersion::V4 => 0xfc,
        ProtocolVersion::V5 => 0xc0,
    };
    if byte & reserved != 0 {
        return Err(DecodeError::malformed(
            "MQTT-3.8.3-5",
            "a reserved bit of the subscription options is set",
        ));
    }
    if byte & 0x03 == 3 {
        return Err(match version {
            ProtocolVersion::V5 => DecodeError::protocol("MQTT 5 §3.8.3.1", "a subscription has QoS 3"),
            _ => DecodeError::malformed("MQTT3-3.8.3-4", "a subscription has QoS 3"),
        });
    }
    if version != ProtocolVersion::V5 {
        return Ok(());
    }
    if byte >> 4 & 0x03 == 3 {
        return Err(DecodeError::protocol("MQTT 5 §3.8.3.1", "retain handling is 3"));
    }
    if byte & NO_LOCAL != 0 && filter.starts_with("$share/") {
        return Err(DecodeError::protocol(
            "MQTT-3.8.3-4",
            "a shared subscription has No Local set",
        ));
    }
    Ok(())
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;

fn options_byte(options: SubscribeOptions) -> u8 {
    let no_local = if options.no_local { NO_LOCAL } else { 0 };
    let as_published = if options.retain_as_published {
        RETAIN_AS_PUBLISHED
    } else {
        0
    };
    options.qos as u8 | no_local | as_published | (options.retain_handling as u8) << 4
}

/// In MQTT 3.1 the upper bits are whatever the client left there, so they are not stored: see [`check_options`].
fn options_from(byte: u8, version: ProtocolVersion) -> Option<SubscribeOptions> {
    let byte = match version {
        ProtocolVersion::V5 => byte,
        _ => byte & 0x03,
    };
    Some(SubscribeOptions {
        qos: QoS::new(byte & 0x03)?,
        no_local: byte & NO_LOCAL != 0,
        retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
        retain_handling: match byte >> 4 & 0x03 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        },
    })
}

//! The PUBLISH properties that travel with a message (MQTT 5 §3.3.2.3), kept as encoded on the wire.

const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

/// The properties that a broker hands on unaltered: payload format indicator, content type, response topic,
/// correlation data and user properties in their order [MQTT-3.3.2-17]. Expiry, topic alias and subscription
/// identifiers are not among them: they belong to a hop, not to the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a>(&'a [u8]);

/// One property of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// True: the payload is declared to be UTF-8.
    PayloadFormat(bool),
    /// A MIME type or what the applications agree on.
    ContentType(&'a str),
    /// Where the answer of a request goes.
    ResponseTopic(&'a str),
    /// What ties an answer to its request.
    CorrelationData(&'a [u8]),
    /// A name and a value; may recur.
    User(&'a str, &'a str),
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Wraps properties that a decoder or [`PropertiesBuilder`] has validated: only the five kinds of
    /// [`Property`], complete, with valid UTF-8. Anything else ends the iteration early.
    pub const fn from_validated(encoded: &'a [u8]) -> Properties<'a> {
        Properties(encoded)
    }

    /// As they stand on the wire, without the length in front.
    pub const fn encoded(self) -> &'a [u8] {
        self.0
    }

    /// In wire order.
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || next_property(&mut rest))
    }

    /// True if the payload is declared to be UTF-8 text.
    pub fn payload_is_utf8(self) -> bool {
        self.iter()
            .any(|property| property == Property::PayloadFormat(true))
    }

    /// The content type, if given.
    pub fn content_type(self) -> Option<&'a str> {
        self.iter().find_map(|property| match property {
            Property::ContentType(value) => Some(value),
            _ => None,
        })
    }

    /// The response topic, if given.
    pub fn response_topic(self) -> Option<&'a str> {
        self.iter().find_map(|property| match property {
            Property::ResponseTopic(value) => Some(value),
            _ => None,
        })
    }

    /// The correlation data, if given.
    pub fn correlation_data(self) -> Option<&'a [u8]> {
        self.iter().find_map(|property| match property {
            Property::CorrelationData(value) => Some(value),
            _ => None,
        })
    }

    /// The user properties in their order.
    pub fn user(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter_map(|property| match property {
            Property::User(name, value) => Some((name, value)),
            _ => None,
        })
    }
}

/// Encodes the properties of a message, for publishers that are not MQTT 5 clients.
#[derive(Clone, Debug, Default)]
pub struct PropertiesBuilder(Vec<u8>);

impl PropertiesBuilder {
    /// No properties yet.
    pub fn new() -> PropertiesBuilder {
        PropertiesBuilder::default()
    }

    /// Appends one property; a text or data longer than 65 535 bytes is refused with `false`.
    pub fn push(&mut self, property: Property<'_>) -> bool {
        let (code, fields): (u8, [Option<&[u8]>; 2]) = match property {
            Property::PayloadFormat(utf8) => {
                self.0
                    .extend_from_slice(&[PAYLOAD_FORMAT_INDICATOR, u8::from(utf8)]);
                return true;
            }
            Property::ContentType(value) => (CONTENT_TYPE, [Some(value.as_bytes()), None]),
            Property::ResponseTopic(value) => (RESPONSE_TOPIC, [Some(value.as_bytes()), None]),
            Property::CorrelationData(value) => (CORRELATION_DATA, [Some(value), None]),
            Property::User(name, value) => (USER_PROPERTY, [Some(name.as_bytes()), Some(value.as_bytes())]),
        };
        if fields
            .iter()
            .flatten()
            .any(|field| field.len() > usize::from(u16::MAX))
        {
            return false;
        }
        self.0.push(code);
        for field in fields.iter().flatten() {
            let len = u16::try_from(field.len()).expect("checked above");
            self.0.extend_from_slice(&len.to_be_bytes());
            self.0.extend_from_slice(field);
        }
        true
    }

    /// The properties as a message takes them.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.0)
    }
}

fn next_property<'a>(rest: &mut &'a [u8]) -> Option<Property<'a>> {
    let (&code, after) = rest.split_first()?;
    *rest = after;
    match code {
        PAYLOAD_FORMAT_INDICATOR => {
            let (&value, after) = rest.split_first()?;
            *rest = after;
            Some(Property::PayloadFormat(value == 1))
        }
        CONTENT_TYPE => Some(Property::ContentType(text(rest)?)),
        RESPONSE_TOPIC => Some(Property::ResponseTopic(text(rest)?)),
        CORRELATION_DATA => Some(Property::CorrelationData(data(rest)?)),
        USER_PROPERTY => Some(Property::User(text(rest)?, text(rest)?)),
        _ => None,
    }
}

fn data<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<2>()?;
    let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = after;
    Some(value)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(data(rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_in_their_order() {
        let mut builder = PropertiesBuilder::new();
        let given = [
            Property::User("a", "1"),
            Property::PayloadFormat(true),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("answers/7"),
            Property::CorrelationData(&[0, 255]),
            Property::User("a", "2"),
        ];
        for property in given {
            assert!(builder.push(property));
        }
        let properties = builder.as_properties();
        assert_eq!(properties.iter().collect::<Vec<_>>(), given);
        assert_eq!(properties.user().collect::<Vec<_>>(), [("a", "1"), ("a", "2")]);
        assert!(properties.payload_is_utf8());
    }

    #[test]
    fn a_value_that_does_not_fit_its_length_field_is_refused() {
        let long = "x".repeat(65_536);
        let mut builder = PropertiesBuilder::new();
        assert!(!builder.push(Property::ContentType(&long)));
        assert_eq!(builder.as_properties(), Properties::EMPTY);
    }
}

//! The objects that keys name, and how they name them.

use super::{super::mqttsn::DatagramKind, ListenerKind, checks};

/// Highest predefined topic id (`gateway.mqttsn.predefined.<id>`).
const PREDEFINED_MAX: u16 = 1024;

/// The object that a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Object {
    /// The node.
    Node,
    /// A listener.
    Listener(ListenerKind, String),
    /// A rewrite rule.
    Rewrite(u16),
    /// An automatic subscription.
    AutoSubscribe(u16),
    /// A listener of the MQTT-SN gateway.
    Datagram(DatagramKind, String),
    /// A predefined topic id of MQTT-SN, of one client or of all.
    Predefined(Option<String>, u16),
}

impl Object {
    /// The object that `key` names, if it names one; an error if it does so in a way that is not allowed.
    pub(super) fn of(key: &str) -> Result<Option<Object>, String> {
        if let Some(rest) = key.strip_prefix("gateway.mqttsn.") {
            return Object::of_mqttsn(key, rest);
        }
        let mut parts = key.splitn(4, '.');
        let object = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("listeners"), Some(kind), Some(name), Some(_)) => {
                let Some(kind) = ListenerKind::ALL.into_iter().find(|known| known.name() == kind) else {
                    return Ok(None);
                };
                Object::Listener(kind, listener_name(key, name)?)
            }
            (Some("rewrite"), Some(number), Some(_), None) => Object::Rewrite(place(key, number)?),
            (Some("auto_subscribe"), Some(number), Some(_), None) => {
                Object::AutoSubscribe(place(key, number)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(object))
    }

    /// The same of `rest`, what follows `gateway.mqttsn.` in `key`.
    fn of_mqttsn(key: &str, rest: &str) -> Result<Option<Object>, String> {
        if let Some(id) = rest.strip_prefix("predefined.") {
            return predefined_id(key, id).map(|id| Some(Object::Predefined(None, id)));
        }
        if let Some(rest) = rest.strip_prefix("clients.") {
            // A client id may hold dots: the last `.predefined.` ends it.
            let Some((client, id)) = rest.rsplit_once(".predefined.") else {
                return Ok(None);
            };
            let client = decode_client(client).ok_or_else(|| {
                format!("`{key}`: in a client id, `=` is written %3D, `%` %25, and only they and control characters so")
            })?;
            return predefined_id(key, id).map(|id| Some(Object::Predefined(Some(client), id)));
        }
        let mut parts = rest.splitn(4, '.');
        let (Some("listeners"), Some(kind), Some(name), Some(_)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        let Some(kind) = DatagramKind::ALL.into_iter().find(|known| known.name() == kind) else {
            return Ok(None);
        };
        Ok(Some(Object::Datagram(kind, listener_name(key, name)?)))
    }
}

fn listener_name(key: &str, name: &str) -> Result<String, String> {
    checks::object_name(name)
        .map_err(|problem| format!("`{key}`: the listener's name `{name}` {problem}"))?;
    Ok(name.to_owned())
}

/// The number of a rule.
pub(super) fn place(key: &str, number: &str) -> Result<u16, String> {
    number_up_to(9999, key, number)
}

/// A predefined topic id.
pub(super) fn predefined_id(key: &str, number: &str) -> Result<u16, String> {
    number_up_to(PREDEFINED_MAX, key, number)
}

/// A number from 1, written in one way only, so that an object has one name.
fn number_up_to(max: u16, key: &str, number: &str) -> Result<u16, String> {
    match number.parse::<u16>() {
        Ok(parsed) if (1..=max).contains(&parsed) && parsed.to_string() == number => Ok(parsed),
        _ => Err(format!("`{key}`: `{number}` is not a number from 1 to {max}")),
    }
}

/// A client id as a key spells it: what would end the key, or is no text, is `%` and two hexadecimal digits.
pub(super) fn encode_client(client: &str) -> String {
    let mut text = String::with_capacity(client.len());
    for c in client.chars() {
        if c == '%' || c == '=' || c.is_ascii_control() {
            text.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

/// The client id that a key spells; `None` if it is empty or there is another way to spell it.
pub(super) fn decode_client(text: &str) -> Option<String> {
    let mut client = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let code = u8::from_str_radix(after.get(..2)?, 16).ok()?;
        client.push_str(before);
        client.push(char::from(code));
        rest = &after[2..];
    }
    client.push_str(rest);
    (!client.is_empty() && encode_client(&client) == text).then_some(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_spelt_in_one_way() {
        for (client, text) in [
            ("a", "a"),
            ("a.b/c d", "a.b/c d"),
            ("é#\"", "é#\""),
            ("a=b%", "a%3Db%25"),
            ("\n", "%0A"),
            ("x.predefined.1", "x.predefined.1"),
        ] {
            assert_eq!(encode_client(client), text);
            assert_eq!(decode_client(text).as_deref(), Some(client));
        }
        for text in ["", "%", "%3", "%3d", "%61", "%+D", "%é", "%ZZ"] {
            assert_eq!(decode_client(text), None, "{text}");
        }
    }
}

//! Placeholders in topics of rules: `${clientid}` and its relatives, and the older `%c` and `%u`.

use std::borrow::Cow;

use thiserror::Error;

use crate::ClientInfo;

/// A value of the client that stands in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `${clientid}`, `%c`.
    ClientId,
    /// `${username}`, `%u`.
    Username,
    /// `${peerhost}`, and `${host}` as automatic subscriptions call it.
    PeerHost,
    /// `${peerport}`, and `${port}` as automatic subscriptions call it.
    PeerPort,
    /// `${cert_common_name}`.
    CommonName,
    /// `${zone}`.
    Zone,
    /// `${client_attrs.NAME}`.
    Attribute(String),
}

impl Placeholder {
    /// The placeholder that is called `name` between its braces.
    pub fn from_name(name: &str) -> Option<Placeholder> {
        Some(match name {
            "clientid" => Placeholder::ClientId,
            "username" => Placeholder::Username,
            "peerhost" | "host" => Placeholder::PeerHost,
            "peerport" | "port" => Placeholder::PeerPort,
            "cert_common_name" => Placeholder::CommonName,
            "zone" => Placeholder::Zone,
            _ => match name.strip_prefix("client_attrs.") {
                Some(attribute) if !attribute.is_empty() => Placeholder::Attribute(attribute.to_owned()),
                _ => return None,
            },
        })
    }

    /// Its value for `client`. `None` if there is none, or if the value is empty or holds `/`, `+` or `#`: it would
    /// change the meaning of the topic around it, and a client could widen a rule by choosing its name.
    pub fn value<'a>(&self, client: &'a ClientInfo) -> Option<Cow<'a, str>> {
        let value = match self {
            Placeholder::ClientId => Cow::Borrowed(client.client_id.as_str()),
            Placeholder::Username => Cow::Borrowed(client.username.as_deref()?),
            Placeholder::PeerHost => Cow::Owned(client.peer?.ip().to_canonical().to_string()),
            Placeholder::PeerPort => Cow::Owned(client.peer?.port().to_string()),
            Placeholder::CommonName => Cow::Borrowed(client.common_name()?),
            Placeholder::Zone => Cow::Borrowed(&*client.connection.zone),
            Placeholder::Attribute(name) => Cow::Borrowed(client.attribute(name)?),
        };
        (!value.is_empty() && !value.contains(['/', '+', '#'])).then_some(value)
    }
}

/// A `${…}` that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "unknown placeholder ${{{0}}}: expected ${{clientid}}, ${{username}}, ${{peerhost}}, ${{peerport}}, \
     ${{cert_common_name}}, ${{zone}} or ${{client_attrs.NAME}}"
)]
pub struct UnknownPlaceholder(pub String);

/// Text with placeholders, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

impl Template {
    /// Takes `text` apart. A `$` without `{` and a `%` without `c` or `u` stand for themselves.
    ///
    /// # Errors
    ///
    /// [`UnknownPlaceholder`] for a `${…}` that is not known or not closed: better than a topic that never matches.
    pub fn parse(text: &str) -> Result<Template, UnknownPlaceholder> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '%']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            let (found, len) = match Template::placeholder(rest)? {
                Some(found) => found,
                None => {
                    literal.push_str(&rest[..1]);
                    rest = &rest[1..];
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Value(found));
            rest = &rest[len..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template(parts))
    }

    /// The placeholder at the start of `text` and its length.
    fn placeholder(text: &str) -> Result<Option<(Placeholder, usize)>, UnknownPlaceholder> {
        if text.starts_with("%c") {
            return Ok(Some((Placeholder::ClientId, 2)));
        }
        if text.starts_with("%u") {
            return Ok(Some((Placeholder::Username, 2)));
        }
        let Some(inner) = text.strip_prefix("${") else {
            return Ok(None);
        };
        let Some((name, _)) = inner.split_once('}') else {
            return Err(UnknownPlaceholder(inner.to_owned()));
        };
        match Placeholder::from_name(name) {
            Some(found) => Ok(Some((found, name.len() + 3))),
            None => Err(UnknownPlaceholder(name.to_owned())),
        }
    }

    /// The text, if it has no placeholder.
    pub fn as_literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for `client`; `None` if a placeholder has no usable value (see [`Placeholder::value`]).
    pub fn render(&self, client: &ClientInfo) -> Option<String> {
        let mut rendered = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => rendered.push_str(text),
                Part::Value(placeholder) => rendered.push_str(&placeholder.value(client)?),
            }
        }
        Some(rendered)
    }

    /// True if the text for `client` is exactly `text`.
    pub fn is(&self, client: &ClientInfo, text: &str) -> bool {
        let mut rest = text;
        for part in &self.0 {
            let after = match part {
                Part::Text(text) => rest.strip_prefix(text.as_str()),
                Part::Value(placeholder) => placeholder
                    .value(client)
                    .and_then(|value| rest.strip_prefix(&*value)),
            };
            match after {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

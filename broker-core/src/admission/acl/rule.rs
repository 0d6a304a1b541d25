//! One rule, compiled: deciding allocates nothing unless a placeholder is an address.

use std::net::IpAddr;

use regex::Regex;
use thiserror::Error;

use super::super::{Action, Template, UnknownPlaceholder};
use crate::{ClientInfo, QoS, topic};

/// What a rule does with a client it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The client may.
    Allow,
    /// It may not.
    Deny,
}

/// How strict the node is set up as a whole; rules can ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecurityProfile {
    /// What is not forbidden is allowed.
    #[default]
    Legacy,
    /// What is not allowed is forbidden.
    Hardened,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct AclRule {
    /// What it does.
    pub permission: Permission,
    /// Whom it is about.
    pub who: Who,
    /// What they want to do.
    pub action: ActionFilter,
    /// With which topics; `None`: any topic at all, those that start with `$` included.
    pub topics: Option<Vec<TopicFilter>>,
}

/// Whom a rule is about.
#[derive(Clone, Debug)]
pub enum Who {
    /// Everybody.
    All,
    /// By user name; a client without one is not meant.
    Username(TextMatch),
    /// By client id.
    ClientId(TextMatch),
    /// From one of these networks; a client inside the process is not meant.
    Address(Vec<Cidr>),
    /// By an attribute that authentication attached.
    Attribute(String, TextMatch),
    /// By the zone of its listener.
    Zone(TextMatch),
    /// By its listener, as `type:name`.
    Listener(TextMatch),
    /// Everybody, if the node has this profile.
    SecurityProfile(SecurityProfile),
    /// All of these.
    And(Vec<Who>),
    /// At least one of these.
    Or(Vec<Who>),
}

/// How a text is compared.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// Equal, byte by byte.
    Is(String),
    /// The expression is found in it; `^` and `$` anchor it.
    Matches(Regex),
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Which actions a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionFilter {
    /// Publishing.
    pub publish: bool,
    /// Subscribing.
    pub subscribe: bool,
    /// The qualities of service it is about: bit n for QoS n.
    pub qos_mask: u8,
    /// Only messages with this retain flag; `None`: both. Says nothing about subscriptions.
    pub retain: Option<bool>,
}

/// A topic filter of a rule, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFilter(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// `{eq, "…"}`: this very text, wildcards included.
    Literal(String),
    Levels(Vec<Level>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(Template),
    Plus,
    Hash,
}

impl AclRule {
    /// True if the rule is about `client`, `action` and `topic`.
    pub fn applies(
        &self,
        client: &ClientInfo,
        profile: SecurityProfile,
        action: Action,
        topic: &str,
    ) -> bool {
        // A filter with `#` reaches deeper than a rule's `+`. To deny, the literal comparison is the stricter one;
        // to allow, it would give away what the rule does not name.
        let plus_covers_hash = self.permission == Permission::Deny;
        self.action.covers(action)
            && self.topics.as_ref().is_none_or(|topics| {
                topics
                    .iter()
                    .any(|filter| filter.covers(client, topic, plus_covers_hash))
            })
            && self.who.is(client, profile)
    }
}

impl Who {
    fn is(&self, client: &ClientInfo, profile: SecurityProfile) -> bool {
        match self {
            Who::All => true,
            Who::Username(name) => client
                .username
                .as_deref()
                .is_some_and(|username| name.fits(username)),
            Who::ClientId(id) => id.fits(client.client_id.as_str()),
            Who::Address(networks) => client
                .peer
                .is_some_and(|peer| networks.iter().any(|network| network.contains(peer.ip()))),
            Who::Attribute(name, value) => client.attribute(name).is_some_and(|actual| value.fits(actual)),
            Who::Zone(zone) => zone.fits(&client.connection.zone),
            Who::Listener(listener) => listener.fits(&client.connection.listener),
            Who::SecurityProfile(wanted) => *wanted == profile,
            Who::And(all) => all.iter().all(|who| who.is(client, profile)),
            Who::Or(any) => any.iter().any(|who| who.is(client, profile)),
        }
    }
}

impl TextMatch {
    /// Most bytes that a compiled expression may take; a larger one is refused when it is read.
    pub const REGEX_BYTES_MAX: usize = 1 << 20;

    /// An expression in the syntax of the `regex` crate: PCRE without look-around and back-references.
    ///
    /// # Errors
    ///
    /// What is wrong with the expression, or that it is too large.
    pub fn regex(expression: &str) -> Result<TextMatch, regex::Error> {
        regex::RegexBuilder::new(expression)
            .size_limit(TextMatch::REGEX_BYTES_MAX)
            .build()
            .map(TextMatch::Matches)
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            TextMatch::Is(expected) => expected == text,
            TextMatch::Matches(regex) => regex.is_match(text),
        }
    }
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or a single address. Bits behind the prefix do not matter.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => bits,
        };
        (prefix <= bits).then_some(Cidr { address, prefix })
    }

    /// True if `address` is in the network. An IPv4-mapped IPv6 address counts as IPv4, as dual-stack sockets
    /// report IPv4 peers in that form.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(network), _) => {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

impl ActionFilter {
    /// Publishing and subscribing, whatever the quality of service and the retain flag.
    pub const ALL: ActionFilter = ActionFilter {
        publish: true,
        subscribe: true,
        qos_mask: 0b111,
        retain: None,
    };

    fn covers(self, action: Action) -> bool {
        let has = |qos: QoS| self.qos_mask & (1 << qos as u8) != 0;
        match action {
            Action::Publish { qos, retain } => {
                self.publish && has(qos) && self.retain.is_none_or(|wanted| wanted == retain)
            }
            Action::Subscribe { qos } => self.subscribe && has(qos),
        }
    }
}

/// Why a text is not a topic filter of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopicFilterError {
    /// Not a topic filter.
    #[error("not a topic filter: `+` and `#` stand alone in their level, and `#` only in the last one")]
    Invalid,
    /// A placeholder that is not known.
    #[error(transparent)]
    Placeholder(#[from] UnknownPlaceholder),
}

impl TopicFilter {
    /// A topic filter, perhaps with placeholders; after `eq ` a literal text, as in rules of databases.
    ///
    /// # Errors
    ///
    /// It is no valid topic filter, or has an unknown placeholder.
    pub fn parse(text: &str) -> Result<TopicFilter, TopicFilterError> {
        if let Some(literal) = text.strip_prefix("eq ") {
            return Ok(TopicFilter::literal(literal));
        }
        if !topic::is_valid_filter(text) {
            return Err(TopicFilterError::Invalid);
        }
        let levels = text.split('/').map(|level| {
            Ok(match level {
                "+" => Level::Plus,
                "#" => Level::Hash,
                _ => Level::Text(Template::parse(level)?),
            })
        });
        Ok(TopicFilter(Kind::Levels(
            levels.collect::<Result<_, UnknownPlaceholder>>()?,
        )))
    }

    /// Exactly this text: wildcards and placeholders mean nothing.
    pub fn literal(text: &str) -> TopicFilter {
        TopicFilter(Kind::Literal(text.to_owned()))
    }

    /// True if this filter covers `topic`, a topic name or a topic filter whose levels are compared literally.
    /// With `plus_covers_hash`, a `+` here stands for a `#` there.
    fn covers(&self, client: &ClientInfo, topic: &str, plus_covers_hash: bool) -> bool {
        let levels = match &self.0 {
            Kind::Literal(text) => return text == topic,
            Kind::Levels(levels) => levels,
        };
        // [MQTT-4.7.2-1]
        if topic.starts_with('$') && matches!(levels.first(), Some(Level::Plus | Level::Hash)) {
            return false;
        }
        let mut names = topic.split('/');
        for level in levels {
            let covered = match (level, names.next()) {
                (Level::Hash, _) => return true,
                (Level::Plus, Some(name)) => name != "#" || plus_covers_hash,
                (Level::Text(text), Some(name)) => text.is(client, name),
                (_, None) => false,
            };
            if !covered {
                return false;
            }
        }
        names.next().is_none()
    }
}

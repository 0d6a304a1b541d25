//! From terms to rules.

use thiserror::Error;

use super::{
    rule::{AclRule, ActionFilter, Cidr, Permission, SecurityProfile, TextMatch, TopicFilter, Who},
    term::{Reader, Term, Value},
};

/// A mistake in an `acl.conf`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct AclError {
    /// Line, counted from 1.
    pub line: usize,
    /// Column, counted from 1 in characters.
    pub column: usize,
    /// What was expected, and what was found.
    pub message: String,
}

/// All rules of a file, in their order.
pub(super) fn rules(text: &str) -> Result<Vec<AclRule>, AclError> {
    let mut reader = Reader::new(text);
    let mut rules = Vec::new();
    while let Some(term) = reader.next_term()? {
        rules.push(rule(&term)?);
    }
    Ok(rules)
}

/// `{Permission, Who}`, `{Permission, Who, Action}` or `{Permission, Who, Action, Topics}`; what is left out means
/// all.
fn rule(term: &Term) -> Result<AclRule, AclError> {
    let Value::Tuple(parts) = &term.value else {
        return Err(term.expected("a rule such as {allow, {user, \"alice\"}, publish, [\"a/b\"]}"));
    };
    let (first, who_term, rest) = match parts.as_slice() {
        [first, who, rest @ ..] if rest.len() <= 2 => (first, who, rest),
        _ => {
            return Err(term.at.error(format!(
                "expected a rule of 2 to 4 elements, {{Permission, Who, Action, Topics}}, found {}",
                parts.len()
            )));
        }
    };
    let permission = match &first.value {
        Value::Atom(name) if name == "allow" => Permission::Allow,
        Value::Atom(name) if name == "deny" => Permission::Deny,
        _ => return Err(first.expected("`allow` or `deny`")),
    };
    Ok(AclRule {
        permission,
        who: who(who_term)?,
        action: rest.first().map_or(Ok(ActionFilter::ALL), action)?,
        topics: rest.get(1).map_or(Ok(None), topics)?,
    })
}

const WHO: &str = "`all`, {user, ..}, {client, ..}, {ipaddr, ..}, {ipaddrs, [..]}, {client_attr, .., ..}, {zone, ..}, \
                   {listener, ..}, {security_profile, ..}, {'and', [..]} or {'or', [..]}";

fn who(term: &Term) -> Result<Who, AclError> {
    match &term.value {
        Value::Atom(name) if name == "all" => Ok(Who::All),
        Value::Tuple(parts) => match parts.as_slice() {
            [
                Term {
                    value: Value::Atom(key),
                    ..
                },
                value,
            ] => condition(term, key, value),
            [
                Term {
                    value: Value::Atom(key),
                    ..
                },
                name,
                value,
            ] if key == "client_attr" => Ok(Who::Attribute(name_of(name)?, text_match(value)?)),
            _ => Err(term.expected(WHO)),
        },
        _ => Err(term.expected(WHO)),
    }
}

fn condition(term: &Term, key: &str, value: &Term) -> Result<Who, AclError> {
    // `{user, all}` and `{client, all}` of 2.x–4.x.
    let is_all = matches!(&value.value, Value::Atom(name) if name == "all");
    Ok(match key {
        "user" | "username" | "client" | "clientid" if is_all => Who::All,
        "user" | "username" => Who::Username(text_match(value)?),
        "client" | "clientid" => Who::ClientId(text_match(value)?),
        "ipaddr" => Who::Address(vec![cidr(value)?]),
        "ipaddrs" => Who::Address(elements(value, "a list of networks", cidr)?),
        "zone" => Who::Zone(text_match(value)?),
        "listener" => Who::Listener(text_match(value)?),
        "security_profile" => Who::SecurityProfile(match &value.value {
            Value::Atom(name) if name == "legacy" => SecurityProfile::Legacy,
            Value::Atom(name) if name == "hardened" => SecurityProfile::Hardened,
            _ => return Err(value.expected("`legacy` or `hardened`")),
        }),
        "and" => Who::And(elements(value, "a list of conditions", who)?),
        "or" => Who::Or(elements(value, "a list of conditions", who)?),
        _ => {
            return Err(term.at.error(format!("expected {WHO}, found {{{key}, ..}}")));
        }
    })
}

fn text_match(term: &Term) -> Result<TextMatch, AclError> {
    match &term.value {
        Value::Text(text) | Value::Atom(text) => Ok(TextMatch::Is(text.clone())),
        Value::Tuple(parts) => match parts.as_slice() {
            [
                Term {
                    value: Value::Atom(key),
                    ..
                },
                Term {
                    value: Value::Text(expression),
                    at,
                },
            ] if key == "re" => {
                TextMatch::regex(expression).map_err(|error| at.error(regex_message(expression, &error)))
            }
            _ => Err(term.expected("{re, \"EXPRESSION\"}")),
        },
        _ => Err(term.expected("a string or {re, \"EXPRESSION\"}")),
    }
}

/// The crate's message of a syntax error is a drawing over several lines; its last line says what is wrong.
fn regex_message(expression: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let cause = text
        .lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    format!("expected a regular expression, found {expression:?}: {cause}")
}

fn name_of(term: &Term) -> Result<String, AclError> {
    match &term.value {
        Value::Text(text) | Value::Atom(text) => Ok(text.clone()),
        _ => Err(term.expected("the name of an attribute")),
    }
}

fn cidr(term: &Term) -> Result<Cidr, AclError> {
    let network = match &term.value {
        Value::Text(text) => Cidr::parse(text),
        _ => None,
    };
    network.ok_or_else(|| term.expected("a network such as \"10.0.0.0/8\" or an address such as \"::1\""))
}

fn action(term: &Term) -> Result<ActionFilter, AclError> {
    match &term.value {
        Value::Atom(_) => action_name(term),
        Value::Tuple(parts) => match parts.as_slice() {
            [
                name,
                Term {
                    value: Value::List(options),
                    ..
                },
            ] => {
                let mut filter = action_name(name)?;
                for option in options {
                    action_option(&mut filter, option)?;
                }
                Ok(filter)
            }
            _ => Err(term.expected("an action with options such as {publish, [{qos, 1}, {retain, false}]}")),
        },
        _ => action_name(term),
    }
}

fn action_name(term: &Term) -> Result<ActionFilter, AclError> {
    let (publish, subscribe) = match &term.value {
        Value::Atom(name) => match name.as_str() {
            "publish" => (true, false),
            "subscribe" => (false, true),
            "all" | "pubsub" => (true, true),
            _ => return Err(term.expected(ACTION)),
        },
        _ => return Err(term.expected(ACTION)),
    };
    Ok(ActionFilter {
        publish,
        subscribe,
        ..ActionFilter::ALL
    })
}

const ACTION: &str =
    "`publish`, `subscribe`, `all`, or one of them with options such as {publish, [{qos, 1}]}";

fn action_option(filter: &mut ActionFilter, term: &Term) -> Result<(), AclError> {
    const OPTION: &str = "{qos, 0..2}, {qos, [0..2, ..]} or {retain, true|false|all}";
    let (key, value) = match &term.value {
        Value::Tuple(parts) => match parts.as_slice() {
            [
                Term {
                    value: Value::Atom(key),
                    ..
                },
                value,
            ] => (key.as_str(), value),
            _ => return Err(term.expected(OPTION)),
        },
        _ => return Err(term.expected(OPTION)),
    };
    match key {
        "qos" => {
            filter.qos_mask = match &value.value {
                Value::List(_) => elements(value, "a list of 0, 1 and 2", qos_bit)?
                    .into_iter()
                    .fold(0, |mask, bit| mask | bit),
                _ => qos_bit(value)?,
            };
        }
        "retain" if !filter.publish => {
            return Err(term
                .at
                .error("expected {qos, ..}: `retain` says nothing about a subscription"));
        }
        "retain" => {
            filter.retain = match &value.value {
                Value::Atom(name) if name == "true" => Some(true),
                Value::Atom(name) if name == "false" => Some(false),
                Value::Atom(name) if name == "all" => None,
                _ => return Err(value.expected("`true`, `false` or `all`")),
            };
        }
        _ => return Err(term.expected(OPTION)),
    }
    Ok(())
}

fn qos_bit(term: &Term) -> Result<u8, AclError> {
    match term.value {
        Value::Integer(qos @ 0..=2) => Ok(1 << qos),
        _ => Err(term.expected("0, 1 or 2")),
    }
}

fn topics(term: &Term) -> Result<Option<Vec<TopicFilter>>, AclError> {
    match &term.value {
        Value::Atom(name) if name == "all" => Ok(None),
        _ => elements(term, "`all` or a list of topic filters", topic_filter).map(Some),
    }
}

fn topic_filter(term: &Term) -> Result<TopicFilter, AclError> {
    match &term.value {
        Value::Text(text) => {
            TopicFilter::parse(text).map_err(|error| term.at.error(format!("topic filter {text:?}: {error}")))
        }
        Value::Tuple(parts) => match parts.as_slice() {
            [
                Term {
                    value: Value::Atom(key),
                    ..
                },
                Term {
                    value: Value::Text(text),
                    ..
                },
            ] if key == "eq" => Ok(TopicFilter::literal(text)),
            _ => Err(term.expected("{eq, \"TOPIC\"}")),
        },
        _ => Err(term.expected("a topic filter or {eq, \"TOPIC\"}")),
    }
}

/// The elements of a list that has at least one: an empty one would make a rule that never applies.
fn elements<T>(
    term: &Term,
    what: &str,
    convert: impl Fn(&Term) -> Result<T, AclError>,
) -> Result<Vec<T>, AclError> {
    match &term.value {
        Value::List(list) if list.is_empty() => Err(term
            .at
            .error(format!("expected {what} with at least one element, found []"))),
        Value::List(list) => list.iter().map(convert).collect(),
        _ => Err(term.expected(what)),
    }
}

//! Rewrites topics before authorization sees them, so that old devices fit into a new topic scheme.

use regex::Regex;
use thiserror::Error;

use super::{Hook, HookPoint, HookPoints, TopicUse};
use crate::{
    ClientInfo,
    admission::{Template, TextMatch, UnknownPlaceholder},
    topic,
};

/// What a rule rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteAction {
    /// Topics of messages and Wills.
    Publish,
    /// Filters of subscriptions, also when they end.
    Subscribe,
    /// Both.
    All,
}

/// One entry of `rewrite`.
#[derive(Clone, Debug)]
pub struct RewriteRule {
    action: RewriteAction,
    source_topic: String,
    regex: Regex,
    destination: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Template),
    Capture(usize),
}

/// A mistake in a rewrite rule.
#[derive(Clone, Debug, Error)]
pub enum RewriteError {
    /// `source_topic` is no topic filter.
    #[error("source_topic {0:?} is not a topic filter")]
    SourceTopic(String),
    /// `re` is no regular expression, or a too large one.
    #[error("re: {0}")]
    Expression(#[from] regex::Error),
    /// `dest_topic` names a value that is not known.
    #[error("dest_topic: {0}")]
    Placeholder(#[from] UnknownPlaceholder),
    /// `dest_topic` refers to a group that `re` does not have.
    #[error("dest_topic: ${group} is beyond the {groups} groups of re")]
    Capture {
        /// The group referred to.
        group: usize,
        /// Groups that there are.
        groups: usize,
    },
    /// `dest_topic` is no topic: it has a wildcard although the rule is for publishing too, or a misplaced one.
    #[error("dest_topic {0:?} is not a topic that the rule's action can use")]
    Destination(String),
}

impl RewriteRule {
    /// Topics that match the filter `source_topic` and in which the expression `re` is found become `dest_topic`,
    /// in which `$1` … `$99` stand for the groups of `re` and `${clientid}`, `${username}` and the like for values
    /// of the client.
    ///
    /// # Errors
    ///
    /// What is wrong with which of the three.
    pub fn new(
        action: RewriteAction,
        source_topic: &str,
        re: &str,
        dest_topic: &str,
    ) -> Result<RewriteRule, RewriteError> {
        if !topic::is_valid_filter(source_topic) {
            return Err(RewriteError::SourceTopic(source_topic.to_owned()));
        }
        let valid = match action {
            RewriteAction::Publish | RewriteAction::All => topic::is_valid_name(dest_topic),
            RewriteAction::Subscribe => topic::is_valid_filter(dest_topic),
        };
        if !valid {
            return Err(RewriteError::Destination(dest_topic.to_owned()));
        }
        let regex = regex::RegexBuilder::new(re)
            .size_limit(TextMatch::REGEX_BYTES_MAX)
            .build()?;
        let destination = destination(dest_topic, regex.captures_len() - 1)?;
        Ok(RewriteRule {
            action,
            source_topic: source_topic.to_owned(),
            regex,
            destination,
        })
    }

    fn is_for(&self, topic_use: TopicUse) -> bool {
        match self.action {
            RewriteAction::All => true,
            RewriteAction::Publish => topic_use == TopicUse::Publish,
            RewriteAction::Subscribe => topic_use != TopicUse::Publish,
        }
    }

    /// `None` if the rule does not apply, or a value of the client is missing or unusable in a topic.
    fn rewrite(&self, client: &ClientInfo, topic: &str) -> Option<String> {
        if !topic::matches(&self.source_topic, topic) {
            return None;
        }
        let captures = self.regex.captures(topic)?;
        let mut rewritten = String::new();
        for part in &self.destination {
            match part {
                Part::Text(template) => rewritten.push_str(&template.render(client)?),
                Part::Capture(group) => {
                    rewritten.push_str(captures.get(*group).map_or("", |found| found.as_str()));
                }
            }
        }
        Some(rewritten)
    }
}

/// Takes `dest_topic` apart: references to groups, and what lies between them.
fn destination(dest_topic: &str, groups: usize) -> Result<Vec<Part>, RewriteError> {
    let mut parts = Vec::new();
    let mut text_from = 0;
    let mut at = 0;
    while let Some(found) = dest_topic[at..].find('$') {
        let start = at + found;
        at = start + 1;
        let digits = dest_topic[at..]
            .bytes()
            .take(2)
            .take_while(u8::is_ascii_digit)
            .count();
        if digits == 0 {
            continue;
        }
        let group = dest_topic[at..at + digits]
            .bytes()
            .fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
        if group == 0 || group > groups {
            return Err(RewriteError::Capture { group, groups });
        }
        parts.push(Part::Text(Template::parse(&dest_topic[text_from..start])?));
        parts.push(Part::Capture(group));
        at += digits;
        text_from = at;
    }
    parts.push(Part::Text(Template::parse(&dest_topic[text_from..])?));
    Ok(parts)
}

/// The hook that rewrites topics. The first rule that applies is used, and only that one; a result that is not a
/// valid topic leaves the topic as it is.
///
/// Of `$share/GROUP/FILTER`, `$queue/FILTER`, `$exclusive/FILTER` and `$local/FILTER` only FILTER is looked at and
/// rewritten.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    rules: Vec<RewriteRule>,
}

impl Rewrite {
    /// Rewrites by these rules.
    pub fn new(rules: Vec<RewriteRule>) -> Rewrite {
        Rewrite { rules }
    }
}

impl Hook for Rewrite {
    fn name(&self) -> &str {
        "rewrite"
    }

    fn points(&self) -> HookPoints {
        if self.rules.is_empty() {
            HookPoints::NONE
        } else {
            HookPoints::of(&[HookPoint::TopicRewrite])
        }
    }

    fn topic_rewrite(&self, client: &ClientInfo, topic_use: TopicUse, topic: &str) -> Option<String> {
        let (prefix, real) = match topic_use {
            TopicUse::Publish => ("", topic),
            TopicUse::Subscribe | TopicUse::Unsubscribe => topic.split_at(prefix_len(topic)),
        };
        let rewritten = self
            .rules
            .iter()
            .filter(|rule| rule.is_for(topic_use))
            .find_map(|rule| rule.rewrite(client, real))
            .filter(|rewritten| topic::is_valid_filter(rewritten))?;
        Some(format!("{prefix}{rewritten}"))
    }
}

/// Length of the part of a filter that is no topic (MQTT 5 §4.8.2, and EMQX's `$queue/`, `$exclusive/`, `$local/`).
fn prefix_len(filter: &str) -> usize {
    let rest = if let Some(shared) = filter.strip_prefix("$share/") {
        shared.split_once('/').map(|(_, rest)| rest)
    } else {
        ["$queue/", "$exclusive/", "$local/"]
            .iter()
            .find_map(|prefix| filter.strip_prefix(prefix))
    };
    rest.map_or(0, |rest| filter.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hooks::Hooks;

    fn hooks(rules: &[(RewriteAction, &str, &str, &str)]) -> Hooks {
        let rules = rules
            .iter()
            .map(|(action, source, re, dest)| RewriteRule::new(*action, source, re, dest).unwrap())
            .collect();
        let mut hooks = Hooks::new();
        hooks.register(0, Arc::new(Rewrite::new(rules)));
        hooks
    }

    #[test]
    fn the_first_rule_that_applies_rewrites() {
        let hooks = hooks(&[
            (RewriteAction::All, "y/+/z/#", "^y/(.+)/z/(.+)$", "y/z/$2"),
            (RewriteAction::All, "x/#", "^x/y/(.+)$", "z/y/$1"),
            (RewriteAction::All, "x/y/+", "^x/y/(\\d+)$", "z/$1/never"),
            (RewriteAction::Publish, "up/#", "^up/(.*)$", "dev/${clientid}/$1"),
            (RewriteAction::Subscribe, "down/+", "^down/(.+)$", "dev/%c/$1/+"),
            (RewriteAction::All, "who", "^who$", "by/${username}"),
        ]);
        let client = ClientInfo::internal("c1", false);
        use TopicUse::{Publish, Subscribe, Unsubscribe};
        for (topic_use, topic, expected) in [
            (Publish, "y/a/z/b", Some("y/z/b")),
            (Publish, "y/def", None),
            (Publish, "x/1/2", None),
            (Subscribe, "x/y/2", Some("z/y/2")),
            (Unsubscribe, "x/y/2", Some("z/y/2")),
            (Publish, "up/temp/1", Some("dev/c1/temp/1")),
            (Subscribe, "up/temp", None),
            (Publish, "down/led", None),
            (Subscribe, "down/led", Some("dev/c1/led/+")),
            (Subscribe, "$share/g/down/led", Some("$share/g/dev/c1/led/+")),
            (Unsubscribe, "$queue/x/y/1", Some("$queue/z/y/1")),
            (Subscribe, "$exclusive/x/y/#", Some("$exclusive/z/y/#")),
            (Subscribe, "$local/x/y/1", Some("$local/z/y/1")),
            (Publish, "who", None),
            (Publish, "other", None),
        ] {
            let rewritten = hooks.topic_rewrite(&client, topic_use, topic);
            assert_eq!(rewritten.as_deref(), expected, "{topic_use:?} {topic}");
        }
    }

    #[test]
    fn a_result_that_is_no_topic_is_not_used() {
        let hooks = hooks(&[
            (RewriteAction::All, "a/#", "^a/?(.*)$", "$1"),
            (RewriteAction::Subscribe, "b/#", "^b/(.*)$", "$1/b"),
        ]);
        let client = ClientInfo::internal("c", false);
        assert_eq!(hooks.topic_rewrite(&client, TopicUse::Publish, "a"), None);
        assert_eq!(
            hooks.topic_rewrite(&client, TopicUse::Subscribe, "$share/g/a"),
            None
        );
        assert_eq!(hooks.topic_rewrite(&client, TopicUse::Subscribe, "b/#"), None);
        assert_eq!(
            hooks
                .topic_rewrite(&client, TopicUse::Subscribe, "b/+")
                .as_deref(),
            Some("+/b")
        );
    }

    #[test]
    fn a_client_cannot_widen_a_filter_by_its_name() {
        let hooks = hooks(&[(RewriteAction::Subscribe, "mine", "^mine$", "dev/${clientid}")]);
        for id in ["+", "#", "a/b"] {
            let client = ClientInfo::internal(id, false);
            assert_eq!(
                hooks.topic_rewrite(&client, TopicUse::Subscribe, "mine"),
                None,
                "{id}"
            );
        }
    }

    #[test]
    fn mistakes_are_found_when_it_is_made() {
        for (action, source, re, dest, expected) in [
            (RewriteAction::All, "a/#/b", "a", "b", "source_topic"),
            (RewriteAction::All, "a", "(", "b", "re: "),
            (RewriteAction::All, "a", "a", "b/$1", "$1 is beyond the 0 groups"),
            (
                RewriteAction::All,
                "a",
                "(a)",
                "b/$0",
                "$0 is beyond the 1 groups",
            ),
            (RewriteAction::All, "a", "a", "b/+", "dest_topic \"b/+\""),
            (RewriteAction::Subscribe, "a", "a", "b+", "dest_topic \"b+\""),
            (RewriteAction::All, "a", "a", "b/${x}", "unknown placeholder ${x}"),
        ] {
            let error = RewriteRule::new(action, source, re, dest)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

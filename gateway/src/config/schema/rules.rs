//! Keys of numbered rules: `rewrite.<n>.*` and `auto_subscribe.<n>.*`.

use broker_core::hooks::RewriteAction;

use super::{Access, Spec, checks, lens};
use crate::config::{field::Words, value::Kind};

const FILTER: Kind = Kind::Text {
    allowed: "a topic filter",
    check: checks::filter,
};
const QOS: Kind = Kind::Integer {
    min: 0,
    max: 2,
    keyword: None,
};

pub(super) static SPECS: &[Spec] = &[
    Spec {
        pattern: "rewrite.<n>.action",
        kind: Kind::Choice(RewriteAction::WORDS),
        access: Access::Rewrite(lens!(action)),
        doc: "What the rule changes: topics of published messages, filters of subscriptions, or both. Rules apply by \
              number; of those that match, the last one counts.",
    },
    Spec {
        pattern: "rewrite.<n>.source_topic",
        kind: FILTER,
        access: Access::Rewrite(lens!(source_topic)),
        doc: "Filter that a topic must match for the rule to be looked at.",
    },
    Spec {
        pattern: "rewrite.<n>.re",
        kind: Kind::Text {
            allowed: "a regular expression",
            check: checks::expression,
        },
        access: Access::Rewrite(lens!(re)),
        doc: "Regular expression that the topic must match, too; its groups can be used in `dest_topic`. Without `^` \
              and `$` it matches anywhere in the topic.",
    },
    Spec {
        pattern: "rewrite.<n>.dest_topic",
        kind: Kind::Text {
            allowed: "a topic, with `$1` to `$99` for the groups of `re`",
            check: checks::filter,
        },
        access: Access::Rewrite(lens!(dest_topic)),
        doc: "The new topic. `$1` to `$99` stand for the groups of `re`; `${clientid}` and `${username}` for those of \
              the client.",
    },
    Spec {
        pattern: "auto_subscribe.<n>.topic",
        kind: FILTER,
        access: Access::AutoSubscribe(lens!(topic)),
        doc: "Filter that every client is subscribed to when it connects, without asking. `${clientid}`, \
              `${username}` and the other placeholders of a mountpoint are replaced; a client for which one has no \
              value does not get the subscription.",
    },
    Spec {
        pattern: "auto_subscribe.<n>.qos",
        kind: QOS,
        access: Access::AutoSubscribe(lens!(qos)),
        doc: "Highest quality of service of the automatic subscription.",
    },
    Spec {
        pattern: "auto_subscribe.<n>.nl",
        kind: Kind::Boolean,
        access: Access::AutoSubscribe(lens!(no_local)),
        doc: "No local: the client does not get back what it published itself (§3.8.3.1).",
    },
    Spec {
        pattern: "auto_subscribe.<n>.rap",
        kind: Kind::Boolean,
        access: Access::AutoSubscribe(lens!(retain_as_published)),
        doc: "Retain as published: messages keep the retain flag that they were published with (§3.8.3.1).",
    },
    Spec {
        pattern: "auto_subscribe.<n>.rh",
        kind: QOS,
        access: Access::AutoSubscribe(lens!(retain_handling)),
        doc: "Retain handling: 0 sends retained messages at every connect, 1 only if the session did not have the \
              subscription yet, 2 never (§3.8.3.1).",
    },
];

//! SUBSCRIBE and UNSUBSCRIBE (§3.8, §3.10).

use std::rc::Rc;

use broker_core::{LinkId, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, topic};

use super::{Answer, Kind, Origin, Reference, Subscription, TIMER_SLACK_MS};

/// What a filter in the client's words means; `None` if nothing.
fn parse(words: &str) -> Option<(Kind, String)> {
    if let Some(rest) = words.strip_prefix("$share/") {
        // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        let (group, filter) = rest.split_once('/')?;
        let is_valid = !group.is_empty() && !topic::has_wildcard(group) && topic::is_valid_filter(filter);
        return is_valid.then(|| (Kind::Shared(group.to_owned()), filter.to_owned()));
    }
    let (kind, filter) = match words.split_once('/') {
        Some(("$queue", rest)) => (Kind::Shared("$queue".to_owned()), rest),
        Some(("$local", rest)) => (Kind::Local, rest),
        Some(("$exclusive", rest)) => (Kind::Exclusive, rest),
        _ => (Kind::Plain, words),
    };
    topic::is_valid_filter(filter).then(|| (kind, filter.to_owned()))
}

fn group(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Shared(group) => Some(group),
        _ => None,
    }
}

impl Reference {
    pub(super) fn subscribe(&mut self, link: LinkId, at: usize, subscribe: &Subscribe) {
        let mut codes = Vec::new();
        let mut made = Vec::new();
        for (words, options) in &subscribe.filters {
            let code = self.plan(at, words, *options);
            codes.push(match code {
                Err(code) => code,
                Ok(mut subscription) => {
                    subscription.id = subscribe.subscription_id;
                    let code = ReasonCode::granted(subscription.options.qos);
                    let is_new = self.insert(at, &subscription);
                    made.push((subscription, is_new));
                    code
                }
            });
        }
        self.expect(link, Answer::SubAck(subscribe.packet_id, codes));
        for (subscription, is_new) in made {
            self.send_retained(at, &subscription, is_new);
        }
    }

    fn plan(
        &self,
        at: usize,
        words: &str,
        mut options: SubscribeOptions,
    ) -> Result<Subscription, ReasonCode> {
        let limits = &self.config.mqtt;
        let (kind, filter) = parse(words).ok_or(ReasonCode::TopicFilterInvalid)?;
        options.qos = options.qos.min(limits.max_qos_allowed);
        let is_wild = topic::has_wildcard(&filter);
        match &kind {
            Kind::Exclusive if is_wild => return Err(ReasonCode::TopicFilterInvalid),
            Kind::Shared(_) if !limits.shared_subscription => {
                return Err(ReasonCode::SharedSubscriptionsNotSupported);
            }
            _ if is_wild && !limits.wildcard_subscription => {
                return Err(ReasonCode::WildcardSubscriptionsNotSupported);
            }
            Kind::Exclusive if !limits.exclusive_subscription => return Err(ReasonCode::TopicFilterInvalid),
            _ => {}
        }
        let others = self.sessions.iter().enumerate().filter(|(other, _)| *other != at);
        let mut held = others.flat_map(|(_, session)| &session.subscriptions);
        if kind == Kind::Exclusive && held.any(|one| one.kind == Kind::Exclusive && one.filter == filter) {
            return Err(ReasonCode::QuotaExceeded);
        }
        let own = &self.sessions[at].subscriptions;
        let is_known = own
            .iter()
            .any(|one| one.filter == filter && group(&one.kind) == group(&kind));
        if !is_known && limits.max_subscriptions > 0 && own.len() >= limits.max_subscriptions {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(Subscription {
            filter,
            kind,
            options,
            id: None,
        })
    }

    /// True if there was none on this filter before.
    fn insert(&mut self, at: usize, new: &Subscription) -> bool {
        let may_end = new.options.no_local || new.options.qos == QoS::AtMostOnce;
        self.sessions[at].loosen(&new.filter, may_end);
        let subscriptions = &mut self.sessions[at].subscriptions;
        let before = subscriptions.len();
        subscriptions.retain(|one| one.filter != new.filter || group(&one.kind) != group(&new.kind));
        let is_new = subscriptions.len() == before;
        subscriptions.push(new.clone());
        is_new
    }

    /// [MQTT-3.3.1-9..11]; nothing for shared subscriptions (§4.8.2).
    fn send_retained(&mut self, at: usize, subscription: &Subscription, is_new: bool) {
        let is_wanted = match subscription.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        let is_shared = matches!(subscription.kind, Kind::Shared(_));
        if !is_wanted || is_shared || !self.config.mqtt.retain_available {
            return;
        }
        if self.sessions[at].is_stored {
            self.sessions[at]
                .replays
                .push((subscription.filter.clone(), false));
        }
        // Made anew: what has not been sent yet is sent for the new subscription.
        let origin = Origin::Retained(subscription.filter.clone());
        self.sessions[at].waiting.retain(|copy| copy.origin != origin);
        let client = self.sessions[at].client.clone();
        let notes: Vec<_> = self
            .retained
            .values()
            .filter(|note| topic::matches(&subscription.filter, &note.topic))
            // What a timer published has the timer's slack in its expiry, too.
            .filter(|note| note.expires.saturating_add(2 * TIMER_SLACK_MS) > self.now)
            .filter(|note| !(subscription.options.no_local && note.publisher == client))
            .map(Rc::clone)
            .collect();
        for note in notes {
            let copy = self.copy(&note, subscription, origin.clone());
            self.sessions[at].waiting.push(copy);
        }
    }

    pub(super) fn unsubscribe(&mut self, link: LinkId, at: usize, unsubscribe: &Unsubscribe) {
        let client = self.sessions[at].client.clone();
        let mut codes = Vec::new();
        for words in &unsubscribe.filters {
            codes.push(match parse(words) {
                None => ReasonCode::TopicFilterInvalid,
                Some((kind, filter)) if self.remove(&client, &kind, &filter) => ReasonCode::Success,
                Some(_) => ReasonCode::NoSubscriptionExisted,
            });
        }
        self.expect(link, Answer::UnsubAck(unsubscribe.packet_id, codes));
    }

    fn remove(&mut self, client: &str, kind: &Kind, filter: &str) -> bool {
        let Some(at) = self.find(client) else {
            return false;
        };
        let session = &mut self.sessions[at];
        let before = session.subscriptions.len();
        // `$local/x` and `x` are one subscription.
        let is_same = |one: &Kind| match (one, kind) {
            (Kind::Plain | Kind::Local, Kind::Plain | Kind::Local) => true,
            (one, kind) => one == kind,
        };
        session
            .subscriptions
            .retain(|one| !is_same(&one.kind) || one.filter != filter);
        if session.subscriptions.len() == before {
            return false;
        }
        session.loosen(filter, true);
        match kind {
            Kind::Shared(group) => {
                let target = super::Target {
                    group: group.clone(),
                    filter: filter.to_owned(),
                };
                self.leave_group(client, &target, false);
            }
            _ => {
                // What is buffered may still come (§3.10.4).
                for copy in &mut session.waiting {
                    copy.optional |= copy.origin == Origin::Retained(filter.to_owned());
                }
            }
        }
        true
    }
}

//! Subscribes clients when they connect, without their asking.

use super::{ClientConnected, Hook, HookContext, HookEffect, HookPoint, HookPoints};
use crate::{
    SubscribeOptions,
    admission::{Template, TopicFilterError},
    topic,
};

/// One filter of `auto_subscribe.topics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSubscribeTopic {
    topic: Template,
    options: SubscribeOptions,
}

impl AutoSubscribeTopic {
    /// A topic filter with placeholders (`${clientid}`, `${username}`, `${host}`, `${port}` …), in the client's
    /// own words, and the options of its subscription.
    ///
    /// # Errors
    ///
    /// It is no valid topic filter, or has an unknown placeholder.
    pub fn new(filter: &str, options: SubscribeOptions) -> Result<AutoSubscribeTopic, TopicFilterError> {
        if !topic::is_valid_filter(filter) {
            return Err(TopicFilterError::Invalid);
        }
        Ok(AutoSubscribeTopic {
            topic: Template::parse(filter)?,
            options,
        })
    }
}

/// The hook that subscribes every client at `client.connected`. Filters with a placeholder that has no usable
/// value for a client are left out for it.
#[derive(Clone, Debug, Default)]
pub struct AutoSubscribe {
    topics: Vec<AutoSubscribeTopic>,
}

impl AutoSubscribe {
    /// Subscribes to these.
    pub fn new(topics: Vec<AutoSubscribeTopic>) -> AutoSubscribe {
        AutoSubscribe { topics }
    }
}

impl Hook for AutoSubscribe {
    fn name(&self) -> &str {
        "auto_subscribe"
    }

    fn points(&self) -> HookPoints {
        if self.topics.is_empty() {
            HookPoints::NONE
        } else {
            HookPoints::of(&[HookPoint::ClientConnected])
        }
    }

    fn client_connected(&self, ctx: &mut HookContext<'_>, connected: &ClientConnected<'_>) {
        let filters: Vec<(String, SubscribeOptions)> = self
            .topics
            .iter()
            .filter_map(|one| Some((one.topic.render(connected.client)?, one.options)))
            .collect();
        if !filters.is_empty() {
            let client_id = connected.client.client_id.clone();
            ctx.effects.push(HookEffect::Subscribe(client_id, filters));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ClientInfo, QoS, RetainHandling, Timestamp,
        hooks::{HookEffects, Hooks},
    };

    fn filters(topics: &[&str], client: ClientInfo) -> Vec<String> {
        let options = SubscribeOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::SendIfNew,
        };
        let topics = topics
            .iter()
            .map(|topic| AutoSubscribeTopic::new(topic, options).unwrap())
            .collect();
        let mut hooks = Hooks::new();
        hooks.register(0, Arc::new(AutoSubscribe::new(topics)));
        let (client, mut effects) = (Arc::new(client), HookEffects::default());
        let mut ctx = HookContext::new(Timestamp::from_millis(0), "n", &mut effects);
        hooks.client_connected(
            &mut ctx,
            &ClientConnected {
                client: &client,
                connected_at: Timestamp::from_millis(0),
                keep_alive: 0,
                clean_start: true,
                session_expiry_interval: 0,
                receive_maximum: 1,
                is_bridge: false,
                session_present: false,
                user_properties: &[],
            },
        );
        let mut found = Vec::new();
        for effect in effects.drain() {
            match effect {
                HookEffect::Subscribe(id, filters) => {
                    assert_eq!(id, client.client_id);
                    assert!(filters.iter().all(|(_, given)| *given == options));
                    found.extend(filters.into_iter().map(|(filter, _)| filter));
                }
                other => panic!("{other:?}"),
            }
        }
        found
    }

    #[test]
    fn placeholders_are_replaced_and_filters_without_a_value_left_out() {
        let mut client = ClientInfo::internal("dev-1", false);
        client.peer = Some("192.0.2.1:4000".parse().unwrap());
        let topics = [
            "c/${clientid}/#",
            "u/${username}",
            "p/${host}/${port}",
            "$share/g/all",
        ];
        assert_eq!(
            filters(&topics, client.clone()),
            ["c/dev-1/#", "p/192.0.2.1/4000", "$share/g/all"]
        );
        client.username = Some("+".into());
        assert_eq!(filters(&["u/${username}"], client), [""; 0]);
    }

    #[test]
    fn mistakes_are_found_when_it_is_made() {
        let make = |topic| AutoSubscribeTopic::new(topic, SubscribeOptions::default()).err();
        assert_eq!(make("a/#/b"), Some(TopicFilterError::Invalid));
        assert!(matches!(
            make("a/${client}"),
            Some(TopicFilterError::Placeholder(_))
        ));
    }
}

//! A key of an object: its value in the settings, and how it comes there.

use super::{
    super::{
        listener::Listener,
        mqttsn::{DatagramListener, PredefinedTopic},
        settings::{AutoSubscription, RewriteRule, Settings},
        value::Value,
    },
    Access, Object, Target,
};

impl Target {
    /// The key.
    pub(in super::super) fn key(&self) -> String {
        self.spec
            .key_of(&self.object)
            .unwrap_or_else(|| self.spec.pattern.to_owned())
    }

    /// Its value in `settings`; `None` if they do not have the object.
    pub(in super::super) fn text(&self, settings: &Settings) -> Option<String> {
        let value = match (&self.spec.access, &self.object) {
            (Access::Node(lens), _) => (lens.get)(settings),
            (Access::Listener(_, lens), Object::Listener(kind, name)) => {
                let listeners = &settings.listeners;
                (lens.get)(listeners.iter().find(|l| l.kind == *kind && l.name == *name)?)
            }
            (Access::Rewrite(lens), Object::Rewrite(number)) => {
                (lens.get)(settings.rewrite.iter().find(|rule| rule.number == *number)?)
            }
            (Access::AutoSubscribe(lens), Object::AutoSubscribe(number)) => {
                (lens.get)(settings.auto_subscribe.iter().find(|s| s.number == *number)?)
            }
            (Access::Datagram(_, lens), Object::Datagram(kind, name)) => {
                let listeners = &settings.mqttsn.listeners;
                (lens.get)(listeners.iter().find(|l| l.kind == *kind && l.name == *name)?)
            }
            (Access::Predefined(lens), Object::Predefined(client, id)) => {
                let topics = &settings.mqttsn.predefined;
                (lens.get)(topics.iter().find(|t| t.client == *client && t.id == *id)?)
            }
            _ => return None,
        };
        Some(self.spec.kind.render(&value))
    }

    /// Its built-in default; `None` if there is none, so that the key has to be given.
    pub(in super::super) fn default_text(&self) -> Option<String> {
        let mut settings = Settings::default();
        self.create(&mut settings);
        self.text(&settings)
            .filter(|text| self.spec.kind.parse(text).is_ok())
    }

    /// Reads `text` into `settings`, creating the object. The error says what is wrong and what is allowed.
    pub(in super::super) fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        self.create(settings);
        let wrong =
            |problem: String| format!("{}: {problem}; allowed: {}", self.key(), self.spec.kind.allowed());
        let value = self.spec.kind.parse(text).map_err(wrong)?;
        if self.assign(settings, value) {
            return Ok(());
        }
        Err(wrong(format!("`{text}` is out of range")))
    }

    fn assign(&self, settings: &mut Settings, value: Value) -> bool {
        match (&self.spec.access, &self.object) {
            (Access::Node(lens), _) => (lens.set)(settings, value),
            (Access::Listener(_, lens), Object::Listener(kind, name)) => settings
                .listeners
                .iter_mut()
                .find(|listener| listener.kind == *kind && listener.name == *name)
                .is_some_and(|listener| (lens.set)(listener, value)),
            (Access::Rewrite(lens), Object::Rewrite(number)) => settings
                .rewrite
                .iter_mut()
                .find(|rule| rule.number == *number)
                .is_some_and(|rule| (lens.set)(rule, value)),
            (Access::AutoSubscribe(lens), Object::AutoSubscribe(number)) => settings
                .auto_subscribe
                .iter_mut()
                .find(|subscription| subscription.number == *number)
                .is_some_and(|subscription| (lens.set)(subscription, value)),
            (Access::Datagram(_, lens), Object::Datagram(kind, name)) => settings
                .mqttsn
                .listeners
                .iter_mut()
                .find(|listener| listener.kind == *kind && listener.name == *name)
                .is_some_and(|listener| (lens.set)(listener, value)),
            (Access::Predefined(lens), Object::Predefined(client, id)) => settings
                .mqttsn
                .predefined
                .iter_mut()
                .find(|topic| topic.client == *client && topic.id == *id)
                .is_some_and(|topic| (lens.set)(topic, value)),
            _ => false,
        }
    }

    /// Adds the object with its defaults, in its place, unless it is there.
    fn create(&self, settings: &mut Settings) {
        match &self.object {
            Object::Node => {}
            Object::Listener(kind, name) => {
                let listeners = &mut settings.listeners;
                let place =
                    listeners.binary_search_by(|l| (l.kind, l.name.as_str()).cmp(&(*kind, name.as_str())));
                if let Err(place) = place {
                    listeners.insert(place, Listener::new(*kind, name));
                }
            }
            Object::Rewrite(number) => {
                if let Err(place) = settings.rewrite.binary_search_by_key(number, |rule| rule.number) {
                    settings.rewrite.insert(place, RewriteRule::new(*number));
                }
            }
            Object::AutoSubscribe(number) => {
                let subscriptions = &mut settings.auto_subscribe;
                if let Err(place) = subscriptions.binary_search_by_key(number, |s| s.number) {
                    subscriptions.insert(place, AutoSubscription::new(*number));
                }
            }
            Object::Datagram(kind, name) => {
                let listeners = &mut settings.mqttsn.listeners;
                let place =
                    listeners.binary_search_by(|l| (l.kind, l.name.as_str()).cmp(&(*kind, name.as_str())));
                if let Err(place) = place {
                    listeners.insert(place, DatagramListener::new(*kind, name));
                }
            }
            Object::Predefined(client, id) => {
                let topics = &mut settings.mqttsn.predefined;
                let place = topics.binary_search_by(|topic| (&topic.client, topic.id).cmp(&(client, *id)));
                if let Err(place) = place {
                    topics.insert(place, PredefinedTopic::new(client.clone(), *id));
                }
            }
        }
    }
}

//! Every key, once: its name, what it may be, which field it is, and what it means. Parsing, `config explain`,
//! `config dump`, the search for the nearest key and the test of `etc/tidegate.conf` all read this table.

mod checks;
mod listener;
mod mqtt;
mod mqttsn;
mod nearest;
mod node;
mod object;
mod rules;
mod store;
mod target;

use super::{
    listener::{Listener, ListenerKind},
    mqttsn::{DatagramKind, DatagramListener, PredefinedTopic},
    settings::{AutoSubscription, RewriteRule, Settings},
    value::{Kind, Value},
};

pub(super) use object::Object;

/// One key, or one per named object.
pub(super) struct Spec {
    /// The key; `<type>`, `<name>`, `<n>`, `<id>` and `<clientid>` stand for parts that the operator chooses.
    pub(super) pattern: &'static str,
    /// What its value may be.
    pub(super) kind: Kind,
    /// Where it is kept.
    pub(super) access: Access,
    /// One paragraph for the operator.
    pub(super) doc: &'static str,
}

/// Where a key is kept.
pub(super) enum Access {
    /// In the settings themselves.
    Node(Lens<Settings>),
    /// In each listener of these kinds.
    Listener(&'static [ListenerKind], Lens<Listener>),
    /// In each rewrite rule.
    Rewrite(Lens<RewriteRule>),
    /// In each automatic subscription.
    AutoSubscribe(Lens<AutoSubscription>),
    /// In each listener of these kinds of the MQTT-SN gateway.
    Datagram(&'static [DatagramKind], Lens<DatagramListener>),
    /// In each predefined topic id of MQTT-SN: of a client if the key names one.
    Predefined(Lens<PredefinedTopic>),
}

/// A field of a `T`.
pub(super) struct Lens<T> {
    get: fn(&T) -> Value,
    /// False if the field cannot hold the value.
    set: fn(&mut T, Value) -> bool,
}

/// A key of the table, of one object.
#[derive(Clone)]
pub(super) struct Target {
    /// Its line in the table.
    pub(super) spec: &'static Spec,
    /// The object.
    pub(super) object: Object,
}

/// A field of the table's right-hand side; with a converter where the type alone does not say how it is written.
macro_rules! lens {
    ($($field:ident).+) => {
        $crate::config::schema::Lens {
            get: |object| $crate::config::field::Field::to_value(&object.$($field).+),
            set: |object, value| {
                $crate::config::schema::store(&mut object.$($field).+, $crate::config::field::Field::from_value(value))
            },
        }
    };
    ($converter:ident, $($field:ident).+) => {
        $crate::config::schema::Lens {
            get: |object| $crate::config::field::$converter::to_value(&object.$($field).+),
            set: |object, value| {
                $crate::config::schema::store(
                    &mut object.$($field).+,
                    $crate::config::field::$converter::from_value(value),
                )
            },
        }
    };
}
use lens;

fn store<T>(field: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *field = value;
            true
        }
        None => false,
    }
}

/// The whole table, in the order of `config dump`.
pub(super) fn specs() -> impl Iterator<Item = &'static Spec> {
    [
        node::SPECS,
        store::SPECS,
        listener::SPECS,
        mqtt::SPECS,
        rules::SPECS,
        mqttsn::SPECS,
    ]
    .into_iter()
    .flatten()
}

/// The key `key`. The error is the whole message, with the nearest key.
pub(super) fn find(key: &str) -> Result<Target, String> {
    if let Some(spec) = specs().find(|spec| spec.pattern == key && matches!(spec.access, Access::Node(_))) {
        let object = Object::Node;
        return Ok(Target { spec, object });
    }
    let object = Object::of(key)?;
    let known = object.and_then(|object| {
        let spec = specs().find(|spec| spec.key_of(&object).as_deref() == Some(key))?;
        Some(Target { spec, object })
    });
    known.ok_or_else(|| match nearest::nearest(key) {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`"),
    })
}

/// Every key of every object in `settings`.
pub(super) fn targets(settings: &Settings) -> Vec<Target> {
    let mut targets = Vec::new();
    for spec in specs().filter(|spec| matches!(spec.access, Access::Node(_))) {
        let object = Object::Node;
        targets.push(Target { spec, object });
    }
    let listeners = settings
        .listeners
        .iter()
        .map(|l| Object::Listener(l.kind, l.name.clone()));
    let rewrite = settings.rewrite.iter().map(|rule| Object::Rewrite(rule.number));
    let auto_subscribe = settings
        .auto_subscribe
        .iter()
        .map(|s| Object::AutoSubscribe(s.number));
    let datagram = settings
        .mqttsn
        .listeners
        .iter()
        .map(|l| Object::Datagram(l.kind, l.name.clone()));
    let predefined = settings
        .mqttsn
        .predefined
        .iter()
        .map(|topic| Object::Predefined(topic.client.clone(), topic.id));
    let objects = listeners.chain(rewrite).chain(auto_subscribe);
    for object in objects.chain(predefined).chain(datagram) {
        let specs = specs().filter(|spec| spec.key_of(&object).is_some());
        targets.extend(specs.map(|spec| Target {
            spec,
            object: object.clone(),
        }));
    }
    targets
}

impl Spec {
    /// The key for `object`; `None` if the object has no such key.
    fn key_of(&self, object: &Object) -> Option<String> {
        match (&self.access, object) {
            (Access::Node(_), Object::Node) => Some(self.pattern.to_owned()),
            (Access::Listener(kinds, _), Object::Listener(kind, name)) if kinds.contains(kind) => Some(
                self.pattern
                    .replace("<type>", kind.name())
                    .replace("<name>", name),
            ),
            (Access::Rewrite(_), Object::Rewrite(number))
            | (Access::AutoSubscribe(_), Object::AutoSubscribe(number)) => {
                Some(self.pattern.replace("<n>", &number.to_string()))
            }
            (Access::Datagram(kinds, _), Object::Datagram(kind, name)) if kinds.contains(kind) => Some(
                self.pattern
                    .replace("<type>", kind.name())
                    .replace("<name>", name),
            ),
            (Access::Predefined(_), Object::Predefined(client, id)) => {
                let numbered = self.pattern.replace("<id>", &id.to_string());
                match client {
                    Some(client) if numbered.contains("<clientid>") => {
                        Some(numbered.replace("<clientid>", &object::encode_client(client)))
                    }
                    None if !numbered.contains("<clientid>") => Some(numbered),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An example of every key of the table.
    fn every_target() -> Vec<Target> {
        let mut settings = Settings::default();
        settings.rewrite.push(RewriteRule::new(1));
        settings.auto_subscribe.push(AutoSubscription::new(1));
        for client in [None, Some("a.b=c".to_owned())] {
            settings.mqttsn.predefined.push(PredefinedTopic::new(client, 1));
        }
        targets(&settings)
    }

    #[test]
    fn every_key_is_found_under_its_name() {
        let targets = every_target();
        for target in &targets {
            let found = find(&target.key()).unwrap();
            assert!(std::ptr::eq(found.spec, target.spec), "{}", target.key());
            assert_eq!(found.object, target.object);
        }
        for spec in specs() {
            assert!(
                targets.iter().any(|target| std::ptr::eq(target.spec, spec)),
                "{}",
                spec.pattern
            );
        }
    }

    #[test]
    fn every_default_is_a_value_that_its_field_holds() {
        for target in every_target() {
            let Some(text) = target.default_text() else {
                assert!(
                    !matches!(target.object, Object::Node),
                    "{} has no default",
                    target.key()
                );
                continue;
            };
            let mut settings = Settings::default();
            target.set(&mut settings, &text).unwrap();
            assert_eq!(target.text(&settings), Some(text), "{}", target.key());
        }
    }

    #[test]
    fn every_bound_of_a_number_fits_its_field() {
        for target in every_target() {
            let (Kind::Integer { min, max, .. }
            | Kind::Size { min, max, .. }
            | Kind::Multiplier { min, max }) = target.spec.kind
            else {
                continue;
            };
            for bound in [min, max] {
                let text = target.spec.kind.render(&Value::Number(bound));
                assert_eq!(
                    target.set(&mut Settings::default(), &text),
                    Ok(()),
                    "{}",
                    target.key()
                );
            }
        }
    }

    #[test]
    fn objects_have_one_name_each() {
        for key in [
            "rewrite.0.re",
            "rewrite.01.re",
            "rewrite.+1.re",
            "rewrite.10000.re",
            "rewrite.x.re",
            "listeners.tcp.Default.bind",
            "listeners.tcp..bind",
            "listeners.tcp.a b.bind",
            "listeners.udp.default.bind",
            "listeners.tcp.default.websocket.mqtt_path",
            "listeners.tcp.default",
            "listeners.tcp.<name>.bind",
            "gateway.mqttsn.predefined.0",
            "gateway.mqttsn.predefined.01",
            "gateway.mqttsn.predefined.1025",
            "gateway.mqttsn.predefined.1.topic",
            "gateway.mqttsn.clients.a.predefined",
            "gateway.mqttsn.clients..predefined.1",
            "gateway.mqttsn.clients.%61.predefined.1",
            "gateway.mqttsn.listeners.tcp.default.bind",
            "gateway.mqttsn.listeners.udp.A.bind",
            "gateway.mqttsn.listeners.udp.default.dtls_options.psk_file",
            "",
            ".",
        ] {
            assert!(find(key).is_err(), "{key}");
        }
    }

    #[test]
    fn documentation_is_there() {
        for spec in specs() {
            assert!(spec.doc.len() > 20 && spec.doc.ends_with('.'), "{}", spec.pattern);
            assert!(!spec.doc.contains("  "), "{}", spec.pattern);
        }
    }
}

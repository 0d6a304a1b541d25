//! Every key, once: its name, what it may be, which field it is, and what it means. Parsing, `config explain`,
//! `config dump`, the search for the nearest key and the test of `etc/tidegate.conf` all read this table.

mod checks;
mod listener;
mod mqtt;
mod nearest;
mod node;
mod rules;
mod store;

use super::{
    listener::{Listener, ListenerKind},
    settings::{AutoSubscription, RewriteRule, Settings},
    value::{Kind, Value},
};

/// One key, or one per named object.
pub(super) struct Spec {
    /// The key; `<type>`, `<name>` and `<n>` stand for parts that the operator chooses.
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
}

/// A field of a `T`.
pub(super) struct Lens<T> {
    get: fn(&T) -> Value,
    /// False if the field cannot hold the value.
    set: fn(&mut T, Value) -> bool,
}

/// The object that a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    /// The node.
    Node,
    /// A listener.
    Listener(ListenerKind, String),
    /// A rewrite rule.
    Rewrite(u16),
    /// An automatic subscription.
    AutoSubscribe(u16),
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
    for object in listeners.chain(rewrite).chain(auto_subscribe) {
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
            _ => None,
        }
    }
}

impl Object {
    /// The object that `key` names, if it names one; an error if it does so in a way that is not allowed.
    fn of(key: &str) -> Result<Option<Object>, String> {
        let mut parts = key.splitn(4, '.');
        let object = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("listeners"), Some(kind), Some(name), Some(_)) => {
                let Some(kind) = ListenerKind::ALL.into_iter().find(|known| known.name() == kind) else {
                    return Ok(None);
                };
                checks::object_name(name)
                    .map_err(|problem| format!("`{key}`: the listener's name `{name}` {problem}"))?;
                Object::Listener(kind, name.to_owned())
            }
            (Some("rewrite"), Some(number), Some(_), None) => Object::Rewrite(place(key, number)?),
            (Some("auto_subscribe"), Some(number), Some(_), None) => {
                Object::AutoSubscribe(place(key, number)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(object))
    }
}

/// The number of a rule. Written in one way only, so that a rule has one name.
fn place(key: &str, number: &str) -> Result<u16, String> {
    match number.parse::<u16>() {
        Ok(place @ 1..=9999) if place.to_string() == number => Ok(place),
        _ => Err(format!("`{key}`: `{number}` is not a number from 1 to 9999")),
    }
}

impl Target {
    /// The key.
    pub(super) fn key(&self) -> String {
        self.spec
            .key_of(&self.object)
            .unwrap_or_else(|| self.spec.pattern.to_owned())
    }

    /// Its value in `settings`; `None` if they do not have the object.
    pub(super) fn text(&self, settings: &Settings) -> Option<String> {
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
            _ => return None,
        };
        Some(self.spec.kind.render(&value))
    }

    /// Its built-in default; `None` if there is none, so that the key has to be given.
    pub(super) fn default_text(&self) -> Option<String> {
        let mut settings = Settings::default();
        self.create(&mut settings);
        self.text(&settings)
            .filter(|text| self.spec.kind.parse(text).is_ok())
    }

    /// Reads `text` into `settings`, creating the object. The error says what is wrong and what is allowed.
    pub(super) fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
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

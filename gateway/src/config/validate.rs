//! Relations between values. What one value may be stands in the schema.

use std::collections::BTreeMap;

use broker_core::hooks::RewriteError;

use super::{
    error::{ConfigError, Origin},
    listener::{Enable, Listener, Verify},
    settings::{AutoSubscription, RewriteRule, Settings},
};

/// What is wrong with `settings` as a whole.
pub(super) fn validate(settings: &Settings, origins: &BTreeMap<String, Origin>) -> Vec<ConfigError> {
    let mut validator = Validator {
        origins,
        errors: Vec::new(),
    };
    for listener in &settings.listeners {
        validator.listener(listener);
    }
    for rule in &settings.rewrite {
        validator.rewrite(rule);
    }
    for subscription in &settings.auto_subscribe {
        validator.auto_subscribe(subscription);
    }
    // A listener whose address is missing has that of the default listener: that is said already.
    if validator.errors.is_empty() {
        validator.collisions(settings);
    }
    validator.errors
}

struct Validator<'a> {
    origins: &'a BTreeMap<String, Origin>,
    errors: Vec<ConfigError>,
}

impl Validator<'_> {
    /// Reports `message` where `key` was set, or else where the first key of `object` was.
    fn fail(&mut self, object: &str, key: &str, message: String) {
        let prefix = format!("{object}.");
        let of_object = || {
            let mut keys = self.origins.range(prefix.clone()..);
            keys.next()
                .filter(|(key, _)| key.starts_with(&prefix))
                .map(|(_, origin)| origin)
        };
        let origin = self.origins.get(&format!("{prefix}{key}")).or_else(of_object);
        self.errors.push(ConfigError {
            origin: origin.cloned().unwrap_or(Origin::Default),
            message,
        });
    }

    fn required(&mut self, object: &str, key: &str, value: &str) {
        if value.is_empty() {
            self.fail(object, key, format!("{object}.{key} is missing"));
        }
    }

    fn listener(&mut self, listener: &Listener) {
        let object = format!("listeners.{}.{}", listener.kind.name(), listener.name);
        let is_built_in = listener.name == "default";
        if !is_built_in && !self.origins.contains_key(&format!("{object}.bind")) {
            self.fail(&object, "bind", format!("{object}.bind is missing"));
        }
        if listener.kind.is_tls() {
            self.tls(listener, &object, is_built_in);
        }
        let web = &listener.websocket;
        if web.check_origin_enable && web.check_origins.is_empty() {
            let key = "websocket.check_origins";
            self.fail(
                &object,
                key,
                format!("{object}.{key} is empty, so check_origin_enable would refuse every page"),
            );
        }
        if web.fail_if_no_subprotocol && web.supported_subprotocols.is_empty() {
            let key = "websocket.supported_subprotocols";
            let message =
                format!("{object}.{key} is empty, so fail_if_no_subprotocol would refuse every client");
            self.fail(&object, key, message);
        }
    }

    fn tls(&mut self, listener: &Listener, object: &str, is_built_in: bool) {
        let tls = &listener.tls;
        let is_begun = tls.certfile.is_some() || tls.keyfile.is_some();
        let is_wanted = match listener.enable {
            Enable::On => true,
            Enable::Auto => is_begun || !is_built_in,
            Enable::Off => false,
        };
        if let Some(missing) = listener.lacks_certificate()
            && is_wanted
        {
            let key = format!("ssl_options.{missing}");
            self.fail(
                object,
                &key,
                format!("{object}.{key} is missing; `tidegate cert` makes one for development"),
            );
        }
        if tls.verify == Verify::Peer && tls.cacertfile.is_none() {
            let key = "ssl_options.cacertfile";
            self.fail(
                object,
                "ssl_options.verify",
                format!("{object}.{key} is missing: verify_peer needs it"),
            );
        }
        if tls.fail_if_no_peer_cert && tls.verify == Verify::None {
            let key = "ssl_options.fail_if_no_peer_cert";
            self.fail(
                object,
                key,
                format!("{object}.{key} needs ssl_options.verify = verify_peer"),
            );
        }
        if !tls.versions.tls12 && !tls.versions.tls13 {
            let key = "ssl_options.versions";
            self.fail(
                object,
                key,
                format!("{object}.{key} is empty; allowed: tlsv1.2, tlsv1.3, or both"),
            );
        }
    }

    /// Two listeners on one port: the second would fail to open, or get half of the connections.
    fn collisions(&mut self, settings: &Settings) {
        let object = |listener: &Listener| format!("listeners.{}.{}", listener.kind.name(), listener.name);
        let enabled: Vec<_> = settings.enabled_listeners().collect();
        for (index, later) in enabled.iter().enumerate() {
            for earlier in &enabled[..index] {
                if !later.bind.collides_with(&earlier.bind) {
                    continue;
                }
                // The one to complain about is the one that somebody wrote.
                let is_written = self.origins.contains_key(&format!("{}.bind", object(later)));
                let (one, other) = if is_written {
                    (later, earlier)
                } else {
                    (earlier, later)
                };
                let (one_object, other_object) = (object(one), object(other));
                let message = format!(
                    "{one_object}.bind = {} is taken by {other_object}.bind = {}",
                    one.bind, other.bind
                );
                self.fail(&one_object, "bind", message);
            }
        }
    }

    fn rewrite(&mut self, rule: &RewriteRule) {
        let object = format!("rewrite.{}", rule.number);
        let parts = [
            ("source_topic", &rule.source_topic),
            ("re", &rule.re),
            ("dest_topic", &rule.dest_topic),
        ];
        for (key, value) in parts {
            self.required(&object, key, value);
        }
        if parts.iter().any(|(_, value)| value.is_empty()) {
            return;
        }
        if let Err(error) = rule.compile() {
            let key = match &error {
                RewriteError::SourceTopic(_) => "source_topic",
                RewriteError::Expression(_) => "re",
                RewriteError::Placeholder(_)
                | RewriteError::Capture { .. }
                | RewriteError::Destination(_) => "dest_topic",
            };
            self.fail(
                &object,
                key,
                format!("{object}: {}", one_line(&error.to_string())),
            );
        }
    }

    fn auto_subscribe(&mut self, subscription: &AutoSubscription) {
        let object = format!("auto_subscribe.{}", subscription.number);
        self.required(&object, "topic", &subscription.topic);
        if !subscription.topic.is_empty()
            && let Err(error) = subscription.compile()
        {
            self.fail(&object, "topic", format!("{object}.topic: {error}"));
        }
    }
}

/// Messages about regular expressions show the expression over several lines; the last one says what is wrong.
fn one_line(message: &str) -> String {
    match message.lines().last() {
        Some(last) if message.contains('\n') => format!(
            "re is not a regular expression: {}",
            last.trim_start_matches("error: ")
        ),
        _ => message.to_owned(),
    }
}

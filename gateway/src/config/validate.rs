//! Relations between values. What one value may be stands in the schema.

use std::collections::BTreeMap;

use broker_core::hooks::RewriteError;

use super::{
    bind::Bind,
    error::{ConfigError, Origin},
    listener::{Enable, Listener, Verify},
    mqttsn::{DatagramKind, DatagramListener, Lacks},
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
    for listener in &settings.mqttsn.listeners {
        validator.datagram_listener(listener);
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

    fn datagram_listener(&mut self, listener: &DatagramListener) {
        let object = listener.key();
        let is_built_in = listener.name == "default";
        if !is_built_in && !self.origins.contains_key(&format!("{object}.bind")) {
            self.fail(&object, "bind", format!("{object}.bind is missing"));
        }
        if listener.kind == DatagramKind::Dtls {
            self.dtls(listener, &object, is_built_in);
        }
    }

    fn dtls(&mut self, listener: &DatagramListener, object: &str, is_built_in: bool) {
        let dtls = &listener.dtls;
        match listener.lacks() {
            Some(Lacks::Key(missing)) if listener.enable != Enable::Off => {
                let key = format!("dtls_options.{missing}");
                let message = format!("{object}.{key} is missing; `tidegate cert` makes one for development");
                self.fail(object, &key, message);
            }
            Some(Lacks::Credentials)
                if listener.enable == Enable::On || (!is_built_in && listener.enable == Enable::Auto) =>
            {
                let message = format!(
                    "{object} needs dtls_options.certfile and keyfile, or dtls_options.psk_file, or both"
                );
                self.fail(object, "enable", message);
            }
            _ => {}
        }
        if dtls.verify == Verify::Peer && dtls.certfile.is_none() {
            let message = format!(
                "{object}.dtls_options.certfile is missing: a server without a certificate cannot ask for one"
            );
            self.fail(object, "dtls_options.verify", message);
        } else if dtls.verify == Verify::Peer && dtls.cacertfile.is_none() {
            let message = format!("{object}.dtls_options.cacertfile is missing: verify_peer needs it");
            self.fail(object, "dtls_options.verify", message);
        }
        if dtls.fail_if_no_peer_cert && dtls.verify == Verify::None {
            let key = "dtls_options.fail_if_no_peer_cert";
            let message = format!("{object}.{key} needs dtls_options.verify = verify_peer");
            self.fail(object, key, message);
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

    /// Two listeners on one port: the second would fail to open, or get half of what comes in.
    fn collisions(&mut self, settings: &Settings) {
        let streams = settings.enabled_listeners().map(|listener| {
            let object = format!("listeners.{}.{}", listener.kind.name(), listener.name);
            (object, listener.bind)
        });
        self.collide(&streams.collect::<Vec<_>>());
        // UDP has ports of its own.
        let datagrams = settings.mqttsn.enabled_listeners();
        let datagrams = datagrams.map(|listener| (listener.key(), listener.bind));
        self.collide(&datagrams.collect::<Vec<_>>());
    }

    fn collide(&mut self, enabled: &[(String, Bind)]) {
        for (index, later) in enabled.iter().enumerate() {
            for earlier in &enabled[..index] {
                if !later.1.collides_with(&earlier.1) {
                    continue;
                }
                // The one to complain about is the one that somebody wrote.
                let is_written = self.origins.contains_key(&format!("{}.bind", later.0));
                let ((object, bind), (other, taken)) = if is_written {
                    (later, earlier)
                } else {
                    (earlier, later)
                };
                let message = format!("{object}.bind = {bind} is taken by {other}.bind = {taken}");
                self.fail(object, "bind", message);
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

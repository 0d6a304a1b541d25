//! The configuration as a whole, from files to settings and back.

use std::{fs, time::Duration};

use super::*;

mod errors;
mod mqttsn;
mod sources;
mod store;
mod text;

/// Loads `text` as the file `t.conf`; the errors do not show its directory.
fn load_text(text: &str) -> Result<Loaded, Vec<String>> {
    load_files(&[("t.conf", text)], &[], &[])
}

/// Loads the first of `files`, with an environment and arguments.
fn load_files(
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
    set: &[&str],
) -> Result<Loaded, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let sources = Sources {
        file: files.first().map(|(name, _)| dir.path().join(name)),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        arguments: set.iter().map(|argument| (*argument).to_owned()).collect(),
    };
    let prefix = format!("{}/", dir.path().display());
    load(&sources).map_err(|errors| {
        errors
            .0
            .iter()
            .map(|error| error.to_string().replace(&prefix, ""))
            .collect()
    })
}

fn errors(text: &str) -> Vec<String> {
    load_text(text).err().unwrap_or_default()
}

#[test]
fn no_sources_are_the_defaults() {
    assert_eq!(load(&Sources::default()).unwrap().settings, Settings::default());
    assert_eq!(load_text("").unwrap().settings, Settings::default());
    assert_eq!(Settings::default().broker, broker_core::Config::default());
}

#[test]
fn a_file_sets_what_it_says() {
    let text = "\u{feff}# all kinds of values\r\n\
        node.workers = 4\r\n\
        allow_anonymous = off\r\n\
        mqtt.max_packet_size = 2MB # a comment\r\n\
        mqtt.keepalive_multiplier = 2.25\n\
        mqtt.session_expiry_interval = 1h30m\n\
        mqtt.max_mqueue_len = 0\n\
        mqtt.server_keepalive = 60s\n\
        mqtt.retry_interval = 30s\n\
        broker.shared_subscription_strategy = sticky\n\
        mqtt.server_redirect.server_reference = \"b.example:1883\"\n\
        listeners.tcp.inner.bind = 127.0.0.1:11883\n\
        listeners.tcp.inner.max_connections = 100\n\
        listeners.ws.default.enable = false\n\
        listeners.ssl.default.ssl_options.versions = tlsv1.3\n\
        rewrite.10.source_topic = b/#\n\
        rewrite.10.re = ^b/(.+)$\n\
        rewrite.10.dest_topic = c/$1\n\
        rewrite.2.action = publish\n\
        rewrite.2.source_topic = a/#\n\
        rewrite.2.re = ^a/(.+)$\n\
        rewrite.2.dest_topic = b/$1\n\
        auto_subscribe.1.topic = to/${clientid}/#\n\
        auto_subscribe.1.qos = 1\n\
        auto_subscribe.1.rh = 2\n";
    let settings = load_text(text).unwrap().settings;
    assert_eq!(settings.node.workers, Some(4));
    assert!(!settings.broker.allow_anonymous);
    let mqtt = &settings.broker.mqtt;
    assert_eq!(mqtt.max_packet_size, 2 << 20);
    assert_eq!(mqtt.keepalive_percent, 225);
    assert_eq!(mqtt.session_expiry_interval, Duration::from_secs(5400));
    assert_eq!(mqtt.max_mqueue_len, 0);
    assert_eq!(mqtt.server_keepalive, Some(60));
    assert_eq!(mqtt.retry_interval, Some(Duration::from_secs(30)));
    assert_eq!(
        settings.broker.shared_strategy,
        broker_core::SharedStrategy::Sticky
    );
    let redirect = broker_core::Redirect {
        moved: false,
        server_reference: "b.example:1883".to_owned(),
    };
    assert_eq!(settings.broker.redirect, Some(redirect));
    let listeners: Vec<_> = settings
        .enabled_listeners()
        .map(|l| (l.id(), l.bind.to_string()))
        .collect();
    let expected = [("tcp:default", "1883"), ("tcp:inner", "127.0.0.1:11883")];
    assert_eq!(
        listeners,
        expected.map(|(id, bind)| (id.to_owned(), bind.to_owned()))
    );
    assert_eq!(settings.listeners[1].max_connections, Some(100));
    assert!(!settings.listeners[2].tls.versions.tls12);
    assert_eq!(
        settings
            .rewrite
            .iter()
            .map(|rule| rule.number)
            .collect::<Vec<_>>(),
        [2, 10]
    );
    assert_eq!(settings.rewrite[0].action, RewriteAction::Publish);
    assert_eq!(settings.auto_subscribe[0].topic, "to/${clientid}/#");
    assert_eq!(
        settings.auto_subscribe[0].retain_handling,
        broker_core::RetainHandling::DoNotSend
    );
}

#[test]
fn a_listener_says_why_it_is_off() {
    let loaded = load_files(&[], &[], &["listeners.ws.default.enable=false"]).unwrap();
    let reasons: Vec<_> = loaded
        .settings
        .listeners
        .iter()
        .map(Listener::disabled_because)
        .collect();
    let missing = |kind| {
        Some(format!(
            "listeners.{kind}.default.ssl_options.certfile is not set"
        ))
    };
    assert_eq!(
        reasons,
        [
            None,
            missing("ssl"),
            Some("switched off".to_owned()),
            missing("wss")
        ]
    );
}

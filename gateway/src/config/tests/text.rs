//! The configuration as text: the shipped file, dumps, explanations, and damaged files.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::{schema, syntax};

/// The shipped file's keys, switched on.
fn shipped_keys() -> Vec<&'static str> {
    include_str!("../../../../etc/tidegate.conf")
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(char::is_alphabetic))
        .collect()
}

/// The shipped file: as it is it changes nothing, and every key stands in it with its default.
#[test]
fn the_shipped_file_agrees_with_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/tidegate.conf");
    let shipped = Sources {
        file: Some(path.clone()),
        ..Sources::default()
    };
    assert_eq!(load(&shipped).unwrap().settings, Settings::default());

    let lines = shipped_keys();
    assert_eq!(load_text(&lines.join("\n")).map(|_| ()), Ok(()));
    let mut shown = Vec::new();
    for line in &lines {
        let Some(syntax::Line::Assignment { key, value, .. }) = syntax::parse_line(line).unwrap() else {
            continue;
        };
        let target = schema::find(&key).unwrap();
        if let Some(default) = target.default_text() {
            assert_eq!(value, default, "{key}");
        }
        shown.push(target.spec.pattern);
    }
    for spec in schema::specs() {
        assert!(
            shown.contains(&spec.pattern),
            "{} is not in etc/tidegate.conf",
            spec.pattern
        );
    }
}

/// Settings that differ from the defaults in every kind of value.
const UNUSUAL: &str = "node.name = café\nacl_file = \"a # b\\\"c\\\\.conf\"\nmqtt.keepalive_multiplier = 1.25\n\
    mqtt.session_expiry_interval = infinity\nmqtt.server_keepalive = 90s\nmqtt.max_subscriptions = 7\n\
    listeners.tcp.b.bind = [::1]:99\nlisteners.tcp.b.mountpoint = \"m/${clientid}/\"\n\
    listeners.ws.default.websocket.check_origins = \"https://a.example, null\"\n\
    listeners.ssl.default.ssl_options.versions = tlsv1.2\nauto_subscribe.7.topic = \"#\"\nrewrite.1.source_topic = \"#\"\nrewrite.1.re = ^(.*) # comment\n\
    rewrite.1.dest_topic = x/$1\ndurability = none\nstore.max_bytes = 0\nstore.max_age = 36h\n\
    mqtt.mqueue_priorities = \"b=7,a/c = 255 ,\"\nmqtt.server_redirect.server_reference = a.example b.example:1883\n";

#[test]
fn what_is_dumped_is_read_again() {
    for text in ["", UNUSUAL] {
        let loaded = load_text(text).unwrap();
        let again = load_text(&dump(&loaded)).unwrap();
        assert_eq!(again.settings, loaded.settings);
    }
    let dumped = dump(&load_files(&[], &[("TIDEGATE_ACL_FILE", "x #")], &["log.level=debug"]).unwrap());
    let line = |start: &str| {
        let line = dumped.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line("acl_file"),
        "acl_file = \"x #\" # environment variable TIDEGATE_ACL_FILE"
    );
    assert_eq!(line("log.level"), "log.level = debug # --set log.level=debug");
    assert_eq!(line("mqtt.idle"), "mqtt.idle_timeout = 15s # built-in default");
}

#[test]
fn explanations() {
    let loaded = load_files(&[], &[], &["listeners.tcp.b.bind=99"]).unwrap();
    assert_eq!(
        explain(&loaded, "listeners.tcp.b.tcp_options.send_timeout").unwrap(),
        "listeners.tcp.b.tcp_options.send_timeout = 15s\n  default    15s\n  \
         allowed    a duration in ms, s, m, h or d, 1s to 1h, or infinity\n  set by     built-in default\n  \
         variable   TIDEGATE_LISTENERS__TCP__B__TCP_OPTIONS__SEND_TIMEOUT\n\n\
         A connection whose peer takes none of the data waiting for it during this time\n\
         is closed. Workers carry connections of all listeners: the shortest time of the\n\
         enabled ones holds for all.\n"
    );
    let rule = explain(&loaded, "rewrite.<n>.re").unwrap();
    assert!(
        rule.starts_with("rewrite.1.re (not configured)\n  default    none, it must be given\n"),
        "{rule}"
    );
    assert!(
        explain(&loaded, "listeners.<type>.<name>.bind")
            .unwrap()
            .starts_with("listeners.tcp.default.bind = 1883\n")
    );
    assert_eq!(
        explain(&loaded, "log").unwrap(),
        "log.level = info\nlog.format = text\n"
    );
    assert_eq!(
        explain(&loaded, "nothing"),
        Err("unknown key `nothing`".to_owned())
    );
}

proptest! {
    /// Whatever a file holds, it is read or refused.
    #[test]
    fn no_file_panics(
        seed in prop::sample::select(vec![UNUSUAL.to_owned(), shipped_keys().join("\n")]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..24),
    ) {
        let mut bytes = seed.into_bytes();
        for (place, byte, edit) in edits {
            if bytes.is_empty() {
                break;
            }
            let place = place.index(bytes.len());
            match edit {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, b"=.#\"\\\n\t0["[usize::from(byte) % 9]),
                2 => drop(bytes.remove(place)),
                _ => bytes.truncate(place),
            }
        }
        let text = String::from_utf8_lossy(&bytes).replace("include", "inc");
        if let Ok(loaded) = load_text(&text) {
            prop_assert_eq!(load_text(&dump(&loaded)).unwrap().settings, loaded.settings);
        }
    }

    /// So with any key and value.
    #[test]
    fn no_assignment_panics(key in ".{0,40}", value in ".{0,40}") {
        let _ = load_files(&[], &[(&format!("TIDEGATE_{key}"), &value)], &[&format!("{key}={value}")]);
    }
}

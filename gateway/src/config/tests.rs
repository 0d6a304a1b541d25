//! The configuration as a whole, from files to settings and back.

use std::{fs, path::Path, time::Duration};

use proptest::prelude::*;

use super::{schema, *};

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
fn every_error_is_reported_with_its_place() {
    let text = "mqtt.max_packet_sise = 2MB\n\
        mqtt.max_packet_size = 1048576\n\
        \n\
        \tmqtt.max_qos_allowed  =   3\n\
        what is this\n\
        log.level = verbose\n\
        authorization.no_match = \"allow\n\
        listeners.tcp.A.bind = 1\n\
        rewrite.0.re = x\n\
        listeners.tcp.default.bind = localhost:1883\n\
        mqtt.idle_timeout = 15\n\
        mqtt.max_clientid_len =\n\
        zone.external.max_inflight = 1\n\
        xyzzy = 1\n";
    let expected = [
        "t.conf:1:1: unknown key `mqtt.max_packet_sise`; did you mean `mqtt.max_packet_size`?",
        "t.conf:2:24: mqtt.max_packet_size: `1048576` has no unit; allowed: a size in B, KB, MB or GB, 64B to 256MB",
        "t.conf:4:28: mqtt.max_qos_allowed: `3` is too large; allowed: a whole number, 0 to 2",
        "t.conf:5:1: expected `KEY = VALUE` or `include FILE`",
        "t.conf:6:13: log.level: `verbose` is not one of the choices; allowed: error, warning, info, debug",
        "t.conf:7:26: the closing quote is missing",
        "t.conf:8:1: `listeners.tcp.A.bind`: the listener's name `A` is not 1 to 64 lower-case letters, digits, `_` \
         and `-`, without `__`",
        "t.conf:9:1: `rewrite.0.re`: `0` is not a number from 1 to 9999",
        "t.conf:10:30: listeners.tcp.default.bind: `localhost:1883` does not start with an IP address (names are not \
         looked up); allowed: PORT, :PORT, IPV4:PORT or [IPV6]:PORT",
        "t.conf:11:21: mqtt.idle_timeout: `15` has no unit; allowed: a duration in ms, s, m, h or d, 1s to 5m",
        "t.conf:12:24: mqtt.max_clientid_len: there is no value; allowed: a whole number, 23 to 65535",
        "t.conf:13:1: unknown key `zone.external.max_inflight`; did you mean `mqtt.max_inflight`?",
        "t.conf:14:1: unknown key `xyzzy`",
    ];
    assert_eq!(errors(text), expected);
}

#[test]
fn relations_are_judged() {
    for (text, expected) in [
        (
            "listeners.ssl.default.enable = true",
            "t.conf:1:1: listeners.ssl.default.ssl_options.certfile is missing; `tidegate cert` makes one for \
             development",
        ),
        (
            "listeners.wss.default.ssl_options.certfile = a.pem",
            "t.conf:1:1: listeners.wss.default.ssl_options.keyfile is missing; `tidegate cert` makes one for \
             development",
        ),
        (
            "listeners.ssl.b.bind = 8885",
            "t.conf:1:1: listeners.ssl.b.ssl_options.certfile is missing; `tidegate cert` makes one for development",
        ),
        (
            "listeners.ssl.default.ssl_options.verify = verify_peer",
            "t.conf:1:1: listeners.ssl.default.ssl_options.cacertfile is missing: verify_peer needs it",
        ),
        (
            "listeners.ssl.default.ssl_options.fail_if_no_peer_cert = true",
            "t.conf:1:1: listeners.ssl.default.ssl_options.fail_if_no_peer_cert needs ssl_options.verify = verify_peer",
        ),
        (
            "listeners.ssl.default.ssl_options.versions =",
            "t.conf:1:1: listeners.ssl.default.ssl_options.versions is empty; allowed: tlsv1.2, tlsv1.3, or both",
        ),
        (
            "listeners.ws.default.websocket.supported_subprotocols =",
            "t.conf:1:1: listeners.ws.default.websocket.supported_subprotocols is empty, so fail_if_no_subprotocol \
             would refuse every client",
        ),
        (
            "listeners.tcp.b.mountpoint = x/",
            "t.conf:1:1: listeners.tcp.b.bind is missing",
        ),
        (
            "listeners.tcp.b.bind = 127.0.0.1:1883",
            "t.conf:1:1: listeners.tcp.b.bind = 127.0.0.1:1883 is taken by listeners.tcp.default.bind = 1883",
        ),
        (
            "listeners.ws.default.bind = 1883",
            "t.conf:1:1: listeners.ws.default.bind = 1883 is taken by listeners.tcp.default.bind = 1883",
        ),
        (
            "auto_subscribe.1.qos = 1",
            "t.conf:1:1: auto_subscribe.1.topic is missing",
        ),
    ] {
        assert_eq!(errors(text), [expected], "{text}");
    }
    let rule = |re: &str, dest: &str| {
        errors(&format!(
            "rewrite.1.source_topic = a/#\nrewrite.1.re = {re}\nrewrite.1.dest_topic = {dest}\n"
        ))
    };
    assert_eq!(rule("^a/(.*)$", "b/$1"), Vec::<String>::new());
    assert_eq!(
        rule("^a/.*$", "b/$1"),
        ["t.conf:3:1: rewrite.1: dest_topic: $1 is beyond the 0 groups of re"]
    );
    assert_eq!(
        rule("^a/(", "b"),
        ["t.conf:2:1: rewrite.1: re is not a regular expression: unclosed group"]
    );
    assert_eq!(
        errors("rewrite.3.action = publish"),
        ["source_topic", "re", "dest_topic"].map(|key| format!("t.conf:1:1: rewrite.3.{key} is missing"))
    );
}

#[test]
fn later_sources_win() {
    let files = [
        ("t.conf", "include a.conf\nmqtt.max_inflight = 1\n"),
        ("a.conf", "mqtt.max_inflight = 2\n"),
    ];
    let environment = [("TIDEGATE_MQTT__MAX_INFLIGHT", "3"), ("OTHER", "x")];
    let effective = |files, environment, set| {
        let loaded = load_files(files, environment, set).unwrap();
        (
            loaded.settings.broker.mqtt.max_inflight,
            loaded.origin("mqtt.max_inflight").to_string(),
        )
    };
    assert_eq!(effective(&[], &[], &[]), (32, "built-in default".to_owned()));
    let (value, origin) = effective(&[("t.conf", "mqtt.max_inflight = 1")], &[], &[]);
    assert!(value == 1 && origin.ends_with("/t.conf:1:1"), "{value} {origin}");
    let (value, origin) = effective(&files, &[], &[]);
    assert!(value == 2 && origin.ends_with("/a.conf:1:1"), "{value} {origin}");
    let variable = "environment variable TIDEGATE_MQTT__MAX_INFLIGHT".to_owned();
    assert_eq!(effective(&files, &environment, &[]), (3, variable));
    let set = ["mqtt.max_inflight=4", "mqtt.max_inflight = \"5\""];
    assert_eq!(
        effective(&files, &environment, &set),
        (5, "--set mqtt.max_inflight = \"5\"".to_owned())
    );
}

#[test]
fn environment_and_arguments() {
    let environment = [
        ("tidegate_listeners__tcp__default__BIND", "127.0.0.1:0"),
        ("TIDEGATE_ALLOW_ANONYMOUS", "false"),
        ("TIDEGATE_CONFIG", "/nonexistent"),
        ("TIDEGATE_PORT", "tcp://10.0.0.1:1883"),
        ("TIDEGATE_PORT_1883_TCP_ADDR", "10.0.0.1"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_HEADLESS_SERVICE_PORT_MQTT", "1883"),
        ("TIDEGATEWAY", "x"),
    ];
    let settings = load_files(&[], &environment, &[]).unwrap().settings;
    assert_eq!(settings.listeners[0].bind.to_string(), "127.0.0.1:0");
    assert!(!settings.broker.allow_anonymous);

    let environment = [
        ("TIDEGATE_MQTT__MAX_INFLITE", "1"),
        ("TIDEGATE_ALLOW_ANONYMUS", "false"),
    ];
    assert_eq!(
        load_files(&[], &environment, &["log.level", "log.level=loud", "a=b"]).unwrap_err(),
        [
            "environment variable TIDEGATE_ALLOW_ANONYMUS: unknown key `allow_anonymus`; did you mean \
             `allow_anonymous`?",
            "environment variable TIDEGATE_MQTT__MAX_INFLITE: unknown key `mqtt.max_inflite`; did you mean \
             `mqtt.max_inflight`?",
            "--set log.level: expected KEY=VALUE",
            "--set log.level=loud: log.level: `loud` is not one of the choices; allowed: error, warning, info, debug",
            "--set a=b: unknown key `a`",
        ]
    );
}

#[test]
fn included_files() {
    let files = [
        (
            "t.conf",
            "include conf.d/*.conf\ninclude \"sub dir/x.conf\" # quoted\n",
        ),
        ("conf.d/20.conf", "mqtt.max_inflight = 20\nlog.level = debug\n"),
        ("conf.d/10.conf", "mqtt.max_inflight = 10\n"),
        ("conf.d/30.conf.off", "mqtt.max_inflight = 30\n"),
        ("sub dir/x.conf", "include ../y.conf\n"),
        ("y.conf", "log.level = error\n"),
    ];
    let settings = load_files(&files, &[], &[]).unwrap().settings;
    assert_eq!(settings.broker.mqtt.max_inflight, 20);
    assert_eq!(settings.log.level, LogLevel::Error);

    assert_eq!(errors("include none/*.conf"), Vec::<String>::new());
    assert_eq!(
        errors("include none.conf\ninclude a[.conf"),
        [
            "t.conf:1:9: cannot read none.conf: No such file or directory (os error 2)",
            "t.conf:2:9: `a[.conf` is not a pattern of file names (invalid range pattern)",
        ]
    );
    let cycle = [("t.conf", "include a.conf\n"), ("a.conf", "\ninclude ./t.conf\n")];
    assert_eq!(
        load_files(&cycle, &[], &[]).unwrap_err(),
        ["a.conf:2:9: ./t.conf includes itself"]
    );
    let names: Vec<_> = (0..12)
        .map(|index| (format!("{index}"), format!("include {}\n", index + 1)))
        .collect();
    let chain: Vec<_> = names
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let problems = load_files(&chain, &[], &[]).unwrap_err();
    assert_eq!(problems, ["7:1:9: more than 8 files include each other in a row"]);
    let many = "include x.conf\n".repeat(1000);
    let problems = load_files(&[("t.conf", &many), ("x.conf", "")], &[], &[]).unwrap_err();
    assert_eq!(problems, ["t.conf:256:9: more than 256 files are included"]);
}

#[test]
fn files_that_are_none() {
    let sources = Sources {
        file: Some("/nonexistent/t.conf".into()),
        ..Sources::default()
    };
    assert_eq!(
        load(&sources).unwrap_err().to_string(),
        "/nonexistent/t.conf: cannot read /nonexistent/t.conf: No such file or directory (os error 2)"
    );
    assert_eq!(
        errors(&"#".repeat((1 << 20) + 1)),
        ["t.conf: cannot read t.conf: it is larger than 1MB"]
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.conf");
    fs::write(&path, b"log.level = info\nnode.name = \xc3\xa9\xff\n").unwrap();
    let problems = load(&Sources {
        file: Some(path),
        ..Sources::default()
    })
    .unwrap_err();
    assert!(
        problems
            .to_string()
            .ends_with("t.conf:2:14: the line is not UTF-8"),
        "{problems}"
    );
}

/// The shipped file's keys, switched on.
fn shipped_keys() -> Vec<&'static str> {
    include_str!("../../../etc/tidegate.conf")
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
    rewrite.1.dest_topic = x/$1\nmqtt.server_redirect.server_reference = a.example b.example:1883\n";

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
         is closed.\n"
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

#[test]
fn files_that_are_named_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("empty.pem"), "").unwrap();
    let set = |key: &str, file: &str| format!("{key}={}", path(file));
    let arguments = [
        set("node.data_dir", "empty.pem"),
        set("acl_file", "none.conf"),
        set("authentication.users_file", "."),
        set("listeners.ssl.default.ssl_options.certfile", "empty.pem"),
        set("listeners.ssl.default.ssl_options.keyfile", "empty.pem"),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let problems = check_files(&load_files(&[], &[], &arguments).unwrap()).unwrap_err();
    let problems: Vec<_> = problems
        .0
        .iter()
        .map(|error| error.message.replace(&path(""), ""))
        .collect();
    assert_eq!(
        problems,
        [
            "node.data_dir: empty.pem is not a directory",
            "acl_file: cannot read none.conf: No such file or directory (os error 2)",
            "authentication.users_file: . is a directory",
            "listeners.ssl.default.ssl_options.certfile: empty.pem holds no certificate",
        ]
    );

    fs::write(path("acl.conf"), "{allow, all}.\n{deny all}.\n").unwrap();
    fs::write(path("users.conf"), "alice:secret\n").unwrap();
    let arguments = [
        set("acl_file", "acl.conf"),
        set("authentication.users_file", "users.conf"),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let problems = check_files(&load_files(&[], &[], &arguments).unwrap()).unwrap_err();
    let problems: Vec<_> = problems
        .0
        .iter()
        .map(|error| error.message.replace(&path(""), ""))
        .collect();
    assert!(
        problems[0].starts_with("acl_file: acl.conf:2:"),
        "{}",
        problems[0]
    );
    assert!(
        problems[1].starts_with("authentication.users_file: users.conf:1:"),
        "{}",
        problems[1]
    );
    fs::write(path("acl.conf"), "{allow, all}.\n").unwrap();
    fs::write(path("users.conf"), "# nobody yet\n").unwrap();
    assert_eq!(check_files(&load_files(&[], &[], &arguments).unwrap()), Ok(()));
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

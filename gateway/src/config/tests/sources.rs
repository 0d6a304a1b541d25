//! Where values come from.

use std::fs;

use super::*;

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

//! What is refused, and in which words.

use std::fs;

use super::*;

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
            "acl_file: cannot read none.conf: No such file or directory (os error 2); check the path and that the \
             gateway's user may read it",
            "authentication.users_file: . is a directory; name a file",
            "listeners.ssl.default.ssl_options.certfile: no certificate in empty.pem; it must hold a PEM block BEGIN \
             CERTIFICATE",
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

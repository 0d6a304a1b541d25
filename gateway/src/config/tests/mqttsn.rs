//! Keys of the MQTT-SN gateway.

use mqtt_sn::Roaming;

use super::*;

#[test]
fn defaults() {
    let settings = load_text("").unwrap().settings.mqttsn;
    let enabled: Vec<_> = settings
        .enabled_listeners()
        .map(|listener| (listener.id(), listener.bind.to_string()))
        .collect();
    assert_eq!(enabled, [("mqttsn:udp:default".to_owned(), "1884".to_owned())]);
    assert_eq!(
        settings.disabled_because(&settings.listeners[1]).unwrap(),
        "neither gateway.mqttsn.listeners.dtls.default.dtls_options.certfile nor psk_file is set"
    );
    let off = load_text("gateway.mqttsn.enable = false")
        .unwrap()
        .settings
        .mqttsn;
    assert_eq!(off.enabled_listeners().count(), 0);
    assert_eq!(
        off.disabled_because(&off.listeners[0]).unwrap(),
        "gateway.mqttsn.enable is false"
    );
}

#[test]
fn a_file_sets_what_it_says() {
    let text = "gateway.mqttsn.gateway_id = 7\n\
        gateway.mqttsn.advertise_interval = 1m\n\
        gateway.mqttsn.enable_qos3 = off\n\
        gateway.mqttsn.roaming = host\n\
        gateway.mqttsn.session_expiry_interval = infinity\n\
        gateway.mqttsn.mountpoint = sn/${clientid}/\n\
        gateway.mqttsn.clientinfo_override.username = ${ConnInfo.identity}\n\
        gateway.mqttsn.predefined.1024 = a/b\n\
        gateway.mqttsn.predefined.3 = c\n\
        gateway.mqttsn.clients.a.predefined.b.predefined.3 = d # of `a.predefined.b`\n\
        gateway.mqttsn.clients.Öl %3D %25#.predefined.3 = e\n\
        gateway.mqttsn.listeners.udp.inner.bind = 127.0.0.1:11884\n\
        gateway.mqttsn.listeners.udp.inner.mountpoint = in/\n\
        gateway.mqttsn.listeners.udp.inner.udp_options.recbuf = 4MB\n\
        gateway.mqttsn.listeners.dtls.default.dtls_options.psk_file = psk.conf\n\
        mqtt.mqueue_store_qos0 = false\n";
    let loaded = load_text(text).unwrap();
    assert_eq!(
        load_text(&dump(&loaded)).unwrap().settings,
        loaded.settings,
        "a dump is read again"
    );
    assert!(!loaded.settings.broker.mqtt.mqueue_store_qos0);
    let settings = loaded.settings.mqttsn;
    assert_eq!(
        (settings.gateway_id, settings.enable_qos3, settings.roaming),
        (7, false, Roaming::Host)
    );
    assert_eq!(
        settings.session_expiry_interval,
        Duration::from_secs(u32::MAX.into())
    );
    let topics: Vec<_> = settings
        .predefined
        .iter()
        .map(|topic| (topic.client.as_deref(), topic.id, topic.topic.as_str()))
        .collect();
    assert_eq!(
        topics,
        [
            (None, 3, "c"),
            (None, 1024, "a/b"),
            (Some("a.predefined.b"), 3, "d"),
            (Some("Öl = %#"), 3, "e"),
        ]
    );
    let listeners: Vec<_> = settings
        .enabled_listeners()
        .map(|listener| (listener.id(), settings.mountpoint_of(listener), listener.recbuf))
        .collect();
    assert_eq!(
        listeners,
        [
            ("mqttsn:udp:default".to_owned(), "sn/${clientid}/", None),
            ("mqttsn:udp:inner".to_owned(), "in/", Some(4 << 20)),
            ("mqttsn:dtls:default".to_owned(), "sn/${clientid}/", None),
        ]
    );
}

#[test]
fn broadcast_is_a_switch_or_an_address() {
    let address = |text: &str| {
        let loaded = load_text(&format!("gateway.mqttsn.broadcast = {text}")).unwrap();
        let to = loaded.settings.mqttsn.broadcast.address();
        to.map(|address| address.to_string())
    };
    for (text, expected) in [
        ("true", Some("255.255.255.255:1884")),
        ("On", Some("255.255.255.255:1884")),
        ("false", None),
        ("off", None),
        ("239.1.2.3:1885", Some("239.1.2.3:1885")),
        ("[ff02::17]:1884", Some("[ff02::17]:1884")),
        ("192.168.1.255:1884", Some("192.168.1.255:1884")),
    ] {
        assert_eq!(address(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn slips_are_told_with_their_place() {
    let text = "gateway.mqttsn.gateway_id = 256\n\
        gateway.mqttsn.advertise_interval = 19h\n\
        gateway.mqttsn.broadcast = 1884\n\
        gateway.mqttsn.broadcast = 0.0.0.0:1884\n\
        gateway.mqttsn.predefined.0 = a\n\
        gateway.mqttsn.predefined.5 = a/+\n\
        gateway.mqttsn.clients.%61.predefined.5 = a\n\
        gateway.mqttsn.clientinfo_override.username = ${ConnInfo.psk}\n\
        gateway.mqttsn.clientinfo_override.clientid = ${ConnInfo.node\n\
        gateway.mqttsn.retry_intervall = 1s\n\
        gateway.mqttsn.listeners.udp.default.dtls_options.psk_file = x\n";
    let broadcast =
        "allowed: true, false, or IPV4:PORT or [IPV6]:PORT of a broadcast address or multicast group";
    let text_allowed = "allowed: text with placeholders, or nothing";
    assert_eq!(
        errors(text),
        [
            "t.conf:1:29: gateway.mqttsn.gateway_id: `256` is too large; allowed: a whole number, 1 to 255",
            "t.conf:2:37: gateway.mqttsn.advertise_interval: `19h` is too large; allowed: a duration in s, m, h or d, \
             1s to 65535s",
            &format!("t.conf:3:28: gateway.mqttsn.broadcast: `1884` has no address; {broadcast}"),
            &format!("t.conf:4:28: gateway.mqttsn.broadcast: `0.0.0.0:1884` names nobody; {broadcast}"),
            "t.conf:5:1: `gateway.mqttsn.predefined.0`: `0` is not a number from 1 to 1024",
            "t.conf:6:31: gateway.mqttsn.predefined.5: `a/+` is not a topic name (MQTT 5 §4.7); allowed: a topic name",
            "t.conf:7:1: `gateway.mqttsn.clients.%61.predefined.5`: in a client id, `=` is written %3D, `%` %25, and \
             only they and control characters so",
            &format!(
                "t.conf:8:47: gateway.mqttsn.clientinfo_override.username: `${{ConnInfo.psk}}` has the unknown \
                 placeholder `${{ConnInfo.psk}}`; {text_allowed}"
            ),
            &format!(
                "t.conf:9:47: gateway.mqttsn.clientinfo_override.clientid: `${{ConnInfo.node` has a placeholder \
                 without its closing brace; {text_allowed}"
            ),
            "t.conf:10:1: unknown key `gateway.mqttsn.retry_intervall`; did you mean `gateway.mqttsn.retry_interval`?",
            "t.conf:11:1: unknown key `gateway.mqttsn.listeners.udp.default.dtls_options.psk_file`; did you mean \
             `gateway.mqttsn.listeners.dtls.default.dtls_options.psk_file`?",
        ]
    );
}

#[test]
fn relations_are_judged() {
    let dtls = "gateway.mqttsn.listeners.dtls.default";
    for (text, expected) in [
        (
            format!("{dtls}.enable = true"),
            format!(
                "t.conf:1:1: {dtls} needs dtls_options.certfile and keyfile, or dtls_options.psk_file, or both"
            ),
        ),
        (
            "gateway.mqttsn.listeners.dtls.b.bind = 1".to_owned(),
            "t.conf:1:1: gateway.mqttsn.listeners.dtls.b needs dtls_options.certfile and keyfile, or \
             dtls_options.psk_file, or both"
                .to_owned(),
        ),
        (
            format!("{dtls}.dtls_options.keyfile = k"),
            format!(
                "t.conf:1:1: {dtls}.dtls_options.certfile is missing; `tidegate cert` makes one for development"
            ),
        ),
        (
            format!("{dtls}.dtls_options.verify = verify_peer"),
            format!(
                "t.conf:1:1: {dtls}.dtls_options.certfile is missing: a server without a certificate cannot ask for one"
            ),
        ),
        (
            format!(
                "{dtls}.dtls_options.verify = verify_peer\n{dtls}.dtls_options.certfile = c\n\
                 {dtls}.dtls_options.keyfile = k"
            ),
            format!("t.conf:1:1: {dtls}.dtls_options.cacertfile is missing: verify_peer needs it"),
        ),
        (
            format!("{dtls}.dtls_options.fail_if_no_peer_cert = true"),
            format!(
                "t.conf:1:1: {dtls}.dtls_options.fail_if_no_peer_cert needs dtls_options.verify = verify_peer"
            ),
        ),
        (
            "gateway.mqttsn.listeners.udp.b.zone = z".to_owned(),
            "t.conf:1:1: gateway.mqttsn.listeners.udp.b.bind is missing".to_owned(),
        ),
        (
            "gateway.mqttsn.listeners.udp.b.bind = 127.0.0.1:1884".to_owned(),
            "t.conf:1:1: gateway.mqttsn.listeners.udp.b.bind = 127.0.0.1:1884 is taken by \
             gateway.mqttsn.listeners.udp.default.bind = 1884"
                .to_owned(),
        ),
    ] {
        assert_eq!(errors(&text), [expected], "{text}");
    }
    // TCP and UDP have ports of their own.
    assert_eq!(errors("listeners.tcp.b.bind = 1884"), Vec::<String>::new());
}

#[test]
fn explanations() {
    let key = "gateway.mqttsn.clients.Sensor.7.predefined.2";
    let loaded = load_text(&format!("{key} = a/b\n")).unwrap();
    let text = explain(&loaded, key).unwrap();
    assert!(
        text.starts_with(&format!("{key} = a/b\n  default    none, it must be given\n")),
        "{text}"
    );
    assert!(text.contains("\n  variable   none can spell it\n"), "{text}");
    for (key, start) in [
        (
            "gateway.mqttsn.predefined.<id>",
            "gateway.mqttsn.predefined.1 (not configured)\n",
        ),
        (
            "gateway.mqttsn.listeners.<type>.<name>.dtls_options.verify",
            "gateway.mqttsn.listeners.dtls.default.dtls_options.verify = verify_none\n",
        ),
        ("gateway.mqttsn.broadcast", "gateway.mqttsn.broadcast = false\n"),
    ] {
        assert!(explain(&loaded, key).unwrap().starts_with(start), "{key}");
    }
    let all = explain(&loaded, "gateway.mqttsn").unwrap();
    let numbered = "# gateway.mqttsn.predefined.<id>: a topic name\n\
                    # gateway.mqttsn.clients.<clientid>.predefined.<id>: a topic name\n";
    assert!(all.contains(&format!("\n{key} = a/b\n")), "{all}");
    assert!(all.ends_with(numbered), "{all}");
    assert!(
        explain(&loaded, "rewrite")
            .unwrap()
            .starts_with("# rewrite.<n>.action: ")
    );
}

#[test]
fn files_that_are_named_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("psk.conf");
    let key = "gateway.mqttsn.listeners.dtls.default.dtls_options.psk_file";
    let problems = || {
        let argument = format!("{key}={}", file.display());
        match check_files(&load_files(&[], &[], &[&argument]).unwrap()) {
            Ok(()) => String::new(),
            Err(errors) => errors.0[0]
                .message
                .replace(&file.display().to_string(), "psk.conf"),
        }
    };
    assert!(problems().starts_with(&format!("{key}: cannot read psk.conf: No such file")));
    for (text, expected) in [
        (
            "",
            format!("{key}: psk.conf holds no key; write lines of the form IDENTITY:KEY"),
        ),
        ("a:k\nb\n", format!("{key}: psk.conf:2: expected IDENTITY:KEY")),
        ("a:k\n", String::new()),
    ] {
        fs::write(&file, text).unwrap();
        assert_eq!(problems(), expected);
    }
}

//! MQTT-SN over DTLS and the executable: SIGHUP.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use super::{process::Node, secured::Secured, sensor::*};

#[test]
fn a_reload_counts_for_the_next_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("psk.conf");
    fs::write(&keys, "one:first\n").unwrap();
    let data = dir.path().join("data");
    let listener = "gateway.mqttsn.listeners.dtls.default";
    let bind = format!("{listener}.bind=127.0.0.1:0");
    let psk_file = format!("{listener}.dtls_options.psk_file={}", keys.display());
    let arguments = ["--set", &bind, "--set", &psk_file];
    let mut node = Node::start_with(&data, &arguments, Stdio::piped());
    let mut log = BufReader::new(node.log()).lines().map(Result::unwrap);
    let mut reload = |text: &str, expected: &str| {
        fs::write(&keys, text).unwrap();
        node.hang_up();
        let line = log.find(|line| line.contains("reloaded")).unwrap();
        assert!(line.contains(expected), "{line}");
    };
    let gateway = node.secured.unwrap();
    let is_known = |identity: &str, key: &str| match Secured::dial(gateway, identity, key) {
        Ok(sensor) => {
            sensor.connect(&format!("{identity} {key}"), CLEAN, 60);
            true
        }
        Err(_) => false,
    };
    let sensor = Secured::dial(gateway, "one", "first").unwrap();
    sensor.connect("sensor", CLEAN, 60);
    assert!(!is_known("two", "second"));

    reload("one:other\ntwo:second\n", "configuration reloaded");
    assert!(is_known("two", "second") && is_known("one", "other"));
    assert!(!is_known("one", "first"));
    // Who is in, stays.
    assert_eq!(sensor.ask(PINGREQ, &[]), (PINGRESP, vec![]));

    // A file that cannot be read changes nothing.
    reload("no colon\n", "not reloaded");
    assert!(is_known("two", "second"));
    assert_eq!(sensor.ask(PINGREQ, &[]), (PINGRESP, vec![]));
    assert!(node.stop().success());
}

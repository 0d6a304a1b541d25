//! When the Will of a client that sleeps is published.

use super::*;

fn doomed(expiry: u32) -> Connect {
    Connect {
        will: Some(will("w")),
        ..sensor(expiry)
    }
}

#[test]
fn a_will_waits_until_the_sleep_is_over() {
    for (expiry, delay) in [(0, 0), (0, 50), (100, 0), (100, 50)] {
        for is_killed in [false, true] {
            let mut rig = Rig::new();
            let watcher = rig.watch();
            let mut connect = doomed(expiry);
            connect.will.as_mut().unwrap().delay_interval = delay;
            let link = rig.begin(connect);
            rig.fall_asleep(link, 60);
            rig.lose(watcher);
            if is_killed {
                rig.crash();
            }
            // The session's end is the Will's, whatever its delay [MQTT-3.1.3-9].
            let at = 60 + u64::from(delay.min(expiry));
            rig.secs(at - 1);
            let watcher = rig.connect("watcher", 600);
            assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0], "{expiry} {delay}");
            rig.secs(1);
            rig.slack();
            assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"], "{expiry} {delay}");
            rig.secs(1000);
            assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0]);
            assert_eq!(rig.tables(), [""; 0]);
        }
    }
}

#[test]
fn the_will_of_who_comes_back_is_replaced_dropped_or_kept() {
    for (new, keeps, left) in [
        (Some("new"), false, Some("new")),
        (Some("new"), true, Some("new")),
        (None, false, None),
        (None, true, Some("w")),
    ] {
        let mut rig = Rig::new();
        let watcher = rig.watch();
        let link = rig.begin(doomed(0));
        rig.fall_asleep(link, 60);
        rig.crash();
        let link = rig.admit(Connect {
            will: new.map(will),
            keeps_will: keeps,
            ..sensor(0)
        });
        let connected = rig.events.iter().find_map(|(_, event)| match event {
            Event::Connected(connected) => Some(connected.will.is_some()),
            _ => None,
        });
        assert_eq!(
            connected,
            Some(new.is_none() && keeps),
            "only one that was kept is news"
        );
        rig.lose(watcher);
        rig.secs(100);
        let watcher = rig.connect("watcher", 600);
        assert_eq!(
            rig.drain(watcher, QoS::AtLeastOnce),
            [""; 0],
            "its old sleep is over"
        );
        rig.lose(link);
        let left: Vec<&str> = left.into_iter().collect();
        assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), left);
    }
}

#[test]
fn a_client_that_never_comes_back_from_being_awake_is_lost() {
    for expiry in [0, 100] {
        let mut rig = Rig::new();
        let watcher = rig.watch();
        let link = rig.begin(doomed(expiry));
        rig.fall_asleep(link, 60);
        let link = rig.wake(GUARD);
        assert_eq!(rig.told(link), ["resumed", "drained"]);
        rig.lose(link);
        assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
        assert_eq!(rig.shard.census().sessions, 1 + usize::from(expiry > 0));
    }
}

#[test]
fn each_sleep_after_a_wake_begins_anew() {
    let mut rig = Rig::new();
    let watcher = rig.watch();
    let link = rig.begin(doomed(0));
    rig.fall_asleep(link, 60);
    for _ in 0..3 {
        rig.secs(59);
        let link = rig.wake(GUARD);
        assert_eq!(rig.told(link), ["resumed", "drained"]);
        rig.fall_asleep(link, 60);
    }
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0]);
    rig.secs(60);
    rig.slack();
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
}

#[test]
fn a_will_changes_while_its_client_is_connected() {
    for (new, left) in [(Some("new"), "new"), (None, "")] {
        let mut rig = Rig::new();
        rig.watch();
        let link = rig.begin(doomed(0));
        rig.request(link, Request::SetWill(new.map(|text| Box::new(will(text)))));
        assert_eq!(rig.told(link), ["will Success"]);
        rig.crash();
        rig.slack();
        let watcher = rig.connect("watcher", 600);
        let left: Vec<&str> = [left].into_iter().filter(|left| !left.is_empty()).collect();
        assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), left);
    }
}

#[test]
fn a_will_that_cannot_be_leaves_the_old_one() {
    let mut config = Config::default();
    config.mqtt.max_qos_allowed = QoS::AtLeastOnce;
    let mut rig = Rig::with(config);
    let watcher = rig.watch();
    let link = rig.begin(doomed(0));
    let high = Will {
        qos: QoS::ExactlyOnce,
        ..will("new")
    };
    rig.request(link, Request::SetWill(Some(Box::new(high))));
    assert_eq!(rig.told(link), ["will QoSNotSupported"]);
    rig.lose(link);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
}

#[test]
fn a_shut_down_while_a_client_is_awake_leaves_it_asleep() {
    let mut rig = Rig::new();
    rig.watch();
    let link = rig.begin(doomed(0));
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    rig.told(link);
    let now = rig.now;
    rig.shard.shut_down(now);
    rig.turn();
    assert_eq!(rig.told(link), ["closed ServerShuttingDown"]);
    rig.crash();
    let watcher = rig.connect("watcher", 600);
    rig.secs(59);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0]);
    rig.secs(1);
    rig.slack();
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
}

/// `s` says goodbye, and its Will stays with the session.
fn leave(rig: &mut Rig, link: LinkId) {
    let disconnect = Disconnect {
        keeps_will: true,
        ..ended(DisconnectCause::Normal)
    };
    rig.request(link, Request::Disconnect(Box::new(disconnect)));
}

#[test]
fn a_will_that_is_kept_at_the_goodbye_is_that_of_the_next_connection() {
    for is_killed in [false, true] {
        for (keeps, left) in [(true, &["w"][..]), (false, &[])] {
            let mut rig = Rig::new();
            let watcher = rig.watch();
            let link = rig.begin(doomed(600));
            leave(&mut rig, link);
            rig.lose(watcher);
            if is_killed {
                rig.crash();
            }
            rig.secs(300);
            let link = rig.admit(Connect {
                keeps_will: keeps,
                ..sensor(600)
            });
            let watcher = rig.connect("watcher", 600);
            assert_eq!(
                rig.drain(watcher, QoS::AtLeastOnce),
                [""; 0],
                "a goodbye is no loss"
            );
            rig.lose(link);
            assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), left, "{is_killed} {keeps}");
        }
    }
}

#[test]
fn a_will_that_is_kept_at_the_goodbye_ends_with_the_session() {
    for expiry in [0, 100] {
        for is_killed in [false, true] {
            for begins_anew in [false, true] {
                let mut rig = Rig::new();
                let watcher = rig.watch();
                let link = rig.begin(doomed(expiry));
                leave(&mut rig, link);
                rig.lose(watcher);
                if is_killed {
                    rig.crash();
                }
                if begins_anew {
                    rig.admit(Connect::plain("s"));
                }
                rig.secs(200);
                assert_eq!(rig.tables(), [""; 0]);
                let watcher = rig.connect("watcher", 600);
                assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0]);
            }
        }
    }
}

#[test]
fn who_comes_back_while_the_store_is_full_sleeps_on() {
    let mut rig = Rig::new();
    let watcher = rig.watch();
    let link = rig.begin(doomed(600));
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtMostOnce, "0");
    rig.is_full = true;
    let link = rig.admit(Connect {
        keeps_will: true,
        ..sensor(600)
    });
    assert_eq!(rig.told(link), ["refused ServerUnavailable"]);
    rig.is_full = false;
    rig.secs(10);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0], "it is not lost");
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "0: 0", "drained"]);
    rig.fall_asleep(link, 60);
    rig.secs(60);
    rig.slack();
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
}

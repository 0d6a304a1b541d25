//! Clients that wake for what waits for them.

use std::sync::Mutex;

use super::*;
use crate::{
    ClientId,
    admission::{Ban, BannedBy},
    hooks::{ClientConnected, ClientDisconnected, Hook, HookContext, HookPoint, HookPoints, Hooks},
};

/// Writes down who comes and goes.
#[derive(Debug, Default)]
struct Watch(Arc<Mutex<Vec<String>>>);

impl Hook for Watch {
    fn name(&self) -> &str {
        "watch"
    }

    fn points(&self) -> HookPoints {
        HookPoints::of(&[
            HookPoint::ClientConnect,
            HookPoint::ClientConnack,
            HookPoint::ClientConnected,
            HookPoint::ClientDisconnected,
            HookPoint::SessionResumed,
        ])
    }

    fn client_connect(&self, _: &mut HookContext<'_>, _: &mut Connect) -> Result<(), ReasonCode> {
        self.0.lock().unwrap().push("connect".to_owned());
        Ok(())
    }

    fn client_connack(
        &self,
        _: &mut HookContext<'_>,
        _: &Connect,
        _: ReasonCode,
        _: &mut Vec<(String, String)>,
    ) {
        self.0.lock().unwrap().push("connack".to_owned());
    }

    fn client_connected(&self, _: &mut HookContext<'_>, _: &ClientConnected<'_>) {
        self.0.lock().unwrap().push("connected".to_owned());
    }

    fn client_disconnected(&self, _: &mut HookContext<'_>, disconnected: &ClientDisconnected<'_>) {
        self.0.lock().unwrap().push(disconnected.cause.text().to_owned());
    }

    fn session_resumed(&self, _: &mut HookContext<'_>, _: &Arc<ClientInfo>) {
        self.0.lock().unwrap().push("resumed".to_owned());
    }
}

#[test]
fn only_who_is_away_wakes_and_only_with_its_guard() {
    let mut rig = Rig::new();
    let refused = ["refused BadUserNameOrPassword"];
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), refused, "unknown");
    let sleeper = rig.begin(sensor(0));
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), refused, "connected");
    assert_eq!(rig.told(sleeper), [""; 0]);
    rig.fall_asleep(sleeper, 60);
    for wrong in [&b"other"[..], b"", b"guar", b"guards"] {
        let link = rig.wake(wrong);
        assert_eq!(rig.told(link), refused);
    }
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "drained"]);
    let other = rig.wake(GUARD);
    assert_eq!(rig.told(other), refused, "awake");
    rig.request(link, Request::Note(0, None));
    rig.told(link);
    rig.fall_asleep(link, 60);
    let link = rig.wake(b"");
    assert_eq!(rig.told(link), refused, "without a guard");
    rig.secs(60);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), refused, "lost");
    let metrics = rig.shard.metrics();
    assert_eq!(metrics.client_awake_refused.get(), 9);
    assert_eq!(metrics.client_refused.get(), 0);
    assert_eq!((metrics.client_asleep.get(), metrics.client_awake.get()), (2, 1));
}

#[test]
fn who_is_banned_or_no_longer_admitted_does_not_wake() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    let ban = Ban {
        until: rig.now.after_secs(10),
        reason: "test".into(),
        by: "test".into(),
    };
    let now = rig.now;
    rig.shard.ban(now, BannedBy::ClientId("s".into()), ban).unwrap();
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["refused Banned"]);
    rig.secs(10);
    let strict = Common {
        admission: Admission {
            authentication: AuthenticationChain::new(false),
            ..Admission::default()
        },
        ..Common::default()
    };
    rig.shard.reconfigure(Arc::new(strict));
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["refused NotAuthorized"]);
    let common = Arc::clone(&rig.common);
    rig.shard.reconfigure(common);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "drained"]);
}

#[test]
fn nobody_hears_of_a_client_that_wakes_and_sleeps_again() {
    let mut rig = Rig::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut hooks = Hooks::new();
    hooks.register(0, Arc::new(Watch(Arc::clone(&heard))));
    let common = Common {
        admission: Admission {
            authentication: AuthenticationChain::new(true),
            ..Admission::default()
        },
        hooks,
        ..Common::default()
    };
    rig.shard.reconfigure(Arc::new(common));
    let take = || std::mem::take(&mut *heard.lock().unwrap());
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    assert_eq!(take(), ["connect", "connack", "connected", "asleep"]);
    for _ in 0..2 {
        let link = rig.wake(GUARD);
        assert_eq!(rig.told(link), ["resumed", "drained"]);
        rig.fall_asleep(link, 60);
    }
    rig.wake(b"wrong");
    let link = rig.wake(GUARD);
    rig.lose(link);
    assert_eq!(take(), [""; 0]);
    assert_eq!(rig.shard.stats().connections.get(), 0);
    let metrics = rig.shard.metrics();
    assert_eq!(
        (metrics.client_connected.get(), metrics.client_disconnected.get()),
        (1, 1)
    );
}

#[test]
fn a_backlog_of_several_pages_comes_before_the_end_of_it_is_told() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    let count = 600;
    for number in 0..count {
        rig.publish("t", QoS::AtLeastOnce, &number.to_string());
    }
    let link = rig.wake(GUARD);
    let told = rig.told_all(link);
    let mut expected = vec!["resumed".to_owned()];
    expected.extend((0..count).map(|number| format!("1: {number}")));
    expected.push("drained".to_owned());
    assert_eq!(told, expected);
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "drained"]);
}

#[test]
fn a_slow_store_delays_the_end_of_a_backlog() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.publish("t", QoS::AtLeastOnce, "0");
    rig.told(link);
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.is_slow = true;
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed"]);
    rig.secs(5);
    assert_eq!(rig.told(link), [""; 0]);
    rig.is_slow = false;
    rig.turn();
    assert_eq!(rig.told_all(link), ["1: 0 again", "1: 1", "drained"]);
}

#[test]
fn what_comes_while_a_client_is_awake_waits_for_the_next_time() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.publish("t", QoS::AtLeastOnce, "2");
    rig.is_slow = true;
    let link = rig.wake(GUARD);
    rig.publish("t", QoS::AtLeastOnce, "3");
    rig.is_slow = false;
    rig.publish("t", QoS::AtLeastOnce, "4");
    assert_eq!(rig.told(link), ["resumed", "1: 1"]);
    rig.publish("t", QoS::AtMostOnce, "5");
    assert_eq!(rig.told(link), ["0: 5"], "it costs nobody anything");
    rig.acknowledge(link, QoS::AtLeastOnce, PacketId::FIRST);
    assert_eq!(rig.told(link), ["1: 2"]);
    rig.publish("t", QoS::AtLeastOnce, "6");
    assert_eq!(rig.told(link), [""; 0], "one is under way");
    rig.acknowledge(link, QoS::AtLeastOnce, PacketId::FIRST.next());
    assert_eq!(rig.told(link), ["drained"]);
    rig.publish("t", QoS::AtLeastOnce, "7");
    assert_eq!(rig.told(link), [""; 0]);
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    assert_eq!(
        rig.told_all(link),
        ["resumed", "1: 3", "1: 4", "1: 6", "1: 7", "drained"]
    );
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtLeastOnce, "8");
    let link = rig.admit(sensor(0));
    rig.publish("t", QoS::AtLeastOnce, "9");
    assert_eq!(
        rig.told_all(link),
        ["resumed", "1: 8", "1: 9"],
        "connected it gets everything"
    );
}

#[test]
fn priorities_change_nothing_about_where_a_backlog_ends() {
    let mut config = Config::default();
    config.mqtt.mqueue_priorities = Arc::new([("hi".into(), 5)].into());
    let mut rig = Rig::with(config);
    let link = rig.begin(sensor(0));
    rig.subscribe(link, "#", QoS::AtLeastOnce);
    rig.fall_asleep(link, 60);
    for (topic, payload) in [("lo", "1"), ("hi", "2"), ("lo", "3")] {
        rig.publish(topic, QoS::AtLeastOnce, payload);
    }
    let link = rig.wake(GUARD);
    rig.publish("hi", QoS::AtLeastOnce, "4");
    assert_eq!(rig.told_all(link), ["resumed", "1: 2", "1: 1", "1: 3", "drained"]);
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told_all(link), ["resumed", "1: 4", "drained"]);
}

#[test]
fn qos_2_is_under_way_until_its_last_acknowledgement() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.subscribe(link, "t", QoS::ExactlyOnce);
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::ExactlyOnce, "1");
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "2: 1"]);
    rig.request(link, Request::PubRec(PacketId::FIRST, ReasonCode::Success));
    assert_eq!(rig.told(link).len(), 1, "PUBREL");
    rig.fall_asleep(link, 60);
    rig.crash();
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link).len(), 2, "PUBREL again, and not drained");
    rig.request(link, Request::PubComp(PacketId::FIRST, ReasonCode::Success));
    assert_eq!(rig.told(link), ["drained"]);
}

#[test]
fn retained_messages_that_were_interrupted_come_before_the_end() {
    let mut rig = Rig::new();
    for number in 0..100 {
        let topic = format!("r/{number:03}");
        let parts = MessageParts {
            qos: QoS::AtLeastOnce,
            retain: true,
            ..MessageParts::new(&topic, topic.as_bytes())
        };
        let message = parts.publish(rig.now, ClientInfo::system()).unwrap();
        rig.shard.publish_internal(rig.now, message).unwrap();
    }
    rig.turn();
    let link = rig.begin(sensor(0));
    rig.subscribe(link, "r/#", QoS::AtLeastOnce);
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    let told = rig.told_all(link);
    assert_eq!(told[..2], ["resumed", "1: r/000 again"]);
    assert_eq!(told.len(), 103, "one was under way, and the replay begins anew");
    assert_eq!(told.last().map(String::as_str), Some("drained"));
}

#[test]
fn retained_messages_that_are_still_looked_for_delay_the_end() {
    let mut rig = Rig::new();
    // More than are looked at in one turn.
    for number in 0..20_000 {
        let topic = format!("r/{number}/x");
        let parts = MessageParts {
            retain: true,
            ..MessageParts::new(&topic, b"x")
        };
        let message = parts.publish(rig.now, ClientInfo::system()).unwrap();
        rig.shard.publish_internal(rig.now, message).unwrap();
    }
    rig.turn();
    let link = rig.begin(sensor(0));
    rig.subscribe(link, "r/+/none", QoS::AtLeastOnce);
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed"]);
    rig.slack();
    rig.slack();
    assert_eq!(rig.told(link), ["drained"]);
}

#[test]
fn the_end_is_told_once() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "drained"]);
    let now = rig.now;
    rig.shard.handle_congestion(now, link, false);
    rig.turn();
    assert_eq!(rig.told(link), [""; 0]);
}

#[test]
fn a_kill_while_a_client_is_awake_leaves_it_asleep() {
    let mut rig = Rig::new();
    let watcher = rig.watch();
    let link = rig.begin(Connect {
        will: Some(will("w")),
        ..sensor(0)
    });
    let until = rig.now.after_secs(60);
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.secs(30);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "1: 1"]);
    assert_eq!(
        rig.presence(),
        Some(PresenceEntry::Asleep {
            until,
            is_awake: true
        })
    );
    rig.lose(watcher);
    rig.crash();
    assert_eq!(
        rig.presence(),
        Some(PresenceEntry::Asleep {
            until,
            is_awake: false
        })
    );
    rig.secs(20);
    rig.slack();
    let watcher = rig.connect("watcher", 600);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0]);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told_all(link), ["resumed", "1: 1 again", "drained"]);
    rig.crash();
    rig.secs(10);
    let watcher = rig.connect("watcher", 600);
    assert_eq!(
        rig.drain(watcher, QoS::AtLeastOnce),
        ["w"],
        "the old sleep is over"
    );
}

#[test]
fn a_wake_changes_nothing_of_the_session() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(1000));
    rig.fall_asleep(link, 60);
    let wake = Connect {
        clean_start: true,
        may_sleep: false,
        will: Some(will("new")),
        wake: Some(Bytes::from_static(GUARD)),
        ..sensor(5)
    };
    let watcher = rig.watch();
    let link = rig.admit(wake);
    let connected = rig.events.iter().find_map(|(_, event)| match event {
        Event::Connected(connected) => Some((connected.session_expiry_interval, connected.will.is_some())),
        _ => None,
    });
    assert_eq!(connected, Some((1000, false)));
    rig.lose(link);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0]);
    rig.secs(999);
    assert!(rig.shard.by_client.contains_key(&ClientId::new("s")));
    rig.secs(1);
    rig.slack();
    assert!(!rig.shard.by_client.contains_key(&ClientId::new("s")));
}

#[test]
fn a_connect_from_elsewhere_ends_being_awake_and_not_the_session() {
    for clean_start in [false, true] {
        let mut rig = Rig::new();
        let watcher = rig.watch();
        let link = rig.begin(Connect {
            will: Some(will("w")),
            ..sensor(0)
        });
        rig.fall_asleep(link, 60);
        rig.publish("t", QoS::AtLeastOnce, "1");
        let awake = rig.wake(GUARD);
        assert_eq!(rig.told(awake), ["resumed", "1: 1"]);
        let link = rig.admit(Connect {
            clean_start,
            ..sensor(0)
        });
        assert_eq!(rig.told(awake), ["closed SessionTakenOver"]);
        let told = if clean_start {
            vec!["connected"]
        } else {
            vec!["resumed", "1: 1 again"]
        };
        assert_eq!(rig.told_all(link), told);
        rig.secs(100);
        assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0], "it was never lost");
    }
}

#[test]
fn a_store_that_fails_leaves_a_sleeper_asleep() {
    let mut rig = Rig::new();
    let link = rig.begin(Connect {
        will: Some(will("w")),
        ..sensor(0)
    });
    rig.fall_asleep(link, 60);
    let until = rig.now.after_secs(60);
    rig.is_full = true;
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["refused ServerUnavailable"]);
    rig.is_full = false;
    rig.secs(2);
    assert_eq!(
        rig.presence(),
        Some(PresenceEntry::Asleep {
            until,
            is_awake: false
        })
    );
    let watcher = rig.watch();
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "drained"]);
    rig.lose(link);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
}

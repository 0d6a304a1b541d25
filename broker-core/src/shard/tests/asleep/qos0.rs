//! What waits for a sleeper at QoS 0.

use super::*;
use crate::RetainHandling;

#[test]
fn a_sleeper_gets_what_came_at_qos_0_and_others_do_not() {
    let mut rig = Rig::new();
    for (sleeps, back) in [
        (true, vec!["resumed", "0: 1", "1: 2"]),
        (false, vec!["resumed", "1: 2"]),
    ] {
        let link = rig.begin(sensor(600));
        if sleeps {
            rig.fall_asleep(link, 60);
        } else {
            rig.lose(link);
        }
        rig.publish("t", QoS::AtMostOnce, "1");
        rig.publish("t", QoS::AtLeastOnce, "2");
        let link = rig.admit(sensor(600));
        assert_eq!(rig.told_all(link), back);
        rig.end(link, DisconnectCause::Normal);
        rig.told(link);
    }
}

#[test]
fn overlapping_subscriptions_of_a_sleeper_are_one_delivery() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.subscribe(link, "+", QoS::AtMostOnce);
    rig.subscribe(link, "#", QoS::AtMostOnce);
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtMostOnce, "1");
    rig.publish("t", QoS::AtLeastOnce, "2");
    rig.publish("u", QoS::AtLeastOnce, "3");
    let link = rig.admit(sensor(0));
    assert_eq!(rig.told_all(link), ["resumed", "0: 1", "0: 3", "1: 2"]);
}

#[test]
fn what_waits_is_bounded_and_the_oldest_goes() {
    let mut config = Config::default();
    config.mqtt.max_mqueue_len = 3;
    let mut rig = Rig::with(config);
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    for number in 0..5 {
        rig.publish("t", QoS::AtMostOnce, &number.to_string());
    }
    assert_eq!(rig.shard.metrics().delivery_dropped_asleep.get(), 2);
    assert_eq!(rig.shard.metrics().delivery_dropped_qos0.get(), 2);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "0: 2", "0: 3", "0: 4", "drained"]);
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let mut config = Config::default();
    config.mqtt.max_mqueue_bytes = 10_000;
    let mut rig = Rig::with(config);
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    let large = "x".repeat(4000);
    for _ in 0..5 {
        rig.publish("t", QoS::AtMostOnce, &large);
    }
    assert_eq!(rig.shard.metrics().delivery_dropped_asleep.get(), 3);
}

#[test]
fn a_priority_goes_first_and_is_dropped_last() {
    let mut config = Config::default();
    config.mqtt.max_mqueue_len = 2;
    config.mqtt.mqueue_priorities = Arc::new([("hi".into(), 5)].into());
    let mut rig = Rig::with(config);
    let link = rig.begin(sensor(0));
    rig.subscribe(link, "#", QoS::AtMostOnce);
    rig.fall_asleep(link, 60);
    for (topic, payload) in [("hi", "1"), ("lo", "2"), ("lo", "3"), ("hi", "4")] {
        rig.publish(topic, QoS::AtMostOnce, payload);
    }
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "0: 1", "0: 4", "drained"]);
}

#[test]
fn nothing_waits_if_it_is_configured_so_and_nothing_survives_a_kill() {
    for (stores, is_killed) in [(false, false), (true, true)] {
        let mut config = Config::default();
        config.mqtt.mqueue_store_qos0 = stores;
        let mut rig = Rig::with(config);
        let link = rig.begin(sensor(0));
        rig.fall_asleep(link, 60);
        rig.publish("t", QoS::AtMostOnce, "1");
        if is_killed {
            rig.crash();
        } else {
            assert_eq!(rig.shard.metrics().delivery_dropped_asleep.get(), 1);
        }
        rig.publish("t", QoS::AtMostOnce, "2");
        let link = rig.wake(GUARD);
        let kept = if stores {
            vec!["resumed", "0: 2", "drained"]
        } else {
            vec!["resumed", "drained"]
        };
        assert_eq!(rig.told(link), kept);
    }
}

#[test]
fn what_is_too_old_or_has_expired_is_not_sent() {
    let mut config = Config::default();
    config.mqtt.mqueue_age_max = Some(std::time::Duration::from_secs(10));
    let mut rig = Rig::with(config);
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtMostOnce, "1");
    rig.secs(5);
    let parts = MessageParts {
        expiry_interval: Some(3),
        ..MessageParts::new("t", b"2")
    };
    let message = parts.publish(rig.now, ClientInfo::system()).unwrap();
    rig.shard.publish_internal(rig.now, message).unwrap();
    rig.publish("t", QoS::AtMostOnce, "3");
    rig.secs(5);
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "0: 3", "drained"]);
    assert_eq!(rig.shard.metrics().delivery_dropped_expired.get(), 2);
}

#[test]
fn what_waits_is_dropped_when_the_client_is_lost() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(600));
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtMostOnce, "1");
    rig.secs(60);
    rig.slack();
    assert_eq!(rig.shard.metrics().delivery_dropped_asleep.get(), 1);
    rig.publish("t", QoS::AtMostOnce, "2");
    assert_eq!(
        rig.shard.metrics().delivery_dropped_asleep.get(),
        1,
        "it is as any other now"
    );
    let link = rig.admit(sensor(600));
    assert_eq!(rig.told(link), ["resumed"]);
}

#[test]
fn a_sleeper_does_not_get_its_own_message_with_no_local() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    let options = SubscribeOptions {
        no_local: true,
        retain_handling: RetainHandling::DoNotSend,
        ..SubscribeOptions::default()
    };
    let subscribe = Subscribe {
        packet_id: PacketId::FIRST,
        filters: vec![("own".to_owned(), options)],
        subscription_id: None,
        user_properties: Vec::new(),
    };
    rig.request(link, Request::Subscribe(Box::new(subscribe)));
    rig.told(link);
    rig.fall_asleep(link, 60);
    let origin = Arc::new(ClientInfo {
        client_id: crate::ClientId::new("s"),
        ..(**ClientInfo::system()).clone()
    });
    let message = MessageParts::new("own", b"1").publish(rig.now, &origin).unwrap();
    rig.shard.publish_internal(rig.now, message).unwrap();
    let link = rig.wake(GUARD);
    assert_eq!(rig.told(link), ["resumed", "drained"]);
}

//! What becomes of messages that wait longer, or are more, than they may.

use super::*;

#[test]
fn the_lowest_priority_goes_first() {
    for is_away in [false, true] {
        let mut config = Config::default();
        config.mqtt.mqueue_priorities = Arc::new([("hi".into(), 5)].into());
        config.mqtt.max_mqueue_len = 4;
        let mut rig = Rig::with(config);
        let mut link = rig.connect("s", 60);
        rig.subscribe(link, "#", QoS::AtLeastOnce);
        rig.publish("lo", QoS::AtLeastOnce, "under way");
        if is_away {
            rig.drain(link, QoS::AtLeastOnce);
            rig.lose(link);
        }
        for number in 0..3 {
            rig.publish("hi", QoS::AtLeastOnce, &format!("hi {number}"));
            rig.publish("lo", QoS::AtLeastOnce, &format!("lo {number}"));
        }
        if is_away {
            link = rig.connect("s", 60);
        }
        let mut drained = rig.drain(link, QoS::AtLeastOnce);
        drained.retain(|payload| payload != "under way");
        assert_eq!(drained, ["hi 0", "hi 1", "hi 2", "lo 2"], "away: {is_away}");
    }
}

#[test]
fn a_group_waits_for_no_message_that_has_expired_with_a_member() {
    let mut rig = Rig::new();
    let member = rig.connect("m", 60);
    rig.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
    rig.publish("t", QoS::AtLeastOnce, "under way");
    let parts = MessageParts {
        qos: QoS::AtLeastOnce,
        expiry_interval: Some(1),
        ..MessageParts::new("t", b"short-lived")
    };
    let message = parts.publish(rig.now, ClientInfo::system()).unwrap();
    rig.shard.publish_internal(rig.now, message).unwrap();
    rig.turn();
    rig.pass(2000);
    assert_eq!(rig.drain(member, QoS::AtLeastOnce), ["under way"]);
    rig.pass(1000);
    assert_eq!(rig.shard.groups_need_from(), rig.shard.tail.next);
}

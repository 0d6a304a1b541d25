//! A store without room for everything.

use super::*;

#[test]
fn a_will_that_the_store_does_not_take_is_not_lost() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.subscribe(link, "t", QoS::AtLeastOnce);
    let doomed = rig.connect_with_will("doomed", 0, 0);
    rig.is_full = true;
    rig.lose(doomed);
    rig.pass(1000);
    rig.is_full = false;
    rig.pass(1000);
    rig.pass(1000);
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["w"]);
}

#[test]
fn a_will_that_the_store_does_not_take_is_not_lost_in_a_crash() {
    for is_back in [false, true] {
        let mut rig = Rig::new();
        let link = rig.connect("s", 60);
        rig.subscribe(link, "t", QoS::AtLeastOnce);
        let doomed = rig.connect_with_will("doomed", 60, 1);
        rig.lose(doomed);
        rig.is_short = true;
        for _ in 0..3 {
            rig.pass(1500);
        }
        if is_back {
            rig.connect("doomed", 60);
        }
        rig.is_short = false;
        rig.crash();
        rig.pass(1000);
        let link = rig.connect("s", 60);
        assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["w"], "{is_back}");
    }
}

#[test]
fn a_delayed_message_that_was_refused_is_not_published() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.subscribe(link, "t", QoS::AtLeastOnce);
    rig.is_full = true;
    rig.publish("$delayed/1/t", QoS::AtLeastOnce, "1");
    rig.is_full = false;
    rig.publish("$delayed/1/t", QoS::AtLeastOnce, "2");
    rig.pass(2000);
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["2"]);
}

//! One connection for all clients, with a scripted broker.

use std::time::Duration;

use broker_core::{Connect, DisconnectCause, QoS, ReasonCode, Request};
use mqtt::codec::Packet;

use super::{Aggregated, Introduction};
use crate::relay::{
    script::*,
    upstream::{Terms, Upstream as _},
};

type Bench = crate::relay::script::Bench<Aggregated>;

fn dialled() -> Bench {
    Bench::new(Aggregated::new(
        terms(),
        Introduction {
            client_id: "sn".to_owned(),
            is_persistent: false,
        },
    ))
}

/// The broker has accepted connection 1.
fn bench() -> Bench {
    let mut bench = dialled();
    bench.opened(1).connack(1, false);
    bench.seen();
    bench
}

/// Links 1 and 2 are those of clients `a` and `b`.
fn two() -> Bench {
    let mut bench = bench();
    bench
        .request(1, connect(client("a")))
        .request(2, connect(client("b")));
    bench.expect(&["1: connected", "2: connected"]);
    bench
}

#[test]
fn clients_wait_for_the_broker() {
    let mut bench = dialled();
    bench
        .request(1, connect(client("a")))
        .expect(&["open 1", "1: refused server unavailable"]);
    bench.opened(1).expect(&["1 < CONNECT sn gw clean"]);
    bench
        .connack(1, false)
        .request(1, connect(client("a")))
        .expect(&["1: connected"]);
}

#[test]
fn a_filter_is_subscribed_to_once_at_the_highest_quality_of_service() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t/#", 1))
        .expect(&["1 < SUBSCRIBE 2 t/# 1"]);
    bench
        .suback(1, 2, ReasonCode::GrantedQoS1)
        .expect(&["1: suback 1 granted qos 1"]);
    bench
        .request(2, subscribe(1, "t/#", 0))
        .expect(&["1 < SUBSCRIBE 3 t/# 1"]);
    bench
        .suback(1, 3, ReasonCode::GrantedQoS1)
        .expect(&["2: suback 1 success"]);
    bench.publish(1, "t/x", 1, 9, "hi");
    bench.expect(&["1 < PUBACK 9", "1: deliver t/x 1 2 hi", "2: deliver t/x 0 0 hi"]);
    bench
        .request(1, unsubscribe(2, "t/#"))
        .expect(&["1: unsuback 2 success"]);
    bench
        .publish(1, "t/x", 1, 10, "ho")
        .expect(&["1 < PUBACK 10", "2: deliver t/x 0 0 ho"]);
    // The last one: the broker is told.
    bench
        .request(2, unsubscribe(3, "t/#"))
        .expect(&["1 < UNSUBSCRIBE 4 t/#"]);
    bench.unsuback(1, 4).expect(&["2: unsuback 3 success"]);
    bench.publish(1, "t/x", 0, 0, "he").expect(&[]);
    assert_eq!(bench.upstream.counters().dropped_unmatched, 1);
}

#[test]
fn a_client_that_ends_leaves_no_subscription_behind() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t", 2))
        .suback(1, 2, ReasonCode::GrantedQoS2)
        .seen();
    bench
        .request(1, leave(DisconnectCause::Normal))
        .expect(&["1 < UNSUBSCRIBE 3 t"]);
}

#[test]
fn what_the_broker_refuses_is_not_subscribed_to() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t", 2))
        .suback(1, 2, ReasonCode::UnspecifiedError);
    bench.expect(&[
        "1 < SUBSCRIBE 2 t 2",
        "1 < UNSUBSCRIBE 3 t",
        "1: suback 1 unspecified error",
    ]);
    bench.publish(1, "t", 0, 0, "x").expect(&[]);
    bench.request(1, subscribe(2, "$share/g/t", 2));
    bench.expect(&["1: suback 2 shared subscriptions not supported"]);
}

#[test]
fn retained_messages_are_for_those_who_have_just_subscribed() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t/#", 0))
        .suback(1, 2, ReasonCode::Success)
        .retained(1, "t/x", "old");
    bench.expect(&[
        "1 < SUBSCRIBE 2 t/# 0",
        "1: suback 1 success",
        "1: deliver t/x 0 0 retain old",
    ]);
    bench
        .wait(Duration::from_secs(30))
        .request(2, subscribe(1, "t/+", 0))
        .seen();
    // They may come before SUBACK, and go on coming.
    bench
        .retained(1, "t/x", "old")
        .expect(&["2: deliver t/x 0 0 retain old"]);
    bench
        .suback(1, 3, ReasonCode::Success)
        .wait(Duration::from_secs(9))
        .seen();
    bench
        .retained(1, "t/y", "old")
        .wait(Duration::from_secs(9))
        .retained(1, "t/z", "old");
    bench.expect(&["2: deliver t/y 0 0 retain old", "2: deliver t/z 0 0 retain old"]);
    bench.publish(1, "t/x", 0, 0, "new");
    bench.expect(&["1: deliver t/x 0 0 new", "2: deliver t/x 0 0 new"]);
}

#[test]
fn a_retained_message_that_comes_again_for_another_client_is_for_that_one() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t", 0))
        .suback(1, 2, ReasonCode::Success)
        .retained(1, "t", "x");
    bench.seen();
    bench
        .request(2, subscribe(1, "t", 0))
        .suback(1, 3, ReasonCode::Success)
        .retained(1, "t", "x");
    bench.expect(&[
        "1 < SUBSCRIBE 3 t 0",
        "2: suback 1 success",
        "2: deliver t 0 0 retain x",
    ]);
    // Who asks again gets it again.
    bench
        .request(1, subscribe(2, "t", 0))
        .suback(1, 4, ReasonCode::Success)
        .retained(1, "t", "x");
    bench.expect(&[
        "1 < SUBSCRIBE 4 t 0",
        "1: suback 2 success",
        "1: deliver t 0 0 retain x",
    ]);
}

#[test]
fn clients_may_use_the_same_packet_identifiers() {
    let mut bench = two();
    bench
        .request(1, publish("t", 1, 7, "x"))
        .request(2, publish("t", 2, 7, "y"));
    bench.expect(&["1 < PUBLISH t 1 2 x", "1 < PUBLISH t 2 3 y"]);
    bench.request(1, publish("t", 1, 7, "x")).expect(&[]);
    bench
        .packet(1, &Packet::PubRec(ack(3)))
        .packet(1, &Packet::PubAck(ack(2)));
    bench.expect(&["2: pubrec 7", "1: puback 7"]);
    // The client has not heard PUBREC.
    bench.request(2, publish("t", 2, 7, "y")).expect(&["2: pubrec 7"]);
    bench
        .request(2, Request::PubRel(id(7), ReasonCode::Success))
        .expect(&["1 < PUBREL 3"]);
    bench
        .packet(1, &Packet::PubComp(ack(3)))
        .expect(&["2: pubcomp 7"]);
    // Nor PUBCOMP.
    bench
        .request(2, Request::PubRel(id(7), ReasonCode::Success))
        .expect(&["2: pubcomp 7"]);
}

#[test]
fn the_gateway_completes_what_a_client_has_left_open() {
    let mut bench = two();
    bench
        .request(1, publish("t", 2, 7, "x"))
        .packet(1, &Packet::PubRec(ack(2)));
    bench.expect(&["1 < PUBLISH t 2 2 x", "1: pubrec 7"]);
    bench
        .request(1, leave(DisconnectCause::ConnectionLost))
        .expect(&["1 < PUBREL 2"]);
    bench
        .request(2, publish("t", 2, 7, "y"))
        .request(2, leave(DisconnectCause::ConnectionLost));
    bench
        .packet(1, &Packet::PubRec(ack(3)))
        .packet(1, &Packet::PubComp(ack(3)));
    bench.expect(&["1 < PUBLISH t 2 3 y", "1 < PUBREL 3"]);
}

#[test]
fn a_broken_connection_is_made_anew() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t", 1))
        .suback(1, 2, ReasonCode::GrantedQoS1)
        .seen();
    bench
        .request(1, publish("u", 1, 7, "x"))
        .request(1, publish("u", 2, 8, "y"))
        .seen();
    bench
        .packet(1, &Packet::PubRec(ack(4)))
        .request(1, Request::PubRel(id(8), ReasonCode::Success))
        .seen();
    bench.request(2, subscribe(1, "v", 1)).seen();
    bench
        .closed(1)
        .expect(&["close 1", "2: suback 1 server unavailable"]);
    // Clients stay, and are told of congestion.
    bench
        .request(1, publish("u", 0, 0, "z"))
        .request(1, publish("u", 1, 9, "z"));
    bench
        .request(1, subscribe(2, "w", 0))
        .request(3, connect(client("c")));
    bench.expect(&[
        "1: puback 9 server unavailable",
        "1: suback 2 server unavailable",
        "3: refused server unavailable",
    ]);
    assert_eq!(bench.upstream.counters().dropped_unconnected, 1);
    bench
        .wait(Duration::from_millis(1_250))
        .opened(2)
        .connack(2, false);
    bench.expect(&[
        "open 2",
        "2 < CONNECT sn gw clean",
        "2 < SUBSCRIBE 6 t 1",
        "2 < PUBLISH u 1 3 x",
        "2 < PUBREL 4",
    ]);
    bench
        .packet(2, &Packet::PubAck(ack(3)))
        .packet(2, &Packet::PubComp(ack(4)));
    bench
        .suback(2, 6, ReasonCode::GrantedQoS1)
        .expect(&["1: puback 7", "1: pubcomp 8"]);
    bench.publish(2, "t", 0, 0, "x").expect(&["1: deliver t 0 0 x"]);
}

#[test]
fn attempts_to_connect_become_rarer() {
    let mut bench = dialled();
    let mut waited = Vec::new();
    for conn in 1..10 {
        bench.closed(conn);
        bench.seen();
        let from = bench.now;
        let at = bench.upstream.poll_timeout().unwrap();
        bench.wait(at.since(from));
        bench.expect(&[&format!("open {}", conn + 1)]);
        waited.push(bench.now.since(from).as_secs());
    }
    assert!(waited[..6].is_sorted() && waited[0] == 1, "{waited:?}");
    assert!(
        waited[6..].iter().all(|pause| (60..=75).contains(pause)),
        "{waited:?}"
    );
}

#[test]
fn what_comes_for_a_sleeper_waits_within_bounds() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t", 2))
        .suback(1, 2, ReasonCode::GrantedQoS2)
        .seen();
    bench
        .request(1, guard("g"))
        .request(1, leave(DisconnectCause::Asleep(100)));
    bench.expect(&["1: noted 0 success", "1: asleep"]);
    for (number, qos) in [0, 0, 1, 1, 2, 1, 1, 0].into_iter().enumerate() {
        let id = if qos == 0 { 0 } else { number as u16 + 1 };
        bench.publish(1, "t", qos, id, &number.to_string());
    }
    // All are acknowledged: who does not listen holds nobody up.
    bench.expect(&[
        "1 < PUBACK 3",
        "1 < PUBACK 4",
        "1 < PUBREC 5",
        "1 < PUBACK 6",
        "1 < PUBACK 7",
    ]);
    let counters = bench.upstream.counters();
    assert_eq!((counters.dropped_qos0, counters.dropped_queue_full), (3, 1));
    bench
        .request(2, wake("a", "wrong"))
        .expect(&["2: refused bad user name or password"]);
    bench
        .request(3, wake("a", "g"))
        .expect(&["3: connected present notes=1", "3: deliver t 1 2 2"]);
    bench
        .request(3, Request::PubAck(id(2), ReasonCode::Success))
        .expect(&["3: deliver t 1 3 3"]);
    bench
        .request(3, Request::PubAck(id(3), ReasonCode::Success))
        .expect(&["3: deliver t 2 4 4"]);
    bench
        .request(3, Request::PubRec(id(4), ReasonCode::Success))
        .expect(&["3: pubrel 4"]);
    bench
        .request(3, Request::PubComp(id(4), ReasonCode::Success))
        .expect(&["3: deliver t 1 5 5"]);
    bench
        .request(3, Request::PubAck(id(5), ReasonCode::Success))
        .expect(&["3: drained"]);
}

#[test]
fn a_message_of_qos_2_that_the_broker_sends_twice_is_delivered_once() {
    let mut bench = two();
    bench
        .request(1, subscribe(1, "t", 2))
        .suback(1, 2, ReasonCode::GrantedQoS2)
        .seen();
    bench.publish(1, "t", 2, 9, "x").publish(1, "t", 2, 9, "x");
    bench.expect(&["1 < PUBREC 9", "1 < PUBREC 9", "1: deliver t 2 2 x"]);
    bench
        .packet(1, &Packet::PubRel(ack(9)))
        .expect(&["1 < PUBCOMP 9"]);
    bench.publish(1, "t", 2, 9, "y").expect(&["1 < PUBREC 9"]);
    bench.request(1, Request::PubRec(id(2), ReasonCode::TopicNameInvalid));
    bench.expect(&["1: deliver t 2 3 y"]);
}

#[test]
fn the_gateway_publishes_wills() {
    let with_will = |id: &str, qos| Connect {
        will: Some(will("w", qos)),
        ..client(id)
    };
    let mut bench = bench();
    bench.request(1, connect(with_will("a", QoS::AtMostOnce))).seen();
    bench
        .request(1, leave(DisconnectCause::ConnectionLost))
        .expect(&["1 < PUBLISH w 0 0 gone"]);
    bench.request(1, connect(with_will("a", QoS::AtMostOnce))).seen();
    bench.request(1, leave(DisconnectCause::Normal)).expect(&[]);
    bench
        .request(1, connect(with_will("a", QoS::AtMostOnce)))
        .request(2, connect(client("a")));
    bench.expect(&[
        "1 < PUBLISH w 0 0 gone",
        "1: connected",
        "1: close session taken over",
        "2: connected",
    ]);
    // A sleeper that does not wake, with a Will that was changed while it was awake.
    let new = Request::SetWill(Some(Box::new(will("new", QoS::ExactlyOnce))));
    bench
        .request(2, new)
        .request(2, leave(DisconnectCause::Asleep(10)));
    bench.expect(&["2: will set success", "2: asleep"]);
    bench.wait(Duration::from_secs(9)).expect(&[]);
    bench
        .wait(Duration::from_secs(2))
        .expect(&["1 < PUBLISH new 2 2 gone"]);
    bench.packet(1, &Packet::PubRec(ack(2))).expect(&["1 < PUBREL 2"]);
}

#[test]
fn a_session_without_clean_session_waits_for_its_client() {
    let mut bench = bench();
    let will = Some(will("w", QoS::AtMostOnce));
    bench.request(
        1,
        connect(Connect {
            will,
            ..lasting("a", 60)
        }),
    );
    bench
        .request(1, subscribe(1, "t", 1))
        .suback(1, 2, ReasonCode::GrantedQoS1)
        .seen();
    bench
        .request(1, leave(DisconnectCause::Normal))
        .publish(1, "t", 1, 9, "x")
        .expect(&["1 < PUBACK 9"]);
    bench.request(2, connect(lasting("a", 60)));
    bench.expect(&["2: connected present will=w", "2: deliver t 1 2 x"]);
    // It was not acknowledged.
    bench
        .request(2, leave(DisconnectCause::Normal))
        .request(2, connect(lasting("a", 60)));
    bench.expect(&["2: connected present will=w", "2: deliver t 1 2 dup x"]);
    bench
        .request(2, leave(DisconnectCause::Normal))
        .wait(Duration::from_secs(61));
    bench.expect(&["1 < PINGREQ", "1 < UNSUBSCRIBE 3 t"]);
    bench
        .request(2, connect(lasting("a", 60)))
        .expect(&["2: connected"]);
    bench
        .request(2, connect(client("a")))
        .expect(&["2: close session taken over", "2: connected"]);
}

#[test]
fn there_are_so_many_sessions_and_no_more() {
    let mut bench = bench();
    for (link, id, seconds) in [(1, "a", 60), (2, "b", 30), (3, "c", 90)] {
        bench.request(link, connect(lasting(id, seconds)));
    }
    bench.seen();
    bench
        .request(4, connect(client("d")))
        .expect(&["4: refused quota exceeded"]);
    bench
        .request(1, leave(DisconnectCause::Normal))
        .request(2, leave(DisconnectCause::Normal));
    bench.request(4, connect(client("d"))).expect(&["4: connected"]);
    bench
        .request(1, connect(lasting("a", 60)))
        .expect(&["1: connected present"]);
    bench
        .request(2, connect(lasting("b", 30)))
        .expect(&["2: refused quota exceeded"]);
}

#[test]
fn a_broker_that_falls_silent_is_left() {
    let mut bench = bench();
    bench.wait(KEEP_ALIVE * 2 + Duration::from_secs(1));
    let seen = bench.seen();
    assert_eq!(seen[..2], ["1 < PINGREQ", "close 1"]);
}

#[test]
fn a_client_that_sleeps_often_has_one_timer() {
    let mut bench = two();
    bench.request(1, guard("g"));
    for round in 0..100 {
        let seconds = if round % 2 == 0 { 30 } else { 50 };
        bench.request(1, leave(DisconnectCause::Asleep(seconds)));
        bench.wait(Duration::from_secs(20)).packet(1, &Packet::PingResp);
        bench.request(1, wake("a", "g")).seen();
    }
    assert!(bench.upstream.timers.len() < 5);
}

/// A gateway whose session the broker keeps, with client `a` behind link 1 and `b` behind link 2.
fn lasting_bench() -> Bench {
    let mut bench = Bench::new(Aggregated::new(
        terms(),
        Introduction {
            client_id: "sn".to_owned(),
            is_persistent: true,
        },
    ));
    bench
        .opened(1)
        .connack(1, false)
        .opened(2)
        .connack(2, false)
        .request(1, connect(client("a")))
        .request(2, connect(client("b")));
    bench
}

#[test]
fn a_lasting_session_of_an_earlier_life_is_ended() {
    let mut bench = lasting_bench();
    bench.expect(&[
        "open 1",
        "1 < CONNECT sn gw clean",
        "1 < DISCONNECT",
        "close 1",
        "open 2",
        "2 < CONNECT sn gw",
        "1: connected",
        "2: connected",
    ]);
}

#[test]
fn a_lasting_session_keeps_no_filter_whose_end_was_not_confirmed() {
    let mut bench = lasting_bench();
    bench
        .request(1, subscribe(1, "t", 1))
        .suback(2, 2, ReasonCode::GrantedQoS1)
        .seen();
    bench
        .request(1, unsubscribe(2, "t"))
        .expect(&["2 < UNSUBSCRIBE 3 t"]);
    bench.closed(2).expect(&["close 2", "1: unsuback 2 success"]);
    bench
        .wait(Duration::from_millis(1_250))
        .opened(3)
        .connack(3, true);
    let seen = bench.seen();
    assert_eq!(seen.last().unwrap(), "3 < UNSUBSCRIBE 4 t");
}

#[test]
fn filters_that_were_not_confirmed_are_asked_for_again() {
    let mut bench = lasting_bench();
    bench
        .request(1, subscribe(1, "t", 1))
        .suback(2, 2, ReasonCode::GrantedQoS1);
    bench
        .closed(2)
        .wait(Duration::from_millis(1_250))
        .opened(3)
        .seen();
    bench.connack(3, false).expect(&["3 < SUBSCRIBE 3 t 1"]);
    bench
        .closed(3)
        .wait(Duration::from_millis(1_250))
        .opened(4)
        .seen();
    // The session is there, but nobody knows whether the filter is.
    bench.connack(4, true).expect(&["4 < SUBSCRIBE 4 t 1"]);
    bench.suback(4, 4, ReasonCode::GrantedQoS1);
    bench
        .closed(4)
        .wait(Duration::from_millis(1_250))
        .opened(5)
        .seen();
    bench.connack(5, true).expect(&[]);
}

#[test]
fn packet_identifiers_are_enough_however_many_filters_end_at_once() {
    const SESSIONS: u16 = 260;
    let mut bench = Bench::new(Aggregated::new(
        Terms {
            sessions_max: usize::from(SESSIONS),
            ..terms()
        },
        Introduction {
            client_id: "sn".to_owned(),
            is_persistent: false,
        },
    ));
    bench.opened(1).connack(1, false);
    let mut own = 1;
    for session in 0..SESSIONS {
        let link = u64::from(session) + 1;
        bench.request(link, connect(client(&format!("c{session}"))));
        for number in 1..=256 {
            own = if own == u16::MAX { 1 } else { own + 1 };
            bench
                .request(link, subscribe(number, &format!("{session}/{number}"), 0))
                .suback(1, own, ReasonCode::Success);
        }
        bench.seen();
    }
    for session in 0..SESSIONS {
        bench.request(u64::from(session) + 1, leave(DisconnectCause::Normal));
    }
    assert_eq!(bench.upstream.exchanges.len(), 49_152);
    // The others follow.
    let waiting = bench.upstream.stale_filters.len();
    assert_eq!(waiting, 260 * 256 - 49_152);
    let id = *bench.upstream.exchanges.keys().next().unwrap();
    bench.unsuback(1, id.get());
    assert_eq!(bench.upstream.exchanges.len(), 49_152);
    assert_eq!(bench.upstream.stale_filters.len(), waiting - 1);
}

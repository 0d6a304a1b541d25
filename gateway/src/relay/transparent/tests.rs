//! One connection for each client, with a scripted broker.

use std::time::Duration;

use broker_core::{Connect, DisconnectCause, QoS, ReasonCode, Request};
use mqtt::codec::{ConnAck, Packet};

use super::Transparent;
use crate::relay::{script::*, upstream::Upstream as _};

type Bench = crate::relay::script::Bench<Transparent>;

fn bench() -> Bench {
    Bench::new(Transparent::new(terms()))
}

/// Link 1 is that of a client which the broker has admitted on connection 1.
fn admitted(request: Connect) -> Bench {
    let mut bench = bench();
    bench.request(1, connect(request)).opened(1).connack(1, false);
    bench.seen();
    bench
}

fn asleep(request: Connect) -> Bench {
    let mut bench = admitted(request);
    bench
        .request(1, guard("g"))
        .request(1, leave(DisconnectCause::Asleep(100)));
    bench.expect(&["1: noted 0 success", "1: asleep"]);
    bench
}

#[test]
fn a_client_has_a_connection_of_its_own() {
    let mut bench = bench();
    let will = Some(will("w", QoS::AtLeastOnce));
    bench
        .request(1, connect(Connect { will, ..client("a") }))
        .expect(&["open 1"]);
    bench.opened(1).expect(&["1 < CONNECT a gw clean will=w"]);
    bench.connack(1, false).expect(&["1: connected"]);
    let own = Connect {
        username: Some("u".to_owned()),
        ..lasting("b", 60)
    };
    bench.request(2, connect(own)).opened(2).connack(2, true);
    bench.expect(&["open 2", "2 < CONNECT b u", "2: connected present"]);
    bench
        .request(1, leave(DisconnectCause::Normal))
        .expect(&["1 < DISCONNECT", "close 1"]);
    // The broker publishes the Will of whoever goes without DISCONNECT.
    bench
        .request(2, leave(DisconnectCause::ConnectionLost))
        .expect(&["close 2"]);
}

#[test]
fn messages_of_the_client_go_to_the_broker_and_acknowledgements_back() {
    let mut bench = admitted(client("a"));
    bench
        .request(1, publish("t", 0, 0, "x"))
        .expect(&["1 < PUBLISH t 0 0 x"]);
    bench
        .request(1, publish("t", 1, 5, "y"))
        .expect(&["1 < PUBLISH t 1 5 y"]);
    bench.request(1, publish("t", 1, 5, "y")).expect(&[]);
    bench.packet(1, &Packet::PubAck(ack(5))).expect(&["1: puback 5"]);
    bench
        .request(1, publish("t", 2, 5, "z"))
        .expect(&["1 < PUBLISH t 2 5 z"]);
    bench.packet(1, &Packet::PubRec(ack(5))).expect(&["1: pubrec 5"]);
    bench
        .request(1, Request::PubRel(id(5), ReasonCode::Success))
        .expect(&["1 < PUBREL 5"]);
    bench
        .packet(1, &Packet::PubComp(ack(5)))
        .expect(&["1: pubcomp 5"]);
    // An acknowledgement of nothing.
    bench.packet(1, &Packet::PubAck(ack(5))).expect(&[]);
}

#[test]
fn subscriptions_have_numbers_apart_from_messages() {
    let mut bench = admitted(client("a"));
    bench.request(1, publish("t", 1, 1, "x")).seen();
    bench
        .request(1, subscribe(1, "a/+", 2))
        .expect(&["1 < SUBSCRIBE 65535 a/+ 2"]);
    bench
        .request(1, unsubscribe(2, "b"))
        .expect(&["1 < UNSUBSCRIBE 65534 b"]);
    bench
        .suback(1, 65535, ReasonCode::GrantedQoS1)
        .expect(&["1: suback 1 granted qos 1"]);
    bench.unsuback(1, 65534).expect(&["1: unsuback 2 success"]);
    bench.packet(1, &Packet::PubAck(ack(1))).expect(&["1: puback 1"]);
    bench
        .request(1, subscribe(3, "c", 0))
        .suback(1, 65535, ReasonCode::UnspecifiedError);
    bench.expect(&["1 < SUBSCRIBE 65535 c 0", "1: suback 3 unspecified error"]);
}

#[test]
fn a_client_is_given_as_many_messages_at_once_as_it_takes() {
    let mut bench = admitted(client("a"));
    bench
        .publish(1, "t", 1, 7, "x")
        .publish(1, "t", 2, 8, "y")
        .publish(1, "t", 0, 0, "z");
    bench.expect(&["1: deliver t 1 7 x"]);
    // One of QoS 0 needs no room, but its turn.
    bench.request(1, Request::PubAck(id(7), ReasonCode::Success));
    bench.expect(&["1 < PUBACK 7", "1: deliver t 2 8 y", "1: deliver t 0 0 z"]);
    bench.publish(1, "t", 1, 9, "u").expect(&[]);
    bench
        .request(1, Request::PubRec(id(8), ReasonCode::Success))
        .expect(&["1 < PUBREC 8"]);
    bench.packet(1, &Packet::PubRel(ack(8))).expect(&["1: pubrel 8"]);
    bench
        .request(1, Request::PubComp(id(8), ReasonCode::Success))
        .expect(&["1 < PUBCOMP 8", "1: deliver t 1 9 u"]);
}

#[test]
fn the_gateway_completes_what_the_client_does_not_take() {
    let mut bench = admitted(client("a"));
    bench
        .publish(1, "t", 1, 7, "x")
        .request(1, Request::Undeliverable(Some(id(7))));
    bench.expect(&["1 < PUBACK 7", "1: deliver t 1 7 x"]);
    bench
        .publish(1, "t", 2, 8, "y")
        .request(1, Request::PubRec(id(8), ReasonCode::TopicNameInvalid));
    bench.expect(&["1 < PUBREC 8", "1: deliver t 2 8 y"]);
    bench
        .packet(1, &Packet::PubRel(ack(8)))
        .expect(&["1 < PUBCOMP 8"]);
}

#[test]
fn a_message_that_is_larger_than_a_datagram_is_skipped_and_acknowledged() {
    let mut bench = admitted(client("a"));
    let large = "x".repeat(1 << 20);
    bench.publish(1, "t", 2, 8, &large).publish(1, "t", 0, 0, "next");
    bench.expect(&["1 < PUBREC 8", "1: deliver t 0 0 next"]);
    bench
        .packet(1, &Packet::PubRel(ack(8)))
        .expect(&["1 < PUBCOMP 8"]);
    assert_eq!(bench.upstream.counters().dropped_too_large, 1);
}

#[test]
fn a_changed_will_is_published_by_the_gateway() {
    let request = || Connect {
        will: Some(will("old", QoS::AtMostOnce)),
        ..client("a")
    };
    let new = || Request::SetWill(Some(Box::new(will("new", QoS::ExactlyOnce))));
    let mut bench = admitted(request());
    bench.request(1, new()).expect(&["1: will set success"]);
    bench
        .request(1, leave(DisconnectCause::ConnectionLost))
        .expect(&["1 < PUBLISH new 2 65535 gone"]);
    bench
        .packet(1, &Packet::PubRec(ack(65535)))
        .expect(&["1 < PUBREL 65535"]);
    // With DISCONNECT, so that the broker does not publish the old one.
    bench
        .packet(1, &Packet::PubComp(ack(65535)))
        .expect(&["1 < DISCONNECT", "close 1"]);

    let mut bench = admitted(request());
    bench
        .request(1, Request::SetWill(None))
        .request(1, leave(DisconnectCause::ConnectionLost));
    bench.expect(&["1 < DISCONNECT", "close 1", "1: will set success"]);

    let mut bench = admitted(request());
    bench.request(1, new()).request(1, leave(DisconnectCause::Normal));
    bench.expect(&["1 < DISCONNECT", "close 1", "1: will set success"]);
}

#[test]
fn what_comes_for_a_sleeper_waits() {
    let mut bench = asleep(client("a"));
    bench
        .publish(1, "t", 0, 0, "1")
        .publish(1, "t", 1, 7, "2")
        .publish(1, "t", 0, 0, "3");
    bench.expect(&[]);
    bench
        .request(2, wake("a", "wrong"))
        .expect(&["2: refused bad user name or password"]);
    bench.request(2, wake("a", "g"));
    bench.expect(&[
        "2: connected present notes=1",
        "2: deliver t 0 0 1",
        "2: deliver t 1 7 2",
        "2: deliver t 0 0 3",
    ]);
    bench
        .request(2, Request::PubAck(id(7), ReasonCode::Success))
        .expect(&["1 < PUBACK 7", "1 < PINGREQ"]);
    // The acknowledgement has made room for another one at the broker.
    bench
        .publish(1, "t", 1, 8, "4")
        .packet(1, &Packet::PingResp)
        .expect(&["2: deliver t 1 8 4"]);
    bench
        .request(2, Request::PubAck(id(8), ReasonCode::Success))
        .expect(&["1 < PUBACK 8", "1 < PINGREQ"]);
    bench.packet(1, &Packet::PingResp).expect(&["1 < PINGREQ"]);
    bench.packet(1, &Packet::PingResp).expect(&["2: drained"]);
    bench
        .request(2, leave(DisconnectCause::Asleep(100)))
        .expect(&["2: asleep"]);
    // One that is connected or awake cannot be woken by another.
    bench
        .request(1, wake("a", "g"))
        .expect(&["1 < PINGREQ", "1: connected present notes=1"]);
    bench
        .request(3, wake("a", "g"))
        .expect(&["3: refused bad user name or password"]);
}

#[test]
fn an_answer_to_an_earlier_question_does_not_say_that_nothing_waits() {
    let mut bench = asleep(client("a"));
    bench.wait(Duration::from_secs(61)).expect(&["1 < PINGREQ"]);
    bench
        .request(1, wake("a", "g"))
        .expect(&["1 < PINGREQ", "1: connected present notes=1"]);
    bench.packet(1, &Packet::PingResp).expect(&[]);
    bench.packet(1, &Packet::PingResp).expect(&["1 < PINGREQ"]);
    bench.packet(1, &Packet::PingResp).expect(&["1: drained"]);
}

#[test]
fn a_message_that_was_not_acknowledged_comes_again_at_the_next_waking() {
    let mut bench = asleep(client("a"));
    bench
        .publish(1, "t", 1, 7, "x")
        .publish(1, "t", 2, 8, "y")
        .request(1, wake("a", "g"));
    bench.expect(&["1: connected present notes=1", "1: deliver t 1 7 x"]);
    bench
        .request(1, leave(DisconnectCause::Asleep(9)))
        .request(1, wake("a", "g"));
    bench.expect(&[
        "1: asleep",
        "1: connected present notes=1",
        "1: deliver t 1 7 dup x",
    ]);
    bench.request(1, Request::PubAck(id(7), ReasonCode::Success));
    bench
        .request(1, Request::PubRec(id(8), ReasonCode::Success))
        .seen();
    // It sleeps between the halves of an exchange of QoS 2.
    bench
        .request(1, leave(DisconnectCause::Asleep(9)))
        .packet(1, &Packet::PubRel(ack(8)));
    bench.request(1, wake("a", "g"));
    bench.expect(&["1: asleep", "1: connected present notes=1", "1: pubrel 8"]);
}

#[test]
fn a_full_queue_drops_qos_0_and_then_the_broker_is_not_read() {
    let mut bench = asleep(client("a"));
    for number in 0..6 {
        bench.publish(1, "t", 0, 0, &number.to_string());
    }
    bench.expect(&["pause 1"]);
    bench.publish(1, "t", 1, 1, "a").publish(1, "t", 0, 0, "6");
    assert_eq!(bench.upstream.counters().dropped_qos0, 3);
    bench.request(1, wake("a", "g"));
    assert_eq!(
        bench.seen(),
        [
            "resume 1",
            "1: connected present notes=1",
            "1: deliver t 0 0 3",
            "1: deliver t 0 0 4",
            "1: deliver t 0 0 5",
            "1: deliver t 1 1 a",
            "1: deliver t 0 0 6",
        ]
    );
}

#[test]
fn a_sleeper_that_does_not_wake_is_lost() {
    let mut bench = asleep(client("a"));
    bench.wait(Duration::from_secs(99));
    bench.expect(&["1 < PINGREQ"]);
    bench
        .packet(1, &Packet::PingResp)
        .wait(Duration::from_secs(2))
        .expect(&["close 1"]);
    bench
        .request(1, wake("a", "g"))
        .expect(&["1: refused bad user name or password"]);
}

#[test]
fn connect_from_sleep() {
    // Without CleanSession it goes on, on the same connection, with the Will that it keeps.
    let will = Some(will("w", QoS::AtMostOnce));
    let mut bench = asleep(Connect { will, ..client("a") });
    bench
        .publish(1, "t", 0, 0, "x")
        .request(2, connect(lasting("a", 60)));
    bench.expect(&["2: connected present notes=1 will=w", "2: deliver t 0 0 x"]);
    // With it, it starts over, once the broker knows that nobody was lost.
    bench
        .request(2, leave(DisconnectCause::Asleep(9)))
        .request(2, connect(client("a")));
    bench.expect(&["1 < DISCONNECT", "close 1", "2: asleep"]);
    bench.closed(1).opened(2).connack(2, false);
    bench.expect(&["open 2", "2 < CONNECT a gw clean", "2: connected"]);
}

#[test]
fn the_broker_decides_about_a_client_id_that_is_in_use() {
    let mut bench = admitted(client("a"));
    let stranger = || Connect {
        username: Some("mallory".to_owned()),
        ..client("a")
    };
    bench.request(2, connect(stranger())).opened(2);
    bench.expect(&["open 2", "2 < CONNECT a mallory clean"]);
    let refusal = ConnAck::new(ReasonCode::NotAuthorized);
    bench
        .packet(2, &Packet::ConnAck(Box::new(refusal)))
        .expect(&["close 2", "2: refused not authorized"]);
    bench
        .request(1, publish("t", 0, 0, "x"))
        .expect(&["1 < PUBLISH t 0 0 x"]);
    bench.request(3, connect(stranger())).opened(3).connack(3, false);
    let taken = [
        "open 3",
        "3 < CONNECT a mallory clean",
        "close 1",
        "1: close session taken over",
        "3: connected",
    ];
    bench.expect(&taken);
    bench.closed(1).request(1, publish("t", 0, 0, "x")).expect(&[]);
}

#[test]
fn a_client_that_connects_again_has_its_topic_ids() {
    let mut bench = admitted(lasting("a", 60));
    bench.request(1, Request::Note(2, Some(bytes::Bytes::from_static(b"page"))));
    bench.expect(&["1: noted 2 success"]);
    bench.request(1, leave(DisconnectCause::ByServer(ReasonCode::SessionTakenOver)));
    bench.request(1, connect(lasting("a", 60))).expect(&["close 1"]);
    bench.closed(1).opened(2).connack(2, true);
    bench.expect(&["open 2", "2 < CONNECT a gw", "1: connected present notes=1"]);
    // Of four clients that are away, three are remembered.
    bench.request(1, leave(DisconnectCause::Normal)).closed(2);
    for other in 3..6 {
        bench
            .request(2, connect(lasting(&other.to_string(), 60)))
            .opened(other)
            .connack(other, false);
        bench.request(2, leave(DisconnectCause::Normal)).closed(other);
    }
    bench.seen();
    bench
        .request(1, connect(lasting("a", 60)))
        .opened(6)
        .connack(6, true);
    bench.expect(&["open 6", "6 < CONNECT a gw", "1: connected present"]);
}

#[test]
fn a_broker_that_is_away() {
    let mut bench = bench();
    bench.request(1, connect(client("a"))).closed(1);
    bench.expect(&["open 1", "close 1", "1: refused server unavailable"]);
    // Nobody tries for a while.
    bench
        .request(2, connect(client("b")))
        .expect(&["2: refused server unavailable"]);
    bench
        .wait(Duration::from_millis(1_250))
        .request(2, connect(client("b")))
        .expect(&["open 2"]);
    bench.opened(2).connack(2, false).seen();
    bench
        .closed(2)
        .expect(&["close 2", "2: close server unavailable"]);
    bench.request(2, connect(client("b"))).opened(3).seen();
    // It takes connections and says nothing.
    bench
        .wait(Duration::from_secs(31))
        .expect(&["close 3", "2: refused server unavailable"]);
}

#[test]
fn the_gateway_keeps_connections_alive() {
    let mut bench = admitted(client("a"));
    bench
        .wait(KEEP_ALIVE + Duration::from_secs(1))
        .expect(&["1 < PINGREQ"]);
    bench
        .packet(1, &Packet::PingResp)
        .wait(KEEP_ALIVE)
        .expect(&["1 < PINGREQ"]);
    bench
        .wait(KEEP_ALIVE + Duration::from_secs(1))
        .expect(&["close 1", "1: close server unavailable"]);
}

#[test]
fn a_broker_that_does_not_speak_mqtt() {
    let mut bench = bench();
    bench.request(1, connect(client("a"))).opened(1).seen();
    bench
        .bytes(1, b"HTTP/1.1 400")
        .expect(&["close 1", "1: refused server unavailable"]);
    let mut bench = admitted(client("a"));
    bench
        .bytes(1, &[0xF0, 0])
        .expect(&["close 1", "1: close server unavailable"]);
}

#[test]
fn the_end_of_the_gateway_is_no_loss_of_clients() {
    let mut bench = asleep(client("a"));
    bench
        .request(2, connect(client("b")))
        .opened(2)
        .connack(2, false)
        .seen();
    let mut out = Default::default();
    super::Upstream::shutdown(&mut bench.upstream, bench.now, &mut out);
    assert_eq!(out.commands.len(), 4, "DISCONNECT and close, twice: {out:?}");
    assert!(matches!(&out.events[..], [(link, _)] if link.0 == 2));
}

#[test]
fn a_client_that_sleeps_often_has_one_timer() {
    let mut bench = asleep(client("a"));
    for round in 0..100 {
        bench.request(1, wake("a", "g"));
        let seconds = if round % 2 == 0 { 30 } else { 50 };
        bench.request(1, leave(DisconnectCause::Asleep(seconds)));
        bench.wait(Duration::from_secs(20)).packet(1, &Packet::PingResp);
        bench.seen();
    }
    assert!(bench.upstream.timers.len() < 5);
}

#[test]
fn clients_that_fail_together_are_one_failure() {
    let mut bench = bench();
    for number in 1..=20 {
        bench.request(number, connect(client(&format!("c{number}"))));
    }
    for number in 1..=20 {
        bench.closed(number);
    }
    bench.seen();
    bench
        .wait(Duration::from_millis(1_250))
        .request(30, connect(client("late")))
        .expect(&["open 21"]);
}

//! Datagrams of those that have no peer.

use broker_core::{Outbox, Request};

use super::*;

#[test]
fn connect_and_the_ping_of_a_sleeper_open_a_peer() {
    let mut world = World::new();
    for remote in [sensor(1), node(&[1, 2, 3])] {
        for notation in ["07 04 04 01 00 3C 'c'", "06 04 00 01 00 3C", "03 16 'c'"] {
            let outcome = world.say_as(&remote, notation);
            assert_eq!(outcome, Outcome { opened: true, ..DONE }, "{notation}");
            assert_eq!(world.opened.last().remote, remote);
        }
    }
}

#[test]
fn who_connects_is_told_that_there_is_no_room() {
    let mut world = World::new();
    let mut told = |from: u32, notation: &str| {
        let mut transmits = Vec::new();
        let now = world.now;
        world
            .endpoint
            .handle_no_room(now, &sensor(from), &wire(notation), &mut transmits);
        plain(transmits)
    };
    let congestion = vec![(Destination::Remote(sensor(1)), wire("03 05 01"))];
    assert_eq!(told(1, "07 04 04 01 00 3C 'c'"), congestion);
    assert_eq!(
        told(1, "07 04 04 01 00 3C 'c'"),
        [],
        "as often as other answers to strangers"
    );
    assert_eq!(told(2, "03 16 'c'"), [], "it sleeps on");
}

#[test]
fn a_peer_learns_what_its_transport_knows() {
    let mut world = World::new();
    world.identity = Some(Identity::Psk(Arc::from("meter-17")));
    world.say_as(&sensor(1), "07 04 04 01 00 3C 'c'");
    let first = world.opened.last();
    assert_eq!(first.local, Some(SocketAddr::from((US, 1884))));
    assert_eq!(first.identity, world.identity);
    world.say_as(&sensor(2), "07 04 04 01 00 3C 'd'");
    assert_ne!(world.opened.last().seed, first.seed);
}

/// The peers of the crate take over where the endpoint ends: a CONNECT becomes a request to the broker.
#[test]
fn the_peer_takes_the_datagram_that_has_opened_it() {
    let mut endpoint = Endpoint::new(Arc::new(settings()), true, 1);
    let (remote, now) = (sensor(1), Timestamp::from_millis(1_700_000_000_000));
    let stranger = Stranger {
        remote: &remote,
        local: SocketAddr::from((US, 1884)),
        identity: None,
    };
    let connect = wire("07 04 04 01 00 3C 'c'");
    let Verdict::Open(mut peer) = endpoint.handle_stranger(now, &stranger, &connect, &mut Vec::new()) else {
        panic!("a CONNECT opens a peer");
    };
    let (mut wire, mut requests, mut close) = (Outbox::new(), Vec::new(), None);
    let mut effects = Effects {
        wire: &mut wire,
        requests: &mut requests,
        close: &mut close,
    };
    assert_eq!(peer.handle_input(now, &connect, &mut effects), connect.len());
    assert!(matches!(&requests[..], [Request::Connect(_)]), "{requests:?}");
    assert!(endpoint.common_peer(now).poll_timeout().is_none());
}

/// Every message, from somebody who is not connected.
#[test]
fn the_others_are_told_that_they_are_not_connected() {
    let mut world = World::new();
    for (number, one) in (1..).zip(valid::all()) {
        let remote = sensor(number);
        let outcome = match one.message {
            Message::Connect(_)
            | Message::Advertise { .. }
            | Message::SearchGw { .. }
            | Message::GwInfo { .. } => {
                continue;
            }
            Message::Publish(publish) if publish.qos == mqtt_sn::codec::PublishQoS::WithoutConnection => {
                continue;
            }
            Message::PingReq(client_id) if !client_id.is_empty() => continue,
            Message::Disconnect(Some(1..)) => dropped(words::SLEEP_OF_STRANGER),
            Message::ConnAck(_)
            | Message::WillTopicReq
            | Message::WillMsgReq
            | Message::SubAck { .. }
            | Message::UnsubAck(_)
            | Message::PingResp
            | Message::WillTopicResp(_)
            | Message::WillMsgResp(_) => dropped(words::GATEWAY_MESSAGE),
            _ => answered(&remote, DISCONNECT),
        };
        assert_eq!(world.say(&remote, &one.bytes()), outcome, "{}", one.clause);
    }
    assert_eq!(world.opened.count(), 0);
}

#[test]
fn a_node_gets_its_answer_in_an_envelope() {
    let mut world = World::new();
    let remote = node(&[0xAB, 0xCD]);
    assert_eq!(
        world.say_as(&remote, "02 16"),
        answered(&remote, "05 FE 00 AB CD 02 18")
    );
}

#[test]
fn a_connect_of_another_version_is_refused() {
    let mut world = World::new();
    for (remote, answer) in [(sensor(1), "03 05 03"), (node(&[9]), "04 FE 00 09 03 05 03")] {
        let outcome = Outcome {
            dropped: Some("unsupported_protocol_id"),
            ..answered(&remote, answer)
        };
        assert_eq!(world.say_as(&remote, "0A 04 00 02 00 3C 00 00 00 01"), outcome);
    }
    let refused = Outcome {
        dropped: Some("malformed_text"),
        ..answered(&sensor(2), "03 05 03")
    };
    assert_eq!(world.say_as(&sensor(2), "07 04 04 01 00 3C FF"), refused);
}

/// What a known client would be refused with, would mislead one that is not connected.
#[test]
fn what_cannot_be_read_is_dropped_or_answered_like_anything_else() {
    let mut world = World::new();
    for (number, one) in (1..).zip(crate::table::broken::all()) {
        let remote = sensor(number);
        let bytes = wire(one.notation);
        if let Addressed::Common(_) = world.endpoint.address(&bytes) {
            continue;
        }
        let outcome = world.say(&remote, &bytes);
        assert!(outcome.dropped.is_some() && !outcome.opened, "{}", one.notation);
        let is_connect = bytes.get(1) == Some(&0x04);
        let expected = match one.refusal {
            "" => vec![],
            _ if is_connect => vec![(only(&remote), wire("03 05 03"))],
            _ => vec![(only(&remote), wire(DISCONNECT))],
        };
        assert_eq!(outcome.sent, expected, "{}", one.notation);
    }
}

/// Two gateways that take each other's DISCONNECT for a client's: the second answer is not given.
#[test]
fn two_gateways_do_not_answer_each_other_for_ever() {
    let (mut one, mut two) = (World::new(), World::new());
    let (at_one, at_two) = (sensor(1), sensor(2));
    let mut datagrams = 0;
    let mut question = Some(wire(DISCONNECT));
    while let Some(datagram) = question.take() {
        datagrams += 1;
        let answer = one.say(&at_two, &datagram).sent.pop();
        question = answer.and_then(|(_, bytes)| two.say(&at_one, &bytes).sent.pop().map(|(_, bytes)| bytes));
    }
    assert_eq!(datagrams, 2);
}

#[test]
fn nobody_is_answered_twice_in_a_second() {
    let mut world = World::new();
    let publish = "0B 0C 00 04 01 00 00 '21.5'";
    assert_eq!(
        world.say_as(&sensor(1), publish),
        answered(&sensor(1), DISCONNECT)
    );
    assert_eq!(world.say_as(&sensor(1), publish), dropped(words::ANSWERED_BEFORE));
    assert_eq!(
        world.say_as(&sensor(2), publish),
        answered(&sensor(2), DISCONNECT)
    );
    world.advance(Duration::from_millis(999));
    assert_eq!(world.say_as(&sensor(1), publish), dropped(words::ANSWERED_BEFORE));
    world.advance(Duration::from_millis(1));
    assert_eq!(
        world.say_as(&sensor(1), publish),
        answered(&sensor(1), DISCONNECT)
    );
    // Nodes behind one forwarder are not one another.
    assert_eq!(
        world.say_as(&node(&[1]), "02 18"),
        answered(&node(&[1]), "04 FE 00 01 02 18")
    );
    assert_eq!(
        world.say_as(&node(&[2]), "02 18"),
        answered(&node(&[2]), "04 FE 00 02 02 18")
    );
}

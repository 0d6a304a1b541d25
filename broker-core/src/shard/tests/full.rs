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

#[test]
fn an_answer_behind_a_removal_that_is_tried_again_is_given() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.lose(link);
    rig.is_full = true;
    begin_anew(&mut rig);
    rig.is_full = false;
    let link = begin_anew(&mut rig);
    rig.pass(1000);
    let connected = |(to, event): &(LinkId, Event)| *to == link && matches!(event, Event::Connected(_));
    assert!(rig.events.iter().any(connected));
}

/// `s` with a session that is not stored.
fn begin_anew(rig: &mut Rig) -> LinkId {
    rig.links += 1;
    let link = LinkId(rig.links);
    rig.request(link, Request::Connect(Box::new(Connect::plain("s"))));
    link
}

#[test]
fn only_clients_of_mqtt_3_lose_their_connection_with_a_message() {
    for (protocol, proto_ver, is_told) in [("mqtt", 4, false), ("mqtt", 5, true), ("mqtt-sn", 1, true)] {
        let mut rig = Rig::new();
        let listener = rig.connect("s", 60);
        rig.subscribe(listener, "t", QoS::AtLeastOnce);
        let connection = crate::ConnectionInfo {
            protocol,
            proto_ver,
            ..crate::ConnectionInfo::clone(&ClientInfo::system().connection)
        };
        rig.links += 1;
        let link = LinkId(rig.links);
        let connect = Connect {
            connection: Arc::new(connection),
            ..Connect::plain("publisher")
        };
        rig.request(link, Request::Connect(Box::new(connect)));
        rig.is_full = true;
        let parts = MessageParts {
            qos: QoS::AtLeastOnce,
            ..MessageParts::new("t", b"x")
        };
        let publish = crate::Publish {
            message: parts.publish(rig.now, ClientInfo::system()).unwrap(),
            packet_id: Some(PacketId::FIRST),
            dup: false,
        };
        rig.request(link, Request::Publish(publish));
        let refused = |(to, event): &(LinkId, Event)| {
            *to == link && matches!(event, Event::PubAck(_, ReasonCode::QuotaExceeded))
        };
        let closed = |(to, event): &(LinkId, Event)| *to == link && matches!(event, Event::Close(_));
        assert_eq!(rig.events.iter().any(refused), is_told, "{protocol} {proto_ver}");
        assert_eq!(rig.events.iter().any(closed), !is_told, "{protocol} {proto_ver}");
    }
}

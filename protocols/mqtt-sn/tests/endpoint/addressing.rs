//! Whose a datagram is.

use super::*;

#[test]
fn messages_go_to_whom_they_concern() {
    let endpoint = World::new().endpoint;
    for one in valid::all() {
        let bytes = one.bytes();
        let expected = match one.message {
            Message::Advertise { .. } | Message::SearchGw { .. } | Message::GwInfo { .. } => {
                Addressed::Endpoint(&bytes)
            }
            Message::Publish(publish) if publish.qos == mqtt_sn::codec::PublishQoS::WithoutConnection => {
                Addressed::Common(&bytes)
            }
            _ => Addressed::Sender(&bytes),
        };
        assert_eq!(endpoint.address(&bytes), expected, "{}", one.clause);
    }
}

#[test]
fn envelopes_are_opened() {
    let endpoint = World::new().endpoint;
    let id = [0xAB, 0xCD];
    for one in valid::all() {
        let mut bytes = wire("05 FE 02 AB CD");
        bytes.extend(one.bytes());
        let inner = &bytes[5..];
        let expected = match endpoint.address(inner) {
            Addressed::Endpoint(_) => Addressed::Endpoint(&bytes[..]),
            Addressed::Common(_) => Addressed::Common(inner),
            _ => Addressed::Node { node: &id, inner },
        };
        assert_eq!(endpoint.address(&bytes), expected, "{}", one.clause);
    }
}

#[test]
fn garbage_has_a_word() {
    let endpoint = World::new().endpoint;
    for (notation, word) in [
        ("", "malformed_length"),
        ("02", "malformed_length"),
        ("03 16", "malformed_length"),
        ("02 16 00", "malformed_length"),
        ("02 03", "reserved_message_type"),
        ("02 11", "reserved_message_type"),
        ("02 19", "reserved_message_type"),
        ("02 1E", "reserved_message_type"),
        ("02 FF", "reserved_message_type"),
        ("02 FE 00 02 16", "malformed_length"),
        ("03 FE 00 02 16", "malformed_length"),
        ("04 FE 00 01", "malformed_length"),
        ("04 FE 00 01 03 16", "malformed_length"),
        ("04 FE 00 01 02 03", "reserved_message_type"),
        // An envelope in an envelope.
        ("04 FE 00 01 04 FE 00 02 02 16", "malformed_length"),
        ("04 FE 00 01 04 FE 00 02", "reserved_message_type"),
    ] {
        assert_eq!(
            endpoint.address(&wire(notation)),
            Addressed::Garbage(word),
            "{notation}"
        );
    }
}

#[test]
fn qos_minus_one_can_be_switched_off() {
    let publish = wire("0B 0C 61 00 01 00 00 '21.5'");
    let mut settings = settings();
    settings.enable_qos3 = false;
    let endpoint = World::with(settings, true).endpoint;
    assert_eq!(
        endpoint.address(&publish),
        Addressed::Garbage(words::QOS3_DISABLED)
    );
    assert_eq!(endpoint.common_client_id(), None);
}

#[test]
fn each_listener_has_a_client_for_qos_minus_one() {
    for (listener, name) in [
        ("udp:default", "NegQoS-Client"),
        ("udp:field", "NegQoS-Client-field"),
        ("dtls:default", "NegQoS-Client-dtls:default"),
        ("mqttsn:udp:default", "NegQoS-Client"),
        ("mqttsn:udp:field", "NegQoS-Client-field"),
        ("mqttsn:dtls:default", "NegQoS-Client-dtls:default"),
    ] {
        let mut settings = settings();
        let mut connection = ConnectionInfo::clone(&settings.connection);
        connection.listener = Arc::from(listener);
        settings.connection = Arc::new(connection);
        assert_eq!(
            World::with(settings, true).endpoint.common_client_id(),
            Some(name)
        );
    }
}

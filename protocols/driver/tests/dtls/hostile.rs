//! Strangers: floods, forgeries, replays, and clients that come again.

use std::time::Duration;

use broker_core::Timestamp;
use driver::dtls::{Associations, DtlsServer};
use rtc_dtls::cipher_suite::CipherSuiteId;
use testkit::Random;

use crate::{memory::*, setup::*};

const SUITE: CipherSuiteId = CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8;

fn after_ms(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

/// The two hellos of a client, the second with the cookie that `server` has given it.
fn hellos(server: &mut Server, now: Timestamp, port: u16) -> (Client, Vec<u8>, Vec<u8>) {
    let mut client = Client::new(psk_client(SUITE));
    let first = client.take().unwrap();
    let answer = server.receive(now, address(port), &first);
    client.receive(now, &answer[0]);
    let second = client.take().unwrap();
    (client, first, second)
}

#[test]
fn nothing_is_kept_and_no_more_is_answered_than_asked_before_the_cookie() {
    let mut server = Server::new(psk_server());
    let first = Client::new(psk_client(SUITE)).take().unwrap();
    for port in 1..1000 {
        let answer = server.receive(START, address(port), &first);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].len() <= first.len());
    }
    assert_eq!(server.associations.handshakes(), 0);
    assert_eq!(server.associations.poll_timeout(), None);

    // Garbage of every kind: nothing is ever answered but hellos, and never with more.
    let mut random = Random::new(7);
    for round in 0..20_000 {
        let mut datagram = match round % 3 {
            0 => (0..random.below(200)).map(|_| random.bits() as u8).collect(),
            1 => first[..random.below(first.len())].to_vec(),
            _ => first.clone(),
        };
        for _ in 0..random.below(4) {
            if !datagram.is_empty() {
                let at = random.below(datagram.len());
                datagram[at] = random.bits() as u8;
            }
        }
        let answered: usize = server
            .receive(START, address(9), &datagram)
            .iter()
            .map(Vec::len)
            .sum();
        assert!(answered <= datagram.len(), "{datagram:?}");
        assert_eq!(server.associations.handshakes(), 0);
    }
}

#[test]
fn a_cookie_is_good_for_one_address_one_hello_and_two_minutes() {
    let mut server = Server::new(psk_server());
    let (_, _, second) = hellos(&mut server, START, 5);
    let is_refused = |server: &mut Server, now, port, hello: &[u8]| {
        let answer = server.receive(now, address(port), hello);
        // A new cookie: HelloVerifyRequest is type 3.
        assert_eq!((answer.len(), answer[0][13]), (1, 3));
        assert_eq!(server.associations.handshakes(), 0);
    };
    is_refused(&mut server, START, 6, &second);
    let mut changed = second.clone();
    *changed.last_mut().unwrap() ^= 1;
    is_refused(&mut server, START, 5, &changed);
    let mut changed = second.clone();
    // The client's random value begins after two headers and the version.
    changed[13 + 12 + 2] ^= 1;
    is_refused(&mut server, START, 5, &changed);
    is_refused(&mut server, after_ms(121_000), 5, &second);

    let mut server = Server::new(psk_server());
    let (_, _, second) = hellos(&mut server, START, 5);
    server.receive(after_ms(59_000), address(5), &second);
    assert_eq!(server.associations.handshakes(), 1);
}

#[test]
fn the_flight_is_sent_again_ever_more_rarely_until_the_handshake_is_given_up() {
    let mut server = Server::new(psk_server());
    let (_, _, second) = hellos(&mut server, START, 5);
    let flight = server.receive(START, address(5), &second);
    assert!(!flight.is_empty());
    let mut times = Vec::new();
    while let Some(at) = server.associations.poll_timeout() {
        assert!(
            server
                .pass_time(Timestamp::from_millis(at.as_millis() - 1))
                .is_empty()
        );
        let again = server.pass_time(at);
        if !again.is_empty() {
            times.push(at.since(START).as_secs());
            assert_eq!(again.len(), flight.len());
            assert_ne!(again, flight, "sequence numbers are new");
        }
    }
    assert_eq!(times, [1, 3, 7, 15]);
    assert_eq!(server.dropped, ["handshake_timeout"]);
    assert_eq!(server.associations.handshakes(), 0);

    // A hello that is repeated is answered, but not at any rate.
    let (_, _, second) = hellos(&mut server, after_ms(40_000), 5);
    assert!(!server.receive(after_ms(40_000), address(5), &second).is_empty());
    assert!(server.receive(after_ms(40_100), address(5), &second).is_empty());
    assert_eq!(server.dropped.last(), Some(&"repeated_hello"));
    assert!(!server.receive(after_ms(40_600), address(5), &second).is_empty());
    assert_eq!(server.associations.handshakes(), 1);
}

#[test]
fn a_limit_of_handshakes_and_of_associations() {
    let mut settings = psk_settings();
    settings.handshakes_max = 3;
    let mut server = Server::new(DtlsServer::load(&settings).unwrap());
    let (_, first, fourth) = hellos(&mut server, START, 4);
    for port in 1..4 {
        let (_, _, second) = hellos(&mut server, START, port);
        server.receive(START, address(port), &second);
    }
    for hello in [&first, &fourth] {
        assert!(server.receive(START, address(4), hello).is_empty());
        assert_eq!(server.dropped.last(), Some(&"handshakes_full"));
    }
    assert_eq!(server.associations.handshakes(), 3);
    // They expire, and there is room again.
    server.pass_time(after_ms(30_000));
    assert_eq!(server.associations.handshakes(), 0);
    connected(&mut server, address(4));

    let mut server = Server::new(psk_server());
    server.associations = Associations::new(psk_server(), 2).unwrap();
    connected(&mut server, address(1));
    connected(&mut server, address(2));
    let first = Client::new(psk_client(SUITE)).take().unwrap();
    assert!(server.receive(START, address(3), &first).is_empty());
    assert_eq!(server.dropped.last(), Some(&"associations_full"));
    // Who is in may come again.
    connected(&mut server, address(2));
    assert_eq!(server.associations.len(), 2);
}

#[test]
fn a_client_that_restarts_replaces_its_association_only_once_it_has_proven_itself() {
    let mut server = Server::new(psk_server());
    let (mut old, id) = connected(&mut server, address(5));
    // Somebody else's handshake from that address gets nowhere, and harms nobody.
    let (_, _, second) = hellos(&mut server, START, 5);
    assert!(!server.receive(START, address(5), &second).is_empty());
    old.say(START, b"still here");
    settle(START, address(5), &mut old, &mut server);
    assert_eq!(server.data, [(id, b"still here".to_vec())]);
    server.pass_time(after_ms(31_000));
    assert!(server.closed.is_empty());

    let (mut new, new_id) = connected(&mut server, address(5));
    assert_eq!(server.closed, [(id, "replaced")]);
    assert_ne!(id, new_id);
    assert_eq!(server.associations.len(), 1);
    new.say(START, b"again");
    settle(START, address(5), &mut new, &mut server);
    assert_eq!(server.data.last(), Some(&(new_id, b"again".to_vec())));
    old.say(START, b"ghost");
    settle(START, address(5), &mut old, &mut server);
    assert_eq!(server.dropped.last(), Some(&"bad_record_mac"));
}

#[test]
fn a_late_copy_of_a_hello_starts_nothing() {
    let mut server = Server::new(psk_server());
    let (mut client, _, second) = hellos(&mut server, START, 5);
    server.transmits = Vec::new();
    for datagram in server.receive(START, address(5), &second) {
        client.receive(START, &datagram);
    }
    settle(START, address(5), &mut client, &mut server);
    assert!(client.open);
    assert!(server.receive(after_ms(1000), address(5), &second).is_empty());
    assert_eq!(server.dropped.last(), Some(&"repeated_hello"));
    assert_eq!(server.associations.handshakes(), 0);
}

#[test]
fn replayed_and_forged_records_change_nothing() {
    let mut server = Server::new(psk_server());
    let (mut client, id) = connected(&mut server, address(5));
    client.say(START, b"open the valve");
    let record = client.take().unwrap();
    server.receive(START, address(5), &record);
    assert!(server.receive(START, address(5), &record).is_empty());
    assert_eq!(server.dropped.last(), Some(&"replayed_record"));
    assert_eq!(server.data.len(), 1);
    // Every byte of a record that is new.
    client.say(START, b"close the valve");
    let record = client.take().unwrap();
    for at in 0..record.len() {
        let mut forged = record.clone();
        forged[at] ^= 0x10;
        assert!(server.receive(START, address(5), &forged).is_empty(), "byte {at}");
    }
    assert_eq!(
        (server.data.len(), server.closed.len(), server.associations.len()),
        (1, 0, 1)
    );
    // What needs no key: alerts, data and handshake messages of epoch 0.
    for (content, body) in [
        (21, vec![2, 40]),
        (21, vec![1, 0]),
        (23, b"forged".to_vec()),
        (22, vec![20; 24]),
        (20, vec![1]),
    ] {
        let mut forged = vec![content, 254, 253, 0, 0, 0, 0, 0, 0, 1, 0, 0, body.len() as u8];
        forged.extend(body);
        assert!(server.receive(START, address(5), &forged).is_empty());
        assert_eq!(server.dropped.last(), Some(&"wrong_epoch"));
    }
    server.receive(START, address(5), &record);
    assert_eq!(server.data.last(), Some(&(id, b"close the valve".to_vec())));
    assert!(server.closed.is_empty());
}

#[test]
fn an_association_that_is_never_used_holds_no_place_for_long() {
    let mut server = Server::new(psk_server());
    let (_client, id) = connected(&mut server, address(5));
    server.call(|all, out| all.send(after_ms(1000), id, b"are you there", out));
    server.take();
    server.pass_time(after_ms(60_000));
    assert_eq!(server.closed, [(id, "idle_timeout")]);
}

#[test]
fn an_association_that_is_silent_is_forgotten() {
    let mut server = Server::new(psk_server());
    let (mut client, id) = connected(&mut server, address(5));
    client.say(after_ms(200_000), b"beat");
    settle(after_ms(200_000), address(5), &mut client, &mut server);
    // What the server says, and what anybody may send, does not count.
    server.call(|all, out| all.send(after_ms(400_000), id, b"are you there", out));
    server.receive(
        after_ms(450_000),
        address(5),
        &[23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 1, 0],
    );
    server.take();
    assert!(server.pass_time(after_ms(499_999)).is_empty());
    assert!(server.closed.is_empty());
    let goodbye = server.pass_time(after_ms(500_000));
    assert_eq!(server.closed, [(id, "idle_timeout")]);
    assert_eq!((goodbye.len(), server.associations.len()), (1, 0));
    client.receive(after_ms(500_000), &goodbye[0]);
    assert!(client.closed);
}

#[test]
fn garbage_in_the_middle_of_a_handshake_does_not_stop_it() {
    let mut random = Random::new(11);
    for _ in 0..200 {
        let mut server = Server::new(psk_server());
        let (mut client, first, second) = hellos(&mut server, START, 5);
        let mut down = server.receive(START, address(5), &second);
        let mut seen = vec![first, second];
        for turn in 0.. {
            if client.open {
                break;
            }
            assert!(turn < 10, "{:?}", server.dropped);
            for datagram in down.drain(..) {
                client.receive(START, &datagram);
            }
            while let Some(datagram) = client.take() {
                // Before each genuine datagram: old ones with a byte changed, as far as they pass for handshake
                // messages that cannot take the place of a genuine one.
                for _ in 0..5 {
                    let mut forged = seen[random.below(seen.len())].clone();
                    let at = random.below(forged.len());
                    forged[at] ^= 1 << random.below(8);
                    server.receive(START, address(5), &forged);
                }
                down.extend(server.receive(START, address(5), &datagram));
                seen.push(datagram);
            }
        }
        assert_eq!(server.opened.len(), 1);
    }
}

#[test]
fn other_settings_are_for_those_who_come_later() {
    let mut server = Server::new(psk_server());
    let (mut client, id) = connected(&mut server, address(1));
    let mut settings = psk_settings();
    settings.psk = Some(std::sync::Arc::new(|_| None));
    server
        .associations
        .reconfigure(DtlsServer::load(&settings).unwrap());
    client.say(START, b"known");
    settle(START, address(1), &mut client, &mut server);
    assert_eq!(server.data, [(id, b"known".to_vec())]);
    let mut late = Client::new(psk_client(SUITE));
    settle(START, address(2), &mut late, &mut server);
    assert!(!late.open && server.opened.len() == 1);
}

#[test]
fn too_much_for_one_record_is_not_sent() {
    let mut server = Server::new(psk_server());
    let (_, id) = connected(&mut server, address(5));
    server.call(|all, out| all.send(START, id, &[0; driver::dtls::PLAINTEXT_BYTES_MAX + 1], out));
    assert_eq!(server.dropped.last(), Some(&"too_long"));
    server.call(|all, out| all.send(START, id, &[0; driver::dtls::PLAINTEXT_BYTES_MAX], out));
    assert_eq!(server.take().len(), 1);
}

//! An attacker who sends from a client's address, but has not its key; and one who comes from his own.

use std::{net::SocketAddr, time::Duration};

use broker_core::Timestamp;
use driver::dtls::DtlsServer;
use rtc_dtls::cipher_suite::CipherSuiteId;

use crate::{memory::*, setup::*};

const SUITE: CipherSuiteId = CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8;

fn after_ms(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

/// A client whose second hello has been answered, and this hello.
fn begun(server: &mut Server, from: SocketAddr) -> (Client, Vec<u8>) {
    let (mut client, second) = hello(server, from);
    for datagram in server.receive(START, from, &second) {
        client.receive(START, &datagram);
    }
    (client, second)
}

/// A client, and its hello with a cookie.
fn hello(server: &mut Server, from: SocketAddr) -> (Client, Vec<u8>) {
    let mut client = Client::new(psk_client(SUITE));
    let first = client.take().unwrap();
    let answer = server.receive(START, from, &first);
    client.receive(START, &answer[0]);
    let second = client.take().unwrap();
    (client, second)
}

/// The client's next flight, each record as a datagram of its own.
fn records(client: &mut Client) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(datagram) = client.take() {
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let len = 13 + usize::from(u16::from_be_bytes([rest[11], rest[12]]));
            let (record, others) = rest.split_at(len);
            records.push(record.to_vec());
            rest = others;
        }
    }
    records
}

fn record(content: u8, epoch: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![
        content,
        254,
        253,
        0,
        epoch,
        0,
        0,
        0,
        0,
        0,
        sequence,
        0,
        body.len() as u8,
    ];
    record.extend(body);
    record
}

/// What can be made without a key: alerts, an early ChangeCipherSpec, data and a Finished without protection, and
/// records that seem to be protected.
fn forgeries() -> Vec<Vec<u8>> {
    let finished = [&[20, 0, 0, 12, 0, 3, 0, 0, 0, 0, 0, 12][..], &[7; 12]].concat();
    let mut forgeries = vec![
        record(21, 0, 9, &[2, 40]),
        record(21, 0, 9, &[2, 51]),
        record(21, 0, 9, &[1, 0]),
        record(20, 0, 9, &[1]),
        record(23, 0, 9, b"data"),
        record(22, 0, 9, &finished),
        record(22, 0, 9, &[]),
        record(22, 2, 9, &finished),
    ];
    for content in 20..24 {
        for sequence in 0..3 {
            forgeries.push(record(content, 1, sequence, &[9; 40]));
        }
    }
    forgeries
}

#[test]
fn no_forged_record_ends_a_handshake() {
    let mut server = Server::new(psk_server());
    let (mut client, _) = begun(&mut server, address(5));
    let flight = records(&mut client);
    assert_eq!(flight.len(), 3, "ClientKeyExchange, ChangeCipherSpec, Finished");
    for genuine in flight {
        for forged in forgeries() {
            assert_eq!(server.receive(START, address(5), &forged), [[0; 0]; 0]);
        }
        for datagram in server.receive(START, address(5), &genuine) {
            client.receive(START, &datagram);
        }
    }
    assert!(client.open, "{:?}", server.dropped);
    assert_eq!(server.opened.len(), 1);
    // Nor an association.
    for forged in forgeries() {
        assert_eq!(server.receive(START, address(5), &forged), [[0; 0]; 0]);
    }
    client.say(START, b"still here");
    settle(START, address(5), &mut client, &mut server);
    assert_eq!(server.data.len(), 1);
    assert!(server.closed.is_empty());
}

#[test]
fn a_replayed_flight_neither_opens_nor_answers_anything() {
    let mut server = Server::new(psk_server());
    let (mut client, second) = begun(&mut server, address(5));
    let flight = records(&mut client);
    for genuine in &flight {
        server.receive(START, address(5), genuine);
    }
    assert_eq!(server.opened.len(), 1);
    for replayed in flight.iter().chain([&second]) {
        assert!(server.receive(after_ms(5000), address(5), replayed).is_empty());
        server.receive(after_ms(5000), address(6), replayed);
    }
    assert_eq!((server.opened.len(), server.closed.len()), (1, 0));
    assert_eq!(server.associations.handshakes(), 0);
}

#[test]
fn a_wrong_key_is_told_once_the_right_one_could_have_shown_itself() {
    let mut settings = psk_settings();
    settings.psk = Some(std::sync::Arc::new(|_| Some(b"another".to_vec())));
    let mut server = Server::new(DtlsServer::load(&settings).unwrap());
    let (mut client, _) = begun(&mut server, address(5));
    let flight = records(&mut client);
    for (millis, is_told) in [(0, false), (1_999, false), (2_000, true)] {
        let answer = server.receive(after_ms(millis), address(5), &flight[0]);
        assert!(answer.is_empty());
        let answer = server.receive(after_ms(millis), address(5), &flight[2]);
        assert_eq!(answer.len(), usize::from(is_told), "{millis} ms");
        if is_told {
            assert_eq!(
                (answer[0][0], &answer[0][13..]),
                (21, &[2, 51][..]),
                "decrypt_error"
            );
        }
    }
    assert_eq!(server.dropped.last(), Some(&"wrong_key"));
    assert_eq!(server.associations.handshakes(), 0);
}

#[test]
fn one_source_does_not_get_all_handshakes() {
    let mut settings = psk_settings();
    settings.handshakes_max = 80;
    let mut server = Server::new(DtlsServer::load(&settings).unwrap());
    for port in 1..=21 {
        let (_, second) = hello(&mut server, address(port));
        let answer = server.receive(START, address(port), &second);
        assert_eq!(answer.is_empty(), port > 20, "{port}");
    }
    assert_eq!(server.dropped, ["source_handshakes_full"]);
    let other = SocketAddr::from(([192, 0, 2, 77], 1));
    let (_, second) = hello(&mut server, other);
    assert!(!server.receive(START, other, &second).is_empty());
    assert_eq!(server.associations.handshakes(), 21);
    // When they are over, there is room again.
    server.pass_time(after_ms(30_000));
    server.take();
    let from = address(21);
    connected(&mut server, from);
}

#[test]
fn one_source_does_not_get_all_of_the_processor() {
    let mut server = Server::new(psk_server());
    // Two hellos, each of which takes the place of the other's handshake.
    let both = [0, 1].map(|_| hello(&mut server, address(5)).1);
    let flights = |server: &mut Server, now: Timestamp| {
        (0..300)
            .filter(|turn| !server.receive(now, address(5), &both[turn % 2]).is_empty())
            .count()
    };
    assert_eq!(flights(&mut server, START), 100);
    assert!(server.dropped.contains(&"source_too_fast"));
    assert_eq!(server.associations.handshakes(), 1);
    let other = SocketAddr::from(([192, 0, 2, 77], 1));
    let (_, second) = hello(&mut server, other);
    assert!(!server.receive(START, other, &second).is_empty());
    assert_eq!(flights(&mut server, after_ms(1_000)), 100);
}

#[test]
fn what_was_meant_for_a_former_client_never_reaches_the_next_one_at_its_address() {
    let mut server = Server::new(psk_server());
    let (_, former) = connected(&mut server, address(5));
    let (_, next) = connected(&mut server, address(5));
    server.call(|all, out| all.send(START, former, b"secret", out));
    assert!(server.take().is_empty());
    assert_eq!(server.dropped.last(), Some(&"no_association"));
    server.call(|all, out| all.send(START, next, b"for it", out));
    assert_eq!(server.take().len(), 1);
}

#[test]
fn a_client_without_good_random_numbers_can_come_again_after_a_restart() {
    let mut server = Server::new(psk_server());
    let (mut client, mut second) = begun(&mut server, address(5));
    settle(START, address(5), &mut client, &mut server);
    assert!(client.open);
    // The same hello, but a minute later: the cookie in it, after two headers, version, random value, an empty session
    // id and a length, is another one.
    let answer = server.receive(after_ms(61_000), address(5), &{
        let mut stale = second.clone();
        stale[61] ^= 0xff;
        stale
    });
    let cookie = answer[0][28..].to_vec();
    assert_eq!(cookie.len(), 17);
    second[61..78].copy_from_slice(&cookie);
    assert!(!server.receive(after_ms(61_000), address(5), &second).is_empty());
    assert_eq!(server.associations.handshakes(), 1);
}

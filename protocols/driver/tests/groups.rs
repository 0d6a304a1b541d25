//! Broadcast and multicast: heard once however many workers there are, sent where the configuration says.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod common;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
};

use common::{datagram::*, *};
use driver::{DatagramConfig, ListenError, WorkerConfig};
use socket2::{Domain, Protocol, Socket, Type};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// The broadcast address of the loopback network.
fn everyone(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 255, 255, 255], port))
}

fn shouter() -> Client {
    let socket = UdpSocket::bind(localhost()).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Client(socket)
}

/// Somebody else who hears the group.
fn hearer(group: SocketAddr) -> Client {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&group.into()).unwrap();
    if let SocketAddr::V4(group) = group
        && group.ip().is_multicast()
    {
        socket
            .join_multicast_v4(group.ip(), &Ipv4Addr::LOCALHOST)
            .unwrap();
    }
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Client(socket)
}

#[test]
fn a_broadcast_is_heard_once() {
    let workers = workers(2, &WorkerConfig::default());
    let port = free_port();
    let config = DatagramConfig {
        broadcast: Some(everyone(port)),
        ..datagram_config(([0, 0, 0, 0], port))
    };
    let listener = listen_datagram(&workers, config);
    for _ in 0..20 {
        let client = shouter();
        client.0.send_to(b"Ewhere", everyone(port)).unwrap();
        assert_eq!(client.receive(), format!("at 255.255.255.255:{port}"));
    }
    let client = shouter();
    client.0.send_to(b"Sopen", everyone(port)).unwrap();
    wait_until(|| listener.counters().dropped.contains_key("not_unicast"));
    wait_until(|| listener.counters().sent >= 20);
    let counters = listener.counters();
    assert_eq!((counters.received, counters.sent), (21, 20));
    assert_eq!(counters.opened, 0);
}

#[test]
fn a_group_of_another_port_is_heard_and_spoken_to() {
    let workers = workers(2, &WorkerConfig::default());
    let group = everyone(free_port());
    let config = DatagramConfig {
        broadcast: Some(group),
        ..datagram_config(localhost())
    };
    let hearer = hearer(group);
    let listener = listen_datagram(&workers, config);
    let client = shouter();
    client.0.send_to(b"Ewhere", group).unwrap();
    let mut buffer = [0; 100];
    let (len, from) = client.0.recv_from(&mut buffer).unwrap();
    assert_eq!(
        buffer[..len],
        *format!("at 255.255.255.255:{}", group.port()).as_bytes()
    );
    assert_eq!(from, listener.address(), "answers come from the listener's port");
    assert_eq!(hearer.receive(), "Ewhere");
    for radius in ["", "3"] {
        Client::to(listener.address()).send(&format!("Eshout {radius}"));
        assert_eq!(hearer.receive(), "shouted");
    }
    Client::to(listener.address()).send("Ealarm");
    assert_eq!(hearer.receive(), "alarm");
}

#[test]
fn a_multicast_group_is_joined() {
    let workers = workers(2, &WorkerConfig::default());
    let group = SocketAddr::from(([239, 255, 77, 1], free_port()));
    let config = DatagramConfig {
        broadcast: Some(group),
        ..datagram_config(localhost())
    };
    let hearer = hearer(group);
    let listener = listen_datagram(&workers, config);
    let client = shouter();
    let socket = socket2::SockRef::from(&client.0);
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    for _ in 0..20 {
        client.0.send_to(b"Ewhere", group).unwrap();
        assert_eq!(client.receive(), format!("at {group}"));
        assert_eq!(hearer.receive(), "Ewhere");
    }
    Client::to(listener.address()).send("Eshout 7");
    assert_eq!(hearer.receive(), "shouted");
    wait_until(|| listener.counters().sent >= 21);
    assert_eq!(listener.counters().sent, 21, "each is heard once");
}

/// A client that sends to link-local groups by some interface, and the interface.
fn on_some_link() -> Option<(Client, u32)> {
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let can_send = |scope: &u32| {
        let discard = SocketAddrV6::new("ff02::77".parse().unwrap(), 9, 0, *scope);
        socket.send_to(b"", discard).is_ok()
    };
    let scope = (1..20).find(can_send)?;
    Some((Client(socket), scope))
}

#[test]
fn a_multicast_group_of_ipv6_is_joined_on_the_interface_of_its_scope() {
    let Some((client, scope)) = on_some_link() else {
        return eprintln!("skipped: no interface has IPv6 multicast");
    };
    let workers = workers(2, &WorkerConfig::default());
    let port = free_port();
    let group = SocketAddrV6::new("ff02::77".parse().unwrap(), port, 0, scope);
    let config = DatagramConfig {
        broadcast: Some(group.into()),
        ..datagram_config(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
    };
    let listener = listen_datagram(&workers, config);
    for _ in 0..20 {
        client.0.send_to(b"Ewhere", group).unwrap();
        assert_eq!(client.receive(), format!("at [ff02::77]:{port}"));
    }
    assert_eq!(listener.counters().received, 20);
}

#[test]
fn a_group_of_the_other_family_is_refused() {
    let workers = workers(1, &WorkerConfig::default());
    let config = DatagramConfig {
        broadcast: Some("[ff02::1]:1884".parse().unwrap()),
        ..datagram_config(localhost())
    };
    match workers.listen_datagram(config) {
        Err(ListenError::Bind(error)) => assert_eq!(error.cause.kind(), io::ErrorKind::InvalidInput),
        other => panic!("{other:?}"),
    }
}

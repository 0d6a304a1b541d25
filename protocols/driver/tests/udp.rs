//! Datagrams over UDP: peers, strangers, moving between workers, bounds and ends.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod common;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use common::{datagram::*, *};
use driver::{ListenError, WorkerConfig};

#[test]
fn many_peers_are_told_apart_on_two_workers() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let clients: Vec<Client> = (0..200).map(|_| Client::to(listener.address())).collect();
    for client in &clients {
        assert_eq!(client.ask("Sopen"), "open");
    }
    for (n, client) in clients.iter().enumerate() {
        client.send(&format!("Stext {n}"));
    }
    let mut on = BTreeSet::new();
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(client.receive(), format!("text {n}"));
        on.insert(client.ask("Sworker"));
    }
    assert_eq!(on.len(), 2, "the kernel spreads clients over the sockets");
    wait_until(|| listener.counters().sent == 600);
    let counters = listener.counters();
    assert_eq!((counters.opened, counters.received), (200, 600));
    assert_eq!(counters.forwarded, 0);
    assert_eq!(listener.connections(), 200);
    for client in &clients {
        assert_eq!(client.ask("Sbye"), "bye");
    }
    wait_until(|| listener.connections() == 0);
    assert_eq!(listener.counters().closed, 200);
    assert_eq!(clients[0].ask("Stext"), "who", "it is a stranger again");
}

#[test]
fn a_peer_goes_to_the_worker_of_its_client_and_on_to_others() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    for n in 0..20 {
        let client = Client::to(listener.address());
        for shard in [0, 1, 1, 0] {
            client.connect(&id_of(shard, 2, n));
            assert_eq!(client.ask("Sworker"), format!("worker-{shard}"));
        }
        assert_eq!(client.ask("Sbye"), "bye");
        wait_until(|| listener.connections() == 0);
    }
    assert!(count(&workers, "links_moved") >= 40);
    let counters = listener.counters();
    assert_eq!((counters.opened, counters.closed), (20, 20));
    assert!(counters.forwarded > 0);
}

#[test]
fn a_peer_that_asks_in_answer_to_the_broker_goes_there_too() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    for n in 0..10 {
        let client = Client::to(listener.address());
        let (first, second) = (id_of(0, 2, n), id_of(1, 2, n));
        client.send("Sopen");
        assert_eq!(client.receive(), "open");
        client.send(&format!("Snext {second}"));
        client.send(&format!("Sconnect {first}"));
        assert_eq!(client.receive(), format!("connected {first}"));
        assert_eq!(client.receive(), format!("connected {second}"));
        assert_eq!(client.ask("Sworker"), "worker-1");
    }
}

#[test]
fn peers_go_from_worker_to_worker_while_datagrams_are_under_way() {
    let workers = workers(3, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let clients: Vec<Client> = (0..30).map(|_| Client::to(listener.address())).collect();
    for round in 0..10 {
        for (n, client) in clients.iter().enumerate() {
            for step in 0..4u16 {
                client.send(&format!("Sconnect {}", id_of((round + step) % 3, 3, n)));
                client.send(&format!("Stext {round} {step}"));
            }
        }
        for (n, client) in clients.iter().enumerate() {
            let mut expected: Vec<String> = (0..4u16).map(|step| format!("text {round} {step}")).collect();
            let connected = (0..4u16).map(|step| format!("connected {}", id_of((round + step) % 3, 3, n)));
            expected.extend(connected);
            let mut texts: Vec<String> = (0..8).map(|_| client.receive()).collect();
            texts.sort();
            expected.sort();
            assert_eq!(texts, expected, "nothing is lost, nobody is a stranger");
        }
    }
    assert_eq!(listener.counters().opened, 30);
    drop(clients);
}

#[test]
fn a_client_that_comes_back_at_once_is_not_taken_for_the_one_that_left() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let clients: Vec<Client> = (0..10).map(|_| Client::to(listener.address())).collect();
    for round in 0..50 {
        for (n, client) in clients.iter().enumerate() {
            let id = id_of(round % 2, 2, n);
            client.connect(&id);
            client.send("Sbye");
            client.send(&format!("Sconnect {id}"));
            assert_eq!(client.receive(), "bye");
            assert_eq!(client.receive(), format!("connected {id}"));
            assert_eq!(client.ask("Sworker"), format!("worker-{}", round % 2));
        }
    }
    wait_until(|| listener.connections() == 10);
}

#[test]
fn nodes_behind_a_forwarder_are_peers_of_their_own() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let forwarder = Client::to(listener.address());
    for (n, node) in ["a", "b", "c"].iter().enumerate() {
        let id = id_of(n as u16 % 2, 2, n);
        assert_eq!(
            forwarder.ask(&format!("N{node}connect {id}")),
            format!("connected {id}")
        );
    }
    assert_eq!(forwarder.ask("Stext"), "who", "the forwarder itself is nobody");
    assert_eq!(forwarder.ask("Ndtext"), "who");
    for (n, node) in ["a", "b", "c"].iter().enumerate() {
        let worker = forwarder.ask(&format!("N{node}worker"));
        assert_eq!(worker, format!("worker-{}", n % 2));
    }
    assert_eq!(forwarder.ask("Nabye"), "bye");
    wait_until(|| listener.connections() == 2);
    assert_eq!(forwarder.ask("Natext"), "who");
    assert_eq!(forwarder.ask("Nbtext"), "text");
}

#[test]
fn strangers_are_answered_dropped_or_opened_and_garbage_is_counted() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let client = Client::to(listener.address());
    assert_eq!(client.ask("Stext"), "who");
    client.send("");
    client.send("?");
    client.send("Snothing");
    assert_eq!(
        client.ask("Ewhere"),
        format!("at {}", listener.address()),
        "whoever asks"
    );
    assert_eq!(client.ask("Sopen"), "open");
    assert_eq!(client.ask("Ewhere"), format!("at {}", listener.address()));
    let dropped = listener.counters().dropped;
    assert_eq!((dropped["unreadable"], dropped["nothing"]), (2, 1));
}

#[test]
fn a_flood_of_garbage_leaves_nothing_behind() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let client = Client::to(listener.address());
    client.connect("somebody");
    for n in 0..20_000u32 {
        let flood = Client(std::net::UdpSocket::bind(localhost()).unwrap());
        let bytes = n.to_be_bytes().repeat(n as usize % 40);
        for _ in 0..5 {
            // The kernel drops what does not fit its buffer.
            let _ = flood.0.send_to(&bytes, listener.address());
        }
        if n % 1000 == 0 {
            client.insist(&format!("Stext {n}"), &format!("text {n}"));
        }
    }
    assert_eq!(listener.connections(), 1);
    let counters = listener.counters();
    assert!(counters.dropped.values().sum::<u64>() > 1000);
    assert_eq!(counters.dropped.len(), 1, "{:?}", counters.dropped);
}

#[test]
fn what_needs_no_connection_goes_to_one_peer() {
    let heard = Heard::default();
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, heard_config(localhost(), &heard));
    let clients: Vec<Client> = (0..20).map(|_| Client::to(listener.address())).collect();
    for (n, client) in clients.iter().enumerate() {
        client.send(&format!("C{n}"));
    }
    wait_until(|| heard.lock().unwrap().len() == 20);
    let heard = heard.lock().unwrap();
    let home = format!("worker-{}", broker_core::shard::shard_of("common", 2).0);
    assert!(heard.iter().all(|(worker, _)| *worker == home));
    let texts: BTreeSet<&str> = heard.iter().map(|(_, text)| &**text).collect();
    assert_eq!(texts.len(), 20);
    assert_eq!(count(&workers, "connections_opened"), 1);
    assert_eq!(listener.connections(), 0, "it takes no client's place");
}

#[test]
fn above_the_limit_nobody_new_is_opened() {
    let workers = workers(2, &WorkerConfig::default());
    let config = driver::DatagramConfig {
        max_connections: 3,
        ..datagram_config(localhost())
    };
    let listener = listen_datagram(&workers, config);
    let clients: Vec<Client> = (0..4).map(|_| Client::to(listener.address())).collect();
    for client in &clients[..3] {
        assert_eq!(client.ask("Sopen"), "open");
        assert_eq!(client.ask("Stext"), "text");
    }
    clients[3].send("Sopen");
    wait_until(|| listener.counters().dropped.get("max_connections") == Some(&1));
    assert_eq!(clients[3].ask("Ewhere"), format!("at {}", listener.address()));
    assert_eq!(clients[0].ask("Sbye"), "bye");
    wait_until(|| listener.connections() == 2);
    assert_eq!(clients[3].ask("Sopen"), "open");
}

#[test]
fn a_flood_of_newcomers_displaces_itself_and_nobody_who_goes_on() {
    let workers = workers(2, &WorkerConfig::default());
    let config = driver::DatagramConfig {
        max_connections: 60,
        ..datagram_config(localhost())
    };
    let listener = listen_datagram(&workers, config);
    let connected: Vec<Client> = (0..20).map(|_| Client::to(listener.address())).collect();
    for (n, client) in connected.iter().enumerate() {
        client.connect(&id_of(n as u16 % 2, 2, n));
        assert_eq!(client.ask("Stext"), "text");
    }
    for round in 0..10 {
        for n in 0..200 {
            let flood = Client::to(listener.address());
            flood.send(&format!("Sconnect {}", id_of(n % 2, 2, 100 + usize::from(n))));
        }
        // One that goes on gets in, wherever it belongs.
        let late = Client::to(listener.address());
        let id = format!("late-{round}");
        late.insist(&format!("Sconnect {id}"), &format!("connected {id}"));
        late.insist("Stext", "text");
        for client in &connected {
            client.insist("Sstill", "still");
        }
        assert_eq!(late.ask("Sbye"), "bye");
    }
    wait_until(|| listener.connections() <= 60);
    assert!(
        count(&workers, "closed_overload") > 1000,
        "false addresses have given way"
    );
}

#[test]
fn long_datagrams_pass_and_impossible_ones_are_counted() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let client = Client::to(listener.address());
    assert_eq!(client.ask("Sopen"), "open");
    let text = format!("S{}", "x".repeat(65_506));
    assert_eq!(client.ask(&text), &text[1..], "the longest of IPv4");
    client.send("Slong 65508");
    wait_until(|| listener.counters().errors == 1);
    assert_eq!(client.ask("Slong 0"), "", "an empty one is one");
    assert_eq!(client.ask("Stext"), "text");
}

#[test]
fn a_client_that_is_gone_disturbs_nobody() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let client = Client::to(listener.address());
    assert_eq!(client.ask("Sopen"), "open");
    for _ in 0..50 {
        let gone = Client::to(listener.address());
        assert_eq!(gone.ask("Sopen"), "open");
        gone.send("Smany 10");
        drop(gone);
        assert_eq!(client.ask("Stext"), "text");
    }
}

#[test]
fn a_burst_for_one_client_does_not_hold_up_others() {
    let workers = workers(1, &WorkerConfig::default());
    let config = driver::DatagramConfig {
        send_buffer_bytes: Some(4096),
        ..datagram_config(localhost())
    };
    let listener = listen_datagram(&workers, config);
    let (slow, other) = (Client::to(listener.address()), Client::to(listener.address()));
    assert_eq!(slow.ask("Sopen"), "open");
    assert_eq!(other.ask("Sopen"), "open");
    slow.send("Smany 5000");
    assert_eq!(other.ask("Stext"), "text");
    assert_eq!(slow.receive().len(), 1000);
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(([0, 0, 0, 0], 0)));
    let port = listener.address().port();
    for n in 1..20 {
        let client = Client::to(SocketAddr::from(([127, 0, 0, n], port)));
        assert_eq!(client.ask("Ewhere"), format!("at 127.0.0.{n}:{port}"));
        client.connect(&id_of(u16::from(n) % 2, 2, usize::from(n)));
        assert_eq!(client.ask("Stext"), "text");
    }
}

#[test]
fn one_socket_serves_both_families() {
    let workers = workers(2, &WorkerConfig::default());
    let config = datagram_config("[::]:0".parse::<SocketAddr>().unwrap());
    let listener = listen_datagram(&workers, config);
    let port = listener.address().port();
    for address in ["127.0.0.1", "127.0.0.5", "[::1]"] {
        let server: SocketAddr = format!("{address}:{port}").parse().unwrap();
        let client = Client::to(server);
        assert_eq!(client.ask("Ewhere"), format!("at {server}"));
        for shard in [0, 1] {
            client.connect(&id_of(shard, 2, 0));
            assert_eq!(client.ask("Sworker"), format!("worker-{shard}"));
        }
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    match workers.listen_datagram(datagram_config(listener.address())) {
        Err(ListenError::Bind(error)) => {
            assert_eq!(error.cause.kind(), std::io::ErrorKind::AddrInUse);
            assert_eq!(error.address, listener.address());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stopped_listener_serves_its_peers_until_they_end_and_frees_its_port() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let address = listener.address();
    let clients: Vec<Client> = (0..10).map(|_| Client::to(address)).collect();
    for (n, client) in clients.iter().enumerate() {
        client.connect(&id_of(n as u16 % 2, 2, n));
        client.send("Ctext");
    }
    wait_until(|| count(&workers, "connections_opened") == 11);
    listener.stop();
    let late = Client::to(address);
    wait_until(|| {
        late.send("Sopen");
        listener.counters().dropped.contains_key("listener_stopped")
    });
    for client in &clients {
        assert_eq!(client.ask("Stext"), "text");
        assert!(!listener.is_closed());
        assert_eq!(client.ask("Sbye"), "bye");
    }
    wait_until(|| listener.is_closed());
    wait_until(|| count(&workers, "connections_closed") == 11);
    let again = listen_datagram(&workers, datagram_config(address));
    assert_eq!(Client::to(again.address()).ask("Sopen"), "open");
}

#[test]
fn the_last_datagrams_leave_before_the_process_ends() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen_datagram(&workers, datagram_config(localhost()));
    let clients: Vec<Client> = (0..20).map(|_| Client::to(listener.address())).collect();
    for (n, client) in clients.iter().enumerate() {
        client.connect(&id_of(n as u16 % 2, 2, n));
    }
    listener.stop();
    for worker in workers.handles() {
        let told = worker.call_blocking(|worker| {
            let now = worker.now();
            worker.shard().shut_down(now);
        });
        told.unwrap();
    }
    workers.shutdown(Duration::from_secs(10));
    for client in &clients {
        assert_eq!(client.receive(), "closed ServerShuttingDown");
    }
}

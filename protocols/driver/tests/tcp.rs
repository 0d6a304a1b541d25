//! Plain TCP: framing, order, back-pressure, ends of connections, and several workers.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod common;

use std::{io, time::Duration};

use broker_core::{Close, shard::shard_of};
use common::*;
use driver::{BindError, ListenError, WorkerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[test]
fn packets_come_back_in_order_however_they_are_cut() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in [packet(b"one byte at a time"), packet(b"")].concat() {
            stream.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(receive(&mut stream).await, b"one byte at a time");
        assert_eq!(receive(&mut stream).await, b"");

        let many: Vec<u8> = (0..20_000u32).flat_map(|n| packet(&n.to_be_bytes())).collect();
        let (mut reader, mut writer) = stream.split();
        let write = async { writer.write_all(&many).await.unwrap() };
        let read = async {
            for n in 0..20_000u32 {
                assert_eq!(receive(&mut reader).await, n.to_be_bytes());
            }
        };
        tokio::join!(write, read);
    });
}

#[test]
fn large_packets_go_both_ways() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        let body: Vec<u8> = (0..5_000_000u32).map(|n| (n % 253) as u8).collect();
        send(&mut stream, &body).await;
        assert!(receive(&mut stream).await == body);
        send(&mut stream, b"small again").await;
        assert_eq!(receive(&mut stream).await, b"small again");
    });
}

#[test]
fn a_client_that_has_ended_its_side_still_gets_its_answers() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut stream, b"last words").await;
        send(&mut stream, b"flood 3000000").await;
        stream.shutdown().await.unwrap();
        let bytes = rest(&mut stream).await;
        assert_eq!(bytes.len(), 4 + 10 + 4 + 3_000_000);
        until(|| count(&workers, "connections_closed") == 1).await;
        assert_eq!(count(&workers, "closed_by_client"), 1);
        assert_eq!(listener.connections(), 0);
    });
}

#[test]
fn the_last_bytes_survive_what_the_client_still_sends() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(listener.address()).await.unwrap();
            let mut bytes = packet(b"bye");
            bytes.resize(bytes.len() + 200_000, 0);
            stream.write_all(&bytes).await.unwrap();
            assert_eq!(rest(&mut stream).await, packet(b"bye"));
        }
        until(|| count(&workers, "closed_by_peer") == 20).await;
    });
}

#[test]
fn nothing_is_read_from_a_client_that_does_not_read() {
    let config = WorkerConfig {
        high_water_bytes: 100_000,
        low_water_bytes: 10_000,
        send_timeout: Duration::from_millis(300),
        ..WorkerConfig::default()
    };
    let workers = workers(1, &config);
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        let bytes = packet(&[b'x'; 50_000]);
        let mut sent = 0u64;
        // Ends when the server has given up: it neither reads more nor waits for ever.
        while stream.write_all(&bytes).await.is_ok() {
            sent += bytes.len() as u64;
        }
        until(|| count(&workers, "closed_send_timeout") == 1).await;
        let kept = count(&workers, "bytes_received") - count(&workers, "bytes_sent");
        assert!(
            kept < 100_000 + 3 * (64 << 10),
            "{kept} bytes of {sent} in memory"
        );
    });
}

#[test]
fn a_client_for_whom_too_much_waits_is_closed() {
    let config = WorkerConfig {
        outbox_bytes_max: 1_000_000,
        ..WorkerConfig::default()
    };
    let workers = workers(1, &config);
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut stream, b"flood 60000000").await;
        until(|| count(&workers, "closed_outbox_full") == 1).await;
        assert!(rest(&mut stream).await.len() < 60_000_000);
    });
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let config = WorkerConfig {
        high_water_bytes: 20_000,
        low_water_bytes: 5_000,
        ..WorkerConfig::default()
    };
    let workers = workers(1, &config);
    let listener = listen(&workers, stream_config());
    run(async {
        let stream = TcpStream::connect(listener.address()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let body = [b'x'; 1000];
        let write = async {
            for _ in 0..20_000 {
                writer.write_all(&packet(&body)).await.unwrap();
            }
        };
        let read = async {
            let mut left = 20_000 * 1004;
            let mut piece = [0; 1500];
            while left > 0 {
                let room = piece.len().min(left);
                left -= reader.read_exact(&mut piece[..room]).await.unwrap();
            }
        };
        tokio::join!(write, read);
    });
}

#[test]
fn timers_of_peers_fire() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        for _ in 0..3 {
            send(&mut stream, b"alarm").await;
            assert_eq!(receive(&mut stream).await, b"alarm");
        }
    });
}

#[test]
fn http_on_a_port_of_another_protocol_does_no_harm() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        // To this protocol it is the beginning of a packet of 1.2 GB, of which nothing is reserved.
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
    });
}

#[test]
fn messages_cross_workers_and_clients_go_to_their_shard() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    let ids: Vec<String> = (0..40).map(|n| format!("client-{n}")).collect();
    assert!(ids.iter().any(|id| shard_of(id, 2).0 == 0) && ids.iter().any(|id| shard_of(id, 2).0 == 1));
    run(async {
        let mut streams = Vec::new();
        for id in &ids {
            let mut stream = TcpStream::connect(listener.address()).await.unwrap();
            // What follows CONNECT at once goes to the other worker, too.
            let bytes = [packet(format!("connect {id}").as_bytes()), packet(b"echo")].concat();
            stream.write_all(&bytes).await.unwrap();
            let mut answers = [receive(&mut stream).await, receive(&mut stream).await];
            answers.sort();
            assert_eq!(answers, [b"connected".to_vec(), b"echo".to_vec()]);
            send(&mut stream, b"subscribe greetings/#").await;
            assert_eq!(receive(&mut stream).await, b"subscribed");
            streams.push(stream);
        }
        send(&mut streams[0], b"publish greetings/all").await;
        for stream in &mut streams {
            assert_eq!(receive(stream).await, b"hello");
        }
        let moved = count(&workers, "links_moved");
        assert!((1..40).contains(&moved), "{moved} of 40 links moved");
        assert!(count(&workers, "batches_received") > 0);
        assert_eq!(count(&workers, "batches_dropped"), 0);
    });
}

#[test]
fn a_peer_without_a_socket_is_a_client_like_any_other() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut stream, b"connect outside").await;
        assert_eq!(receive(&mut stream).await, b"connected");
        send(&mut stream, b"subscribe a").await;
        assert_eq!(receive(&mut stream).await, b"subscribed");

        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let factory = factory();
        let worker = &workers.handles()[0];
        let meta = driver::ConnectionMeta {
            listener: stream_config().info,
            peer: loopback(),
            local: loopback(),
            certificate: None,
            websocket: None,
        };
        let link = worker
            .call(move |worker| {
                let sink = move |bytes| drop(sender.send(bytes));
                let link = worker.attach(factory(meta), Some(Box::new(sink)));
                assert!(worker.input(link, &packet(b"connect inside")));
                link
            })
            .await
            .unwrap();
        assert_eq!(receiver.recv().await.unwrap(), packet(b"connected"));
        worker
            .call(move |worker| worker.input(link, &packet(b"publish a")))
            .await
            .unwrap();
        assert_eq!(receive(&mut stream).await, b"hello");

        let close = Close {
            reason: "test",
            detail: String::new(),
        };
        assert!(
            worker
                .call(move |worker| worker.close(link, &close))
                .await
                .unwrap()
        );
        until(|| count(&workers, "connections_closed") == 1).await;
        assert!(!worker.call(move |worker| worker.input(link, b"x")).await.unwrap());
    });
}

#[test]
fn connections_above_the_limit_are_refused() {
    let workers = workers(1, &WorkerConfig::default());
    let mut config = stream_config();
    config.max_connections = 2;
    let listener = listen(&workers, config);
    run(async {
        let mut first = TcpStream::connect(listener.address()).await.unwrap();
        let mut second = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut second, b"two").await;
        assert_eq!(receive(&mut second).await, b"two");
        let mut third = TcpStream::connect(listener.address()).await.unwrap();
        assert_eq!(rest(&mut third).await, b"");
        assert_eq!(listener.counters().refused(), 1);
        drop(second);
        until(|| listener.connections() == 1).await;
        let mut fourth = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut fourth, b"four").await;
        assert_eq!(receive(&mut fourth).await, b"four");
        send(&mut first, b"one").await;
        assert_eq!(receive(&mut first).await, b"one");
    });
}

#[test]
fn a_stopped_listener_keeps_its_connections() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut stream, b"before").await;
        assert_eq!(receive(&mut stream).await, b"before");
        listener.stop();
        while TcpStream::connect(listener.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        send(&mut stream, b"after").await;
        assert_eq!(receive(&mut stream).await, b"after");
    });
}

#[test]
fn shutdown_writes_what_waits_and_closes() {
    let workers = workers(2, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut stream, b"flood 2000000").await;
        let mut first = [0; 4];
        stream.read_exact(&mut first).await.unwrap();
        let shutdown = std::thread::spawn(move || workers.shutdown(PATIENCE));
        assert_eq!(rest(&mut stream).await.len(), 2_000_000);
        until(|| shutdown.is_finished()).await;
        shutdown.join().unwrap();
        assert_eq!(listener.connections(), 0);
    });
}

#[test]
fn shutdown_does_not_wait_longer_than_told() {
    let workers = workers(1, &WorkerConfig::default());
    let listener = listen(&workers, stream_config());
    run(async {
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        send(&mut stream, b"flood 30000000").await;
        let mut first = [0; 4];
        stream.read_exact(&mut first).await.unwrap();
        let handle = workers.handles()[0].clone();
        workers.shutdown(Duration::from_millis(10));
        assert_eq!(handle.run(|_| ()), Err(driver::CallError::Ended));
        assert_eq!(listener.connections(), 0);
    });
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() {
    let workers = workers(1, &WorkerConfig::default());
    run(async {
        let taken = TcpListener::bind(loopback()).await.unwrap();
        let mut config = stream_config();
        config.bind = taken.local_addr().unwrap();
        let error = workers.listen(config).expect_err("the port is taken");
        let text = error.to_string();
        assert!(
            text.contains("in use") && text.contains("listeners.tcp.test.bind"),
            "{text}"
        );
        assert!(
            matches!(error, ListenError::Bind(BindError { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse)
        );
        let mut config = stream_config();
        config.bind = "192.0.2.1:0".parse().unwrap();
        let text = workers
            .listen(config)
            .expect_err("a documentation address")
            .to_string();
        assert!(text.contains("192.0.2.1"), "{text}");
    });
}

//! A worker and its store: what waits for it, what does not, and the end.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use broker_core::{
    Effects, Event, Peer, Timestamp,
    store::{Journal, memory::MemoryLimits},
};
use common::*;
use driver::{ConnectionMeta, Listener, WorkerConfig, Workers};
use testkit::TestStore;
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, tcp::OwnedWriteHalf},
};

const PIECE: usize = 64 << 10;
/// More than a shard lets wait, and than sockets hold.
const PIECES: usize = 1024;

/// Workers on a store that takes so many requests of each at a time, and completes nothing until it is told to.
fn held(count: u16, in_flight_max: usize) -> (TestStore, Workers) {
    let store = TestStore::new(MemoryLimits {
        in_flight_max,
        ..MemoryLimits::default()
    });
    store.hold(true);
    let journals: Vec<Box<dyn Journal>> = (0..count).map(|_| Box::new(store.journal()) as _).collect();
    let workers = workers_on(&WorkerConfig::default(), journals);
    (store, workers)
}

async fn connect(listener: &Listener, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(listener.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    send(&mut stream, format!("connect {id}").as_bytes()).await;
    assert_eq!(receive(&mut stream).await, b"connected");
    stream
}

async fn echoes(stream: &mut TcpStream, times: usize) {
    for _ in 0..times {
        send(stream, b"still there?").await;
        assert_eq!(receive(stream).await, b"still there?");
    }
}

#[test]
fn an_acknowledgement_waits_for_the_store_and_nothing_else_does() {
    let (store, workers) = held(1, 16);
    let listener = listen(&workers, stream_config());
    run(async {
        let (mut publisher, mut other) = (connect(&listener, "p").await, connect(&listener, "o").await);
        send(&mut publisher, b"keep 10").await;
        until(|| store.pending() == 1).await;
        echoes(&mut other, 20).await;
        echoes(&mut publisher, 20).await;
        assert_eq!(store.pending(), 1);
        // The worker sleeps: only the store can wake it.
        store.complete_all();
        assert_eq!(receive(&mut publisher).await, b"acked 1");
    });
}

#[test]
fn what_the_store_does_not_take_waits_in_order() {
    let (store, workers) = held(1, 2);
    let listener = listen(&workers, stream_config());
    run(async {
        let mut publisher = connect(&listener, "p").await;
        for _ in 0..9 {
            send(&mut publisher, b"keep 10").await;
            // A turn of its own for each, so a commit of its own.
            echoes(&mut publisher, 1).await;
        }
        assert!(
            (1..=2).contains(&store.pending()),
            "the store holds no more than it has said"
        );
        for n in 1..=9 {
            until(|| store.complete_one()).await;
            assert_eq!(receive(&mut publisher).await, format!("acked {n}").into_bytes());
        }
        assert_eq!(store.pending(), 0);
    });
}

#[test]
fn a_store_that_is_behind_stops_who_causes_it_and_nobody_else() {
    // Two workers, so that connections may move to the one of their client before they are stopped.
    let (store, workers) = held(2, 4096);
    let listener = listen(&workers, stream_config());
    run(async {
        let mut other = connect(&listener, "other").await;
        let (mut answers, writer) = connect(&listener, "publisher").await.into_split();
        let flood = tokio::spawn(flood(writer));
        until(|| count(&workers, "links_held") > 0).await;
        echoes(&mut other, 50).await;
        let before = count(&workers, "bytes_received");
        echoes(&mut other, 100).await;
        let echoed = 100 * packet(b"still there?").len() as u64;
        assert_eq!(
            count(&workers, "bytes_received"),
            before + echoed,
            "the publisher is not read"
        );
        assert!(!flood.is_finished(), "and its socket is full");

        store.hold(false);
        for n in 1..=PIECES {
            assert_eq!(receive(&mut answers).await, format!("acked {n}").into_bytes());
        }
        flood.await.unwrap();
    });
}

/// Pieces to be kept, each followed by as many bytes to be answered, which a peer that is not read does not do.
async fn flood(mut writer: OwnedWriteHalf) {
    for _ in 0..PIECES {
        send(&mut writer, format!("keep {PIECE}").as_bytes()).await;
        send(&mut writer, format!("drop {}", "x".repeat(PIECE)).as_bytes()).await;
    }
    // The connection stays open until all answers are there.
    std::mem::forget(writer);
}

#[test]
fn the_end_waits_for_what_is_being_stored() {
    let (store, workers) = held(1, 16);
    let listener = listen(&workers, stream_config());
    let worker = workers.handles()[0].clone();
    run(async {
        let mut publisher = connect(&listener, "p").await;
        send(&mut publisher, b"keep 10").await;
        until(|| store.pending() == 1).await;
        listener.stop();
        let end = thread::spawn(move || workers.shutdown(PATIENCE * 10));
        let mut rest = Vec::new();
        publisher.read_to_end(&mut rest).await.unwrap();
        for _ in 0..100 {
            let turn = worker.call(|worker| worker.links().count()).await;
            assert!(
                turn.is_ok(),
                "the last client is gone, but the commit is not done"
            );
        }
        store.complete_all();
        end.join().unwrap();
    });
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let (store, workers) = held(1, 16);
    let listener = listen(&workers, stream_config());
    run(async {
        let mut publisher = connect(&listener, "p").await;
        send(&mut publisher, b"keep 10").await;
        until(|| store.pending() == 1).await;
    });
    listener.stop();
    workers.shutdown(std::time::Duration::from_millis(10));
    assert_eq!(store.pending(), 1);
}

/// A peer in this process that publishes a piece at every nudge, and counts them.
struct Nudged {
    peer: Box<dyn Peer>,
    nudges: Arc<AtomicUsize>,
}

impl Peer for Nudged {
    fn handle_input(&mut self, now: Timestamp, _: &[u8], effects: &mut Effects<'_>) -> usize {
        let number = self.nudges.fetch_add(1, Ordering::SeqCst);
        let order = if number == 0 {
            "connect nudged".to_owned()
        } else {
            format!("keep {PIECE}")
        };
        self.peer.handle_input(now, &packet(order.as_bytes()), effects);
        0
    }

    fn handle_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        self.peer.handle_event(now, event, effects);
    }

    fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.peer.handle_timeout(now, effects);
    }

    fn handle_closed(&mut self, now: Timestamp, effects: &mut Effects<'_>) {
        self.peer.handle_closed(now, effects);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.peer.poll_timeout()
    }
}

#[test]
fn a_peer_of_this_process_waits_for_the_store_as_others_do() {
    let (store, workers) = held(1, 4096);
    let listener = listen(&workers, stream_config());
    let nudges = Arc::new(AtomicUsize::new(0));
    let (worker, theirs) = (workers.handles()[0].clone(), Arc::clone(&nudges));
    run(async {
        let attached = worker.call(move |worker| {
            let meta = ConnectionMeta {
                listener: stream_config().info,
                peer: loopback(),
                local: loopback(),
                certificate: None,
                websocket: None,
            };
            let peer = factory()(meta);
            worker.attach(Box::new(Nudged { peer, nudges: theirs }), None)
        });
        let link = attached.await.unwrap();
        let mut sent = 0;
        while count(&workers, "links_held") == 0 {
            worker.nudge(link).unwrap();
            sent += 1;
            until(|| nudges.load(Ordering::SeqCst) == sent).await;
            worker.call(|_| ()).await.unwrap();
        }
        worker.nudge(link).unwrap();
        let mut other = connect(&listener, "other").await;
        echoes(&mut other, 50).await;
        assert_eq!(nudges.load(Ordering::SeqCst), sent, "it is not called");
        store.hold(false);
        until(|| nudges.load(Ordering::SeqCst) == sent + 1).await;
    });
}

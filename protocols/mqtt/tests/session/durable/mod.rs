//! What an acknowledgement promises is there after the process was killed, and nothing is promised before.

mod incoming;
mod kept;
mod outgoing;
mod random;
mod sessions;
mod sharing;
mod slow;

use broker_core::Config;
use mqtt::codec::{Packet, Publish};

use crate::net::*;

/// When the process is killed, seen from a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// It is not done.
    Before,
    /// It is done, but nobody was told.
    Untold,
    /// The client that waits for it was told.
    After,
}

const CRASHES: [Crash; 3] = [Crash::Before, Crash::Untold, Crash::After];

/// Shards of a node, unless a test is about their number.
const SHARDS: u16 = 2;

fn durable() -> Net {
    Net::with_shards(SHARDS, |_| {})
}

fn durable_with(configure: impl FnOnce(&mut Config)) -> Net {
    Net::with_shards(SHARDS, configure)
}

impl Net {
    /// What is to be committed waits.
    fn hold_commits(&mut self) {
        self.node.hold_commits(true);
    }

    /// Everything that waits is committed.
    fn commit(&mut self) {
        self.node.hold_commits(false);
    }

    /// The process is killed and starts again at once. What waits is not done.
    fn crash(&mut self) {
        self.crash_for(0);
    }

    /// The process is killed, and starts again so many seconds later.
    fn crash_for(&mut self, seconds: u64) {
        self.node.crash(0);
        self.pass(seconds);
        self.node.restart(SHARDS);
    }

    /// The process is killed while a commit waits, which `client` is acknowledged by `packet`.
    #[track_caller]
    fn crash_at(&mut self, crash: Crash, client: Client, packet: Packet<'_>) {
        self.expect_nothing(client);
        let pending = self.node.store().pending();
        assert!(pending > 0, "the acknowledgement waits for nothing");
        match crash {
            Crash::Before => self.node.crash(0),
            Crash::Untold => self.node.crash(pending),
            Crash::After => {
                self.commit();
                self.expect(client, packet);
                self.node.crash(0);
            }
        }
        self.node.restart(SHARDS);
    }

    /// `client` gets `packet` when what waits is committed, and not before.
    #[track_caller]
    fn expect_after_commit(&mut self, client: Client, packet: Packet<'_>) {
        self.expect_nothing(client);
        assert!(self.node.store().pending() > 0, "it waits for nothing");
        self.commit();
        self.expect(client, packet);
    }

    /// What the session gets that `client_id` left behind; it acknowledges nothing.
    #[track_caller]
    fn backlog(&mut self, client_id: &str) -> (Client, Vec<Packet<'static>>) {
        let client = self.dial(kept(V5, client_id));
        let mut packets = self.take(client);
        assert!(
            matches!(&packets[0], Packet::ConnAck(connack) if connack.session_present),
            "{packets:?}"
        );
        packets.remove(0);
        (client, packets)
    }

    /// A session with a subscription, that is left behind.
    #[track_caller]
    fn leave_session(&mut self, client_id: &str, filters: &[(&str, broker_core::QoS)]) {
        let client = self.connect(kept(V5, client_id));
        self.subscribe(client, filters);
        self.disconnect(client);
    }

    /// A message that is acknowledged in full.
    #[track_caller]
    fn deliver(&mut self, writer: Client, publish: Publish<'_>) {
        let id = publish.packet_id.expect("one that is acknowledged").get();
        let qos = publish.qos;
        self.send(writer, Packet::Publish(publish));
        match qos {
            Q2 => {
                self.expect(writer, pubrec(id));
                self.send(writer, pubrel(id));
                self.expect(writer, pubcomp(id));
            }
            _ => self.expect(writer, puback(id)),
        }
    }
}

fn payloads(packets: &[Packet<'_>]) -> Vec<String> {
    let text = |packet: &Packet<'_>| match packet {
        Packet::Publish(publish) => String::from_utf8_lossy(publish.payload).into_owned(),
        other => panic!("{other:?} instead of a PUBLISH"),
    };
    packets.iter().map(text).collect()
}

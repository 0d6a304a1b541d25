//! Clients that sleep.

mod awake;
mod links;
mod notes;
mod qos0;
mod wills;

use bytes::Bytes;

use super::*;
use crate::{Will, store::format::PresenceEntry, store::format::SessionEntry};

const GUARD: &[u8] = b"guard";

fn will(text: &str) -> Will {
    Will {
        topic: "wills".to_owned(),
        payload: text.as_bytes().to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_interval: 0,
        expiry_interval: None,
        properties: Vec::new(),
    }
}

/// A CONNECT of the client `s`, which may sleep.
fn sensor(expiry: u32) -> Connect {
    Connect {
        session_expiry_interval: expiry,
        clean_start: false,
        may_sleep: true,
        ..Connect::plain("s")
    }
}

impl Rig {
    fn admit(&mut self, connect: Connect) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        self.request(link, Request::Connect(Box::new(connect)));
        link
    }

    /// `s` connects with this CONNECT, subscribes to `t` and notes its guard.
    fn begin(&mut self, connect: Connect) -> LinkId {
        let link = self.admit(connect);
        self.subscribe(link, "t", QoS::AtLeastOnce);
        self.request(link, Request::Note(0, Some(Bytes::from_static(GUARD))));
        self.told(link);
        link
    }

    fn end(&mut self, link: LinkId, cause: DisconnectCause) {
        self.request(link, Request::Disconnect(Box::new(ended(cause))));
    }

    fn fall_asleep(&mut self, link: LinkId, seconds: u32) {
        self.end(link, DisconnectCause::Asleep(seconds));
        assert_eq!(self.told(link), ["asleep"]);
    }

    fn wake(&mut self, guard: &'static [u8]) -> LinkId {
        let wake = Some(Bytes::from_static(guard));
        self.admit(Connect { wake, ..sensor(0) })
    }

    /// Who listens to Wills.
    fn watch(&mut self) -> LinkId {
        let link = self.connect("watcher", 600);
        self.subscribe(link, "wills", QoS::AtLeastOnce);
        link
    }

    /// Timers are not exact.
    fn slack(&mut self) {
        self.pass(300);
    }

    fn secs(&mut self, seconds: u64) {
        self.pass(seconds * 1000);
    }

    /// What the peer of a link was told, in order, until now.
    fn told(&mut self, link: LinkId) -> Vec<String> {
        let mut told = Vec::new();
        self.events.retain(|(to, event)| {
            if *to == link {
                told.push(text(event));
            }
            *to != link
        });
        told
    }

    /// The same; deliveries of QoS 1 are acknowledged as long as there are any.
    fn told_all(&mut self, link: LinkId) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let ids: Vec<PacketId> = self
                .events
                .iter()
                .filter_map(|(to, event)| match event {
                    Event::Deliver(delivery) if *to == link => delivery.packet_id,
                    _ => None,
                })
                .collect();
            told.extend(self.told(link));
            if ids.is_empty() {
                return told;
            }
            for packet_id in ids {
                self.acknowledge(link, QoS::AtLeastOnce, packet_id);
            }
        }
    }

    fn presence(&self) -> Option<PresenceEntry> {
        let key = Name::Session(Token::of("s")).key();
        let entry = self.entries().into_iter().find(|entry| entry.key == key)?;
        Some(SessionEntry::decode(&entry.value).unwrap().presence)
    }

    /// Entries of which `s` has some.
    fn tables(&self) -> Vec<String> {
        let token = Token::of("s").to_string();
        let keys = self
            .entries()
            .into_iter()
            .map(|entry| entry.key.as_str().to_owned());
        let own = keys.filter(|key| key.contains(&token));
        own.map(|key| key.replace(&token, "").trim_end_matches('.').to_owned())
            .collect()
    }
}

fn ended(cause: DisconnectCause) -> Disconnect {
    Disconnect {
        cause,
        session_expiry_interval: None,
        keeps_will: false,
        user_properties: Vec::new(),
    }
}

fn text(event: &Event) -> String {
    match event {
        Event::Connected(connected) if connected.session_present => "resumed".to_owned(),
        Event::Connected(_) => "connected".to_owned(),
        Event::Refused(closing) => format!("refused {:?}", closing.reason),
        Event::Close(closing) => format!("closed {:?}", closing.reason),
        Event::Deliver(delivery) => {
            let payload = std::str::from_utf8(delivery.message.payload()).unwrap();
            let dup = if delivery.dup { " again" } else { "" };
            format!("{}: {payload}{dup}", delivery.qos as u8)
        }
        Event::Drained => "drained".to_owned(),
        Event::Asleep => "asleep".to_owned(),
        Event::WillSet(reason) => format!("will {reason:?}"),
        Event::Noted(number, reason) => format!("noted {number} {reason:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_session_that_may_sleep_is_stored_and_still_ends_with_its_connection() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    assert_eq!(rig.presence(), Some(PresenceEntry::Online));
    rig.end(link, DisconnectCause::Normal);
    assert_eq!(rig.tables(), [""; 0]);
    assert_eq!(rig.shard.census().sessions, 0);
}

#[test]
fn who_was_connected_when_the_process_was_killed_is_lost() {
    let mut rig = Rig::new();
    let watcher = rig.watch();
    rig.begin(Connect {
        will: Some(will("w")),
        ..sensor(0)
    });
    rig.lose(watcher);
    rig.crash();
    rig.pass(1000);
    assert_eq!(rig.shard.census().sessions, 1, "the watcher's");
    assert_eq!(rig.tables(), [""; 0]);
    let watcher = rig.connect("watcher", 600);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
}

#[test]
fn a_sleeper_is_there_again_after_a_kill_until_its_time_is_over() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    let until = rig.now.after_secs(60);
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.crash();
    let presence = PresenceEntry::Asleep {
        until,
        is_awake: false,
    };
    assert_eq!(rig.presence(), Some(presence));
    rig.secs(50);
    rig.publish("t", QoS::AtLeastOnce, "2");
    let link = rig.admit(sensor(0));
    assert_eq!(rig.told_all(link), ["resumed", "1: 1", "1: 2"]);
    rig.fall_asleep(link, 60);
    rig.crash();
    rig.now = rig.now.after_secs(60);
    // The process was down meanwhile.
    rig.crash();
    rig.slack();
    assert_eq!(rig.shard.census().sessions, 0);
    assert_eq!(rig.tables(), [""; 0]);
}

#[test]
fn a_session_that_is_kept_begins_to_expire_at_the_end_of_the_sleep() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(100));
    rig.fall_asleep(link, 60);
    rig.secs(159);
    assert_eq!(rig.shard.census().sessions, 1);
    rig.crash();
    rig.slack();
    assert_eq!(rig.shard.census().sessions, 1);
    rig.secs(1);
    assert_eq!(rig.shard.census().sessions, 0);
}

#[test]
fn a_session_that_is_not_stored_cannot_sleep() {
    let mut rig = Rig::new();
    let watcher = rig.watch();
    let link = rig.admit(Connect {
        may_sleep: false,
        will: Some(will("w")),
        ..sensor(0)
    });
    rig.told(link);
    rig.end(link, DisconnectCause::Asleep(60));
    assert_eq!(rig.told(link), [""; 0]);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), ["w"]);
}

#[test]
fn a_clean_start_discards_what_slept() {
    let mut rig = Rig::new();
    let watcher = rig.watch();
    let link = rig.begin(Connect {
        will: Some(will("w")),
        ..sensor(0)
    });
    rig.fall_asleep(link, 60);
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.publish("t", QoS::AtMostOnce, "2");
    let link = rig.admit(Connect {
        clean_start: true,
        ..sensor(0)
    });
    assert_eq!(rig.told(link), ["connected"]);
    assert_eq!(rig.tables(), ["s"]);
    rig.secs(100);
    assert_eq!(rig.drain(watcher, QoS::AtLeastOnce), [""; 0], "it was not lost");
}

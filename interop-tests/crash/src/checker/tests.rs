//! Hand-made histories: each kind of fault is found, and what only looks like one is not.

use std::io::Cursor;

use crate::{
    history::{BROKER, ClientInfo, ClientNo, Delivery, Event, Fault, History, Kind, What},
    wire::Version,
};

use super::{Report, check};

const PUBLISHER: ClientNo = 0;
const ONE: ClientNo = 1;
const TWO: ClientNo = 2;
const OBSERVER: ClientNo = 3;
/// Its session expires after ten seconds.
const BRIEF: ClientNo = 4;

const PLAIN: u16 = 0;
const RETAINED: u16 = 1;
const WILL: u16 = 2;

const ALL: u16 = 0;
const SHARED: u16 = 1;

struct Story {
    history: History,
    at: u32,
}

impl Story {
    /// A broker that is ready, and clients that have connected for the first time.
    fn new() -> Story {
        let info = |name: &str, expiry| ClientInfo {
            name: name.into(),
            version: Version::V5,
            expiry,
            observer: name == "observer",
        };
        let mut story = Story {
            history: History {
                clients: vec![
                    info("publisher", 3_600_000),
                    info("one", 3_600_000),
                    info("two", 3_600_000),
                    info("observer", 0),
                    info("brief", 10_000),
                ],
                topics: vec!["a/b".into(), "a/r".into(), "a/w".into()],
                filters: vec!["a/#".into(), "$share/g/a/#".into()],
                ..History::default()
            },
            at: 0,
        };
        story.start();
        for client in [PUBLISHER, ONE, TWO, BRIEF] {
            story.connect(client, false);
        }
        story
    }

    /// Something happens a millisecond later.
    fn then(&mut self, client: ClientNo, what: What) -> &mut Story {
        self.at += 1;
        let at = self.at;
        self.history.events.push(Event { at, client, what });
        self
    }

    fn wait(&mut self, ms: u32) -> &mut Story {
        self.at += ms;
        self
    }

    fn start(&mut self) -> &mut Story {
        self.then(BROKER, What::Started).then(BROKER, What::Ready)
    }

    /// The broker is killed and starts again; the clients notice meanwhile.
    fn crash(&mut self, connected: &[ClientNo]) -> &mut Story {
        self.then(BROKER, What::Killed);
        for client in connected {
            self.then(*client, What::Ended { orderly: false });
        }
        self.start()
    }

    fn connect(&mut self, client: ClientNo, present: bool) -> &mut Story {
        self.attempt(client).then(client, What::Connected { present })
    }

    fn attempt(&mut self, client: ClientNo) -> &mut Story {
        let (clean, will) = (client == OBSERVER, 0);
        self.then(client, What::Connecting { clean, will })
    }

    fn leave(&mut self, client: ClientNo) -> &mut Story {
        self.then(client, What::Ended { orderly: true })
    }

    fn subscribe(&mut self, client: ClientNo, filter: u16, qos: u8) -> &mut Story {
        self.then(client, What::Subscribing { filter })
            .then(client, What::Subscribed { filter, qos })
    }

    fn send(&mut self, number: u32, topic: u16, qos: u8, kind: Kind) -> &mut Story {
        self.then(
            PUBLISHER,
            What::Publishing {
                number,
                topic,
                qos,
                kind,
            },
        )
    }

    fn acknowledge(&mut self, number: u32) -> &mut Story {
        self.then(PUBLISHER, What::Acknowledged { number })
    }

    fn publish(&mut self, number: u32, qos: u8) -> &mut Story {
        self.send(number, PLAIN, qos, Kind::Plain).acknowledge(number)
    }

    fn get(&mut self, client: ClientNo, number: u32, qos: u8, dup: bool) -> &mut Story {
        self.get_on(client, PLAIN, number, qos, dup)
    }

    fn get_on(&mut self, client: ClientNo, topic: u16, number: u32, qos: u8, dup: bool) -> &mut Story {
        let delivery = Delivery {
            publisher: PUBLISHER,
            number,
            topic,
            id: 1,
            qos,
            dup,
            retain: client == OBSERVER,
        };
        self.then(client, What::Delivered(delivery))
    }

    fn report(&mut self) -> Report {
        self.then(BROKER, What::Drained);
        check(&self.history)
    }

    /// Exactly these faults are found.
    fn expect(&mut self, expected: &[(Fault, u64)]) {
        let report = self.report();
        let found: Vec<_> = report
            .counts
            .iter()
            .map(|(fault, count)| (*fault, *count))
            .collect();
        let texts: Vec<_> = report.violations.iter().map(|it| &it.text).collect();
        assert_eq!(found, expected, "{texts:?}");
    }
}

#[test]
fn a_run_without_fault_is_clean() {
    let mut story = Story::new();
    story.subscribe(ONE, ALL, 2).subscribe(TWO, SHARED, 1);
    story.publish(1, 2).get(ONE, 1, 2, false).get(TWO, 1, 1, false);
    story
        .send(2, PLAIN, 1, Kind::Plain)
        .crash(&[PUBLISHER, ONE, TWO, BRIEF]);
    story
        .connect(PUBLISHER, true)
        .then(PUBLISHER, What::Resending { number: 2 });
    story.acknowledge(2).connect(ONE, true).connect(TWO, true);
    // It was published twice.
    story
        .get(ONE, 2, 1, false)
        .get(ONE, 2, 1, false)
        .get(TWO, 2, 1, false);
    story.expect(&[]);
    let mut text = Cursor::new(Vec::new());
    story.history.write(&mut text).unwrap();
    assert_eq!(
        text.into_inner().split(|byte| *byte == b'\n').count(),
        story.history.events.len() + 1
    );
}

#[test]
fn an_acknowledged_message_that_does_not_come_is_lost() {
    let mut story = Story::new();
    story
        .subscribe(ONE, ALL, 1)
        .publish(1, 1)
        .publish(2, 2)
        .get(ONE, 2, 1, false);
    story.expect(&[(Fault::Lost, 1)]);
}

#[test]
fn what_was_not_acknowledged_or_not_subscribed_is_not_lost() {
    let mut story = Story::new();
    story
        .publish(1, 1)
        .subscribe(ONE, ALL, 1)
        .send(2, PLAIN, 1, Kind::Plain);
    story.then(PUBLISHER, What::Refused { number: 2 });
    story
        .send(3, PLAIN, 1, Kind::Plain)
        .then(ONE, What::Subscribing { filter: ALL });
    // QoS 0 on either hop.
    story
        .publish(4, 0)
        .subscribe(TWO, ALL, 0)
        .publish(5, 1)
        .get(ONE, 5, 1, false);
    story.expect(&[]);
}

#[test]
fn a_subscription_that_ended_is_owed_nothing() {
    let mut story = Story::new();
    story.subscribe(ONE, ALL, 1).publish(1, 1);
    story.then(ONE, What::Unsubscribing { filter: ALL }).publish(2, 1);
    story.then(
        ONE,
        What::Unsubscribed {
            filter: ALL,
            existed: true,
        },
    );
    story
        .subscribe(BRIEF, ALL, 1)
        .leave(BRIEF)
        .publish(3, 1)
        .wait(15_000)
        .connect(BRIEF, false);
    story.expect(&[]);
}

#[test]
fn a_group_loses_what_no_member_gets() {
    let mut story = Story::new();
    story.subscribe(ONE, SHARED, 1).subscribe(TWO, SHARED, 1);
    story
        .publish(1, 1)
        .get(ONE, 1, 1, false)
        .publish(2, 1)
        .get(TWO, 2, 1, false)
        .publish(3, 1);
    story.expect(&[(Fault::Lost, 1)]);
}

#[test]
fn qos_2_is_delivered_once() {
    let mut story = Story::new();
    story.subscribe(ONE, ALL, 2).publish(1, 2).get(ONE, 1, 2, false);
    story
        .crash(&[PUBLISHER, ONE, TWO, BRIEF])
        .connect(ONE, true)
        .get(ONE, 1, 2, true);
    story.expect(&[(Fault::Doubled, 1)]);
}

#[test]
fn a_publisher_s_qos_2_message_sent_again_is_one_message() {
    let mut story = Story::new();
    story
        .subscribe(ONE, ALL, 1)
        .send(1, PLAIN, 2, Kind::Plain)
        .get(ONE, 1, 1, false);
    story
        .then(PUBLISHER, What::Ended { orderly: false })
        .connect(PUBLISHER, true);
    story
        .then(PUBLISHER, What::Resending { number: 1 })
        .acknowledge(1)
        .get(ONE, 1, 1, false);
    story.expect(&[(Fault::Doubled, 1)]);
}

#[test]
fn qos_1_comes_again_with_dup_on_another_connection_only() {
    for (reconnects, dup, doubled) in [
        (true, true, 0),
        (true, false, 1),
        (false, true, 1),
        (false, false, 1),
    ] {
        let mut story = Story::new();
        story.subscribe(ONE, ALL, 1).publish(1, 1).get(ONE, 1, 1, false);
        if reconnects {
            story.then(ONE, What::Ended { orderly: false }).connect(ONE, true);
        }
        story.get(ONE, 1, 1, dup);
        assert_eq!(
            story.report().count(Fault::Doubled),
            doubled,
            "{reconnects} {dup}"
        );
    }
}

#[test]
fn a_group_gets_a_message_once_unless_the_member_is_gone() {
    for (qos, leaves, doubled) in [(1, false, 1), (1, true, 0), (2, false, 1), (2, true, 1)] {
        let mut story = Story::new();
        story
            .subscribe(ONE, SHARED, 2)
            .subscribe(TWO, SHARED, 2)
            .publish(1, qos);
        story.get(ONE, 1, qos, false);
        if leaves {
            story.leave(ONE);
        }
        story.get(TWO, 1, qos, false);
        assert_eq!(story.report().count(Fault::Doubled), doubled, "{qos} {leaves}");
    }
}

#[test]
fn a_member_with_qos_1_that_is_gone_may_be_followed_by_one_with_qos_2() {
    for (first, second, doubled) in [(1, 2, 0), (2, 1, 1)] {
        let mut story = Story::new();
        story
            .subscribe(ONE, SHARED, first)
            .subscribe(TWO, SHARED, second)
            .publish(1, 2);
        story
            .get(ONE, 1, first, false)
            .leave(ONE)
            .get(TWO, 1, second, false);
        assert_eq!(story.report().count(Fault::Doubled), doubled, "{first} {second}");
    }
}

#[test]
fn first_deliveries_are_in_order_for_each_topic_and_qos() {
    let mut story = Story::new();
    story
        .subscribe(ONE, ALL, 2)
        .publish(1, 1)
        .publish(2, 1)
        .publish(3, 2);
    story
        .get(ONE, 3, 2, false)
        .get(ONE, 2, 1, false)
        .get(ONE, 1, 1, false);
    story.expect(&[(Fault::Reordered, 1)]);
}

#[test]
fn a_repetition_is_not_a_first_delivery() {
    let mut story = Story::new();
    story.subscribe(ONE, ALL, 1).publish(1, 1).publish(2, 1);
    story
        .get(ONE, 1, 1, false)
        .get(ONE, 2, 1, false)
        .leave(ONE)
        .connect(ONE, true);
    story.get(ONE, 1, 1, true).get(ONE, 2, 1, true);
    story.expect(&[]);
}

#[test]
fn session_present_follows_what_was_confirmed() {
    let mut story = Story::new();
    story.crash(&[PUBLISHER, ONE, TWO, BRIEF]).connect(ONE, false);
    story.expect(&[(Fault::SessionPresent, 1)]);
    // A first CONNECT without an answer may have made a session or not.
    for present in [false, true] {
        let mut story = Story::new();
        story
            .history
            .clients
            .push(story.history.clients[usize::from(ONE)].clone());
        let new = 5;
        story
            .attempt(new)
            .then(new, What::Ended { orderly: false })
            .connect(new, present);
        story.expect(&[]);
    }
    let mut story = Story::new();
    story.leave(ONE);
    let (clean, will) = (true, 0);
    story
        .then(ONE, What::Connecting { clean, will })
        .then(ONE, What::Connected { present: true });
    story.expect(&[(Fault::SessionPresent, 1)]);
}

#[test]
fn a_dropped_session_does_not_hide_what_it_lost() {
    let mut story = Story::new();
    story
        .subscribe(ONE, ALL, 1)
        .leave(ONE)
        .publish(1, 1)
        .connect(ONE, false);
    story.expect(&[(Fault::Lost, 1), (Fault::SessionPresent, 1)]);
}

#[test]
fn sessions_expire_also_while_the_broker_is_down() {
    for (down, away, present, fault) in [
        (false, 5_000, true, None),
        (false, 5_000, false, Some(Fault::SessionPresent)),
        (false, 15_000, false, None),
        (false, 15_000, true, Some(Fault::Expired)),
        // It had left before the broker went down: the time counts.
        (true, 15_000, true, Some(Fault::Expired)),
        (true, 15_000, false, None),
    ] {
        let mut story = Story::new();
        story.leave(BRIEF);
        if down {
            story.wait(2_000).then(BROKER, What::Killed).wait(away).start();
        } else {
            story.wait(away);
        }
        story.connect(BRIEF, present);
        let report = story.report();
        assert_eq!(
            report.counts.keys().next().copied(),
            fault,
            "{down} {away} {present}"
        );
    }
}

#[test]
fn a_session_that_was_connected_at_the_kill_may_count_from_the_start() {
    for present in [true, false] {
        let mut story = Story::new();
        story
            .then(BROKER, What::Killed)
            .then(BRIEF, What::Ended { orderly: false });
        story.wait(15_000).start().connect(BRIEF, present);
        story.expect(&[]);
    }
    let mut story = Story::new();
    story.crash(&[BRIEF]).wait(15_000).connect(BRIEF, true);
    story.expect(&[(Fault::Expired, 1)]);
}

#[test]
fn a_subscription_that_is_gone_is_missed() {
    let gone = What::Unsubscribed {
        filter: ALL,
        existed: false,
    };
    let mut story = Story::new();
    story
        .subscribe(ONE, ALL, 1)
        .then(ONE, What::Unsubscribing { filter: ALL })
        .then(ONE, gone);
    story.expect(&[(Fault::Subscription, 1)]);
    // The first UNSUBSCRIBE may have been executed.
    let mut story = Story::new();
    story
        .subscribe(ONE, ALL, 1)
        .then(ONE, What::Unsubscribing { filter: ALL })
        .leave(ONE);
    story
        .connect(ONE, true)
        .then(ONE, What::Unsubscribing { filter: ALL })
        .then(ONE, gone);
    story.expect(&[]);
}

#[test]
fn what_a_client_notices_counts() {
    let mut story = Story::new();
    story
        .history
        .note(0, ONE, Fault::PacketIdentifier, "7 is in use".into());
    story.expect(&[(Fault::PacketIdentifier, 1)]);
}

#[test]
fn the_retained_message_is_the_last_acknowledged_or_a_later_one() {
    // What the observer gets; `None`: nothing.
    for (got, faults) in [(Some(1), 1), (Some(2), 0), (Some(3), 0), (None, 1)] {
        let mut story = Story::new();
        for number in [1, 2] {
            story
                .send(number, RETAINED, 1, Kind::Retained)
                .acknowledge(number);
        }
        story.connect(OBSERVER, false).subscribe(OBSERVER, ALL, 1);
        story.send(3, RETAINED, 1, Kind::Retained);
        if let Some(number) = got {
            story.get_on(OBSERVER, RETAINED, number, 1, false);
        }
        story.then(OBSERVER, What::Observed);
        assert_eq!(story.report().count(Fault::Retained), faults, "{got:?}");
    }
}

#[test]
fn a_removed_retained_message_is_gone() {
    for (got, faults) in [(None, 0), (Some(1), 1)] {
        let mut story = Story::new();
        story.send(1, RETAINED, 1, Kind::Retained).acknowledge(1);
        story.send(2, RETAINED, 1, Kind::Clear).acknowledge(2);
        story.connect(OBSERVER, false).subscribe(OBSERVER, ALL, 1);
        if let Some(number) = got {
            story.get_on(OBSERVER, RETAINED, number, 1, false);
        }
        story.then(OBSERVER, What::Observed);
        assert_eq!(story.report().count(Fault::Retained), faults, "{got:?}");
    }
}

#[test]
fn a_delayed_message_comes_once_and_not_before_its_time() {
    for (waits, times, faults) in [(5_000, 1, 0), (5_000, 0, 1), (5_000, 2, 1), (4_000, 1, 1)] {
        let mut story = Story::new();
        story
            .subscribe(ONE, ALL, 2)
            .send(1, PLAIN, 2, Kind::Delayed(5))
            .acknowledge(1)
            .wait(waits);
        for _ in 0..times {
            story.get(ONE, 1, 2, false);
        }
        story.expect(if faults == 0 { &[] } else { &[(Fault::Delayed, 1)] });
    }
}

/// A client with a Will of two seconds' delay, which ends its connection.
fn will(orderly: bool) -> Story {
    let mut story = Story::new();
    story
        .subscribe(ONE, ALL, 1)
        .leave(PUBLISHER)
        .send(1, WILL, 1, Kind::Will(2));
    let (clean, will) = (false, 1);
    story.then(PUBLISHER, What::Connecting { clean, will });
    story.then(PUBLISHER, What::Connected { present: true });
    story.then(PUBLISHER, What::Ended { orderly });
    story
}

#[test]
fn a_will_is_sent_once_unless_its_client_comes_back_or_left_in_order() {
    for (orderly, waits, times, faults) in [
        (false, 6_000, 1, 0),
        (false, 6_000, 0, 1),
        (false, 6_000, 2, 1),
        // Too close to tell.
        (false, 2_000, 0, 0),
        (false, 2_000, 1, 0),
        (false, 10, 0, 0),
        (false, 10, 1, 1),
        (true, 6_000, 0, 0),
        (true, 6_000, 1, 1),
    ] {
        let mut story = will(orderly);
        story.wait(waits);
        for _ in 0..times {
            story.get_on(ONE, WILL, 1, 1, false);
        }
        story.connect(PUBLISHER, true);
        assert_eq!(
            story.report().count(Fault::Will),
            faults,
            "{orderly} {waits} {times}"
        );
    }
}

#[test]
fn a_will_survives_the_broker() {
    // Its client was connected when the broker was killed, and comes back late or, counted from the start, early.
    for (waits, faults) in [(6_000, 1), (1_000, 0)] {
        let mut story = Story::new();
        story
            .subscribe(ONE, ALL, 1)
            .leave(PUBLISHER)
            .send(1, WILL, 1, Kind::Will(2));
        let (clean, will) = (false, 1);
        story.then(PUBLISHER, What::Connecting { clean, will });
        story.then(PUBLISHER, What::Connected { present: true });
        story
            .crash(&[PUBLISHER, ONE])
            .wait(waits)
            .connect(PUBLISHER, true);
        assert_eq!(story.report().count(Fault::Will), faults, "{waits}");
    }
}

#[test]
fn a_will_whose_client_left_while_the_disk_took_nothing_counts_if_the_broker_goes_on() {
    for (is_killed, faults) in [(false, 1), (true, 0)] {
        let mut story = Story::new();
        story
            .subscribe(ONE, ALL, 1)
            .leave(PUBLISHER)
            .send(1, WILL, 1, Kind::Will(2));
        let (clean, will) = (false, 1);
        story.then(PUBLISHER, What::Connecting { clean, will });
        story.then(PUBLISHER, What::Connected { present: true });
        story.then(BROKER, What::Disk { works: false });
        story.then(PUBLISHER, What::Ended { orderly: false });
        // It tries to come back, in vain.
        story.wait(6_000).attempt(PUBLISHER).leave(PUBLISHER);
        if is_killed {
            story.crash(&[ONE]);
        } else {
            story.then(BROKER, What::Disk { works: true });
        }
        story.wait(500).connect(PUBLISHER, true);
        assert_eq!(story.report().count(Fault::Will), faults, "{is_killed}");
    }
}

#[test]
fn a_message_that_nobody_sent_is_noticed() {
    let mut story = Story::new();
    story.subscribe(ONE, ALL, 1).get(ONE, 9, 1, false);
    story.expect(&[(Fault::Protocol, 1)]);
}

#[test]
fn what_was_handed_on_once_is_not_handed_on_again() {
    for (second_leaves, doubled) in [(false, 1), (true, 0)] {
        let mut story = Story::new();
        for member in [ONE, TWO, BRIEF] {
            story.subscribe(member, SHARED, 1);
        }
        story.publish(1, 1).get(ONE, 1, 1, false).leave(ONE);
        story.get(TWO, 1, 1, false);
        if second_leaves {
            story.leave(TWO);
        }
        story.get(BRIEF, 1, 1, false);
        assert_eq!(story.report().count(Fault::Doubled), doubled, "{second_leaves}");
    }
}

#[test]
fn a_client_that_notices_the_kill_late_was_gone_before() {
    let mut story = Story::new();
    story.then(BROKER, What::Killed).wait(5_000).start();
    story
        .then(BRIEF, What::Ended { orderly: false })
        .wait(7_000)
        .connect(BRIEF, false);
    story.expect(&[]);
}

#[test]
fn a_disconnect_right_before_the_kill_may_be_forgotten() {
    for times in [0, 1] {
        let mut story = will(true);
        story.crash(&[ONE]).wait(6_000);
        for _ in 0..times {
            story.get_on(ONE, WILL, 1, 1, false);
        }
        story.connect(PUBLISHER, true);
        story.expect(&[]);
    }
}

#[test]
fn only_a_later_removal_excuses_that_nothing_is_retained() {
    for (first, second, faults) in [(Kind::Clear, Kind::Retained, 1), (Kind::Retained, Kind::Clear, 0)] {
        let mut story = Story::new();
        story.send(1, RETAINED, 1, first).acknowledge(1);
        story.send(2, RETAINED, 1, second);
        if second == Kind::Retained {
            story.acknowledge(2);
        }
        story.connect(OBSERVER, false).subscribe(OBSERVER, ALL, 1);
        story.then(OBSERVER, What::Observed);
        assert_eq!(story.report().count(Fault::Retained), faults, "{first:?}");
    }
}

#[test]
fn of_two_copies_a_member_may_get_the_one_that_another_left() {
    for (resends, leaves, doubled) in [(true, true, 0), (true, false, 1), (false, true, 1)] {
        let mut story = Story::new();
        story.subscribe(ONE, SHARED, 1).subscribe(TWO, SHARED, 1);
        story.send(1, PLAIN, 1, Kind::Plain);
        if resends {
            story.then(PUBLISHER, What::Resending { number: 1 });
        }
        story.get(ONE, 1, 1, false).get(TWO, 1, 1, false);
        if leaves {
            story.leave(TWO);
        }
        story.get(ONE, 1, 1, false);
        let found = story.report().count(Fault::Doubled);
        assert_eq!(found > 0, doubled > 0, "{resends} {leaves}");
    }
}

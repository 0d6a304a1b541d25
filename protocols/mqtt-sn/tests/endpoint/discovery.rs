//! ADVERTISE, SEARCHGW and GWINFO (§6.1).

use super::*;

fn advertising(interval: Duration) -> Settings {
    Settings {
        advertise_interval: Some(interval),
        ..settings()
    }
}

#[test]
fn advertise_goes_out_at_start_and_at_the_interval() {
    let mut world = World::with(advertising(Duration::from_secs(900)), true);
    let advertise = wire("05 00 07 03 84");
    let sent = world.advance(Duration::from_secs(1800));
    let expected = [0, 900_000, 1_800_000].map(|at| (at, everyone(None), advertise.clone()));
    assert_eq!(sent, expected);
}

#[test]
fn one_endpoint_of_a_listener_advertises() {
    let mut world = World::with(advertising(Duration::from_secs(900)), false);
    assert_eq!(world.advance(Duration::from_secs(3600)), []);
    let mut world = World::new();
    assert_eq!(world.advance(Duration::from_secs(3600)), []);
}

/// The duration is in seconds (§5.3.3) and never below the time that passes.
#[test]
fn the_duration_is_what_two_octets_can_say() {
    for (interval, duration) in [
        (Duration::ZERO, "00 01"),
        (Duration::from_millis(1500), "00 02"),
        (Duration::from_secs(65_535), "FF FF"),
        (Duration::from_secs(100_000), "FF FF"),
    ] {
        let mut world = World::with(advertising(interval), true);
        let sent = world.advance(Duration::from_secs(65_535));
        assert_eq!(sent[0].2, wire(&format!("05 00 07 {duration}")));
        let seconds = u64::from(u16::from_be_bytes([sent[0].2[3], sent[0].2[4]]));
        assert_eq!(sent[1].0, u128::from(seconds) * 1000);
    }
}

#[test]
fn a_searcher_is_answered_within_the_delay() {
    let mut delays = Vec::new();
    for number in 1..40 {
        let mut world = World::new();
        for _ in 0..number {
            world.say_as(&sensor(0), "02 16");
            world.say_as(&sensor(0), "07 04 04 01 00 3C 'c'");
        }
        assert_eq!(world.say_as(&sensor(1), SEARCHGW), DONE);
        let sent = world.advance(Duration::from_secs(5));
        let [(after, to, bytes)] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!((to, bytes), (&only(&sensor(1)), &wire(GWINFO)));
        delays.push(*after);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(
        delays.len() > 30 && delays[0] < 1000 && delays[delays.len() - 1] > 4000,
        "{delays:?}"
    );
}

#[test]
fn without_a_delay_the_answer_is_due_at_once() {
    let mut world = World::with(
        Settings {
            gwinfo_delay_max: Duration::ZERO,
            ..settings()
        },
        true,
    );
    world.say_as(&sensor(1), SEARCHGW);
    assert_eq!(
        world.advance(Duration::ZERO),
        [(0, only(&sensor(1)), wire(GWINFO))]
    );
}

#[test]
fn several_searchers_are_answered_with_one_broadcast() {
    let mut world = World::new();
    for local in [GROUP, EVERYONE] {
        world.local = local;
        world.say_as(&sensor(1), "03 01 01");
        world.say_as(&sensor(2), "03 01 03");
        world.say_as(&sensor(1), "03 01 02");
        let sent = world.advance(Duration::from_secs(6));
        let count = |to: &Destination| sent.iter().filter(|(_, other, _)| other == to).count();
        assert_eq!(sent.len(), 3);
        assert!(sent.iter().all(|(_, _, bytes)| *bytes == wire(GWINFO)));
        // As far as the farthest of the questions went (§6.1).
        assert_eq!(count(&everyone(Some(3))), 1);
        assert_eq!((count(&only(&sensor(1))), count(&only(&sensor(2)))), (1, 1));
    }
}

/// A radius of 0 means all nodes (§5.3.9).
#[test]
fn a_search_of_all_nodes_is_answered_to_all() {
    let mut world = World::new();
    world.local = GROUP;
    world.say_as(&sensor(1), "03 01 00");
    world.say_as(&sensor(2), "03 01 03");
    let sent = world.advance(Duration::from_secs(5));
    assert!(sent.iter().any(|(_, to, _)| *to == everyone(None)));
}

/// A question to this address alone is nobody else's business.
#[test]
fn a_unicast_search_is_not_answered_to_everyone() {
    let mut world = World::new();
    world.say_as(&sensor(1), SEARCHGW);
    let sent = world.advance(Duration::from_secs(5));
    assert!(sent.iter().all(|(_, to, _)| *to == only(&sensor(1))));
}

/// All workers' sockets hear what is sent to a group; one answers. A question to the address reaches but one.
#[test]
fn one_endpoint_of_a_listener_answers_a_group() {
    let mut world = World::with(settings(), false);
    world.local = GROUP;
    assert_eq!(world.say_as(&sensor(1), SEARCHGW), DONE);
    assert_eq!(world.advance(Duration::from_secs(5)), []);
    world.local = US;
    world.say_as(&sensor(1), SEARCHGW);
    assert_eq!(world.advance(Duration::from_secs(5)).len(), 1);
}

#[test]
fn nodes_search_through_their_forwarder() {
    let mut world = World::new();
    let remote = node(&[0xAB]);
    assert_eq!(world.say_as(&remote, SEARCHGW), DONE);
    let sent = world.advance(Duration::from_secs(5));
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (&sent[0].1, &sent[0].2),
        (&only(&remote), &wire("04 FE 02 AB 03 02 07"))
    );
    world.say_as(&remote, "03 01 FF");
    let sent = world.advance(Duration::from_secs(5));
    assert_eq!(sent[0].2, wire("04 FE 03 AB 03 02 07"));
}

/// A client that answers for this gateway spares the broadcast (§6.1), not the searcher's own answer. Another
/// gateway's answer spares nothing: clients keep a list.
#[test]
fn an_answer_on_behalf_of_this_gateway_suppresses_the_broadcast() {
    for (gw_info, broadcasts) in [
        ("07 02 07 C0 00 02 01", 0),
        ("03 02 08", 1),
        ("07 02 08 C0 00 02 01", 1),
    ] {
        let mut world = World::new();
        world.local = GROUP;
        world.say_as(&sensor(1), SEARCHGW);
        assert_eq!(world.say_as(&sensor(2), gw_info), DONE, "{gw_info}");
        let sent = world.advance(Duration::from_secs(5));
        let count = |to: &Destination| sent.iter().filter(|(_, other, _)| other == to).count();
        assert_eq!(count(&everyone(Some(2))), broadcasts, "{gw_info}");
        assert_eq!(count(&only(&sensor(1))), 1, "{gw_info}");
    }
}

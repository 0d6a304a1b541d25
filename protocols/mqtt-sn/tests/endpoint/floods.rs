//! Many strangers at once: bounded answers, bounded memory.

use super::*;

const DATAGRAMS: u32 = 1_000_000;

/// As many answers as the limit says, however many ask; each no longer than its question.
#[test]
fn a_flood_of_strangers_is_answered_a_thousand_times_a_second() {
    let mut world = World::new();
    let questions = [
        "02 18",
        "02 16",
        "0B 0C 00 04 01 00 00 '21.5'",
        "04 04 04 FF",
        "06 12 00 12 34 'a'",
    ];
    let questions = questions.map(wire);
    let (mut answers, mut limited) = (0, 0);
    for number in 0..DATAGRAMS {
        let question = &questions[number as usize % questions.len()];
        let outcome = world.say(&sensor(number), question);
        assert!(
            outcome
                .sent
                .iter()
                .all(|(_, bytes)| bytes.len() <= question.len())
        );
        answers += outcome.sent.len();
        limited += usize::from(outcome.dropped == Some(words::TOO_MANY_ANSWERS));
        if number % 100_000 == 99_999 {
            world.advance(Duration::from_secs(1));
        }
    }
    assert_eq!(answers, 10_000);
    assert_eq!(limited, DATAGRAMS as usize - answers);
    assert_eq!(world.opened.count(), 0);
}

#[test]
fn a_flood_of_searchers_is_answered_within_bounds() {
    let mut world = World::new();
    world.local = GROUP;
    let search = wire(SEARCHGW);
    let (mut full, mut at_once) = (0, 0);
    for number in 0..DATAGRAMS {
        let outcome = world.say(&sensor(number), &search);
        at_once += outcome.sent.len() as u32;
        full += u32::from(outcome.dropped == Some(words::SEARCHERS_FULL));
    }
    assert_eq!((full, at_once), (DATAGRAMS - 256 - 1000, 1000));
    let sent = world.advance(Duration::from_secs(5));
    assert_eq!(sent.len(), 257);
    // Then it is over, and there is room again.
    assert_eq!(world.endpoint.poll_timeout(), None);
    assert_eq!(world.say(&sensor(0), &search), DONE);
}

#[test]
fn a_few_searchers_a_second_do_not_hide_the_gateway() {
    let mut world = World::new();
    let search = wire(SEARCHGW);
    for number in 0..2000 {
        world.say(&sensor(number), &search);
        world.advance(Duration::from_millis(1));
    }
    let outcome = world.say(&sensor(9_999_999), &search);
    assert_eq!(outcome.sent.len(), 1, "it is answered though others wait");
}

#[test]
fn one_host_does_not_use_up_the_answers_of_others() {
    let mut world = World::new();
    let question = wire("02 16");
    let mut answers = 0;
    for port in 1..=10_000 {
        let mut flood = sensor(1);
        flood.address.set_port(port);
        answers += world.say(&flood, &question).sent.len();
    }
    assert_eq!(answers, 100);
    let heard = (2..502).filter(|&number| world.say(&sensor(number), &question).sent.len() == 1);
    assert!(heard.count() > 450);
}

/// Without a delay every search would be a broadcast.
#[test]
fn broadcasts_are_a_second_apart() {
    let mut world = World::with(
        Settings {
            gwinfo_delay_max: Duration::ZERO,
            ..settings()
        },
        true,
    );
    world.local = GROUP;
    let mut at = Vec::new();
    let start = world.now;
    for number in 0..10_000 {
        world.say(&sensor(number), &wire(SEARCHGW));
        let base = world.now.since(start).as_millis();
        let sent = world.advance(Duration::from_millis(1)).into_iter();
        at.extend(
            sent.filter(|(_, to, _)| *to == everyone(Some(2)))
                .map(|(after, ..)| base + after),
        );
    }
    assert_eq!(at, (0..=10).map(|second| second * 1000).collect::<Vec<u128>>());
}

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
fn a_flood_of_searchers_is_answered_256_times_in_a_delay() {
    let mut world = World::new();
    world.local = GROUP;
    let search = wire(SEARCHGW);
    let mut full = 0;
    for number in 0..DATAGRAMS {
        let outcome = world.say(&sensor(number), &search);
        assert!(outcome.sent.is_empty());
        full += u32::from(outcome.dropped == Some(words::SEARCHERS_FULL));
    }
    assert_eq!(full, DATAGRAMS - 256);
    let sent = world.advance(Duration::from_secs(5));
    assert_eq!(sent.len(), 257);
    // Then it is over, and there is room again.
    assert_eq!(world.endpoint.poll_timeout(), None);
    assert_eq!(world.say(&sensor(0), &search), DONE);
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

//! Notes of protocols.

use super::*;
use crate::{NOTE_BYTES, NOTES_BYTES_MAX};

fn notes(rig: &Rig, link: LinkId) -> Vec<(u16, Vec<u8>)> {
    let connected = rig.events.iter().find_map(|(to, event)| match event {
        Event::Connected(connected) if *to == link => Some(&connected.notes),
        _ => None,
    });
    let notes = connected.expect("it is connected").iter();
    notes.map(|(number, value)| (*number, value.to_vec())).collect()
}

#[test]
fn notes_come_back_with_the_session_after_a_kill_and_go_with_it() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    for (number, value) in [(0xffff, "last"), (2, "old"), (2, "new"), (3, "gone")] {
        rig.request(link, Request::Note(number, Some(Bytes::from(value))));
    }
    rig.request(link, Request::Note(3, None));
    let noted = rig.told(link);
    assert_eq!(noted.len(), 5);
    assert!(noted.iter().all(|noted| noted.ends_with("Success")), "{noted:?}");
    let all = [
        (0, GUARD.to_vec()),
        (2, b"new".to_vec()),
        (0xffff, b"last".to_vec()),
    ];
    rig.fall_asleep(link, 60);
    let link = rig.wake(GUARD);
    assert_eq!(notes(&rig, link), all);
    rig.fall_asleep_again(link);
    rig.crash();
    let link = rig.admit(sensor(0));
    assert_eq!(notes(&rig, link), all);
    assert_eq!(
        rig.tables()
            .iter()
            .filter(|table| table.starts_with("n."))
            .count(),
        3
    );
    rig.end(link, DisconnectCause::Normal);
    assert_eq!(rig.tables(), [""; 0]);
    let link = rig.admit(sensor(0));
    assert_eq!(notes(&rig, link), []);
}

impl Rig {
    fn fall_asleep_again(&mut self, link: LinkId) {
        self.end(link, DisconnectCause::Asleep(60));
    }
}

#[test]
fn notes_are_bounded() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    let rest = NOTES_BYTES_MAX - 2 * NOTE_BYTES - GUARD.len();
    rig.request(link, Request::Note(1, Some(Bytes::from(vec![0; rest + 1]))));
    assert_eq!(rig.told(link), ["noted 1 QuotaExceeded"]);
    rig.request(link, Request::Note(1, Some(Bytes::from(vec![0; rest]))));
    assert_eq!(rig.told(link), ["noted 1 Success"]);
    rig.request(link, Request::Note(2, Some(Bytes::new())));
    assert_eq!(rig.told(link), ["noted 2 QuotaExceeded"]);
    rig.fall_asleep(link, 60);
    rig.crash();
    let link = rig.wake(GUARD);
    assert_eq!(notes(&rig, link).len(), 2);
}

#[test]
fn a_note_is_answered_when_it_is_stored() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    let note = Request::Note(5, Some(Bytes::from_static(b"x")));
    rig.shard.handle(rig.now, link, note);
    while let Some(output) = rig.shard.poll_output() {
        assert!(!matches!(output, Output::Deliver(..)), "{output:?}");
    }
    rig.turn();
    assert_eq!(rig.told(link), ["noted 5 Success"]);
    rig.is_full = true;
    rig.request(link, Request::Note(5, Some(Bytes::from_static(b"y"))));
    assert_eq!(rig.told(link), ["noted 5 QuotaExceeded"]);
    rig.is_full = false;
    rig.secs(1);
    rig.fall_asleep(link, 60);
    rig.crash();
    let link = rig.wake(GUARD);
    assert_eq!(notes(&rig, link)[1], (5, b"y".to_vec()), "it was written later");
}

#[test]
fn a_session_that_is_not_stored_has_notes_as_long_as_it_lasts() {
    let mut rig = Rig::new();
    let link = rig.admit(Connect {
        may_sleep: false,
        ..sensor(0)
    });
    rig.request(link, Request::Note(1, Some(Bytes::from_static(b"x"))));
    assert_eq!(rig.told(link), ["connected", "noted 1 Success"]);
    assert_eq!(rig.tables(), [""; 0]);
}

#[test]
fn notes_of_a_session_whose_entry_is_lost_are_removed() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.fall_asleep(link, 60);
    let session = Write {
        key: Name::Session(Token::of("s")).key(),
        value: Value::Delete,
    };
    rig.commit(Vec::new(), vec![session]);
    rig.crash();
    rig.secs(1);
    assert_eq!(rig.tables(), [""; 0]);
}

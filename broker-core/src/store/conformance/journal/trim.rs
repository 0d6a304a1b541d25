use super::{append, caller, commit, put, tail};
use crate::{
    Timestamp,
    store::{
        JournalError, JournalRequest, Keep, Sequence,
        conformance::{Factory, kv, text},
    },
};

/// What was trimmed goes, its places are not used again, and a tail that wants them is told. A back end may keep
/// some of it for a while, so only what stays is exact.
pub fn journal_trim<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let mut kv = kv::caller(factory.kv(&store), now);
    let places = ["0", "1", "2", "3"].map(|body| journal.commit(append(body)));
    journal.commit(commit(vec![], vec![put("a.b", "stays")]));
    let all = journal.log(Sequence::FIRST);
    let upto = places[2];
    journal.trim(upto);
    let head = journal.head();
    assert!(head.first <= upto, "what was not trimmed stays");
    let staying = |found: Vec<(Sequence, bytes::Bytes)>| -> Vec<_> {
        assert!(
            found
                .iter()
                .all(|found| found.0 >= head.first && all.contains(found))
        );
        found.into_iter().filter(|(place, _)| *place >= upto).collect()
    };
    assert_eq!(journal.log(upto), all[2..]);
    assert_eq!(staying(journal.fetch(&places)), all[2..]);
    let everything = journal.read_all(&["#"], Sequence::FIRST, Keep::default(), 3, usize::MAX);
    assert_eq!(staying(everything.0), all[2..], "what was trimmed is passed over");
    assert_eq!(everything.1, 0, "and not counted");
    if head.first > Sequence::FIRST {
        let error = JournalError::OutOfRange(head);
        assert_eq!(journal.ask(tail(Sequence::FIRST, 1, true)), Err(error));
    }
    journal.trim(Sequence::FIRST);
    assert!(
        journal.head().first <= upto,
        "trimming what is trimmed changes nothing"
    );
    assert_eq!(journal.log(upto), all[2..]);

    let beyond = head.next.next();
    let error = JournalError::OutOfRange(journal.head());
    assert_eq!(journal.ask(JournalRequest::Trim { upto: beyond }), Err(error));
    journal.trim(head.next);
    let (left, _) = journal.read_all(&["t"], head.next, Keep::default(), 3, usize::MAX);
    assert_eq!(left, []);
    assert!(journal.commit(append("next")) >= head.next);
    assert_eq!(journal.log(head.next).len(), 1);
    assert_eq!(
        kv.get("a.b").map(|(_, value)| value),
        Some(text("stays")),
        "entries are not affected"
    );
}

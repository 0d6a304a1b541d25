use std::collections::VecDeque;

use super::{Caller, Factory};
use crate::{
    Timestamp,
    store::{Extent, Journal, JournalError, JournalReply, JournalRequest, Sequence},
};

type Answer = Result<JournalReply, JournalError>;

/// A handle, and the time, which its callbacks cannot capture.
struct Timed<S>(S, Timestamp);
type JournalCaller<S> = Caller<Timed<S>, JournalRequest, Answer>;

fn caller<S: Journal>(store: S, now: Timestamp) -> JournalCaller<S> {
    Caller {
        store: Timed(store, now),
        submit: |Timed(store, now), requests| store.submit(*now, requests),
        poll: |Timed(store, now), waker| store.poll(*now, waker),
        tickets: 0,
        done: VecDeque::new(),
    }
}

/// A new journal is empty and starts at its first place.
pub fn journal<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let empty = Extent {
        first: Sequence::FIRST,
        next: Sequence::FIRST,
        bytes: 0,
    };
    assert_eq!(journal.ask(JournalRequest::Head), Ok(JournalReply::Head(empty)));
    let in_flight_max = journal.store.0.limits().in_flight_max;
    journal.check_in_flight(in_flight_max, || JournalRequest::Head);
}

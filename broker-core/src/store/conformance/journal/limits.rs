use bytes::Bytes;

use super::{append, caller, commit};
use crate::{
    Timestamp,
    store::{
        Fault, Journal, JournalError, JournalRequest, NewRecord, Retry, Sequence, Value, Write,
        conformance::{
            Factory,
            kv::{self, key},
        },
    },
};

/// The largest record and the largest value fit, and one byte more does not.
pub fn journal_limits<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let bytes_max = journal.store.0.limits().record_bytes_max;
    let requests = |bytes| {
        let data = Bytes::from(vec![0; bytes]);
        let record = NewRecord {
            data: data.clone(),
            indexed: true,
        };
        let write = Write {
            key: key("l.a"),
            value: Value::Put(data),
        };
        [commit(vec![record], vec![]), commit(vec![], vec![write])]
    };
    let bytes = bytes_max + 1;
    let error = JournalError::Fault(Fault::TooLarge { bytes, bytes_max });
    assert_eq!(error.retry(), Retry::Never);
    for request in requests(bytes) {
        assert_eq!(journal.ask(request), Err(error.clone()));
    }
    let places = requests(bytes_max).map(|request| journal.commit(request));
    let large = Bytes::from(vec![0; bytes_max]);
    assert_eq!(journal.log(Sequence::FIRST), [(places[0], large.clone())]);
    let mut kv = kv::caller(factory.kv(&store), now);
    assert_eq!(kv.get("l.a").map(|(_, value)| value), Some(large));
}

/// A handle takes as many requests as it says, and leaves the others; a waiting tail is one of them.
pub fn journal_in_flight<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let in_flight_max = journal.store.0.limits().in_flight_max;
    journal.check_in_flight(in_flight_max, || JournalRequest::Head);
    journal.check_in_flight(in_flight_max, || append("x"));
}

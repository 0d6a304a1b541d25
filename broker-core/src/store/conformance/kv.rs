use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::{Caller, Factory, check_crash, page, text};
use crate::{
    Timestamp,
    store::{Change, Entry, Fault, Key, Kv, KvError, KvReply, KvRequest, Prefix, Retry, Revision},
};

type Answer = Result<KvReply, KvError>;

/// A handle, and the time, which its callbacks cannot capture.
pub(super) struct Timed<S>(S, Timestamp);
pub(super) type KvCaller<S> = Caller<Timed<S>, KvRequest, Answer>;

pub(super) fn caller<S: Kv>(store: S, now: Timestamp) -> KvCaller<S> {
    Caller {
        store: Timed(store, now),
        submit: |Timed(store, now), requests| store.submit(*now, requests),
        poll: |Timed(store, now), waker| store.poll(*now, waker),
        tickets: 0,
        done: VecDeque::new(),
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::new(name).expect("the tests use valid keys")
}

fn below(name: &str) -> Prefix {
    Prefix::below(&key(name))
}

impl<S: Kv> KvCaller<S> {
    fn write(&mut self, request: KvRequest) -> Revision {
        match self.ask(request.clone()) {
            Ok(KvReply::Written(revision)) => revision,
            other => panic!("{request:?} brought {other:?}"),
        }
    }

    pub(super) fn create(&mut self, name: &str, value: &'static str) -> Revision {
        self.write(KvRequest::Create(key(name), text(value)))
    }

    pub(super) fn get(&mut self, name: &str) -> Option<(Revision, Bytes)> {
        match self.ask(KvRequest::Get(key(name))) {
            Ok(KvReply::Entry(entry)) => entry.map(|entry| (entry.revision, entry.value)),
            other => panic!("get brought {other:?}"),
        }
    }

    pub(super) fn update(&mut self, name: &str, revision: Revision, value: &'static str) -> Revision {
        self.write(KvRequest::Update(key(name), revision, text(value)))
    }

    /// One page of the changes below `name`.
    pub(super) fn watch(&mut self, name: &str, after: Revision, items_max: u16) -> Vec<Change> {
        let answer = self.ask(watch(below(name), after, items_max));
        Self::changes(answer, after).0
    }

    fn conflict(&mut self, request: KvRequest, current: Option<Revision>) {
        let error = KvError::Conflict { current };
        assert_eq!(error.retry(), Retry::Refresh);
        assert_eq!(self.ask(request.clone()), Err(error), "{request:?}");
    }

    /// All pages of a scan, and where a watch starts; `between` is called after the first page.
    fn scan(&mut self, prefix: &Prefix, items_max: u16, mut between: impl FnMut()) -> (Vec<Entry>, Revision) {
        let (mut all, mut after, mut from) = (Vec::new(), None, None);
        loop {
            let request = KvRequest::Scan {
                prefix: prefix.clone(),
                after: after.take(),
                page: page(items_max, usize::MAX),
            };
            match self.ask(request) {
                Ok(KvReply::Scanned {
                    entries,
                    next,
                    watch_after,
                }) => {
                    assert!(entries.len() <= usize::from(items_max));
                    assert!(!entries.is_empty() || next.is_none(), "an empty page is the last");
                    assert_eq!(
                        *from.get_or_insert(watch_after),
                        watch_after,
                        "the same on all pages"
                    );
                    if all.is_empty() {
                        between();
                    }
                    all.extend(entries);
                    after = next;
                }
                other => panic!("scan brought {other:?}"),
            }
            if after.is_none() {
                return (all, from.expect("there was a page"));
            }
        }
    }

    fn changes(answer: Answer, after: Revision) -> (Vec<Change>, Revision) {
        let Ok(KvReply::Changed { changes, watch_after }) = answer else {
            panic!("watch brought {answer:?}");
        };
        let mut last = after;
        for change in &changes {
            assert!(change.revision > after, "after the one known");
            assert!(change.revision >= last, "by increasing revision");
            last = change.revision;
        }
        let keys: BTreeSet<_> = changes
            .iter()
            .map(|change| (&change.key, change.revision))
            .collect();
        assert_eq!(keys.len(), changes.len(), "a commit changes a key once");
        assert!(!changes.is_empty() && watch_after >= last);
        (changes, watch_after)
    }
}

pub(super) fn change(name: &str, revision: Revision, value: Option<Bytes>) -> Change {
    Change {
        key: key(name),
        revision,
        value,
    }
}

fn watch(prefix: Prefix, after: Revision, items_max: u16) -> KvRequest {
    KvRequest::Watch {
        prefix,
        after,
        page: page(items_max, usize::MAX),
    }
}

/// Everything below.
pub fn kv<F: Factory>(factory: &mut F, now: Timestamp) {
    kv_compare_and_set(factory, now);
    kv_scan(factory, now);
    kv_watch(factory, now);
    kv_limits(factory, now);
    kv_in_flight(factory, now);
    kv_crash(factory, now);
}

/// A write happens only on top of the revision it names; revisions increase.
pub fn kv_compare_and_set<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut kv = caller(factory.kv(&store), now);
    assert_eq!(kv.get("t.a"), None);
    kv.conflict(KvRequest::Update(key("t.a"), Revision(1), text("x")), None);
    kv.conflict(KvRequest::Delete(key("t.a"), Revision(1)), None);
    let first = kv.create("t.a", "one");
    assert_eq!(kv.get("t.a"), Some((first, text("one"))));
    kv.conflict(KvRequest::Create(key("t.a"), text("x")), Some(first));
    let other = kv.create("t.b", "");
    assert!(first >= Revision(1) && other > first, "one order for all keys");
    assert_eq!(
        kv.get("t.b"),
        Some((other, Bytes::new())),
        "an empty value is a value"
    );

    let second = kv.write(KvRequest::Update(key("t.a"), first, text("two")));
    assert!(second > other);
    kv.conflict(KvRequest::Update(key("t.a"), first, text("x")), Some(second));
    kv.conflict(KvRequest::Delete(key("t.a"), first), Some(second));
    assert_eq!(kv.get("t.a"), Some((second, text("two"))));

    let third = kv.write(KvRequest::Delete(key("t.a"), second));
    assert_eq!(kv.get("t.a"), None);
    kv.conflict(KvRequest::Update(key("t.a"), third, text("x")), None);
    assert!(kv.create("t.a", "three") > third);

    // Of two writers that start from the same revision one wins, also when they are in flight together.
    let mut rival = caller(factory.kv(&store), now);
    let tickets = ["k", "r"].map(|value| {
        let request = KvRequest::Update(key("t.b"), other, text(value));
        (kv.send(request.clone()), rival.send(request))
    });
    let answers = tickets.map(|(own, theirs)| [kv.answer(own), rival.answer(theirs)]);
    let won: Vec<_> = answers
        .iter()
        .flatten()
        .filter_map(|answer| answer.as_ref().ok())
        .collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(
        answers[1].iter().all(Result::is_err),
        "writes of one handle to a key happen in order"
    );
}

/// Every key comes, in pages, and a watch from the scan's revision tells what changed meanwhile.
pub fn kv_scan<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut kv = caller(factory.kv(&store), now);
    let mut writer = caller(factory.kv(&store), now);
    assert_eq!(kv.scan(&Prefix::all(), 2, || ()).0, []);
    let mut expected = BTreeMap::new();
    for name in ["s.1", "s.2.x", "s.3", "s.4", "s.5"] {
        let revision = kv.create(name, "value");
        expected.insert(key(name), (revision, text("value")));
    }
    for name in ["s", "r.1", "sa.1", "t"] {
        kv.create(name, "outside");
    }
    for items_max in [1, 2, 5, 6] {
        let (entries, _) = kv.scan(&below("s"), items_max, || ());
        assert_eq!(
            entries.len(),
            expected.len(),
            "nothing comes twice while nothing changes"
        );
        let found: BTreeMap<_, _> = entries
            .into_iter()
            .map(|entry| (entry.key, (entry.revision, entry.value)))
            .collect();
        assert_eq!(found, expected);
    }
    let everything = kv.scan(&Prefix::all(), 100, || ()).0;
    assert_eq!(everything.len(), 9);

    // Changes while the scan is under way: nothing is missed by scan and watch together.
    let three = expected[&key("s.3")].0;
    let (entries, from) = kv.scan(&below("s"), 1, || {
        writer.create("s.0", "new");
        writer.create("s.9", "new");
        writer.write(KvRequest::Delete(key("s.3"), three));
    });
    let mut picture: BTreeMap<_, _> = BTreeMap::new();
    for entry in entries {
        picture.insert(entry.key, Some(entry.value));
    }
    let mut after = from;
    while picture.get(&key("s.3")) != Some(&None) {
        let answer = kv.ask(watch(below("s"), after, 1));
        let (changes, watch_after) = KvCaller::<F::Kv>::changes(answer, after);
        picture.extend(changes.into_iter().map(|change| (change.key, change.value)));
        after = watch_after;
    }
    let live: Vec<_> = picture.iter().filter(|(_, value)| value.is_some()).collect();
    assert_eq!(live.len(), 6, "{picture:?}");
}

/// A watch tells what came after a revision, waits if nothing did, and wakes its owner, whoever writes.
pub fn kv_watch<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut kv = caller(factory.kv(&store), now);
    let mut writer = caller(factory.kv(&store), now);
    let (_, start) = kv.scan(&below("w"), 1, || ());
    let waiting = kv.send(watch(below("w"), start, 10));
    let other = writer.create("v.a", "not watched");
    assert_eq!(kv.get("v.a"), Some((other, text("not watched"))));
    assert!(!kv.has_answered(waiting), "nothing watched has changed");
    let first = kv.check_wake(|| writer.create("w.a", "one"));
    let (changes, after) = KvCaller::<F::Kv>::changes(kv.answer(waiting), start);
    assert_eq!(changes, [change("w.a", first, Some(text("one")))]);

    // The last change of every key comes, in pages; its own writes too.
    let second = kv.create("w.b", "two");
    let third = writer.write(KvRequest::Delete(key("w.a"), first));
    let mut found = Vec::new();
    let mut position = after;
    while position < third {
        let answer = kv.ask(watch(below("w"), position, 1));
        let (changes, watch_after) = KvCaller::<F::Kv>::changes(answer, position);
        assert_eq!(changes.len(), 1);
        found.extend(changes);
        position = watch_after;
    }
    let expected = [
        change("w.b", second, Some(text("two"))),
        change("w.a", third, None),
    ];
    assert_eq!(found, expected);

    // A revision that the store never gave.
    let unknown = Revision(u64::MAX);
    assert_eq!(kv.ask(watch(below("w"), unknown, 1)), Err(KvError::HistoryGone));
    assert_eq!(KvError::HistoryGone.retry(), Retry::Refresh);
}

/// The largest value fits and one byte more does not; a page ends where its bytes do.
pub fn kv_limits<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut kv = caller(factory.kv(&store), now);
    let bytes_max = kv.store.0.limits().value_bytes_max;
    let large = Bytes::from(vec![7; bytes_max]);
    let revision = kv.write(KvRequest::Create(key("l.a"), large.clone()));
    let too_large = Bytes::from(vec![7; bytes_max + 1]);
    let bytes = too_large.len();
    let error = KvError::Fault(Fault::TooLarge { bytes, bytes_max });
    assert_eq!(error.retry(), Retry::Never);
    for request in [
        KvRequest::Create(key("l.b"), too_large.clone()),
        KvRequest::Update(key("l.a"), revision, too_large),
    ] {
        assert_eq!(kv.ask(request), Err(error.clone()));
    }
    assert_eq!(kv.get("l.a"), Some((revision, large)));
    assert_eq!(kv.get("l.b"), None);
    let longest = "k".repeat(crate::store::KEY_BYTES_MAX);
    kv.create(&longest, "long");
    assert!(kv.get(&longest).is_some());

    let request = KvRequest::Scan {
        prefix: Prefix::all(),
        after: None,
        page: page(10, 1),
    };
    match kv.ask(request) {
        Ok(KvReply::Scanned { entries, next, .. }) => assert!(entries.len() == 1 && next.is_some()),
        other => panic!("scan brought {other:?}"),
    }
}

/// A handle takes as many requests as it says, and leaves the others.
pub fn kv_in_flight<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut kv = caller(factory.kv(&store), now);
    let in_flight_max = kv.store.0.limits().in_flight_max;
    kv.check_in_flight(in_flight_max, || KvRequest::Get(key("a")));
}

/// What completed is there after a crash, with its revision, and revisions go on. A volatile store may decline.
pub fn kv_crash<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut kv = caller(factory.kv(&store), now);
    let durability = kv.store.0.durability();
    let first = kv.create("c.a", "one");
    let second = kv.write(KvRequest::Update(key("c.a"), first, text("two")));
    let gone = kv.create("c.b", "gone");
    let deleted = kv.write(KvRequest::Delete(key("c.b"), gone));
    kv.send(KvRequest::Create(key("c.c"), text("in flight")));
    drop(kv);
    let reopened = factory.crash(store);
    check_crash(durability, reopened.is_none());
    let Some(store) = reopened else { return };
    let mut kv = caller(factory.kv(&store), now);
    assert_eq!(kv.get("c.a"), Some((second, text("two"))));
    assert_eq!(kv.get("c.b"), None);
    let torn = kv.get("c.c");
    assert!(
        torn.as_ref().is_none_or(|(_, value)| value == "in flight"),
        "done or not, never half"
    );
    let next = kv.write(KvRequest::Update(key("c.a"), second, text("three")));
    assert!(next > deleted && torn.is_none_or(|(revision, _)| next > revision));
}

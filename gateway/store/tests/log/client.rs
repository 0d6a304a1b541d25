//! A journal handle that waits for its answers.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Wake, Waker},
    thread::{self, Thread},
};

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{
        Extent, Interest, Journal, JournalError, JournalReply, JournalRequest, Keep, NewRecord, Page, Record,
        Sequence, Write,
    },
};
use bytes::Bytes;
use store::JournalHandle;

pub(crate) type Answer = Result<JournalReply, JournalError>;

pub(crate) struct Client {
    pub(crate) handle: JournalHandle,
    now: u64,
    tickets: u64,
    done: VecDeque<(Ticket, Answer)>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Client {
    pub(crate) fn new(handle: JournalHandle) -> Client {
        Client {
            handle,
            now: 1_800_000_000_000,
            tickets: 0,
            done: VecDeque::new(),
        }
    }

    /// The time of what is asked from now on.
    pub(crate) fn at(mut self, millis: u64) -> Client {
        self.now = millis;
        self
    }

    pub(crate) fn send(&mut self, request: JournalRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let mut requests = VecDeque::from([(ticket, request)]);
        self.handle
            .submit(Timestamp::from_millis(self.now), &mut requests);
        assert!(requests.is_empty());
        ticket
    }

    /// What has completed, without waiting.
    pub(crate) fn poll(&mut self, waker: &Waker) {
        while let Some(done) = self.handle.poll(Timestamp::from_millis(self.now), waker) {
            self.done.push_back(done);
        }
    }

    pub(crate) fn has_answer(&mut self, ticket: Ticket) -> bool {
        self.poll(Waker::noop());
        self.done.iter().any(|(done, _)| *done == ticket)
    }

    pub(crate) fn answer(&mut self, ticket: Ticket) -> Answer {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            self.poll(&waker);
            if let Some(at) = self.done.iter().position(|(done, _)| *done == ticket) {
                return self.done.remove(at).unwrap().1;
            }
            thread::park();
        }
    }

    pub(crate) fn ask(&mut self, request: JournalRequest) -> Answer {
        let ticket = self.send(request);
        self.answer(ticket)
    }

    /// Commits one record.
    pub(crate) fn append(&mut self, topic: &str, body: &str) -> Result<Sequence, JournalError> {
        match self.ask(commit(vec![record(topic, body)], vec![]))? {
            JournalReply::Committed { first, .. } => Ok(first),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn head(&mut self) -> Extent {
        match self.ask(JournalRequest::Head) {
            Ok(JournalReply::Head(extent)) => extent,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn trim(&mut self, upto: Sequence) {
        assert_eq!(self.ask(JournalRequest::Trim { upto }), Ok(JournalReply::Trimmed));
    }

    /// All records from a place on.
    pub(crate) fn log(&mut self, mut from: Sequence) -> Vec<Record> {
        let mut all = Vec::new();
        loop {
            let tail = JournalRequest::Tail {
                from,
                page: page(1000),
                wait: false,
            };
            match self.ask(tail) {
                Ok(JournalReply::Records { records, .. }) if records.is_empty() => return all,
                Ok(JournalReply::Records { records, next }) => {
                    all.extend(records);
                    from = next;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// All records of interest from a place on, and how many were passed over.
    pub(crate) fn backlog(
        &mut self,
        filters: &[&str],
        mut from: Sequence,
        keep: Keep,
        items: u16,
    ) -> (Vec<Record>, u64) {
        let filters = filters.iter().map(|filter| Box::from(*filter)).collect();
        let interest = Arc::new(Interest { filters });
        let (mut all, mut passed) = (Vec::new(), 0);
        loop {
            let read = JournalRequest::Read {
                interest: Arc::clone(&interest),
                from,
                keep,
                page: page(items),
            };
            match self.ask(read) {
                Ok(JournalReply::Found {
                    records,
                    next,
                    at_end,
                    passed_over,
                }) => {
                    all.extend(records);
                    passed += passed_over;
                    if at_end {
                        return (all, passed);
                    }
                    assert!(next > from);
                    from = next;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(crate) fn page(items: u16) -> Page {
    Page {
        items_max: items.try_into().unwrap(),
        bytes_max: usize::MAX,
    }
}

pub(crate) fn record(topic: &str, body: &str) -> NewRecord {
    let len = u16::try_from(topic.len()).unwrap();
    NewRecord {
        data: Bytes::from([&len.to_be_bytes(), topic.as_bytes(), body.as_bytes()].concat()),
        indexed: true,
    }
}

pub(crate) fn commit(records: Vec<NewRecord>, writes: Vec<Write>) -> JournalRequest {
    JournalRequest::Commit {
        records,
        writes,
        dedup: None,
    }
}

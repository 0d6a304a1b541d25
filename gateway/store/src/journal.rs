use std::{collections::VecDeque, sync::Arc, task::Waker};

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{
        Durability, Interest, Journal, JournalError, JournalLimits, JournalReply, JournalRequest, Keep, Page,
        Sequence,
    },
};

use crate::{
    engine::{Engine, Job, JournalAnswer, Slot, Submission, Task},
    log::view::Tail,
};

/// A handle on the log of a [`Store`](crate::Store). A clone is another handle, with nothing in flight.
///
/// Tails of what is in memory are served by the thread that polls; whatever has to read files is the affair of the
/// store's reader thread. After the store is closed, every request that needs a thread is answered with
/// [`Fault::Unavailable`](broker_core::store::Fault::Unavailable).
pub struct JournalHandle {
    engine: Arc<Engine>,
    slot: Arc<Slot<JournalAnswer>>,
    /// Submitted and not yet polled.
    in_flight: usize,
    done: VecDeque<(Ticket, JournalAnswer)>,
    /// Commits not yet polled, which complete in this order.
    commits: VecDeque<Ticket>,
    /// Failed commits that were polled.
    failures_known: u64,
    /// At the end of the log.
    waiting: Vec<WaitingTail>,
    /// With the reader thread.
    cold: Vec<WaitingTail>,
}

#[derive(Clone, Copy)]
struct WaitingTail {
    ticket: Ticket,
    from: Sequence,
    page: Page,
}

impl JournalHandle {
    pub(crate) fn new(engine: Arc<Engine>) -> JournalHandle {
        let slot = Arc::new(Slot::new());
        engine.register(&slot);
        JournalHandle {
            engine,
            slot,
            in_flight: 0,
            done: VecDeque::new(),
            commits: VecDeque::new(),
            failures_known: 0,
            waiting: Vec::new(),
            cold: Vec::new(),
        }
    }

    fn ask(&self, ticket: Ticket, job: Job) {
        self.engine.ask(Task {
            slot: Arc::clone(&self.slot),
            ticket,
            job,
        });
    }

    fn answer(&mut self, ticket: Ticket, answer: JournalAnswer) {
        self.done.push_back((ticket, answer));
    }

    /// Executes a request, or hands it on; commits are gathered.
    fn start(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        request: JournalRequest,
        commits: &mut Vec<Submission>,
    ) {
        match request {
            JournalRequest::Tail { from, page, wait } => self.start_tail(ticket, from, page, wait),
            JournalRequest::Read {
                interest,
                from,
                keep,
                page,
            } => self.start_read(ticket, interest, from, keep, page),
            JournalRequest::Fetch(sequences) => self.ask(
                ticket,
                Job::Fetch {
                    sequences,
                    at: 0,
                    records: Vec::new(),
                },
            ),
            JournalRequest::Head => {
                let extent = self.engine.view.extent();
                self.answer(ticket, Ok(JournalReply::Head(extent)));
            }
            JournalRequest::Trim { upto } => match self.engine.view.trim(upto) {
                Ok(moved) => {
                    if moved {
                        self.engine.trimmed();
                    }
                    self.answer(ticket, Ok(JournalReply::Trimmed));
                }
                Err(extent) => self.answer(ticket, Err(JournalError::OutOfRange(extent))),
            },
            JournalRequest::Commit {
                records,
                writes,
                dedup,
            } => {
                self.commits.push_back(ticket);
                commits.push(Submission::Commit {
                    slot: Arc::clone(&self.slot),
                    ticket,
                    now,
                    records,
                    writes,
                    dedup,
                    failures_known: self.failures_known,
                });
            }
        }
    }

    fn start_read(
        &mut self,
        ticket: Ticket,
        interest: Arc<Interest>,
        from: Sequence,
        keep: Keep,
        page: Page,
    ) {
        // In this order: what stands before `next` and is indexed is known to be.
        let next = self.engine.view.next();
        if from > next {
            let extent = self.engine.view.extent();
            self.answer(ticket, Err(JournalError::OutOfRange(extent)));
        } else if from >= self.engine.view.indexed_end() {
            // The usual case of a session that is up to date.
            let found = JournalReply::Found {
                records: Vec::new(),
                next,
                at_end: true,
                passed_over: 0,
            };
            self.answer(ticket, Ok(found));
        } else {
            let job = Job::Read {
                interest,
                from,
                keep,
                page,
            };
            self.ask(ticket, job);
        }
    }

    fn start_tail(&mut self, ticket: Ticket, from: Sequence, page: Page, wait: bool) {
        let tail = WaitingTail { ticket, from, page };
        match self.engine.view.tail(from, page, false) {
            Tail::Records(records, next) => self.answer(ticket, Ok(JournalReply::Records { records, next })),
            Tail::AtEnd(next) if wait => self.waiting.push(WaitingTail { from: next, ..tail }),
            Tail::AtEnd(next) => self.answer(
                ticket,
                Ok(JournalReply::Records {
                    records: Vec::new(),
                    next,
                }),
            ),
            Tail::Cold => {
                if wait {
                    self.cold.push(tail);
                }
                self.ask(ticket, Job::Tail { from, page });
            }
            Tail::OutOfRange(extent) => self.answer(ticket, Err(JournalError::OutOfRange(extent))),
        }
    }

    /// Serves the tails that wait, as far as there is something.
    fn serve_tails(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain_mut(|tail| {
            let WaitingTail { ticket, from, page } = *tail;
            match self.engine.view.tail(from, page, true) {
                Tail::AtEnd(next) => {
                    tail.from = next;
                    return true;
                }
                Tail::Records(records, next) => {
                    self.answer(ticket, Ok(JournalReply::Records { records, next }));
                }
                Tail::Cold => {
                    self.cold.push(*tail);
                    self.ask(ticket, Job::Tail { from, page });
                }
                Tail::OutOfRange(extent) => self.answer(ticket, Err(JournalError::OutOfRange(extent))),
            }
            false
        });
        self.waiting.append(&mut waiting);
        self.slot.set_waiting_tail(!self.waiting.is_empty());
    }

    /// What the threads have completed; a tail that found no record but wants to wait goes on waiting.
    fn take(&mut self, waker: &Waker) {
        let mut taken = VecDeque::new();
        self.slot.take(&mut taken, waker);
        for (ticket, answer) in taken {
            let known = self.cold.iter().position(|tail| tail.ticket == ticket);
            let tail = known.map(|at| self.cold.swap_remove(at));
            match (tail, &answer) {
                (Some(tail), Ok(JournalReply::Records { records, next })) if records.is_empty() => {
                    self.waiting.push(WaitingTail { from: *next, ..tail });
                }
                _ => self.done.push_back((ticket, answer)),
            }
        }
    }
}

impl Clone for JournalHandle {
    fn clone(&self) -> JournalHandle {
        JournalHandle::new(Arc::clone(&self.engine))
    }
}

impl Journal for JournalHandle {
    fn limits(&self) -> JournalLimits {
        let limits = &self.engine.limits;
        JournalLimits {
            record_bytes_max: limits.record_bytes_max,
            in_flight_max: limits.in_flight_max,
            dedup_window: limits.dedup_window,
            dedup_ids_max: limits.dedup_ids_max,
        }
    }

    fn durability(&self) -> Durability {
        self.engine.durability
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>) {
        let room = self.engine.limits.in_flight_max - self.in_flight;
        let taken = room.min(requests.len());
        self.in_flight += taken;
        let mut commits = Vec::new();
        for (ticket, request) in requests.drain(..taken) {
            self.start(now, ticket, request, &mut commits);
        }
        if !commits.is_empty() {
            self.engine.submit(commits);
        }
    }

    fn poll(
        &mut self,
        _now: Timestamp,
        waker: &Waker,
    ) -> Option<(Ticket, Result<JournalReply, JournalError>)> {
        if self.done.is_empty() && self.in_flight > 0 {
            // In this order: a group that is committed after the look at the log finds flag and waker.
            self.slot.set_waiting_tail(!self.waiting.is_empty());
            self.take(waker);
            if !self.waiting.is_empty() {
                self.slot.set_waiting_tail(true);
                self.serve_tails();
            }
        }
        let completion = self.done.pop_front()?;
        self.in_flight -= 1;
        if self.commits.front() == Some(&completion.0) {
            self.commits.pop_front();
            let failure = completion.1.as_ref().err().and_then(JournalError::takes_along);
            self.failures_known += u64::from(failure.is_some());
        }
        Some(completion)
    }
}

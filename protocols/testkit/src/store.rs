//! A store whose commits last as long as the test wants, and that survives the node that used it.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{
        Durability, Fault, Journal, JournalError, JournalLimits, JournalReply, JournalRequest,
        memory::{MemoryJournal, MemoryKv, MemoryLimits, MemoryStore},
    },
};

use crate::Random;

type Answer = Result<JournalReply, JournalError>;

/// A store in memory, to be seen as one on a disk. A clone is the same store.
///
/// What is committed waits, while the store is held, until the test completes it: until then it is not executed, and no
/// handle sees it. Whatever else is asked is answered at once, and so are writes through a [`TestStore::kv`].
#[derive(Clone)]
pub struct TestStore {
    state: Arc<Mutex<State>>,
}

struct State {
    content: MemoryStore,
    /// Executes the commits of all handles.
    executor: MemoryJournal,
    is_held: bool,
    /// What commits fail with.
    fault: Option<Fault>,
    /// Commits so far, to tell which one is older.
    commits: u64,
    /// The handles that were made so far.
    handles: u64,
    desks: BTreeMap<u64, Desk>,
}

/// The commits of one handle.
#[derive(Default)]
struct Desk {
    waiting: VecDeque<Waiting>,
    done: VecDeque<(Ticket, Answer)>,
    waker: Option<Waker>,
    /// Commits that failed, and why the last one did.
    failed: (u64, Option<Fault>),
    /// Of them, those that were polled.
    failures_polled: u64,
}

struct Waiting {
    number: u64,
    /// Failures that the handle knew of when it submitted this.
    failures_known: u64,
    at: Timestamp,
    ticket: Ticket,
    request: JournalRequest,
}

/// A handle on a [`TestStore`]. After a crash of the store nothing that it is given has any effect.
pub struct TestJournal {
    state: Arc<Mutex<State>>,
    number: u64,
    /// For everything but commits.
    reader: MemoryJournal,
    /// Requests that the reader has and that were not polled.
    reading: usize,
}

impl std::fmt::Debug for TestStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestStore")
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TestJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestJournal")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl TestStore {
    /// A store without content, whose commits complete at once.
    pub fn new(limits: MemoryLimits) -> TestStore {
        let content = MemoryStore::new(limits);
        let state = State {
            executor: content.journal(),
            content,
            is_held: false,
            fault: None,
            commits: 0,
            handles: 0,
            desks: BTreeMap::new(),
        };
        TestStore {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A handle on the log.
    pub fn journal(&self) -> TestJournal {
        let mut state = lock(&self.state);
        let (number, reader) = (state.handles, state.content.journal());
        state.handles += 1;
        state.desks.insert(number, Desk::default());
        TestJournal {
            state: Arc::clone(&self.state),
            number,
            reader,
            reading: 0,
        }
    }

    /// A handle on the entries.
    pub fn kv(&self) -> MemoryKv {
        lock(&self.state).content.kv()
    }

    /// Commits wait from now on, or complete at once again, those first that have waited.
    pub fn hold(&self, hold: bool) {
        lock(&self.state).is_held = hold;
        if !hold {
            self.complete_all();
        }
    }

    /// From now on commits fail when they complete, and are not executed; `None`: they succeed again.
    pub fn fail(&self, fault: Option<Fault>) {
        lock(&self.state).fault = fault;
    }

    /// Commits that wait.
    pub fn pending(&self) -> usize {
        lock(&self.state)
            .desks
            .values()
            .map(|desk| desk.waiting.len())
            .sum()
    }

    /// Bytes of the records in the log.
    pub fn log_bytes(&self) -> u64 {
        let state = &mut *lock(&self.state);
        let head = (Ticket(0), JournalRequest::Head);
        state
            .executor
            .submit(Timestamp::default(), &mut VecDeque::from([head]));
        match state.executor.poll(Timestamp::default(), Waker::noop()) {
            Some((_, Ok(JournalReply::Head(extent)))) => extent.bytes,
            other => unreachable!("memory answers at once, not {other:?}"),
        }
    }

    /// Completes the commit that has waited longest. False if none waits.
    pub fn complete_one(&self) -> bool {
        let mut state = lock(&self.state);
        state.oldest().is_some_and(|desk| state.complete(desk))
    }

    /// Completes the oldest commit of a handle that `random` chooses. False if none waits.
    pub fn complete_any(&self, random: &mut Random) -> bool {
        let mut state = lock(&self.state);
        state.any(random).is_some_and(|desk| state.complete(desk))
    }

    /// Completes what waits.
    pub fn complete_all(&self) {
        while self.complete_one() {}
    }

    /// The process that used the store ends without a word. Of the commits that wait, the oldest `executed` are
    /// done, though nobody was told; the others are lost. Handles made before have no effect any more.
    pub fn crash(&self, executed: usize) {
        let mut state = lock(&self.state);
        for _ in 0..executed {
            if let Some(desk) = state.oldest() {
                state.complete(desk);
            }
        }
        state.desks.clear();
    }

    /// As [`TestStore::crash`]; `random` chooses how many of each handle's commits are done, and in which order
    /// those of different handles.
    pub fn crash_anywhere(&self, random: &mut Random) {
        let mut state = lock(&self.state);
        for desk in state.desks.values_mut() {
            let executed = random.below(desk.waiting.len() + 1);
            desk.waiting.truncate(executed);
        }
        while let Some(desk) = state.any(random) {
            state.complete(desk);
        }
        state.desks.clear();
    }
}

impl State {
    /// The handle whose commit has waited longest.
    fn oldest(&self) -> Option<u64> {
        let fronts = self
            .desks
            .iter()
            .filter_map(|(desk, commits)| Some((commits.waiting.front()?.number, *desk)));
        fronts.min().map(|(_, desk)| desk)
    }

    /// A handle with a commit that waits.
    fn any(&self, random: &mut Random) -> Option<u64> {
        let waiting = |(_, commits): &(&u64, &Desk)| !commits.waiting.is_empty();
        let desks: Vec<u64> = self.desks.iter().filter(waiting).map(|(desk, _)| *desk).collect();
        (!desks.is_empty()).then(|| desks[random.below(desks.len())])
    }

    /// Completes the oldest commit of a handle. False if it has none.
    fn complete(&mut self, desk: u64) -> bool {
        let Some(desk) = self.desks.get_mut(&desk) else {
            return false;
        };
        let Some(commit) = desk.waiting.pop_front() else {
            return false;
        };
        let (failures, last) = &mut desk.failed;
        let behind = last.as_ref().filter(|_| commit.failures_known < *failures);
        let answer: Answer = match self.fault.as_ref().or(behind) {
            Some(fault) => Err(fault.clone().into()),
            None => {
                let mut requests = VecDeque::from([(commit.ticket, commit.request)]);
                self.executor.submit(commit.at, &mut requests);
                let completion = self.executor.poll(commit.at, Waker::noop());
                completion.expect("a commit in memory completes at once").1
            }
        };
        if let Some(fault) = answer.as_ref().err().and_then(JournalError::takes_along) {
            (*failures, *last) = (*failures + 1, Some(fault.clone()));
        }
        desk.done.push_back((commit.ticket, answer));
        if let Some(waker) = desk.waker.take() {
            waker.wake();
        }
        true
    }

    fn submit(&mut self, desk: u64, at: Timestamp, ticket: Ticket, request: JournalRequest) {
        self.commits += 1;
        if let Some(commits) = self.desks.get_mut(&desk) {
            commits.waiting.push_back(Waiting {
                number: self.commits,
                failures_known: commits.failures_polled,
                at,
                ticket,
                request,
            });
        }
        if !self.is_held {
            self.complete(desk);
        }
    }
}

impl Journal for TestJournal {
    fn limits(&self) -> JournalLimits {
        self.reader.limits()
    }

    fn durability(&self) -> Durability {
        Durability::Sync
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>) {
        let mut state = lock(&self.state);
        let Some(desk) = state.desks.get(&self.number) else {
            requests.clear();
            return;
        };
        let taken = desk.waiting.len() + desk.done.len() + self.reading;
        for _ in taken..self.reader.limits().in_flight_max {
            let Some((ticket, request)) = requests.pop_front() else {
                return;
            };
            if matches!(request, JournalRequest::Commit { .. }) {
                state.submit(self.number, now, ticket, request);
            } else {
                self.reading += 1;
                self.reader.submit(now, &mut VecDeque::from([(ticket, request)]));
            }
        }
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, Answer)> {
        let mut state = lock(&self.state);
        let desk = state.desks.get_mut(&self.number)?;
        if let Some(done) = desk.done.pop_front() {
            let failed = done.1.as_ref().err().and_then(JournalError::takes_along);
            desk.failures_polled += u64::from(failed.is_some());
            return Some(done);
        }
        let read = self.reader.poll(now, waker);
        match read {
            Some(_) => self.reading -= 1,
            None => desk.waker = Some(waker.clone()),
        }
        read
    }
}

impl Drop for TestJournal {
    /// What waits is still done, unless the store crashes.
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(desk) = state.desks.get_mut(&self.number) {
            desk.done.clear();
            desk.waker = None;
            if desk.waiting.is_empty() {
                state.desks.remove(&self.number);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

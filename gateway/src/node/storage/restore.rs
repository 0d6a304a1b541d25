//! What the store holds goes back to the shards, before anybody may connect.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    num::NonZeroU16,
    sync::mpsc::{Receiver, sync_channel},
    task::Poll,
    time::{Duration, Instant},
};

use broker_core::{
    shard::{self, Ticket},
    store::{Entry, Kv, KvError, KvReply, KvRequest, Page, Prefix},
};
use driver::{CallError, Clock, WorkerHandle};

use super::REPORT;
use crate::embed::block_on;

/// Entries of one call to a worker.
const BATCH: usize = 1000;
/// Calls to one worker that are under way, so that reading goes on meanwhile.
const CALLS: usize = 2;
/// One page of the scan.
const PAGE: Page = Page {
    items_max: NonZeroU16::new(4096).expect("not zero"),
    bytes_max: 4 << 20,
};
/// Pause between two looks at workers that are busy with each other's routes.
const PAUSE: Duration = Duration::from_millis(1);

/// Why what was stored could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store cannot be read.
    #[error("cannot read the store: {0}; see `tidegate store check`")]
    Store(#[from] KvError),
    /// The store answered what was not asked.
    #[error("the store answered what was not asked")]
    Unexpected,
    /// A worker has ended meanwhile.
    #[error("while sessions were restored: {0}")]
    Worker(#[from] CallError),
}

/// Gives every entry to its shard, and returns once every shard knows the routes of all others. The log says how many
/// there were, and how far it is if it takes long.
pub(in crate::node) fn restore(
    kv: &mut dyn Kv,
    workers: &[WorkerHandle],
    clock: Clock,
) -> Result<(), RestoreError> {
    let began = Instant::now();
    let mut reported = began;
    let mut couriers: Vec<Courier<'_>> = workers.iter().map(Courier::new).collect();
    let shards = u16::try_from(workers.len()).expect("a node has at most SHARDS_MAX workers");
    let (mut count, mut after, mut unreadable) = (0, None, Unreadable::default());
    loop {
        let (prefix, page) = (Prefix::all(), PAGE);
        let scan = KvRequest::Scan { prefix, after, page };
        let KvReply::Scanned { entries, next, .. } = ask(kv, clock, scan)? else {
            return Err(RestoreError::Unexpected);
        };
        count += entries.len();
        for entry in entries {
            match shard::home(&entry, shards) {
                Some(home) => couriers[usize::from(home.0)].add(entry)?,
                None => unreadable.count(&entry.key.as_str(), &"no shard's entry has such a name"),
            }
        }
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            tracing::info!(entries = count, per_second = rate(count, began), "restoring");
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    for courier in couriers {
        unreadable.0 += courier.finish()?;
    }
    begin(workers)?;
    if unreadable.0 > 0 {
        tracing::error!(
            entries = unreadable.0,
            "entries of the store cannot be read; the rest is restored without them: see `tidegate store check`"
        );
    }
    if count > 0 {
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(
            entries = count,
            seconds,
            per_second = rate(count, began),
            "restored"
        );
    }
    Ok(())
}

fn rate(count: usize, since: Instant) -> u64 {
    (count as f64 / since.elapsed().as_secs_f64().max(0.001)) as u64
}

/// The answer to one request; waits for it.
fn ask(kv: &mut dyn Kv, clock: Clock, request: KvRequest) -> Result<KvReply, KvError> {
    let mut requests = VecDeque::from([(Ticket(0), request)]);
    kv.submit(clock.now(), &mut requests);
    block_on(poll_fn(|context| match kv.poll(clock.now(), context.waker()) {
        Some((_, answer)) => Poll::Ready(answer),
        None => Poll::Pending,
    }))
}

/// Entries that cannot be given back to anybody. The first ones are logged one by one.
#[derive(Default)]
struct Unreadable(u64);

impl Unreadable {
    const LOGGED: u64 = 10;

    fn count(&mut self, key: &dyn fmt::Display, cause: &dyn fmt::Display) {
        self.0 += 1;
        if self.0 <= Unreadable::LOGGED {
            tracing::error!(%key, %cause, "an entry of the store cannot be read");
        }
    }
}

/// Brings entries to one worker.
struct Courier<'a> {
    worker: &'a WorkerHandle,
    entries: Vec<Entry>,
    /// For each call, how many of its entries could not be read.
    calls: VecDeque<Receiver<u64>>,
    unreadable: u64,
}

impl Courier<'_> {
    fn new(worker: &WorkerHandle) -> Courier<'_> {
        Courier {
            worker,
            entries: Vec::with_capacity(BATCH),
            calls: VecDeque::new(),
            unreadable: 0,
        }
    }

    fn add(&mut self, entry: Entry) -> Result<(), CallError> {
        self.entries.push(entry);
        if self.entries.len() < BATCH {
            return Ok(());
        }
        if self.calls.len() == CALLS {
            self.wait()?;
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), CallError> {
        let entries = std::mem::replace(&mut self.entries, Vec::with_capacity(BATCH));
        let (done, call) = sync_channel(1);
        self.worker.run(move |worker| {
            let now = worker.now();
            let mut unreadable = Unreadable::default();
            for entry in entries {
                if let Err(error) = worker.shard().restore(now, &entry) {
                    unreadable.count(&error.key, &error.cause);
                }
            }
            // Whoever no longer waits has failed at something else.
            let _ = done.send(unreadable.0);
        })?;
        self.calls.push_back(call);
        Ok(())
    }

    fn wait(&mut self) -> Result<(), CallError> {
        if let Some(call) = self.calls.pop_front() {
            self.unreadable += call.recv().map_err(|_| CallError::Ended)?;
        }
        Ok(())
    }

    /// Returns when everything has arrived: how many entries could not be read.
    fn finish(mut self) -> Result<u64, CallError> {
        if !self.entries.is_empty() {
            self.send()?;
        }
        while !self.calls.is_empty() {
            self.wait()?;
        }
        Ok(self.unreadable)
    }
}

/// Lets all shards begin, and waits until each follows the log and all know the routes of the others.
fn begin(workers: &[WorkerHandle]) -> Result<(), CallError> {
    for worker in workers {
        worker.call_blocking(|worker| {
            let now = worker.now();
            worker.shard().begin(now);
        })?;
    }
    while !have_settled(workers)? {
        std::thread::sleep(PAUSE);
    }
    for worker in workers {
        worker.call_blocking(|worker| {
            let now = worker.now();
            worker.shard().open(now);
        })?;
    }
    Ok(())
}

fn have_settled(workers: &[WorkerHandle]) -> Result<bool, CallError> {
    for worker in workers {
        if !worker.call_blocking(|worker| worker.shard().is_settled())? {
            return Ok(false);
        }
    }
    Ok(true)
}

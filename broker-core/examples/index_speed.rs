//! Match rate and memory of the filter index.
//!
//! `cargo run --release -p broker-core --example index_speed -- 10000 1000000` (the default); 10 000 000 takes 4 GB.
//! Memory is the growth of the resident set, so it includes the allocator's overhead; below 100 000 filters it is
//! too coarse to mean much. Topics are drawn at random from all that have a filter: every match finds one.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock; the code that it measures does not"
)]

use std::{fmt::Write as _, fs, hint::black_box, process::Command, time::Instant};

use broker_core::filter_index::FilterIndex;

/// As large as the value of a routing table.
type Value = [u64; 3];

const PAGE_BYTES: usize = 4096;
const MATCHES: usize = 2_000_000;

/// Writes the filter or topic number `n` into the buffer.
type Namer = fn(&mut String, usize);

const KINDS: [(&str, Namer, Namer); 5] = [
    ("exact", topic, topic),
    ("trailing #", |text, n| write_name(text, n, "#"), topic),
    ("trailing +", |text, n| write_name(text, n, "+"), topic),
    ("+ inside", inner_filter, topic),
    ("half exact, half +", half, topic),
];

/// Every case runs in a process of its own: what one frees must not hide what the next one needs.
fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [only, size, kind] = arguments.as_slice()
        && only == "--only"
    {
        let known = KINDS.iter().find(|(name, _, _)| name == kind);
        if let (Some((kind, filter, topic)), Ok(size)) = (known, size.parse()) {
            measure(size, kind, *filter, *topic);
        }
        return Ok(());
    }
    let sizes = if arguments.is_empty() {
        vec!["10000".to_owned(), "1000000".to_owned()]
    } else {
        arguments
    };
    println!(
        "{:>10}  {:<20} {:>12} {:>12} {:>12}",
        "filters", "kind", "insert ns", "matches/s", "B/filter"
    );
    for size in sizes {
        for (kind, _, _) in KINDS {
            Command::new(std::env::current_exe()?)
                .args(["--only", &size, kind])
                .status()?;
        }
    }
    Ok(())
}

fn measure(size: usize, kind: &str, filter: Namer, topic: Namer) {
    let before = resident_bytes();
    let mut index: FilterIndex<Value> = FilterIndex::with_seed(42);
    let mut text = String::new();
    let start = Instant::now();
    for n in 0..size {
        filter(&mut text, n);
        let id = index.insert(&text);
        index.get_mut(id)[0] = n as u64;
    }
    let insert = start.elapsed();
    let bytes = resident_bytes().saturating_sub(before);

    let topics = random_topics(size, topic);
    let mut found = 0;
    let start = Instant::now();
    for round in 0..MATCHES.div_ceil(topics.len()) {
        for topic in &topics {
            index.for_each_match(topic, |id, value| {
                black_box((id, value[0], round));
                found += 1;
            });
        }
    }
    let matches = MATCHES.div_ceil(topics.len()) * topics.len();
    assert!(found >= matches, "every topic has a filter");
    println!(
        "{size:>10}  {kind:<20} {:>12.0} {:>12.0} {:>12.1}",
        insert.as_nanos() as f64 / size as f64,
        matches as f64 / start.elapsed().as_secs_f64(),
        bytes as f64 / size as f64,
    );
}

fn random_topics(size: usize, topic: Namer) -> Vec<String> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % size
    };
    let mut topics = Vec::new();
    topics.resize_with(size.min(500_000), || {
        let mut text = String::new();
        topic(&mut text, draw());
        text
    });
    topics
}

fn write_name(text: &mut String, n: usize, last: &str) {
    text.clear();
    write!(text, "site/{}/dev{n:07}/{last}", n % 100).expect("a String takes everything");
}

fn topic(text: &mut String, n: usize) {
    write_name(text, n, "state");
}

fn half(text: &mut String, n: usize) {
    write_name(text, n, if n.is_multiple_of(2) { "+" } else { "state" });
}

fn inner_filter(text: &mut String, n: usize) {
    text.clear();
    write!(text, "site/+/dev{n:07}/state").expect("a String takes everything");
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<usize> = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

use super::*;

/// By command: `cargo test --release -p store -- --ignored --nocapture a_million_entries`.
#[test]
#[ignore = "takes half a minute; prints times and memory"]
fn a_million_entries() {
    const ENTRIES: u64 = 1_000_000;
    let memory = |what: &str, since: Instant| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = |name| {
            status
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or("")
                .to_owned()
        };
        eprintln!(
            "{what}: {:?}, {} {}",
            since.elapsed(),
            line("VmRSS"),
            line("VmHWM")
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let (tables, _) = Tables::open(dir.path(), 16 << 20, 16 << 20, Arc::default()).unwrap();
    tables.begin(Sequence::FIRST);
    let start = Instant::now();
    let (mut longest, value) = (Duration::ZERO, "v".repeat(200));
    for first in 1..=ENTRIES / 100 {
        // Spread over the keys as hashed client ids are.
        let name = |number: u64| {
            format!(
                "session.{:016x}",
                (first * 100 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            )
        };
        let names: Vec<_> = (0..100).map(name).collect();
        let writes: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), Some(value.as_str())))
            .collect();
        tables.wait_for_room().unwrap();
        let told = Instant::now();
        tables.committed(vec![commit(first, &writes)]);
        longest = longest.max(told.elapsed());
    }
    memory(&format!("written, at most {longest:?} per commit"), start);
    let start = Instant::now();
    drop(tables);
    memory("closed", start);
    let start = Instant::now();
    let (tables, _) = Tables::open(dir.path(), 16 << 20, 16 << 20, Arc::default()).unwrap();
    memory("opened", start);
    for items_max in [100, 1000] {
        let (mut found, mut after) = (0, None);
        let start = Instant::now();
        loop {
            let answer = scan_page(&tables, &Prefix::all(), after, items_max);
            let Ok(KvReply::Scanned { entries, next, .. }) = answer else {
                panic!("{answer:?}");
            };
            found += entries.len() as u64;
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ENTRIES);
        memory(&format!("scanned, {items_max} at a time"), start);
    }
    let start = Instant::now();
    tables.shared.tree.compact_all().unwrap();
    memory(&format!("compacted to {:?}", tables.size()), start);
}

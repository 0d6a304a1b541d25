//! Damaged and missing files, and no room.

use super::*;

/// Tables with some files of all kinds.
fn filled(dir: &Path) -> Vec<(String, u64, String)> {
    let (tables, _) = open(dir).unwrap();
    tables.begin(Sequence::FIRST);
    for first in 1..=3 {
        let names: Vec<_> = (0..300).map(|number| format!("k.{}", number * first)).collect();
        let writes: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), Some("some value")))
            .collect();
        tables.committed(vec![commit(first, &writes)]);
        tables.persist().unwrap();
    }
    all(&tables)
}

/// What a scan finds, or that it fails; it never panics.
fn try_all(tables: &Tables) -> Result<Vec<(String, u64, String)>, KvError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        match scan_page(tables, &Prefix::all(), after, 100)? {
            KvReply::Scanned { entries, next, .. } => {
                found.extend(entries.into_iter().map(|entry| {
                    let value = String::from_utf8_lossy(&entry.value).into_owned();
                    (entry.key.as_str().to_owned(), entry.revision.0, value)
                }));
                match next {
                    Some(next) => after = Some(next),
                    None => return Ok(found),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_flipped_byte_is_an_error_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let expected = filled(&whole);
    let mut refused = 0;
    for file in files_below(&whole) {
        let bytes = fs::read(&file).unwrap();
        let places = (0..bytes.len()).step_by(bytes.len() / 40 + 1);
        for place in places.chain(bytes.len().checked_sub(1)) {
            let _ = fs::remove_dir_all(&broken);
            copy_dir(&whole, &broken);
            let mut bytes = bytes.clone();
            bytes[place] ^= 0x40;
            let name = broken.join(file.strip_prefix(&whole).unwrap());
            fs::write(&name, bytes).unwrap();
            let found = open(&broken).map_err(|_| ()).and_then(|(tables, from)| {
                assert_eq!(from, Sequence(4), "byte {place} of {}", name.display());
                try_all(&tables).map_err(|_| ())
            });
            match found {
                Ok(found) => assert!(found == expected, "byte {place} of {}", name.display()),
                Err(()) => refused += 1,
            }
        }
    }
    assert!(refused > 100, "only {refused} flipped bytes were noticed");
}

#[test]
fn a_missing_file_is_an_error_unless_nothing_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let expected = filled(&whole);
    let mut refused = 0;
    for file in files_below(&whole) {
        let _ = fs::remove_dir_all(&broken);
        copy_dir(&whole, &broken);
        fs::remove_file(broken.join(file.strip_prefix(&whole).unwrap())).unwrap();
        match open(&broken) {
            Ok((tables, from)) => {
                assert_eq!(from, Sequence(4), "{}", file.display());
                assert!(all(&tables) == expected, "{}", file.display());
            }
            Err(error) => {
                assert!(
                    matches!(error, OpenError::Tables { .. } | OpenError::Io { .. }),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn a_directory_that_was_being_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("tables")).unwrap();
    let (_, from) = open(dir.path()).unwrap();
    assert_eq!(from, Sequence::FIRST);
}

/// Commits meet neither an endless queue nor a lost write while the tables cannot be written, and go on after.
#[test]
fn no_room_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables");
    let (tables, _) = open(&path).unwrap();
    tables.begin(Sequence::FIRST);
    // Nothing can be written where there is no directory.
    let aside = dir.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let value = "v".repeat(10_000);
    let (mut first, refused) = (1, Mutex::new(None));
    while refused.lock().unwrap().is_none() {
        match tables.wait_for_room() {
            Ok(()) => {
                let name = format!("k.{first}");
                tables.committed(vec![commit(first, &[(name.as_str(), Some(value.as_str()))])]);
                first += 1;
            }
            Err(fault) => *refused.lock().unwrap() = Some(fault),
        }
        assert!(first < 1000, "10 MB are more than the bound");
    }
    assert!(tables.persist().is_err());
    assert_eq!(all(&tables).len() as u64, first - 1, "all can be read");
    fs::rename(&aside, &path).unwrap();
    assert_eq!(tables.persist(), Ok(Sequence(first)));
    assert_eq!(tables.wait_for_room(), Ok(()));
    drop(tables);
    let (tables, from) = open(&path).unwrap();
    assert_eq!(from, Sequence(first));
    assert_eq!(all(&tables).len() as u64, first - 1);
}

#[test]
fn what_a_failure_left_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (tables, _) = open(dir.path()).unwrap();
    tables.begin(Sequence::FIRST);
    tables.committed(vec![commit(1, &[("k.a", Some("1"))])]);
    tables.persist().unwrap();
    let (snapshot, _) = tables.snapshot().unwrap();
    tables.committed(vec![commit(2, &[("k.a", Some("2"))])]);
    tables.persist().unwrap();
    tables.shared.tree.compact_all().unwrap();
    let leftover = dir.path().join("tables/4711");
    fs::write(&leftover, "half of a file").unwrap();
    tables.shared.tree.remove_leftovers().unwrap();
    assert!(!leftover.exists());
    let held: Vec<_> = snapshot.map(|entry| entry.unwrap().value).collect();
    assert_eq!(held, ["1"], "a snapshot keeps its files");
    drop(tables);
    assert_eq!(all(&open(dir.path()).unwrap().0), entries(&[("k.a", 2, "2")]));
}

/// By command: `TMPDIR=<a file system of 12 MiB> cargo test -p store -- --ignored a_full_file_system`.
#[test]
#[ignore = "needs a small file system"]
fn a_full_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let filler = dir.path().join("filler");
    fs::write(&filler, vec![0; 7 << 20]).unwrap();
    let path = dir.path().join("tables");
    let (tables, _) = open(&path).unwrap();
    tables.begin(Sequence::FIRST);
    let value = "v".repeat(10_000);
    // What a compaction leaves free is used, so there may be room again a few times.
    let (mut first, mut refused) = (1, 0);
    while refused < 20 {
        match tables.wait_for_room() {
            Ok(()) => {
                let name = format!("k.{first}");
                tables.committed(vec![commit(first, &[(name.as_str(), Some(value.as_str()))])]);
                first += 1;
            }
            Err(fault) => {
                assert_eq!(fault, Fault::Full);
                refused = if tables.persist().is_err() { refused + 1 } else { 0 };
            }
        }
        assert!(first < 2000, "20 MB are more than there is room for");
    }
    let files = files_below(&path.join("tables")).len();
    let needed = tables.size().files;
    assert!(files <= needed + 2, "{files} files, {needed} of them are needed");
    fs::remove_file(&filler).unwrap();
    assert_eq!(tables.persist(), Ok(Sequence(first)));
    drop(tables);
    let (tables, from) = open(&path).unwrap();
    assert_eq!((from, all(&tables).len() as u64), (Sequence(first), first - 1));
}

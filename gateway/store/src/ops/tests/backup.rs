use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_backup_of_a_working_store_is_a_prefix_of_its_commits() {
    back_up_while_writing(None);
}

#[test]
fn segments_may_go_while_a_backup_is_written() {
    back_up_while_writing(Some(100));
}

/// `keep`: the log is trimmed to so many commits all the time.
fn back_up_while_writing(keep: Option<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = Store::open(options(&live)).unwrap();
    let (is_done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut journal = store.journal();
            for number in 1.. {
                let (records, writes) = numbered(number);
                commit(&mut journal, records, writes);
                written.store(number, Ordering::Release);
                if let Some(upto) = keep.and_then(|keep| number.checked_sub(keep))
                    && number.is_multiple_of(20)
                {
                    let upto = Sequence(upto);
                    ask(&mut journal, JournalRequest::Trim { upto });
                }
                if is_done.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        let _ending = SetOnDrop(&is_done);
        for round in 0..4 {
            let before = written.load(Ordering::Acquire);
            let archive = dir.path().join(format!("backup{round}.tar"));
            let report = store
                .backup(&archive, &BackupOptions::default(), &mut quiet)
                .unwrap();
            assert!(report.archive_bytes == fs::metadata(&archive).unwrap().len());
            let restored = dir.path().join(format!("restored{round}"));
            let again = restore(&archive, &restored, &mut quiet).unwrap();
            assert_eq!(again, report);
            let commits = check_prefix(&restored);
            assert!(commits >= before, "{commits} of at least {before}");
            assert!(commits <= written.load(Ordering::Acquire) + 1);
        }
    });
}

/// Ends the writer also if the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_restored_store_goes_on_where_the_backup_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (live, restored) = (dir.path().join("live"), dir.path().join("restored"));
    filled(&live, 300);
    let archive = dir.path().join("backup.tar");
    let store = Store::open(options(&live)).unwrap();
    // The oldest segments are gone: the entries that they made are in the tables alone.
    let mut journal = store.journal();
    let trimmed = ask(&mut journal, JournalRequest::Trim { upto: Sequence(200) });
    assert_eq!(trimmed, JournalReply::Trimmed);
    let (first, _) = commit(&mut journal, vec![record("t", "the last")], vec![put("new", "1")]);
    let report = store
        .backup(&archive, &BackupOptions::default(), &mut quiet)
        .unwrap();
    let entries = scan(&mut store.kv());
    assert_eq!(report.next.0, first + 1);
    drop((journal, store));

    fs::create_dir(&restored).unwrap();
    restore(&archive, &restored, &mut quiet).unwrap();
    let report = worst(&restored, false);
    assert!(
        report.worst.is_none_or(|worst| worst == Severity::Note),
        "{report}"
    );
    let store = Store::open(options(&restored)).unwrap();
    assert!(scan(&mut store.kv()) == entries, "with their revisions");
    let (next, _) = commit(&mut store.journal(), vec![record("t", "after")], vec![]);
    assert_eq!(next, first + 1);
    let last = payloads(&mut store.journal(), Sequence(first));
    assert_eq!(last.len(), 2);
}

#[test]
fn backups_and_restores_overwrite_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (live, archive) = (dir.path().join("live"), dir.path().join("backup.tar"));
    filled(&live, 10);
    let store = Store::open(options(&live)).unwrap();
    store
        .backup(&archive, &BackupOptions::default(), &mut quiet)
        .unwrap();
    let again = store.backup(&archive, &BackupOptions::default(), &mut quiet);
    assert!(matches!(again, Err(OpsError::Exists(_))), "{again:?}");
    let full = restore(&archive, &live, &mut quiet);
    assert!(matches!(full, Err(OpsError::Exists(_))), "{full:?}");
    let nowhere = dir.path().join("no/such/backup.tar");
    assert!(
        store
            .backup(&nowhere, &BackupOptions::default(), &mut quiet)
            .is_err()
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "nothing is left behind"
    );
}

#[test]
fn nobody_else_reads_what_clients_have_said() {
    let dir = tempfile::tempdir().unwrap();
    let (live, archive) = (dir.path().join("live"), dir.path().join("backup.tar"));
    let restored = dir.path().join("restored");
    // As an earlier try left it.
    fs::write(dir.path().join("backup.tar.partial"), "x").unwrap();
    filled(&live, 1);
    let store = Store::open(options(&live)).unwrap();
    store
        .backup(&archive, &BackupOptions::default(), &mut quiet)
        .unwrap();
    restore(&archive, &restored, &mut quiet).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&archive), mode(&restored)), (0o600, 0o700));
}

#[test]
fn an_archive_that_was_changed_or_cut_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (live, archive) = (dir.path().join("live"), dir.path().join("backup.tar"));
    filled(&live, 200);
    let store = Store::open(options(&live)).unwrap();
    store
        .backup(&archive, &BackupOptions::default(), &mut quiet)
        .unwrap();
    drop(store);
    let bytes = fs::read(&archive).unwrap();
    let broken = dir.path().join("broken.tar");
    let target = dir.path().join("target");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&broken, bytes).unwrap();
        match restore(&broken, &target, &mut quiet) {
            Ok(_) => {
                // Some bytes of a tar header and the padding of a member mean nothing.
                assert_eq!(check_prefix(&target), 200, "{what}");
                fs::remove_dir_all(&target).unwrap();
                0
            }
            Err(error) => {
                assert!(matches!(error, OpsError::Archive { .. }), "{what}: {error}");
                assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{what}");
                1
            }
        }
    };
    let mut count = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        count += refused(&changed, &format!("byte {at}"));
    }
    assert!(count > 50, "{count}");
    for len in (0..bytes.len() - 1024).step_by(bytes.len() / 20) {
        assert_eq!(refused(&bytes[..len], &format!("{len} bytes")), 1);
    }
    let mut strange = Vec::new();
    tar::write_header(&mut strange, "../../evil", 4).unwrap();
    strange.extend_from_slice(b"evil");
    tar::pad(&mut strange, 4).unwrap();
    strange.extend_from_slice(&bytes);
    assert_eq!(refused(&strange, "a name that leads elsewhere"), 1);
}

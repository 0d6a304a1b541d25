use super::*;

#[test]
fn a_whole_store_passes_the_check() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 500);
    let report = worst(dir.path(), false);
    assert_eq!(report.findings, []);
    assert_eq!((report.commits, report.records), (500, 500));
    assert_eq!(report.entries, expected_entries(500).len() as u64);
    assert!(report.segments > 3);
}

#[test]
fn what_is_no_store_or_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert!(matches!(
        check(&missing, true, &mut quiet),
        Err(OpsError::NoStore(_))
    ));
    assert!(!missing.exists());
    assert!(matches!(
        stats(dir.path(), 1, &mut quiet),
        Err(OpsError::NoStore(_))
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let store = Store::open(options(dir.path())).unwrap();
    let used = check(dir.path(), false, &mut quiet);
    assert!(
        matches!(used, Err(OpsError::Open(OpenError::Locked(_)))),
        "{used:?}"
    );
    drop(store);
}

#[test]
fn a_torn_end_is_told_and_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    let last = segment_files(dir.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[64..140]);
    fs::write(&last, &torn).unwrap();
    let report = worst(dir.path(), false);
    assert_eq!(report.worst, Some(Severity::Warning), "{report}");
    assert_eq!(fs::read(&last).unwrap(), torn, "a check changes nothing");
    assert_eq!(worst(dir.path(), true).repaired, 1);
    assert_eq!(fs::read(&last).unwrap(), whole);
    assert_eq!(worst(dir.path(), false).findings, []);
    assert_eq!(check_prefix(dir.path()), 20);
}

#[test]
fn damage_and_loss_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    filled(&whole, 400);
    let after = |harm: &dyn Fn()| {
        let _ = fs::remove_dir_all(&broken);
        copy_dir(&whole, &broken);
        harm();
        let report = worst(&broken, false);
        report.worst
    };
    let segments = segment_files(&whole);
    let segment = |at: usize| broken.join(segments[at].strip_prefix(&whole).unwrap());
    assert_eq!(after(&|| ()), None);
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    for at in [0, 40, 64, 100, 2000] {
        assert_eq!(
            after(&|| flip(&segment(1), at)),
            Some(Severity::Error),
            "byte {at}"
        );
    }
    assert_eq!(
        after(&|| fs::remove_file(segment(1)).unwrap()),
        Some(Severity::Error)
    );
    // A log that begins later was trimmed, as far as anybody can tell.
    assert_eq!(after(&|| fs::remove_file(segment(0)).unwrap()), None);
    assert_eq!(
        after(&|| fs::remove_file(segment(segments.len() - 1)).unwrap()),
        Some(Severity::Error),
        "the tables know that there was more"
    );
    assert_eq!(
        after(&|| fs::remove_dir_all(broken.join("log")).unwrap()),
        Some(Severity::Error),
        "and that there was something"
    );
    assert_eq!(
        after(&|| fs::remove_file(broken.join("tables/current")).unwrap()),
        Some(Severity::Error)
    );
}

#[test]
fn tables_that_are_damaged_are_made_again_while_the_log_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 50);
    fs::write(dir.path().join("tables/current"), "nonsense").unwrap();
    assert_eq!(worst(dir.path(), false).worst, Some(Severity::Error));
    assert!(matches!(
        Store::open(options(dir.path())),
        Err(OpenError::Tables { .. })
    ));
    assert_eq!(worst(dir.path(), true).repaired, 1);
    assert_eq!(check_prefix(dir.path()), 50);
    assert_eq!(
        worst(dir.path(), false).worst,
        Some(Severity::Note),
        "what was moved aside"
    );
}

#[test]
fn damage_in_the_middle_of_the_tables_is_mended_while_the_log_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 50);
    drop(Store::open(options(dir.path())).unwrap());
    let mut files = files_below(&dir.path().join("tables/tables"));
    files.sort_by_key(|file| fs::metadata(file).unwrap().len());
    let largest = files.pop().unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[100] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let found = worst(dir.path(), false);
    assert_eq!(found.worst, Some(Severity::Error), "{found}");
    assert!(found.findings[0].advice.starts_with("repair"), "{found}");
    let found = worst(dir.path(), true);
    assert_eq!(
        (found.worst, found.repaired),
        (Some(Severity::Warning), 1),
        "{found}"
    );
    assert_eq!(check_prefix(dir.path()), 50);
}

#[test]
fn index_files_are_compared_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 400);
    // Made where they are missing, so that there are some.
    worst(dir.path(), true);
    let mut indexes = files_below(&dir.path().join("log"));
    indexes.retain(|file| file.extension().is_some_and(|extension| extension == "idx"));
    assert!(indexes.len() > 2);
    let bytes = fs::read(&indexes[0]).unwrap();
    for at in [0, 50, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&indexes[0], changed).unwrap();
        let report = worst(dir.path(), true);
        assert_eq!(
            (report.worst, report.repaired),
            (Some(Severity::Warning), 1),
            "byte {at}"
        );
        assert_eq!(fs::read(&indexes[0]).unwrap(), bytes, "byte {at}");
    }
    let stray = indexes[0].with_file_name("00000000000000099999.idx");
    fs::write(&stray, "").unwrap();
    assert_eq!(worst(dir.path(), true).repaired, 1);
    assert!(!stray.exists());
    assert_eq!(check_prefix(dir.path()), 400);
}

#[test]
fn a_reserve_that_was_given_up_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10);
    let reserve = dir.path().join("reserve");
    for (bytes, findings) in [(vec![1; 100], 0), (vec![], 1)] {
        fs::write(&reserve, bytes).unwrap();
        let report = check(dir.path(), true, &mut |_| {}).unwrap();
        let found = report.findings.iter().filter(|finding| finding.path == reserve);
        assert_eq!(found.count(), findings, "{report}");
        assert!(report.worst <= Some(Severity::Note), "{report}");
    }
}

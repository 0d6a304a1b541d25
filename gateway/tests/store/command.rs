//! `tidegate store`.

use std::{fs, path::Path, process::Output};

use super::process::{Node, drain, fill, run};

/// What a command that succeeds says.
fn text(output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{:?}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The status and the words of one that fails.
fn failure(output: &Output) -> (i32, String) {
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr.clone()).unwrap(),
    )
}

/// A store with one session and three messages for it.
fn filled(dir: &Path) {
    let node = Node::start(dir);
    fill(&node, b"abc");
    assert!(node.stop().success());
}

#[test]
fn a_running_node_is_backed_up_and_the_archive_makes_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let (data, archive) = (dir.path().join("data"), dir.path().join("archive"));
    let node = Node::start(&data);
    fill(&node, b"abc");
    let archive = archive.to_str().unwrap();
    assert!(text(run(&data, &["store", "backup", archive])).contains(" entries"));
    let again = failure(&run(&data, &["store", "backup", archive]));
    assert!(again.0 == 1 && again.1.contains("exists"), "{again:?}");
    // What comes after the backup is not in it.
    fill(&node, b"x");
    assert!(node.stop().success());

    let restored = dir.path().join("restored");
    let said = text(run(&restored, &["store", "restore", archive]));
    assert!(
        said.ends_with(&format!("restored to {}\n", restored.display())),
        "{said}"
    );
    let over = failure(&run(&data, &["store", "restore", archive]));
    assert!(over.0 != 0, "a store is not overwritten: {over:?}");
    assert!(text(run(&restored, &["store", "check"])).ends_with("\nthe store is whole\n"));
    let node = Node::start(&restored);
    assert_eq!(drain(&node, 3), b"abc");
    assert!(node.stop().success());

    let offline = dir.path().join("offline");
    text(run(&restored, &["store", "backup", offline.to_str().unwrap()]));
    assert!(offline.exists());
}

#[test]
fn commands_that_need_the_node_stopped_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    for command in ["check", "export", "compact"] {
        let (status, text) = failure(&run(dir.path(), &["store", command]));
        assert!(
            status == 1 && text.contains("is used by another process"),
            "{command}: {status} {text}"
        );
    }
    let stats = text(run(dir.path(), &["store", "stats"]));
    assert!(stats.contains("\nlog.segments "), "{stats}");
    assert!(node.stop().success());
}

#[test]
fn a_directory_without_a_store_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["check", "stats", "export", "compact"] {
        let (status, text) = failure(&run(dir.path(), &["store", command]));
        assert!(
            status == 3 && text.contains("holds no store"),
            "{command}: {status} {text}"
        );
    }
    let nothing = failure(&run(dir.path(), &["store", "backup", "/nonexistent/archive"]));
    assert!(
        nothing.0 == 3 && nothing.1.contains("holds no store"),
        "{nothing:?}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_stored_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let lines = text(run(dir.path(), &["store", "export"]));
    assert!(
        lines.lines().count() > 3 && lines.lines().all(|line| line.starts_with('{')),
        "{lines}"
    );
    let file = dir.path().with_extension("json");
    let said = text(run(dir.path(), &["store", "export", file.to_str().unwrap()]));
    assert!(said.contains(" entries"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), lines);
    fs::remove_file(file).unwrap();
    let stats = text(run(dir.path(), &["store", "stats"]));
    for table in ["\nsessions ", "\nsubscriptions "] {
        assert!(stats.contains(table), "{stats}");
    }
    assert!(!text(run(dir.path(), &["store", "compact"])).is_empty());
}

#[test]
fn damage_is_told_and_is_an_exit_status() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    assert!(text(run(dir.path(), &["store", "check"])).ends_with("\nthe store is whole\n"));
    let segments = fs::read_dir(dir.path().join("log")).unwrap();
    let mut segments: Vec<_> = segments.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let mut bytes = fs::read(&segments[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&segments[0], bytes).unwrap();
    let output = run(dir.path(), &["store", "check"]);
    let found = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert!(
        found.contains("error: ") && found.ends_with("\nthe store is damaged\n"),
        "{found}"
    );
}

/// Every word of the commands, on a store in which nothing has happened.
#[test]
fn the_words_of_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    assert_eq!(
        text(run(dir.path(), &["store", "stats"])),
        "commits 0\ncommits.duplicate 0\ncommits.refused_full 0\nrecords 0\nrecords.bytes 0\nlog.bytes_written 0\n\
         log.bytes 64\nlog.segments 1\nindex.bytes_written 0\nindex.rebuilt 0\ngroups 0\ngroups.commits_max 0\n\
         fsyncs 0\nfsyncs.microseconds 0\ntrimmed.by_cursor 0\ntrimmed.by_age 0\ntrimmed.by_size 0\n\
         recovery.torn_bytes 0\nrecovery.corrupt_frames 0\nrecovery.lost_sequences 0\ntables.lag 0\n"
    );
    assert!(node.stop().success());
    assert_eq!(
        text(run(dir.path(), &["store", "check"])),
        "1 segments, 64 bytes, 0 commits, 0 records, 0 entries\nthe store is whole\n"
    );
    assert_eq!(text(run(dir.path(), &["store", "export"])), "");
    let help = text(run(dir.path(), &["store", "--help"]));
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(
        commands,
        ["check", "stats", "export", "compact", "backup", "restore"]
    );
    assert!(help.contains("\nExit status: 0 success, 1 damage or failure, 2 "));
}

#[test]
fn what_is_no_archive_makes_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let (file, target) = (dir.path().join("file"), dir.path().join("target"));
    fs::write(&file, "hello").unwrap();
    for archive in [&file, &dir.path().join("nothing")] {
        let archive = archive.to_str().unwrap();
        let (status, text) = failure(&run(&target, &["store", "restore", archive]));
        assert!(status == 1 && text.contains(archive), "{status} {text}");
    }
    let (status, text) = failure(&run(&target, &["store", "check"]));
    assert!(status == 3 && text.contains("holds no store"), "{status} {text}");
}

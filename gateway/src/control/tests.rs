use std::{
    io::{Cursor, Read, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
};

use super::{client::receive, *};

fn answer(bytes: &[u8]) -> (Result<(), String>, Vec<Answer>) {
    let mut told = Vec::new();
    let received = receive(&mut Cursor::new(bytes), &mut |answer| told.push(answer));
    (received.map_err(|error| error.to_string()), told)
}

fn text(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

/// A node that says what it was asked, and then what is wrong, if something is.
fn node(dir: &tempfile::TempDir, problem: Option<&'static str>) -> ControlSocket {
    let service = move |request: Request, tell: &mut dyn FnMut(Answer)| {
        tell(Answer::Progress { done: 1, total: 2 });
        tell(Answer::Text(format!("{request:?}\n!")));
        problem.map_or(Ok(()), |problem| Err(problem.to_owned()))
    };
    ControlSocket::open(dir.path(), Box::new(service)).unwrap()
}

fn ask(dir: &tempfile::TempDir, asked: &Request) -> (Result<(), String>, Vec<Answer>) {
    let mut told = Vec::new();
    let answered = request(dir.path(), asked, &mut |answer| told.push(answer));
    (answered.map_err(|error| error.to_string()), told)
}

/// What the node says to these bytes.
fn say(dir: &tempfile::TempDir, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
    // The node may have hung up before all is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir, None);
    let progress = Answer::Progress { done: 1, total: 2 };
    let backup = Request::Backup("/backup of today.tar".into());
    let expected = vec![progress.clone(), text("Backup(\"/backup of today.tar\") !")];
    assert_eq!(ask(&dir, &backup), (Ok(()), expected));
    assert_eq!(
        ask(&dir, &Request::Stats),
        (Ok(()), vec![progress, text("Stats !")])
    );
    drop(node);
    let (gone, _) = ask(&dir, &Request::Stats);
    assert!(gone.unwrap_err().starts_with("cannot reach the node through "));
    assert!(!dir.path().join(SOCKET).exists());
}

#[test]
fn what_goes_wrong_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let _node = node(&dir, Some("the disk\nfailed"));
    let (answered, told) = ask(&dir, &Request::Stats);
    assert_eq!(answered, Err("the node answers: the disk failed".to_owned()));
    assert_eq!(told.len(), 2);
}

#[test]
fn nobody_but_the_user_opens_the_socket_and_one_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET);
    drop(UnixListener::bind(&path).unwrap());
    std::fs::create_dir(dir.path().join("control.new")).unwrap();
    let _node = node(&dir, None);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.path().join("control.new").exists());
    assert_eq!(ask(&dir, &Request::Stats).0, Ok(()));
}

#[test]
fn hostile_requests_get_an_error_and_the_next_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let _node = node(&dir, None);
    let refusal = "error no such request; is this command of the node's release?\n";
    for bytes in [
        &b"\n"[..],
        b"stats",
        b"stats \n",
        b"STATS\n",
        b"stats\0\n",
        b"stats\r\n",
        b"backup\n",
        b"backup relative\n",
        b"backup /a\x1b\n",
        b"backup /\xFF\xFE\n",
        &[b'x'; LINE_BYTES_MAX],
    ] {
        assert_eq!(say(&dir, bytes), refusal, "{:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(say(&dir, b""), "");
    let endless = say(&dir, &vec![b'x'; 1 << 20]);
    assert!(
        endless.is_empty() || endless == refusal,
        "a reset may overtake the answer"
    );
    assert_eq!(say(&dir, b"stats\nstats\n"), "progress 1 2\ntext Stats !\nend\n");
}

#[test]
fn an_answer_that_is_none_is_no_success() {
    let cut_off = "the node's answer is cut off; look at its log";
    let unknown = "the node's answer is in an unknown form";
    for (bytes, problem) in [
        (&b""[..], cut_off),
        (b"end", cut_off),
        (b"text a\n", cut_off),
        (&[b'x'; 5000], cut_off),
        (b"hello\nend\n", unknown),
        (b"progress 1\nend\n", unknown),
        (b"progress -1 2\nend\n", unknown),
        (b"progress 99999999999999999999 2\nend\n", unknown),
        (b"\xFF\n", unknown),
    ] {
        assert_eq!(
            answer(bytes).0,
            Err(problem.to_owned()),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(answer(b"text a b\nend\n"), (Ok(()), vec![text("a b")]));
}

#[test]
fn what_does_not_fit_a_line_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let _node = node(&dir, None);
    for path in [
        "/a\nb".to_owned(),
        "a".to_owned(),
        format!("/{}", "x".repeat(LINE_BYTES_MAX)),
    ] {
        let (answered, _) = ask(&dir, &Request::Backup(path.into()));
        assert_eq!(
            answered,
            Err("the path is too long, or not a line of UTF-8".to_owned())
        );
    }
    let long = Answer::Text("ä".repeat(LINE_BYTES_MAX)).to_line();
    assert!(long.len() < LINE_BYTES_MAX && long.ends_with('ä'));
}

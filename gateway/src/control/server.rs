use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use super::{Answer, LINE_BYTES_MAX, Request, SOCKET, one_line};

/// Time for a request to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which something of an answer has to be taken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Does what is asked and tells of it; the error is for the operator.
pub(crate) type Service = Box<dyn Fn(Request, &mut dyn FnMut(Answer)) -> Result<(), String> + Send>;

/// Time that a request has which is under way at the end.
const END: Duration = Duration::from_secs(2);

/// The open socket and the thread that serves it. Dropped, it ends both; a request that is under way is given up after
/// two seconds.
pub(crate) struct ControlSocket {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    /// Closed when the thread has ended. In a mutex only because a node is shared by threads.
    ended: Mutex<Receiver<()>>,
}

impl ControlSocket {
    /// Opens the socket in `dir`, which this process has locked: one that is left there belongs to nobody.
    ///
    /// # Errors
    /// As the system says; also if the directory's path is too long for a socket (about 90 bytes).
    pub(crate) fn open(dir: &Path, service: Service) -> io::Result<ControlSocket> {
        let path = dir.join(SOCKET);
        let listener = bind(dir, &path)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&is_over);
        let (alive, ended) = channel();
        std::thread::Builder::new()
            .name("operator".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    if theirs.load(Relaxed) {
                        break;
                    }
                    if let Err(error) = stream.and_then(|stream| serve(&stream, &service)) {
                        tracing::info!(%error, "a connection to control.sock ended early");
                    }
                }
                // Before anybody is told of the end: what the service holds is to be closed then.
                drop(service);
                drop::<Sender<()>>(alive);
            })?;
        Ok(ControlSocket {
            path,
            is_over,
            ended: Mutex::new(ended),
        })
    }
}

/// In a directory that nobody else may enter, so that the socket has its mode before anybody can open it.
fn bind(dir: &Path, path: &Path) -> io::Result<UnixListener> {
    let private = dir.join("control.new");
    let inside = private.join("s");
    // Left behind by a process that was killed.
    let _ = fs::remove_file(&inside);
    let _ = fs::remove_dir(&private);
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    let _ = fs::remove_file(&inside);
    fs::remove_dir(&private)?;
    bound
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        // Wakes the thread if it waits.
        let is_woken = UnixStream::connect(&self.path).is_ok();
        let _ = fs::remove_file(&self.path);
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if is_woken && ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("what was asked through control.sock is given up");
        }
    }
}

fn serve(mut stream: &UnixStream, service: &Service) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_BYTES_MAX as u64)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(());
    }
    let request = line
        .strip_suffix(b"\n")
        .and_then(|line| std::str::from_utf8(line).ok());
    let Some(request) = request.and_then(Request::parse) else {
        return stream.write_all(b"error no such request; is this command of the node's release?\n");
    };
    // Who no longer listens is found out at the end.
    let mut tell = |answer: Answer| drop(writeln!(stream, "{}", answer.to_line()));
    match service(request, &mut tell) {
        Ok(()) => stream.write_all(b"end\n"),
        Err(problem) => writeln!(stream, "error {}", one_line(&problem)),
    }
}

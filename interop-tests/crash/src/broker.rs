//! The broker's process: started, killed, ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Which program is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Tidegate,
    /// To judge the test itself. It keeps its state when it is asked to end, not when it is killed.
    Mosquitto,
}

/// How to run it.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: Program,
    pub(crate) executable: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
    /// Further settings, `KEY=VALUE`.
    pub(crate) settings: Vec<String>,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    is_ready: Arc<AtomicBool>,
}

/// A free port outside the range from which the system takes clients' ports: in there, a client that connects while the
/// broker is down may meet itself.
pub(crate) fn free_port(seed: u64) -> io::Result<u16> {
    (0..500)
        .map(|attempt| 12_000 + u16::try_from((seed.wrapping_mul(31) + attempt * 7) % 18_000).unwrap_or(0))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::other("no free port"))
}

impl Setup {
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn configuration(&self) -> String {
        let (port, data) = (self.port, self.data.display());
        let lines = match self.program {
            Program::Tidegate => format!(
                "allow_anonymous = true\nnode.data_dir = {data}\nlog.level = info\n\
                 listeners.tcp.default.bind = 127.0.0.1:{port}\nlisteners.ws.default.enable = false\n\
                 gateway.mqttsn.enable = false\n\
                 mqtt.max_mqueue_len = 1000000\nmqtt.max_mqueue_bytes = 1GB\n\
                 sys_topics.sys_msg_interval = 1s\n"
            ),
            Program::Mosquitto => format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n\
                 persistence_location {data}/\nautosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n\
                 max_queued_bytes 0\nallow_duplicate_messages false\nmax_inflight_messages 32\nsys_interval 1\n"
            ),
        };
        let further = self.settings.iter().map(|setting| match setting.split_once('=') {
            Some((key, value)) if self.program == Program::Tidegate => format!("{key} = {value}\n"),
            _ => format!("{}\n", setting.replacen('=', " ", 1)),
        });
        lines + &further.collect::<String>()
    }

    /// The file that takes what the broker says.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("broker.log")
    }

    /// Starts the process; it is not ready yet.
    pub(crate) fn start(&self) -> io::Result<Broker> {
        fs::create_dir_all(&self.data)?;
        let config = self.directory.join("broker.conf");
        fs::write(&config, self.configuration())?;
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.executable);
        match self.program {
            Program::Tidegate => command.arg("start").arg("--config").arg(&config),
            Program::Mosquitto => command.arg("-c").arg(&config),
        };
        // Variables of that prefix are settings of the broker.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .current_dir(&self.directory)
            .spawn()?;
        let is_ready = Arc::new(AtomicBool::new(false));
        if let Some(stdout) = child.stdout.take() {
            let is_ready = Arc::clone(&is_ready);
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if line.trim() == "ready" {
                        is_ready.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
        Ok(Broker { child, is_ready })
    }
}

impl Broker {
    /// Whether it says that it serves clients.
    pub(crate) fn is_ready(&self, setup: &Setup) -> bool {
        match setup.program {
            Program::Tidegate => self.is_ready.load(Ordering::SeqCst),
            Program::Mosquitto => TcpStream::connect(setup.address()).is_ok(),
        }
    }

    /// Its status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(mut self, wait: Duration) -> io::Result<ExitStatus> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let deadline = Instant::now() + wait;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Err(io::Error::other("it did not end after SIGTERM"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The lines of the log that speak of a panic, and how many there are.
pub(crate) fn panics(log: &Path) -> (usize, Option<String>) {
    let Ok(file) = File::open(log) else {
        return (0, None);
    };
    let mut found = BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.contains("panicked at"));
    let first = found.next();
    (usize::from(first.is_some()) + found.count(), first)
}

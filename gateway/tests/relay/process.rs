//! The processes: brokers and the gateway in front of them.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// No test waits longer than this for anything; none passes by waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test, and where it listens.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    _dir: Option<TempDir>,
}

impl Process {
    /// SIGTERM, and how it ended.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear().args(arguments);
    command
}

/// Starts the executable, and finds the address in the line that starts with `listening` and this name.
fn start(mut command: Command, listener: &str, dir: Option<TempDir>) -> Process {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut address = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix(&format!("listening {listener} ")) {
            Some(found) => address = Some(found.to_owned()),
            None if line == "ready" => break,
            None => {}
        }
    }
    let address = address.expect("the process says where it listens");
    Process {
        child,
        address,
        _dir: dir,
    }
}

/// Tidegate as a broker without MQTT-SN.
pub(crate) fn tidegate_broker(listener: &str, settings: &[String]) -> Process {
    let dir = tempfile::tempdir().unwrap();
    let mut command = tidegate(&[]);
    let kept = format!("node.data_dir={}", dir.path().display());
    let usual = [
        kept.as_str(),
        "node.workers=2",
        "listeners.tcp.default.bind=127.0.0.1:0",
        "listeners.ws.default.enable=false",
        "gateway.mqttsn.enable=false",
    ];
    for setting in usual.into_iter().chain(settings.iter().map(String::as_str)) {
        command.args(["--set", setting]);
    }
    start(command, listener, Some(dir))
}

/// Mosquitto; `None`, with the reason printed, if it is not installed.
pub(crate) fn mosquitto() -> Option<Process> {
    const PROGRAM: &str = "/usr/sbin/mosquitto";
    if !Path::new(PROGRAM).exists() {
        println!("not tested with mosquitto: there is no {PROGRAM}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let file = dir.path().join("mosquitto.conf");
    let text =
        format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(PROGRAM);
    let mut child = command
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let is_running = log.any(|line| line.unwrap().contains(" running"));
    // Whoever writes to a pipe that nobody reads is held up.
    std::thread::spawn(move || log.for_each(drop));
    assert!(is_running, "mosquitto says that it runs");
    let address = format!("127.0.0.1:{port}");
    Some(Process {
        child,
        address,
        _dir: Some(dir),
    })
}

/// The gateway in front of a broker; sensors find it at its UDP listener.
pub(crate) fn gateway(broker: &str, options: &[&str]) -> Process {
    gateway_at("mqttsn:udp:default", broker, options)
}

/// The same; sensors find it at this listener.
pub(crate) fn gateway_at(listener: &str, broker: &str, options: &[&str]) -> Process {
    let mut command = tidegate(&["mqttsn-gateway", "--broker", broker]);
    for setting in [
        "gateway.mqttsn.listeners.udp.default.bind=127.0.0.1:0",
        "gateway.mqttsn.predefined.7=predefined/seven",
    ] {
        command.args(["--set", setting]);
    }
    command.args(options);
    start(command, listener, None)
}

/// Runs `story` with each broker in each mode.
pub(crate) fn everywhere(story: impl Fn(&Process, Process)) {
    for options in [&[][..], &["--aggregate"]] {
        for broker in [Some(tidegate_broker("tcp:default", &[])), mosquitto()]
            .into_iter()
            .flatten()
        {
            let gateway = gateway(&format!("mqtt://{}", broker.address), options);
            story(&broker, gateway);
        }
    }
}

//! The load of the benchmarks of durability: raw MQTT frames from one event loop in one thread, so that it costs little
//! on a machine that it shares with the broker. One run is one scenario; it prints one line of JSON.

mod fleet;
mod net;
mod options;
mod process;
mod report;
mod scenarios;
mod sn;
mod wire;

use std::{
    error::Error,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use net::{Client, Net};
use options::Options;
use process::Process;
use report::Report;
use wire::Session;

const HELP: &str = "\
durability-bench SCENARIO [--name value]...

  create    persistent sessions: connect, subscribe, disconnect
            --sessions 1000 --each 1 --filter 'dev/{s}/{n}' --qos 1 --prefix s --under-way 200 [--expiry SECONDS]
  publish   until all is acknowledged
            --publishers 1 --count 100000 --qos 1 --size 64 --window 50 --topic 'dur/{n}' --topics 1000
            [--rate PER_SECOND] [--retain true] [--seconds S]
  drain     the sessions of `create` come back and take what waits for them
            --sessions 1 --expect 100000 --prefix s --clean false --patience-seconds 20
  live      persistent subscribers that are connected, and publishers; until all has come
            as publish, and --subscribers 1 --filter 'dur/#' --sub-qos 1 --prefix live --clean false
  sensors   MQTT-SN: sensors connect, some of them sleep, the others publish, the sleepers wake
            --sensors 10000 --asleep 0.5 --topics 1 --clean false --keep-alive 3600 --size 32 --seconds 4
            --under-way 200 --prefix sensor- --behind 1 (sensors behind each forwarder) --sn-server 127.0.0.1:1884
            [--pause true: before they wake, print `asleep` and wait for a line, which may name another process]
  fsync     what this disk can do, without a broker: appends and fdatasync
            --file PATH --size 4096 --seconds 2

All but fsync: --server 127.0.0.1:1883, --pid PID (whose process is measured), --v5 true.
{s} in a filter or topic is the number of the session or publisher, {n} a number below --each or --topics.";

const KNOWN: &[&str] = &[
    "server",
    "pid",
    "v5",
    "sessions",
    "each",
    "filter",
    "qos",
    "prefix",
    "under-way",
    "expiry",
    "publishers",
    "count",
    "size",
    "window",
    "topic",
    "topics",
    "rate",
    "retain",
    "seconds",
    "expect",
    "clean",
    "patience-seconds",
    "subscribers",
    "sub-qos",
    "file",
    "sensors",
    "asleep",
    "keep-alive",
    "behind",
    "sn-server",
    "pause",
];

/// A scenario with all that it needs.
struct Run {
    options: Options,
    net: Net,
    process: Process,
    report: Report,
    v5: bool,
}

impl Run {
    fn session(&self, clean: bool) -> Result<Session, options::Error> {
        let default = if clean { 0 } else { 7200 };
        Ok(Session {
            v5: self.v5,
            clean,
            expiry_seconds: self.options.get("expiry", default)?,
        })
    }

    /// Turns the event loop until `done`, or until `progress` has said the same for `patience`. Returns whether it was
    /// done, and when anything happened last.
    fn until<C: Client>(
        &mut self,
        client: &mut C,
        patience: Duration,
        done: impl Fn(&C) -> bool,
        progress: impl Fn(&C) -> u64,
    ) -> std::io::Result<(bool, Instant)> {
        let mut last = (progress(client), Instant::now());
        while !done(client) {
            self.net.turn(Duration::from_millis(100), client)?;
            let now = progress(client);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > patience {
                return Ok((false, last.1));
            }
        }
        Ok((true, Instant::now()))
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let scenario = words.next().unwrap_or_default();
    if matches!(scenario.as_str(), "" | "-h" | "--help") {
        println!("{HELP}");
        return Ok(());
    }
    let options = Options::new(words, KNOWN)?;
    let server: SocketAddr = options.get("server", ([127, 0, 0, 1], 1883).into())?;
    let mut run = Run {
        net: Net::new(server)?,
        process: Process::new(options.optional("pid")?),
        report: Report::default(),
        v5: options.get("v5", false)?,
        options,
    };
    match scenario.as_str() {
        "create" => scenarios::create::run(&mut run)?,
        "publish" => scenarios::publish::run(&mut run)?,
        "drain" => scenarios::drain::run(&mut run)?,
        "live" => scenarios::live::run(&mut run)?,
        "sensors" => scenarios::sensors::run(&mut run)?,
        "fsync" => scenarios::fsync::run(&mut run)?,
        other => return Err(format!("no scenario {other}\n{HELP}").into()),
    }
    println!("{}", run.report.json());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("durability-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

//! The crash test: kills the real broker again and again under load, and checks what its clients saw.
//!
//! Clients of its own, written from the specification, publish with QoS 1 and 2, subscribe with persistent sessions,
//! share, come and go, acknowledge slowly, tear connections, leave Wills, retain and delay messages. All that they do and
//! see goes into one history ([`history`]); in the end [`checker`] finds what must not have happened.

mod broker;
mod checker;
mod client;
mod faults;
mod history;
mod link;
mod load;
mod options;
mod payload;
mod plan;
mod random;
mod run;
mod table;
mod wire;

use std::{
    fs, io,
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use broker::Program;
use history::Fault;
use options::Options;
use plan::Scope;
use run::{Outcome, Run};

fn main() -> ExitCode {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let options = match options::parse(std::env::args().skip(1), now) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    match run_all(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(options: &Options) -> io::Result<bool> {
    let directory = match &options.directory {
        Some(directory) => directory.clone(),
        None => std::env::temp_dir().join(format!("tidegate-crash-{}-{}", options.seed, std::process::id())),
    };
    fs::create_dir_all(&directory)?;
    println!("seed {}, {}", options.seed, directory.display());
    let is_clean = if options.faults.is_empty() {
        kill(options, &directory)?
    } else {
        faults::run(options, &directory)?
    };
    if is_clean && !options.keep {
        fs::remove_dir_all(&directory)?;
    }
    Ok(is_clean)
}

fn scope(options: &Options) -> Scope {
    let is_ours = options.program == Program::Tidegate;
    Scope {
        delayed: is_ours,
        wills: is_ours || options.kills == 0,
        shared: true,
        system: is_ours,
        publishers: options.publishers,
        rate: options.rate,
    }
}

fn kill(options: &Options, directory: &Path) -> io::Result<bool> {
    let data = directory.join("data");
    let mut setup = run::setup(
        options.program,
        options.broker.clone(),
        directory.to_owned(),
        data,
        options.seed,
    )?;
    setup.settings.clone_from(&options.settings);
    let (mut run, roles) = Run::new(setup, &scope(options), options.seed);
    let work = || -> io::Result<()> {
        run.clients(roles)?;
        if options.kills == 0 {
            run.start()?;
            run.wait_ready()?;
            run.run_for(Duration::from_secs(options.seconds))?;
        } else {
            run.kill_again_and_again(options.kills)?;
        }
        run.drain()
    };
    if let Err(error) = work() {
        run.fail(format!("ended early: {error}"));
    }
    let outcome = run.finish()?;
    judge(&outcome, options, directory, &format!("{} kills", options.kills))
}

/// Prints and keeps what is to be told of a run. Whether all is well.
fn judge(outcome: &Outcome, options: &Options, directory: &Path, name: &str) -> io::Result<bool> {
    table::print(outcome, options.seed);
    let is_clean = outcome.report.is_clean();
    if !is_clean {
        table::explain(outcome, &mut io::stdout().lock(), 2)?;
        table::save(outcome, directory)?;
        println!(
            "\nseed {}: data, history.txt and violations.txt are in {}",
            options.seed,
            directory.display()
        );
    }
    for fault in Fault::ALL {
        let count = outcome.report.count(fault);
        let status = if count == 0 { "PASS" } else { "FAIL" };
        let reason = if count == 0 {
            String::new()
        } else {
            format!("{count}, seed {}", options.seed)
        };
        let test = format!("{name}: {}", fault.title());
        table::result(options.results.as_deref(), status, &test, &reason)?;
    }
    Ok(is_clean)
}

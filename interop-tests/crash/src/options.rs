//! The command line.

use std::path::PathBuf;

use crate::broker::Program;

pub(crate) const USAGE: &str = "\
crash-test [--kills N] [--seed S] [--fault full|readonly|slow|all] [OPTION]...

  --kills N          SIGKILLs under load (default 15; 0: only load and drain)
  --seed S           of all decisions (default: the time)
  --fault MODE       no kills but a file system that runs full, turns read-only or stalls; needs root and mounts
  --seconds N        with --kills 0: how long the load lasts (default 10)
  --publishers N     (default 6)   --rate N   messages a second of each (default 120)
  --broker FILE      the executable (default: BROKER_BIN)
  --program NAME     tidegate (default) or mosquitto, which is ended in order instead of being killed
  --set KEY=VALUE    a further setting of the broker; may be repeated
  --dir DIR          where data and logs lie (default: a new directory in the system's for temporary files)
  --results FILE     appends PASS, FAIL and SKIP lines for interop-tests/run
  --keep             keeps the directory also if all is well
";

/// What is to be done to the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Full,
    ReadOnly,
    Slow,
}

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) kills: u64,
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Mode>,
    pub(crate) seconds: u64,
    pub(crate) publishers: usize,
    pub(crate) rate: u64,
    pub(crate) broker: PathBuf,
    pub(crate) program: Program,
    pub(crate) settings: Vec<String>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) results: Option<PathBuf>,
    pub(crate) keep: bool,
}

/// Reads the arguments; the error is what to print.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>, now: u64) -> Result<Options, String> {
    let mut options = Options {
        kills: 15,
        seed: now,
        faults: Vec::new(),
        seconds: 10,
        publishers: 6,
        rate: 120,
        broker: std::env::var_os("BROKER_BIN").unwrap_or_default().into(),
        program: Program::Tidegate,
        settings: Vec::new(),
        directory: None,
        results: None,
        keep: false,
    };
    while let Some(name) = arguments.next() {
        if name == "--keep" {
            options.keep = true;
            continue;
        }
        if name == "--help" || name == "-h" {
            return Err(USAGE.to_owned());
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value\n\n{USAGE}"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{name}: {value:?} is no number"))
        };
        match name.as_str() {
            "--kills" => options.kills = number()?,
            "--seed" => options.seed = number()?,
            "--seconds" => options.seconds = number()?,
            "--publishers" => options.publishers = usize::try_from(number()?.clamp(3, 64)).unwrap_or(64),
            "--rate" => options.rate = number()?.clamp(1, 100_000),
            "--broker" => options.broker = value.into(),
            "--program" => options.program = program(&value)?,
            "--fault" => options.faults = faults(&value)?,
            "--set" => options.settings.push(value),
            "--dir" => options.directory = Some(value.into()),
            "--results" => options.results = Some(value.into()),
            _ => return Err(format!("unknown option {name}\n\n{USAGE}")),
        }
    }
    if options.broker.as_os_str().is_empty() {
        options.broker = match options.program {
            Program::Tidegate => return Err("no executable: --broker FILE or BROKER_BIN".to_owned()),
            Program::Mosquitto => "/usr/sbin/mosquitto".into(),
        };
    }
    Ok(options)
}

fn program(name: &str) -> Result<Program, String> {
    match name {
        "tidegate" => Ok(Program::Tidegate),
        "mosquitto" => Ok(Program::Mosquitto),
        _ => Err(format!("unknown program {name}")),
    }
}

fn faults(name: &str) -> Result<Vec<Mode>, String> {
    Ok(match name {
        "full" => vec![Mode::Full],
        "readonly" => vec![Mode::ReadOnly],
        "slow" => vec![Mode::Slow],
        "all" => vec![Mode::Full, Mode::ReadOnly, Mode::Slow],
        _ => return Err(format!("unknown fault {name}")),
    })
}

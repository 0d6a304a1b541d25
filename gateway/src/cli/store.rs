//! `tidegate store`.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use store::{
    OpenError, Options, Store,
    ops::{self, BackupOptions, Done, OpsError, Severity},
};

use super::Failure;
use crate::{
    config::{self, Sources},
    control::{self, Answer, Request},
};

const STORE_EXAMPLES: &str = "\
The store is the data directory (node.data_dir) of a node. Every command but `backup` and `stats` needs the node to be
stopped, and says so if it runs. Results go to the standard output, progress to the standard error.

Examples:
  tidegate --config /etc/tidegate/tidegate.conf store backup /backup/tidegate.archive
      Make an archive, of a running node or a stopped one.
  tidegate store restore /backup/tidegate.archive --data-dir /var/lib/tidegate/data
      Make a data directory from it; start the node then.
  tidegate store check
      Read everything and say what is damaged.

Exit status: 0 success, 1 damage or failure, 2 wrong command line or configuration, 3 a directory that cannot be used
as it is.";

/// Look after the data directory: check, back up, restore
#[derive(Debug, Args)]
#[command(after_help = STORE_EXAMPLES)]
pub(super) struct StoreArgs {
    /// The data directory [default: node.data_dir of the configuration]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Read everything and say what is damaged; exit status 1 if something is
    Check {
        /// Also mend what costs nothing: cut off a torn end of the log, make topic indexes anew, move damaged tables
        /// aside if the log has everything that was in them
        #[arg(long)]
        repair: bool,
    },
    /// Say what is stored: of a stopped node its content, of a running one what it has done
    Stats {
        /// How many of the largest sessions and topics to name
        #[arg(long, value_name = "N", default_value_t = 10)]
        top: usize,
    },
    /// Write everything as JSON, one object per line, to a file or the standard output
    Export {
        /// The file; `-` is the standard output
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Give back space that nothing needs any more
    Compact,
    /// Write an archive from which `restore` makes the same store again; the node may run
    Backup {
        /// The archive, a new file; a running node writes it as its own user
        #[arg(value_name = "FILE")]
        archive: PathBuf,
    },
    /// Make a data directory from an archive; it must not exist or be empty
    Restore {
        /// The archive
        #[arg(value_name = "FILE")]
        archive: PathBuf,
    },
}

impl StoreArgs {
    pub(super) fn run(self, sources: &Sources) -> Result<String, Failure> {
        let dir = match self.data_dir {
            Some(dir) => dir,
            None => config::load(sources)?.settings.node.data_dir,
        };
        let mut progress = Progress::new();
        let mut tell = |done: Done| progress.show(done.what, done.done, done.total);
        match self.command {
            StoreCommand::Check { repair } => {
                let report = ops::check(existing(&dir)?, repair, &mut tell)?;
                match report.worst {
                    Some(Severity::Error) => Err(Failure::Found(format!("{report}\n"))),
                    _ => Ok(format!("{report}\n")),
                }
            }
            StoreCommand::Stats { top } => match ops::stats(existing(&dir)?, top, &mut tell) {
                Ok(mut report) => {
                    for table in &mut report.tables {
                        table.name = table_name(&table.name).to_owned();
                    }
                    Ok(format!("{report}\n"))
                }
                Err(OpsError::Open(OpenError::Locked { .. })) => ask(&dir, &Request::Stats),
                Err(error) => Err(error.into()),
            },
            StoreCommand::Export { file } => export(existing(&dir)?, &file, &mut tell),
            StoreCommand::Compact => Ok(format!("{}\n", ops::compact(existing(&dir)?, &mut tell)?)),
            StoreCommand::Backup { archive } => back_up(existing(&dir)?, &archive, &mut tell),
            StoreCommand::Restore { archive } => {
                let report = ops::restore(&archive, &dir, &mut tell)?;
                Ok(format!("{}\nrestored to {}\n", report, dir.display()))
            }
        }
    }
}

/// What is in the table whose keys begin with this.
fn table_name(prefix: &str) -> &str {
    match prefix {
        "s" => "sessions",
        "c" => "cursors of sessions",
        "f" => "subscriptions",
        "i" => "QoS 2 not released",
        "o" => "deliveries under way",
        "x" => "deliveries out of order",
        "g" => "shared groups",
        "t" => "taken of groups",
        "r" => "retained messages",
        "d" => "delayed messages",
        other => other,
    }
}

/// A command that only looks must not make a store, and none may leave files there that the node cannot use.
fn existing(dir: &Path) -> Result<&Path, Failure> {
    let problem = |error: io::Error| Failure::Store(format!("cannot use {}: {error}", dir.display()));
    if !dir.join("VERSION").try_exists().map_err(problem)? {
        return Err(Failure::Store(format!(
            "{} holds no store; name the data directory with --data-dir, or the configuration with --config",
            dir.display()
        )));
    }
    let owner = dir.metadata().map_err(problem)?.uid();
    match Path::new("/proc/self").metadata() {
        Ok(process) if process.uid() != owner => Err(Failure::Usage(format!(
            "{} belongs to the user with number {owner}; run this command as that user, such as by sudo --user='#{owner}'",
            dir.display()
        ))),
        _ => Ok(dir),
    }
}

fn export(dir: &Path, file: &Path, tell: ops::Tell<'_>) -> Result<String, Failure> {
    if file == Path::new("-") {
        return match ops::export(dir, &mut io::stdout().lock(), tell) {
            // A reader that has seen enough is no failure.
            Err(OpsError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(String::new()),
            exported => Ok(exported.map(|_| String::new())?),
        };
    }
    let problem = |error: io::Error| Failure::Runtime(format!("cannot write {}: {error}", file.display()));
    let mut options = fs::OpenOptions::new();
    // It has what clients have said.
    let created = options.write(true).create_new(true).mode(0o600).open(file);
    let mut output = created.map_err(problem)?;
    let report = ops::export(dir, &mut output, tell)?;
    output.sync_all().map_err(problem)?;
    Ok(format!("{report}\n"))
}

/// Opens the store if no node has it open, and else asks that node.
fn back_up(dir: &Path, archive: &Path, tell: ops::Tell<'_>) -> Result<String, Failure> {
    let archive = std::path::absolute(archive)
        .map_err(|error| Failure::Usage(format!("{}: {error}", archive.display())))?;
    match Store::open(Options::new(dir)) {
        Ok(store) => {
            let options = BackupOptions {
                bytes_per_second: None,
            };
            let report = store.backup(&archive, &options, tell);
            drop(store);
            Ok(format!("{}\n", report?))
        }
        Err(OpenError::Locked { .. }) => ask(dir, &Request::Backup(archive)),
        Err(error) => Err(OpsError::Open(error).into()),
    }
}

/// What the running node says.
fn ask(dir: &Path, request: &Request) -> Result<String, Failure> {
    let (mut progress, mut text) = (Progress::new(), String::new());
    let mut tell = |answer| match answer {
        Answer::Progress { done, total } => progress.show("backup", done, total),
        Answer::Text(line) => {
            text.push_str(&line);
            text.push('\n');
        }
    };
    control::request(dir, request, &mut tell).map_err(|error| Failure::Runtime(error.to_string()))?;
    Ok(text)
}

impl From<OpsError> for Failure {
    fn from(error: OpsError) -> Failure {
        match &error {
            OpsError::Open(OpenError::Locked { .. } | OpenError::Full(_) | OpenError::Io { .. }) => {
                Failure::Runtime(error.to_string())
            }
            OpsError::Open(_) => Failure::Store(error.to_string()),
            _ => Failure::Runtime(error.to_string()),
        }
    }
}

/// How far something is, on the standard error: what takes less than a second is not worth a word.
struct Progress {
    shown: Instant,
    is_terminal: bool,
    /// A line stands there without its end.
    is_open: bool,
}

impl Progress {
    /// Between two lines.
    const PAUSE: Duration = Duration::from_secs(1);

    fn new() -> Progress {
        Progress {
            shown: Instant::now(),
            is_terminal: io::stderr().is_terminal(),
            is_open: false,
        }
    }

    fn show(&mut self, what: &str, done: u64, total: u64) {
        if self.shown.elapsed() < Progress::PAUSE {
            return;
        }
        self.shown = Instant::now();
        // A terminal shows one line that changes.
        self.is_open = self.is_terminal;
        let end = if self.is_terminal { "\r" } else { "\n" };
        let line = line(what, done, total);
        // Nobody has to see it.
        let _ = write!(io::stderr(), "{line:<60}{end}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_open {
            let _ = writeln!(io::stderr());
        }
    }
}

fn line(what: &str, done: u64, total: u64) -> String {
    let megabytes = |bytes: u64| bytes >> 20;
    match (done.saturating_mul(100)).checked_div(total) {
        Some(percent) => format!(
            "{what}: {} of {} MB ({}%)",
            megabytes(done),
            megabytes(total),
            percent.min(100)
        ),
        None => format!("{what}: {} MB", megabytes(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        assert_eq!(line("check", 3 << 20, 12 << 20), "check: 3 of 12 MB (25%)");
        assert_eq!(line("check", u64::MAX, 1), "check: 17592186044415 of 0 MB (100%)");
        assert_eq!(line("export", 5 << 20, 0), "export: 5 MB");
    }
}

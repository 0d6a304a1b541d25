//! The command line. Every subcommand but `start` runs here and needs no running node.

mod cert;
mod config;
mod passwd;
mod relay;
mod store;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigErrors, Sources};

/// Exit status of a failure at run time: a port is taken, a file cannot be written.
pub const RUNTIME_FAILURE: u8 = 1;
/// Exit status of a wrong command line or configuration.
pub const USAGE_ERROR: u8 = 2;
/// Exit status of a data directory that cannot be used before somebody has done something about it.
pub const STORE_UNUSABLE: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  tidegate
      Serve MQTT on port 1883, MQTT over WebSocket on port 8083 and MQTT-SN on port 1884 of UDP.
  tidegate --config /etc/tidegate/tidegate.conf --set log.level=debug
      Serve as the file says, but log more.
  TIDEGATE_MQTT__MAX_PACKET_SIZE=4MB tidegate
      The same as --set mqtt.max_packet_size=4MB: two underscores stand for a dot.
  tidegate cert --out certs --host broker.example
      Make certificates for trying out TLS; prints the settings that use them.
  tidegate passwd --file users.conf alice
      Add a user, or change its password.
  tidegate config explain mqtt.max_inflight
      Say what a setting means, what it is, and where that was set.
  tidegate store backup /backup/tidegate.archive
      Make an archive of what the node keeps, while it runs.

Exit status: 0 success, 1 failure while running, 2 wrong command line or configuration, 3 a data directory that cannot
be used as it is.";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the gateway in the foreground.
    Start(Sources),
    /// Anything else.
    Tool(Tool),
}

/// A subcommand that needs no node.
#[derive(Debug)]
pub struct Tool {
    sources: Sources,
    kind: ToolKind,
}

#[derive(Debug)]
enum ToolKind {
    Config(config::ConfigCommand),
    Passwd(passwd::PasswdArgs),
    Cert(cert::CertArgs),
    Store(store::StoreArgs),
    Relay(relay::RelayArgs),
}

/// Why a subcommand failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Failure {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// Something went wrong while running.
    #[error("{0}")]
    Runtime(String),
    /// A data directory cannot be used as it is.
    #[error("{0}")]
    Store(String),
    /// It was looked for damage, and there is; this is the result.
    #[error("{0}")]
    Found(String),
}

/// Tidegate: an MQTT gateway. Devices and applications connect over TCP, TLS and WebSocket with MQTT 3.1, 3.1.1 and
/// 5.0, sensors over UDP and DTLS with MQTT-SN 1.2.
///
/// Without a subcommand it runs in the foreground: it prints what listens where, then `ready`. SIGTERM stops it in
/// good order; SIGHUP reads the configuration, certificates, keys, users and rules again.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(subcommand)]
    subcommand: Option<Subcommands>,
}

#[derive(Debug, Args)]
struct SourceArgs {
    /// Configuration file [default: what TIDEGATE_CONFIG names, else none]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Set one key, whatever file and environment say; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run the gateway in the foreground, as without a subcommand
    Start,
    /// Check, explain or print the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Add, change or delete a user of the users file
    Passwd(passwd::PasswdArgs),
    /// Make certificates for development: an authority, a server and a client
    Cert(cert::CertArgs),
    Store(store::StoreArgs),
    #[command(name = "mqttsn-gateway")]
    Relay(relay::RelayArgs),
}

/// Reads the command line `arguments`, the program's name first. The environment is read along for `Sources`.
///
/// # Errors
///
/// A wrong command line, and what is none: `--help` and `--version`. `clap::Error::exit` prints any of them and ends
/// the process with the right status.
pub fn parse<I>(arguments: I) -> Result<Command, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let Arguments { sources, subcommand } = Arguments::try_parse_from(arguments)?;
    let sources = Sources::of_process(sources.config, sources.set);
    let kind = match subcommand {
        None | Some(Subcommands::Start) => return Ok(Command::Start(sources)),
        Some(Subcommands::Config(command)) => ToolKind::Config(command),
        Some(Subcommands::Passwd(arguments)) => ToolKind::Passwd(arguments),
        Some(Subcommands::Cert(arguments)) => ToolKind::Cert(arguments),
        Some(Subcommands::Store(arguments)) => ToolKind::Store(arguments),
        Some(Subcommands::Relay(arguments)) => ToolKind::Relay(arguments),
    };
    Ok(Command::Tool(Tool { sources, kind }))
}

impl Tool {
    /// Does the work. What it has to say goes to the standard output, what is wrong to the standard error.
    pub fn run(self) -> ExitCode {
        let (text, status) = match self.output() {
            Ok(output) => return print(&output),
            Err(Failure::Usage(text)) => (text, USAGE_ERROR),
            Err(Failure::Runtime(text)) => (text, RUNTIME_FAILURE),
            Err(Failure::Store(text)) => (text, STORE_UNUSABLE),
            Err(Failure::Found(text)) => {
                print(&text);
                return ExitCode::from(RUNTIME_FAILURE);
            }
        };
        eprintln!("{text}");
        ExitCode::from(status)
    }

    fn output(self) -> Result<String, Failure> {
        match self.kind {
            ToolKind::Config(command) => command.run(&self.sources),
            ToolKind::Passwd(arguments) => arguments.run(&self.sources),
            ToolKind::Cert(arguments) => arguments.run(),
            ToolKind::Store(arguments) => arguments.run(&self.sources),
            ToolKind::Relay(arguments) => arguments.run(&self.sources),
        }
    }
}

/// A reader that has seen enough (`tidegate config dump | head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("cannot write to the standard output: {error}");
            ExitCode::from(RUNTIME_FAILURE)
        }
        _ => ExitCode::SUCCESS,
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Failure {
        Failure::Usage(errors.to_string())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn run(arguments: &[&str]) -> Result<String, Failure> {
        match parse([&["tidegate"], arguments].concat()) {
            Ok(Command::Tool(tool)) => tool.output(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn start_is_the_default() {
        for arguments in [&["tidegate"][..], &["tidegate", "start"]] {
            let Ok(Command::Start(sources)) = parse(arguments) else {
                panic!("{arguments:?}");
            };
            assert!(sources.arguments.is_empty());
        }
        let Ok(Command::Start(sources)) = parse([
            "tidegate", "start", "--set", "a=b", "-c", "x.conf", "--set", "c=d",
        ]) else {
            panic!("options follow the subcommand, too");
        };
        assert_eq!(sources.file, Some("x.conf".into()));
        assert_eq!(sources.arguments, ["a=b", "c=d"]);
    }

    #[test]
    fn version_and_help() {
        let version = parse(["tidegate", "--version"]).unwrap_err();
        assert_eq!(version.to_string(), "tidegate 0.1.0\n");
        assert_eq!(version.exit_code(), 0);
        let help = parse(["tidegate", "--help"]).unwrap_err();
        assert_eq!(help.exit_code(), 0);
        assert!(help.to_string().contains("Examples:"));
        assert_eq!(
            parse(["tidegate", "strat"]).unwrap_err().exit_code(),
            i32::from(USAGE_ERROR)
        );
    }

    #[test]
    fn configuration_commands() {
        assert_eq!(
            run(&[
                "config",
                "explain",
                "mqtt.max_inflight",
                "--set",
                "mqtt.max_inflight=64"
            ])
            .unwrap(),
            "mqtt.max_inflight = 64\n  default    32\n  allowed    a whole number, 1 to 65535\n  \
             set by     --set mqtt.max_inflight=64\n  variable   TIDEGATE_MQTT__MAX_INFLIGHT\n\n\
             QoS 1 and 2 messages on their way to one client at a time. The receive maximum\n\
             of an MQTT 5 client lowers it. More means throughput over long distances, and\n\
             memory per client.\n"
        );
        assert_eq!(
            run(&["config", "explain", "mqtt.max_inflite"]),
            Err(Failure::Usage(
                "unknown key `mqtt.max_inflite`; did you mean `mqtt.max_inflight`?".to_owned()
            ))
        );
        assert!(
            run(&["config", "dump"])
                .unwrap()
                .starts_with("node.name = tidegate@127.0.0.1 ")
        );
        assert_eq!(
            run(&["config", "check"]).unwrap(),
            "the configuration is valid\n\
             tcp:default on 1883\n\
             ssl:default off: listeners.ssl.default.ssl_options.certfile is not set\n\
             ws:default on 8083\n\
             wss:default off: listeners.wss.default.ssl_options.certfile is not set\n\
             mqttsn:udp:default on 1884\n\
             mqttsn:dtls:default off: neither gateway.mqttsn.listeners.dtls.default.dtls_options.certfile nor \
             psk_file is set\n"
        );
        assert_eq!(
            run(&["config", "check", "--set", "acl_file=/nonexistent/acl.conf"]),
            Err(Failure::Usage(
                "--set acl_file=/nonexistent/acl.conf: acl_file: cannot read /nonexistent/acl.conf: \
                 No such file or directory (os error 2); check the path and that the gateway's user may read it"
                    .to_owned()
            ))
        );
    }
}

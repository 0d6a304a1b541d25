//! `tidegate mqttsn-gateway`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::Failure;
use crate::{
    config::{self, Sources},
    relay::{self, BrokerUrl, Mode, RunError, Upstream},
    telemetry,
};

/// Longest client id that every broker takes, bytes [MQTT-3.1.3-5].
const CLIENT_ID_BYTES_MAX: usize = 65_535;

/// Run an MQTT-SN gateway in front of another broker
///
/// MQTT-SN clients (UDP, DTLS) on one side, a broker that speaks MQTT 3.1.1 (TCP or TLS) on the other. It runs in the foreground, prints
/// what listens where, then `ready`; SIGTERM tells all clients and ends it, SIGHUP reads certificates and keys again.
///
/// By default each client has a connection of its own to the broker, under its own client id: the broker has its session, its
/// Will and its rules. With --aggregate all clients share one connection, and the gateway has their sessions, in memory.
///
/// The MQTT-SN side is configured with the keys gateway.mqttsn.* (all but mountpoint) in the file of --config, or with --set:
/// listeners, gateway id, advertisement, predefined topics, retries, roaming, what stands in place of user name and password. `tidegate config explain
/// gateway.mqttsn` explains them. log.* hold, too; other keys have no meaning here.
///
/// What is kept here is kept in memory. If this process ends, a client that sleeps has to connect again, which it is told when it
/// wakes; topic ids that it had are gone then. Messages of QoS 1 and 2 for it are still at the broker if it connected without
/// CleanSession.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate mqttsn-gateway --broker mqtt://localhost:1883
      A transparent gateway on 1884/udp.
  tidegate mqttsn-gateway --broker mqtts://broker.example --ca-file ca.pem --username gw --password-file secret --aggregate
      One connection with TLS for all clients.
  tidegate mqttsn-gateway --broker mqtt://10.0.0.2 --set gateway.mqttsn.listeners.udp.default.bind=10.0.0.1:1884 \\
      --set gateway.mqttsn.broadcast=10.0.0.255:1884 --set gateway.mqttsn.predefined.1=plant/level
      One network interface, ADVERTISE every 15 minutes, and a topic that needs no registration.")]
pub(super) struct RelayArgs {
    /// The broker: mqtt://HOST[:1883], or mqtts://HOST[:8883] with TLS
    #[arg(long, value_name = "URL")]
    broker: BrokerUrl,
    /// One connection to the broker for all clients; the broker does not see them then, nor can it tell them apart
    #[arg(long)]
    aggregate: bool,
    /// The client id of that one connection [default: tidegate-mqttsn-<gateway id>]
    #[arg(long, value_name = "ID", requires = "aggregate")]
    client_id: Option<String>,
    /// Keep the session of that one connection at the broker, so that a broken connection loses no message of QoS 1 and 2
    #[arg(long, requires = "aggregate")]
    persistent: bool,
    /// User name, for clients that gateway.mqttsn.clientinfo_override gives none, and for --aggregate
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// PEM file: who may have signed the broker's certificate
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// PEM file: the certificate that this gateway shows to the broker
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// PEM file: its private key
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Seconds of silence after which the broker is asked whether it is there (the MQTT keep alive); clients have their own
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    keep_alive: u16,
    /// Messages that wait for one client, such as one that sleeps. At the limit the oldest of QoS 0 goes first; then, with a
    /// connection for each client, the broker's is not read (so the broker has the queue), with --aggregate new ones are dropped
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    queue_messages: u32,
    /// The same, as kilobytes of memory
    #[arg(long, value_name = "KB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    queue_kilobytes: u32,
    /// Clients without CleanSession of whom something is remembered while they are away: topic ids and Will, with --aggregate the
    /// whole session; with that, sessions of all clients together. Who is away longest, or whose session ends first, goes first
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: u32,
}

impl RelayArgs {
    /// Runs until a signal ends it.
    pub(super) fn run(&self, sources: &Sources) -> Result<String, Failure> {
        let settings = config::load(sources)?.settings;
        let upstream = self.upstream(settings.mqttsn.gateway_id)?;
        let _log = telemetry::install(settings.log);
        relay::run(&upstream, &settings.mqttsn).map_err(|error| match error {
            RunError::Settings(text) => Failure::Usage(text),
            RunError::Listen(_) | RunError::Io(_) => Failure::Runtime(error.to_string()),
        })?;
        Ok(String::new())
    }

    fn upstream(&self, gateway_id: u8) -> Result<Upstream, Failure> {
        let client_id = match &self.client_id {
            None => format!("tidegate-mqttsn-{gateway_id}"),
            Some(id) if (1..=CLIENT_ID_BYTES_MAX).contains(&id.len()) => id.clone(),
            Some(_) => return Err(Failure::Usage("--client-id: 1 to 65535 bytes".to_owned())),
        };
        let password = self.password_file.as_deref().map(relay::read_password);
        Ok(Upstream {
            broker: self.broker.clone(),
            mode: match self.aggregate {
                false => Mode::Transparent,
                true => Mode::Aggregated {
                    client_id,
                    is_persistent: self.persistent,
                },
            },
            username: self.username.clone(),
            password: password.transpose().map_err(Failure::Usage)?,
            ca_file: self.ca_file.clone(),
            certificate: self.cert_file.clone().zip(self.key_file.clone()),
            keep_alive: Duration::from_secs(u64::from(self.keep_alive)),
            queue_messages: self.queue_messages as usize,
            queue_bytes: self.queue_kilobytes as usize * 1024,
            sessions_max: self.max_sessions as usize,
        })
    }
}

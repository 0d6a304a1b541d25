//! From settings to a running gateway.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use broker_core::Timestamp;
use driver::{BindError, Clock, PskLookup, dtls::DtlsServer};
use mqtt_sn::endpoint::Endpoint;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{Happenings, Relay, links::Links, secured::Secured, tcp::Target, tls, udp::Socket};
use crate::{
    auth::PskTable,
    config::{DatagramListener, MqttSn},
    node::peer_settings,
    relay::{
        aggregated::{Aggregated, Introduction},
        client::Credentials,
        connection::Timing,
        deliveries::QueueLimits,
        settings::{self, Mode},
        transparent::Transparent,
        upstream::{Output, Terms, Upstream},
    },
};

/// What the connections to the broker tell, and was not looked at.
const HAPPENINGS_MAX: usize = 256;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot be used.
    #[error("{0}")]
    Settings(String),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The operating system refuses something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT. Prints on standard output what listens where, then `ready`. SIGHUP reads
/// the files of DTLS and TLS again.
///
/// # Errors
///
/// If it cannot start.
pub fn run(upstream: &settings::Upstream, downstream: &MqttSn) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before the listeners: a signal that comes early must not kill the process half-way.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (mut relay, mut happenings) = Relay::start(upstream, downstream).await?;
        loop {
            tokio::select! {
                () = relay.serve(&mut happenings) => {}
                _ = hangup.recv() => match relay.reload(upstream, downstream) {
                    Ok(()) => tracing::info!("certificates and keys reloaded"),
                    Err(error) => tracing::error!(%error, "certificates and keys not reloaded; the old ones stay"),
                },
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        relay.end(&mut happenings).await;
        Ok(())
    })
}

fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn state_machine(settings: &settings::Upstream, seed: u64) -> Box<dyn Upstream> {
    let terms = Terms {
        timing: Timing {
            keep_alive: settings.keep_alive,
            connect_timeout: Duration::from_secs(30),
        },
        queue: QueueLimits {
            messages: settings.queue_messages,
            bytes: settings.queue_bytes,
        },
        credentials: Credentials {
            username: settings.username.clone(),
            password: settings.password.clone(),
        },
        sessions_max: settings.sessions_max,
        seed,
    };
    match &settings.mode {
        Mode::Transparent => Box::new(Transparent::new(terms)),
        Mode::Aggregated {
            client_id,
            is_persistent,
        } => {
            let introduction = Introduction {
                client_id: client_id.clone(),
                is_persistent: *is_persistent,
            };
            Box::new(Aggregated::new(terms, introduction))
        }
    }
}

async fn open_sockets(downstream: &MqttSn) -> Result<Vec<Socket>, RunError> {
    let mut sockets = Vec::new();
    for listener in downstream.enabled_listeners() {
        if !downstream.mountpoint_of(listener).is_empty() {
            let text = format!("{}: this gateway knows no mountpoints", listener.id());
            return Err(RunError::Settings(text));
        }
        let settings = peer_settings(downstream, listener, Arc::default());
        let endpoint = Box::new(Endpoint::new(settings, true, seed()?));
        let secured = secured(listener)?;
        let socket = Socket::open(listener, downstream.broadcast.address(), endpoint, secured).await;
        sockets.push(socket.map_err(|(address, cause)| BindError {
            listener: listener.id().into(),
            address,
            cause,
        })?);
    }
    match sockets.is_empty() {
        true => Err(RunError::Settings(
            "no listener of gateway.mqttsn is switched on".to_owned(),
        )),
        false => Ok(sockets),
    }
}

/// The DTLS of a listener; `None`, if it speaks none.
fn secured(listener: &DatagramListener) -> Result<Option<Secured>, RunError> {
    let associations_max = listener.max_connections.unwrap_or(usize::MAX);
    dtls_server(listener)?
        .map(|server| Secured::new(server, associations_max))
        .transpose()
}

/// What the files of a DTLS listener hold.
fn dtls_server(listener: &DatagramListener) -> Result<Option<Arc<DtlsServer>>, RunError> {
    let located = |error: String| RunError::Settings(format!("{}: {error}", listener.key()));
    let psk: Option<PskLookup> = match &listener.dtls.psk_file {
        None => None,
        Some(path) => {
            let keys = PskTable::read(path).map_err(|error| located(error.to_string()))?;
            Some(Arc::new(move |identity| keys.get(identity).map(<[u8]>::to_vec)))
        }
    };
    let Some(dtls) = listener.dtls_settings(psk) else {
        return Ok(None);
    };
    let server = DtlsServer::load(&dtls).map_err(|error| located(error.to_string()))?;
    Ok(Some(server))
}

fn target(settings: &settings::Upstream) -> Result<Target, RunError> {
    let tls = match settings.broker.is_tls {
        true => Some(tls::connector(settings).map_err(RunError::Settings)?),
        false => None,
    };
    Ok(Target {
        url: settings.broker.clone(),
        tls,
    })
}

impl Relay {
    pub(super) async fn start(
        settings: &settings::Upstream,
        downstream: &MqttSn,
    ) -> Result<(Relay, Happenings), RunError> {
        let target = Arc::new(target(settings)?);
        let sockets = open_sockets(downstream).await?;
        let (tell, happenings) = mpsc::channel(HAPPENINGS_MAX);
        let mut out = io::stdout().lock();
        for Socket { name, local, .. } in &sockets {
            writeln!(out, "listening {name} {local}")?;
        }
        for listener in &downstream.listeners {
            if let Some(reason) = downstream.disabled_because(listener) {
                writeln!(out, "not listening {}: {reason}", listener.id())?;
            }
        }
        writeln!(out, "ready")?;
        out.flush()?;
        drop(out);
        let mut relay = Relay {
            clock: Clock::start(),
            links: Links::new(sockets.len()),
            sockets,
            upstream: state_machine(settings, seed()?),
            connections: HashMap::new(),
            target,
            tell,
            requests: VecDeque::new(),
            sealed: Vec::new(),
            first: 0,
            displaced: (Timestamp::from_millis(0), 0),
            refused: Timestamp::from_millis(0),
        };
        let mut output = Output::default();
        relay.upstream.start(relay.clock.now(), &mut output);
        relay.settle(output);
        Ok((relay, happenings))
    }
    /// Reads the files of DTLS and TLS again, for handshakes from now on. If one of them cannot be used, nothing changes.
    fn reload(&mut self, settings: &settings::Upstream, downstream: &MqttSn) -> Result<(), RunError> {
        let target = target(settings)?;
        let servers = downstream
            .enabled_listeners()
            .map(dtls_server)
            .collect::<Result<Vec<_>, _>>()?;
        self.target = Arc::new(target);
        for (socket, server) in self.sockets.iter_mut().zip(servers) {
            if let (Some(secured), Some(server)) = (&mut socket.secured, server) {
                secured.reconfigure(server);
            }
        }
        Ok(())
    }
}

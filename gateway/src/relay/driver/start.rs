//! From settings to a running gateway.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use broker_core::Timestamp;
use driver::{Clock, PskLookup, dtls::DtlsServer};
use mqtt_sn::endpoint::Endpoint;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{Happenings, Relay, links::Links, secured::Secured, tcp::Target, tls, udp::Socket};
use crate::{
    auth::PskTable,
    config::{Bind, DatagramListener, MqttSn},
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
    #[error("cannot listen on {listener} at {bind}: {cause}")]
    Listen {
        /// Which.
        listener: String,
        /// Where.
        bind: Bind,
        /// Why not.
        cause: io::Error,
    },
    /// The operating system refuses something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT. Prints on standard output what listens where, then `ready`.
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
        let (mut relay, mut happenings) = Relay::start(upstream, downstream).await?;
        tokio::select! {
            () = relay.serve(&mut happenings) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
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
        let settings = peer_settings(downstream, listener);
        let endpoint = Box::new(Endpoint::new(settings, true, seed()?));
        let secured = secured(listener)?;
        let socket = Socket::open(listener, downstream.broadcast.address(), endpoint, secured).await;
        sockets.push(socket.map_err(|cause| RunError::Listen {
            listener: listener.id(),
            bind: listener.bind,
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
    let associations_max = listener.max_connections.unwrap_or(usize::MAX);
    Secured::new(server, associations_max).map(Some)
}

impl Relay {
    pub(super) async fn start(
        settings: &settings::Upstream,
        downstream: &MqttSn,
    ) -> Result<(Relay, Happenings), RunError> {
        let tls = match settings.broker.is_tls {
            true => Some(tls::connector(settings).map_err(RunError::Settings)?),
            false => None,
        };
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
            sockets,
            links: Links::new(),
            upstream: state_machine(settings, seed()?),
            connections: HashMap::new(),
            target: Arc::new(Target {
                url: settings.broker.clone(),
                tls,
            }),
            tell,
            requests: VecDeque::new(),
            sealed: Vec::new(),
            refused: Timestamp::from_millis(0),
        };
        let mut output = Output::default();
        relay.upstream.start(relay.clock.now(), &mut output);
        relay.settle(output);
        Ok((relay, happenings))
    }
}

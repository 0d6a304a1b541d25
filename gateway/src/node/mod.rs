//! The composition root: turns a configuration into a running broker.
//!
//! ```text
//! Settings ─▶ Storage (a directory, or memory) ─▶ what was stored goes back to the shards
//!          ─▶ Common (limits, admission, hooks) ─▶ one Shard per worker thread
//!          ─▶ listeners ─▶ MQTT peers; datagram listeners ─▶ MQTT-SN endpoints ─▶ MQTT-SN peers
//! questions of the shards ─▶ ControlPlane ─▶ answers
//! ```

mod admission;
mod control;
mod hooks;
mod listeners;
mod mqttsn;
mod stats;
mod storage;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broker_core::{
    ShardId,
    admission::{Ban, BannedBy, BannedFull},
    shard::{Common, SHARDS_MAX, Shard, ShardSettings},
    store::Journal,
};
use driver::{CallError, Clock, ListenError, Listener, TlsError, WorkerConfig, Workers};

use crate::{
    auth::PskError,
    config::{self, Settings},
    control::ControlSocket,
};
use control::ControlPlane;
use listeners::CurrentSettings;
use stats::NodeStats;
use storage::{Keeper, Storage};

pub use admission::AdmissionError;
pub use hooks::Extensions;
pub(crate) use mqttsn::peer_settings;
pub use storage::RestoreError;

/// Time that clients have at shutdown to take what waits for them.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A running broker. Dropped without [`Node::shutdown`], it ends without a word to its clients.
pub struct Node {
    workers: Workers,
    listeners: Vec<Open>,
    mqttsn: Vec<mqttsn::Open>,
    control: ControlPlane,
    stats: Arc<NodeStats>,
    extensions: Extensions,
    /// Ends before the workers that it asks.
    keeper: Keeper,
    control_socket: Option<ControlSocket>,
    storage: Storage,
}

/// An open listener and what it was opened from.
struct Open {
    settings: config::Listener,
    listener: Listener,
    peers: CurrentSettings,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of rules or users is not what it should be.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificates of a listener cannot be read anew.
    #[error("listener {listener}: {cause}")]
    Certificates {
        /// Its name, such as `ssl:default`.
        listener: String,
        /// Which file, and what helps.
        cause: TlsError,
    },
    /// The pre-shared keys of a listener cannot be used.
    #[error("listener {listener}: {cause}")]
    Keys {
        /// Its name, such as `mqttsn:dtls:default`.
        listener: String,
        /// Which line, and what is wrong.
        cause: PskError,
    },
    /// The data directory cannot be used.
    #[error("node.data_dir: {0}")]
    Store(#[from] store::OpenError),
    /// What was stored cannot be brought back.
    #[error("node.data_dir: {0}")]
    Restore(#[from] RestoreError),
    /// The threads cannot be started.
    #[error(transparent)]
    Workers(#[from] driver::StartError),
    /// Randomness or threads of the system are missing.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

impl Open {
    /// What `settings` say of it; one that they no longer name stays as it was opened.
    fn configured<'a>(&'a self, settings: &'a Settings) -> &'a config::Listener {
        let mut listeners = settings.listeners.iter();
        listeners
            .find(|listener| listener.kind == self.settings.kind && listener.name == self.settings.name)
            .unwrap_or(&self.settings)
    }
}

/// Why a ban was not made or lifted everywhere.
#[derive(Debug, thiserror::Error)]
pub enum BanError {
    /// A worker cannot be reached.
    #[error(transparent)]
    Worker(#[from] CallError),
    /// There are too many bans.
    #[error(transparent)]
    Full(#[from] BannedFull),
}

impl Node {
    /// Opens the store, starts the workers and brings back what was stored, without any listener. `extensions`: hooks
    /// and authenticators besides the configured ones.
    ///
    /// # Errors
    /// If the data directory or a file that the settings name cannot be used, or the system refuses threads.
    pub fn start(settings: &Settings, extensions: Extensions) -> Result<Node, StartError> {
        let clock = Clock::start();
        let stats = Arc::new(NodeStats::new(&settings.broker.node_name));
        let common = Arc::new(common(settings, &extensions, &stats, clock)?);
        let control = ControlPlane::start(Arc::clone(&common), clock, settings.authentication.timeout)?;
        let storage = Storage::open(settings)?;
        stats.add_store(storage.stats());
        let shards = shards(workers(settings), &common, &stats, &storage)?;
        let workers = Workers::start(&worker_config(settings), clock, shards, control.ask_handler())?;
        control.connect(workers.handles());
        stats.connect(workers.handles());
        storage::restore(&mut *storage.kv(), workers.handles(), clock)?;
        let keeper = Keeper::start(
            storage.journal(),
            storage.stats(),
            clock,
            NodeStats::journal_low(&stats),
            NodeStats::tell_condition(&stats, workers.handles()),
        )?;
        Ok(Node {
            workers,
            listeners: Vec::new(),
            mqttsn: Vec::new(),
            control,
            stats,
            extensions,
            keeper,
            control_socket: storage.open_control(&settings.node.data_dir),
            storage,
        })
    }

    /// Opens every listener that is enabled, in the order of their kinds and names, then those of MQTT-SN.
    ///
    /// # Errors
    /// The first that cannot be opened; those before it stay open.
    pub fn listen(&mut self, settings: &Settings) -> Result<(), StartError> {
        for listener in settings.enabled_listeners() {
            let peers = Arc::new(Mutex::new(listeners::peer_settings(
                listener,
                &settings.broker.mqtt,
            )));
            self.listeners.push(Open {
                listener: listeners::open(&self.workers, listener, &peers)?,
                settings: listener.clone(),
                peers,
            });
        }
        for listener in settings.mqttsn.enabled_listeners() {
            let keys = mqttsn::keys(listener).map_err(|cause| StartError::Keys {
                listener: listener.id(),
                cause,
            })?;
            let open = mqttsn::Open::new(&self.workers, &settings.mqttsn, listener, keys)?;
            self.stats.add_datagram_listener(&open.listener, open.counters());
            self.mqttsn.push(open);
        }
        Ok(())
    }

    /// Names and addresses of the open listeners; the port is the real one where port 0 was asked for.
    pub fn listening(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        let streams = self
            .listeners
            .iter()
            .map(|open| (open.settings.id(), open.listener.address()));
        let datagrams = self
            .mqttsn
            .iter()
            .map(|open| (open.settings.id(), open.listener.address()));
        streams.chain(datagrams)
    }

    /// Takes over what may change while the node runs: limits, rules, users, rewriting, and of the open listeners the
    /// certificates, pre-shared keys, mountpoint and zone; of MQTT-SN also what its peers go by, such as predefined topics.
    /// Connected clients keep the limits that they were told. Sockets, what is broadcast, workers and the node's name
    /// stay.
    ///
    /// # Errors
    /// What cannot be used; limits, rules and users stay as they were then. Listeners before the one whose certificate
    /// is at fault have theirs anew; [`config::check_files`] tells beforehand.
    pub fn reload(&mut self, settings: &Settings) -> Result<(), StartError> {
        let mut common = common(settings, &self.extensions, &self.stats, self.workers.clock())?;
        // Other nodes and `$SYS` know the node by the name it started with.
        self.stats.node_name().clone_into(&mut common.config.node_name);
        let common = Arc::new(common);
        let mqttsn = self.prepare_mqttsn(settings)?;
        for open in &self.listeners {
            if let Some(tls) = open.configured(settings).tls_settings() {
                open.listener
                    .reload_tls(&tls)
                    .map_err(|cause| StartError::Certificates {
                        listener: open.settings.id(),
                        cause,
                    })?;
            }
        }
        for (open, reload) in self.mqttsn.iter().zip(mqttsn) {
            if let Some(dtls) = &reload.dtls {
                let reloaded = open.listener.reload_dtls(dtls);
                reloaded.map_err(|cause| StartError::Certificates {
                    listener: open.settings.id(),
                    cause,
                })?;
            }
            open.take_over(reload);
        }
        for open in &self.listeners {
            let peers = listeners::peer_settings(open.configured(settings), &settings.broker.mqtt);
            *open.peers.lock().unwrap_or_else(PoisonError::into_inner) = peers;
        }
        self.control.reconfigure(Arc::clone(&common));
        for handle in self.workers.handles() {
            let common = Arc::clone(&common);
            if let Err(error) = handle.run(move |worker| worker.shard().reconfigure(common)) {
                tracing::error!(%error, worker = handle.id().0, "a worker did not take over the new configuration");
            }
        }
        Ok(())
    }

    /// Reads the keys that `settings` name for the open listeners of MQTT-SN.
    fn prepare_mqttsn(&self, settings: &Settings) -> Result<Vec<mqttsn::Reload>, StartError> {
        let prepare = |open: &mqttsn::Open| {
            open.prepare(&settings.mqttsn).map_err(|cause| StartError::Keys {
                listener: open.settings.id(),
                cause,
            })
        };
        self.mqttsn.iter().map(prepare).collect()
    }

    /// The worker threads, for those who embed the broker.
    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Keeps `who` out of the whole node until the ban ends; those who are connected are disconnected. Waits for the
    /// workers, so not to be called on one of their threads.
    ///
    /// # Errors
    /// If a worker has ended or is overloaded, or if its table of bans is full.
    pub fn ban(&self, who: &BannedBy, ban: &Ban) -> Result<(), BanError> {
        for handle in self.workers.handles() {
            let (who, ban) = (who.clone(), ban.clone());
            handle.call_blocking(move |worker| {
                let now = worker.now();
                worker.shard().ban(now, who, ban)
            })??;
        }
        Ok(())
    }

    /// Lifts a ban. False if there was none.
    ///
    /// # Errors
    /// If a worker has ended or is overloaded.
    pub fn unban(&self, who: &BannedBy) -> Result<bool, BanError> {
        let mut existed = false;
        for handle in self.workers.handles() {
            let who = who.clone();
            existed |= handle.call_blocking(move |worker| worker.shard().unban(&who).is_some())?;
        }
        Ok(existed)
    }

    /// Every counter and gauge with its value, summed over the workers.
    pub fn metrics(&self) -> Vec<(String, u64)> {
        self.stats.all()
    }

    /// Ends the node in order: no new connections, every client is told, what waits is written and stored. Blocks for
    /// at most a few seconds.
    pub fn shutdown(self) {
        for open in &self.listeners {
            open.listener.stop();
        }
        for open in &self.mqttsn {
            open.listener.stop();
        }
        for handle in self.workers.handles() {
            let told = handle.call_blocking(|worker| {
                let now = worker.now();
                worker.shard().shut_down(now);
            });
            if let Err(error) = told {
                tracing::warn!(%error, worker = handle.id().0, "the clients of a worker could not be told");
            }
        }
        drop((self.keeper, self.control_socket));
        self.workers.shutdown(SHUTDOWN);
        self.storage.close();
    }
}

/// A shard, or what makes one, and its handle on the store.
type WithJournal<T> = (T, Box<dyn Journal>);

/// How each shard is made, and its handle on the store.
fn shards(
    count: u16,
    common: &Arc<Common>,
    stats: &Arc<NodeStats>,
    storage: &Storage,
) -> io::Result<Vec<WithJournal<impl FnOnce() -> Shard + Send + use<>>>> {
    let mut shards = Vec::new();
    for id in 0..count {
        let (common, stats) = (Arc::clone(common), Arc::clone(stats));
        let seed = random_seed()?;
        let make = move || {
            let shard = Shard::new(ShardSettings {
                id: ShardId(id),
                shards: count,
                common,
                seed,
            });
            stats.add_shard(&shard);
            shard
        };
        shards.push((make, storage.journal()));
    }
    Ok(shards)
}

fn common(
    settings: &Settings,
    extensions: &Extensions,
    stats: &Arc<NodeStats>,
    clock: Clock,
) -> Result<Common, StartError> {
    Ok(Common {
        config: settings.broker.clone(),
        admission: admission::build(settings, extensions)?,
        hooks: hooks::build(settings, extensions, stats, clock),
    })
}

fn workers(settings: &Settings) -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let cores = u16::try_from(cores).unwrap_or(SHARDS_MAX);
    settings.node.workers.unwrap_or(cores).clamp(1, SHARDS_MAX)
}

/// The strictest of what the listeners ask for: workers carry connections of all of them.
fn worker_config(settings: &Settings) -> WorkerConfig {
    let mut config = WorkerConfig::default();
    let options = || settings.enabled_listeners().map(|listener| &listener.tcp);
    if options().next().is_some() {
        config.send_timeout = options()
            .filter_map(|tcp| tcp.send_timeout)
            .min()
            .unwrap_or(Duration::MAX);
    }
    if let Some(high) = options().map(|tcp| tcp.high_watermark).min() {
        config.high_water_bytes = high;
        config.low_water_bytes = high / 4;
    }
    // A connection below the mark may get a packet of any permitted size, and what else one turn brings.
    let packet = settings.broker.mqtt.max_packet_size as usize;
    config.outbox_bytes_max = config.outbox_bytes_max.max(config.high_water_bytes + 4 * packet);
    config
}

fn random_seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(seed))
}

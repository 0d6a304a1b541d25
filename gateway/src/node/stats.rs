//! Counters and gauges of the whole node: the sums over its shards.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use broker_core::{
    ClientInfo, MessageParts, Timestamp,
    hooks::SysSource,
    metrics::{Metrics, Stats},
    shard::Shard,
    store::Sequence,
};
use driver::{Clock, Counters, DatagramListener, Worker, WorkerHandle};

use super::{
    mqttsn,
    storage::{Condition, Low, StorageStats, Told},
};

/// The sums over all shards and workers of a node.
pub(super) struct NodeStats {
    node_name: String,
    started: OnceLock<Timestamp>,
    shards: RwLock<Vec<(Arc<Metrics>, Arc<Stats>)>>,
    workers: OnceLock<Vec<Arc<Counters>>>,
    /// Those that are open; the node has them.
    datagram_listeners: RwLock<Vec<(Weak<DatagramListener>, Arc<mqtt_sn::peer::Counters>)>>,
    store: OnceLock<StorageStats>,
    /// The store's [`Condition`], as a number.
    condition: AtomicU8,
}

impl NodeStats {
    pub(super) fn new(node_name: &str) -> NodeStats {
        NodeStats {
            node_name: node_name.to_owned(),
            started: OnceLock::new(),
            shards: RwLock::default(),
            workers: OnceLock::new(),
            datagram_listeners: RwLock::default(),
            store: OnceLock::new(),
            condition: AtomicU8::new(Condition::Ok as u8),
        }
    }

    pub(super) fn node_name(&self) -> &str {
        &self.node_name
    }

    pub(super) fn add_shard(&self, shard: &Shard) {
        let numbers = (Arc::clone(shard.metrics()), Arc::clone(shard.stats()));
        self.shards
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(numbers);
    }

    /// Tells it whose connections to count.
    pub(super) fn connect(&self, workers: &[WorkerHandle]) {
        let counters = workers.iter().map(|worker| Arc::clone(worker.counters()));
        // Set once: a node starts its workers once.
        let _ = self.workers.set(counters.collect());
    }

    /// Tells it of a listener of MQTT-SN.
    pub(super) fn add_datagram_listener(
        &self,
        listener: &Arc<DatagramListener>,
        peers: Arc<mqtt_sn::peer::Counters>,
    ) {
        let listeners = self.datagram_listeners.write();
        listeners
            .unwrap_or_else(PoisonError::into_inner)
            .push((Arc::downgrade(listener), peers));
    }

    /// Tells it what to say of the store.
    pub(super) fn add_store(&self, stats: StorageStats) {
        // Set once: a node opens its store once.
        let _ = self.store.set(stats);
    }

    /// The lowest place of the log that some shard needs.
    pub(super) fn journal_low(stats: &Arc<NodeStats>) -> Low {
        let stats = Arc::clone(stats);
        Box::new(move || {
            let shards = stats.shards.read().unwrap_or_else(PoisonError::into_inner);
            let lows = shards.iter().map(|(_, stats)| stats.journal_low());
            lows.min().unwrap_or(Sequence::FIRST)
        })
    }

    /// Takes note of a new condition of the store, and publishes it at once.
    pub(super) fn tell_condition(stats: &Arc<NodeStats>, workers: &[WorkerHandle]) -> Told {
        let (stats, first) = (Arc::clone(stats), workers.first().cloned());
        Box::new(move |condition| {
            stats.condition.store(condition as u8, Relaxed);
            let topic = format!("$SYS/brokers/{}/store/state", stats.node_name);
            let publish = move |worker: &mut Worker| {
                let parts = MessageParts::new(&topic, condition.name().as_bytes());
                // The topic is short enough: it is published regularly.
                let now = worker.now();
                if let Some(message) = parts.publish(now, ClientInfo::system()) {
                    let _ = worker.shard().publish_internal(now, message);
                }
            };
            if let Some(Err(error)) = first.as_ref().map(|worker| worker.run(publish)) {
                tracing::debug!(%error, "the state of the store was not published");
            }
        })
    }

    /// When the node started: the first time that this is asked.
    pub(super) fn started(&self, clock: Clock) -> Timestamp {
        *self.started.get_or_init(|| clock.now())
    }

    pub(super) fn all(&self) -> Vec<(String, u64)> {
        let mut sums = BTreeMap::new();
        let mut add = |name: &str, value: u64| *sums.entry(name.to_owned()).or_insert(0) += value;
        self.metrics(&mut add);
        self.stats(&mut add);
        if let Some(store) = self.store.get() {
            store.visit(&mut |name, value| add(&format!("store.{name}"), value));
            add("store.state", self.condition.load(Relaxed).into());
        }
        sums.into_iter().collect()
    }

    /// What happened to connections: bytes under EMQX's names, ends by their reason, the rest below `driver`.
    fn transport(&self, visit: &mut dyn FnMut(&str, u64)) {
        let mut sums = BTreeMap::new();
        for counters in self.workers.get().into_iter().flatten() {
            for (name, value) in counters.iter() {
                let name = match name {
                    "bytes_received" => "bytes.received".to_owned(),
                    "bytes_sent" => "bytes.sent".to_owned(),
                    _ => format!("driver.{name}"),
                };
                *sums.entry(name).or_insert(0) += value;
            }
            for (reason, count) in counters.ends() {
                *sums.entry(format!("connections.closed.{reason}")).or_insert(0) += count;
            }
        }
        for (name, value) in sums {
            visit(&name, value);
        }
    }

    fn sum<const N: usize>(
        &self,
        numbers: impl Fn(&(Arc<Metrics>, Arc<Stats>)) -> [(&'static str, u64); N],
        visit: &mut dyn FnMut(&str, u64),
    ) {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let mut sums: Option<[(&'static str, u64); N]> = None;
        for shard in shards.iter() {
            let numbers = numbers(shard);
            match &mut sums {
                None => sums = Some(numbers),
                Some(sums) => {
                    for (sum, (_, value)) in sums.iter_mut().zip(numbers) {
                        sum.1 += value;
                    }
                }
            }
        }
        for (name, value) in sums.into_iter().flatten() {
            visit(name, value);
        }
    }
}

impl SysSource for NodeStats {
    fn nodes(&self) -> Vec<String> {
        vec![self.node_name.clone()]
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn sysdescr(&self) -> String {
        "Tidegate".to_owned()
    }

    fn stats(&self, visit: &mut dyn FnMut(&str, u64)) {
        self.sum(|(_, stats)| stats.values(), visit);
    }

    fn metrics(&self, visit: &mut dyn FnMut(&str, u64)) {
        self.sum(|(metrics, _)| metrics.values(), visit);
        self.transport(visit);
        let listeners = self.datagram_listeners.read();
        let listeners = listeners.unwrap_or_else(PoisonError::into_inner);
        let open = listeners
            .iter()
            .filter_map(|(listener, peers)| Some((listener.upgrade()?, Arc::clone(peers))));
        let open: Vec<_> = open.collect();
        mqttsn::count(&open, visit);
    }

    fn store(&self, visit: &mut dyn FnMut(&str, &str)) {
        let Some(store) = self.store.get() else { return };
        visit(
            "state",
            Condition::from_number(self.condition.load(Relaxed)).name(),
        );
        store.visit(&mut |name, value| visit(&name.replace('.', "/"), &value.to_string()));
    }
}

//! Counters and gauges of the whole node: the sums over its shards.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use broker_core::{
    Timestamp,
    hooks::SysSource,
    metrics::{Metrics, Stats},
    shard::Shard,
};
use driver::{Clock, WorkerHandle};

/// The sums over all shards of a node.
pub(super) struct NodeStats {
    node_name: String,
    started: OnceLock<Timestamp>,
    shards: RwLock<Vec<(Arc<Metrics>, Arc<Stats>)>>,
}

impl NodeStats {
    pub(super) fn new(node_name: &str) -> NodeStats {
        NodeStats {
            node_name: node_name.to_owned(),
            started: OnceLock::new(),
            shards: RwLock::default(),
        }
    }

    pub(super) fn add_shard(&self, shard: &Shard) {
        let numbers = (Arc::clone(shard.metrics()), Arc::clone(shard.stats()));
        self.shards
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(numbers);
    }

    /// When the node started: the first time that this is asked.
    pub(super) fn started(&self, clock: Clock) -> Timestamp {
        *self.started.get_or_init(|| clock.now())
    }

    pub(super) fn all(&self, workers: &[WorkerHandle]) -> Vec<(String, u64)> {
        let mut sums = BTreeMap::new();
        let mut add = |name: &str, value: u64| *sums.entry(name.to_owned()).or_insert(0) += value;
        self.metrics(&mut add);
        self.stats(&mut add);
        for worker in workers {
            for (name, value) in worker.counters().iter() {
                add(name, value);
            }
        }
        sums.into_iter().collect()
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
    }
}

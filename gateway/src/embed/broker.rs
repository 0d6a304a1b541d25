//! A broker inside a program.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use broker_core::{
    admission::{Authenticator, EnhancedAuthenticator},
    hooks::Hook,
    shard::shard_of,
    store::Durability,
};

use super::{BrokerError, ClientBuilder, callbacks::CallbackThread};
use crate::{
    config::{self, Origin, Settings, Sources},
    node::{Extensions, Node, StartError},
};

/// A broker that is about to start: made by [`Broker::builder`].
#[must_use = "nothing runs until `start` is called"]
#[derive(Default)]
pub struct BrokerBuilder {
    sources: Sources,
    extensions: Extensions,
}

impl BrokerBuilder {
    /// Reads this configuration file first. Without one the built-in defaults hold, with `durability = none`. The
    /// environment is not read.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> BrokerBuilder {
        self.sources.file = Some(path.into());
        self
    }

    /// Sets one key, as `--set KEY=VALUE` would: `set("listeners.tcp.default.bind", "127.0.0.1:1883")`. Later wins,
    /// and all win over the file.
    pub fn set(mut self, key: &str, value: &str) -> BrokerBuilder {
        self.sources.arguments.push(format!("{key}={value}"));
        self
    }

    /// Calls `hook` at the points it names; higher priorities first, the built-in hooks have 0 to 200. Hooks run on
    /// the data plane and must not block.
    pub fn hook(mut self, priority: i32, hook: impl Hook + 'static) -> BrokerBuilder {
        self.extensions = self.extensions.hook(priority, Arc::new(hook));
        self
    }

    /// Asks `authenticator` after the configured ones.
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> BrokerBuilder {
        self.extensions = self.extensions.authenticator(Arc::new(authenticator));
        self
    }

    /// Offers a method of enhanced authentication (MQTT 5 §4.12) to clients on the network.
    pub fn enhanced_authenticator(mut self, method: impl EnhancedAuthenticator + 'static) -> BrokerBuilder {
        self.extensions = self.extensions.enhanced_authenticator(Arc::new(method));
        self
    }

    /// Starts the broker, without any listener. It keeps everything in memory, unless `durability` is set to `sync` or
    /// `async`: then sessions and messages outlive it, in the directory `node.data_dir`.
    ///
    /// # Errors
    /// The configuration is wrong, the data directory or a file that it names cannot be used, or the system refuses
    /// threads.
    pub fn start(self) -> Result<Broker, BrokerError> {
        let mut loaded = config::load(&self.sources)?;
        if *loaded.origin("durability") == Origin::Default {
            // A library does not write files that nobody asked for.
            loaded.settings.store.durability = Durability::None;
        }
        Broker::start(loaded.settings, self.extensions)
    }
}

/// A broker inside this program: a whole node, with as many worker threads as configured (`node.workers`).
///
/// Dropped without [`Broker::shutdown`], it ends without a word to its clients.
pub struct Broker {
    settings: Settings,
    node: Node,
    callbacks: CallbackThread,
    /// Counts clients that leave their identifier to the broker: they are spread over the workers.
    anonymous: AtomicUsize,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({})", self.settings.broker.node_name)
    }
}

impl Broker {
    /// A broker to be configured.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Starts a broker from settings that are there already, their `durability` included.
    ///
    /// # Errors
    /// The data directory or a file that the settings name cannot be used, or the system refuses threads.
    pub fn start(settings: Settings, extensions: Extensions) -> Result<Broker, BrokerError> {
        let callbacks = CallbackThread::start().map_err(StartError::System)?;
        let node = Node::start(&settings, extensions)?;
        Ok(Broker {
            settings,
            node,
            callbacks,
            anonymous: AtomicUsize::new(0),
        })
    }

    /// Opens the configured listeners, for clients on the network. Without it the broker serves this process alone.
    ///
    /// # Errors
    /// The first that cannot be opened; those before it stay open.
    pub fn listen(&mut self) -> Result<(), BrokerError> {
        Ok(self.node.listen(&self.settings)?)
    }

    /// Names and addresses of the open listeners; the port is the real one where port 0 was configured.
    pub fn listening(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        self.node.listening()
    }

    /// A client of this broker, inside the process. An empty identifier asks the broker to assign one; one that is in
    /// use takes the session over, wherever that client is.
    pub fn client(&self, client_id: &str) -> ClientBuilder {
        let workers = self.node.workers();
        let handles = workers.handles();
        // A client belongs to one shard, and an attached peer is not moved there: it is attached where it belongs.
        let at = if client_id.is_empty() {
            self.anonymous.fetch_add(1, Ordering::Relaxed) % handles.len()
        } else {
            let shards = u16::try_from(handles.len()).expect("a node has at most SHARDS_MAX workers");
            usize::from(shard_of(client_id, shards).0)
        };
        ClientBuilder::new(
            handles[at].clone(),
            workers.clock(),
            self.callbacks.callbacks().clone(),
            self.settings.broker.mqtt.effective_receive_maximum(),
            client_id,
        )
    }

    /// Every counter and gauge with its value, summed over the workers.
    pub fn metrics(&self) -> Vec<(String, u64)> {
        self.node.metrics()
    }

    /// Ends the broker in order: clients are told, what waits is written, streams end, callbacks get what they were
    /// sent. Blocks for at most a few seconds, and as long as the callbacks take, so a callback must not wait for this
    /// thread. Must not be called by a hook.
    pub fn shutdown(self) {
        self.node.shutdown();
    }
}

//! What the peers of one listener have dropped or given up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that any thread may add to. Peers count what is out of the ordinary, so nobody waits for anybody here.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of the peers that share them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams that are no message.
    received_malformed,
    /// Messages that the state of their client does not allow.
    received_unexpected,
    /// Requests of clients that were repeated before they were answered.
    received_duplicate,
    /// PUBLISH and SUBSCRIBE with a topic id that nobody has registered.
    received_invalid_topic_id,
    /// Requests refused with "congestion", as too many of their client are under way.
    received_congestion,
    /// Messages sent again because their answer did not come in time.
    sent_again,
    /// Clients that did not answer N_RETRY times in a row.
    clients_lost,
    /// Deliveries of QoS 0 dropped, as too many wait for the client to accept topic ids.
    delivery_dropped_waiting_full,
    /// Deliveries dropped because no topic id is left for their topic.
    delivery_dropped_no_topic_id,
    /// Deliveries dropped because they fit into no datagram.
    delivery_dropped_too_large,
    /// Deliveries that the client refused, or whose topic it refused.
    delivery_refused,
    /// Deliveries of QoS 0 that came when their client had just gone to sleep.
    delivery_dropped_asleep,
    /// PUBLISH of QoS −1 with a topic that is neither predefined nor short.
    without_connection_invalid_topic,
    /// PUBLISH of QoS −1 that could not wait until their common client was admitted.
    without_connection_dropped,
}

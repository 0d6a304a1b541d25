//! Counters of a worker. Only the worker's thread writes them, so a plain load and store is enough: no
//! read-modify-write instruction stands in the data path. Any thread may read them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one worker, since its start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
            ends: Mutex<BTreeMap<&'static str, u64>>,
        }

        impl Counters {
            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }

            /// How many connections ended for which reason: the words of the log, such as `malformed_packet`. They
            /// are words of the program, never of a client, so there are few.
            pub fn ends(&self) -> BTreeMap<&'static str, u64> {
                self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }

            /// Counts the end of a connection. A lock, as a connection ends but once, and nobody holds it for long.
            #[cfg(feature = "net")]
            pub(crate) fn count_end(&self, reason: &'static str) {
                let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                *ends.entry(reason).or_default() += 1;
            }
        }
    };
}

counters! {
    /// Bytes read from sockets (after TLS, before WebSocket framing is removed).
    bytes_received,
    /// Bytes written to sockets (before TLS, WebSocket framing included).
    bytes_sent,
    /// Datagrams read from sockets, dropped ones included.
    datagrams_received,
    /// Datagrams that sockets have taken.
    datagrams_sent,
    /// Datagrams dropped; why, the listener counts.
    datagrams_dropped,
    /// Connections whose handshakes were done, and peers attached without a socket.
    connections_opened,
    /// Those that have ended. A link may move in between: only the sum over all workers says how many exist.
    connections_closed,
    /// Closed by the client: end of stream, or a WebSocket Close frame.
    closed_by_client,
    /// Closed because the peer's protocol said so.
    closed_by_peer,
    /// Closed by an error of the transport.
    closed_transport_error,
    /// Closed because the client took no bytes for `send_timeout`.
    closed_send_timeout,
    /// Closed because more than `outbox_bytes_max` waited for the client.
    closed_outbox_full,
    /// Closed because the client broke the WebSocket protocol (RFC 6455).
    closed_websocket_violation,
    /// Closed because the worker that it belongs to had too much to do.
    closed_overload,
    /// Closed by a call of the control plane, or by the shutdown.
    closed_by_server,
    /// Sockets dropped because they could not be registered with the event queue.
    accept_errors,
    /// TLS handshakes that failed, timeouts not counted.
    tls_handshake_failures,
    /// WebSocket handshakes that were refused, timeouts not counted.
    websocket_handshake_failures,
    /// Handshakes that took longer than `handshake_timeout`.
    handshake_timeouts,
    /// Times that a link went above its high-water mark.
    congestion_events,
    /// Times that a link was not read because the store was behind with what it had caused.
    links_held,
    /// Requests handed to the store.
    store_requests,
    /// Links that went to the worker of their client's shard.
    links_moved,
    /// Batches handed to other workers.
    batches_sent,
    /// Batches taken from other workers.
    batches_received,
    /// Batches for a worker that had ended already.
    batches_dropped,
    /// Times that another worker's full mailbox made this one stop reading.
    mailbox_full_events,
    /// Turns of the loop.
    turns,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds `n`. Only the thread that owns the counter may call it.
    #[cfg(feature = "net")]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

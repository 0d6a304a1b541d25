//! For tests of protocols: a [`Node`] of real shards that carries peers in virtual time, a [`LossyLink`] between a client
//! and its gateway, and a [`TestStore`] that outlives its node. One thread, no sockets, no clock; the same calls always
//! have the same effects.

mod lossy;
mod node;
mod random;
mod store;

pub use lossy::{LossyLink, Weather};
pub use node::Node;
pub use random::Random;
pub use store::{TestJournal, TestStore};

//! For tests of protocols: a [`Node`] of real shards that carries peers in virtual time, and a [`LossyLink`] between a
//! client and its gateway. One thread, no sockets, no clock; the same calls always have the same effects.

mod lossy;
mod node;
mod random;

pub use lossy::{LossyLink, Weather};
pub use node::Node;
pub use random::Random;

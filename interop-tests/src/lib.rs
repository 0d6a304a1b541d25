//! Real clients on real sockets, and the model check of the broker core.
//!
//! The model check drives a whole node of shards in one thread and in virtual time ([`sim`]), from one seed, through
//! random steps ([`model`]), and compares it with a naive broker written from the specification ([`mod@reference`]).

pub mod model;
pub mod reference;
pub mod sim;

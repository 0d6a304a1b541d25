//! What the load does; one scenario per file.

pub(crate) mod create;
pub(crate) mod drain;
pub(crate) mod fsync;
pub(crate) mod live;
pub(crate) mod publish;
mod publisher;
mod receiver;
pub(crate) mod sensors;

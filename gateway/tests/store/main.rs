//! What outlives a node: as a process, and by the commands of operators.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod command;
mod keys;
mod process;
#[allow(dead_code, reason = "the tests without a process use the rest")]
#[path = "../common/secured.rs"]
mod secured;
#[allow(dead_code, reason = "the tests without a process use the rest")]
#[path = "../common/sensor.rs"]
mod sensor;
mod sensors;

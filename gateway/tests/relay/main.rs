//! `tidegate mqttsn-gateway` as a process, between sensors (UDP) and two brokers: mosquitto, and Tidegate itself as a plain one.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

mod application;
mod process;
mod secured;
mod sensor;
mod stories;

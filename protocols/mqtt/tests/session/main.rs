//! Whole conversations of MQTT clients with the broker, in virtual time.

mod aliases;
mod authentication;
mod connecting;
mod delivery;
mod durable;
mod hooks;
mod hostile;
mod limits;
mod net;
mod publishing;
mod resuming;
mod retaining;
mod sharing;
mod subscribing;
mod wills;

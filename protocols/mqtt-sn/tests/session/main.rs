//! Conversations of MQTT-SN clients with a node, in virtual time.

mod connecting;
mod delivering;
mod device;
mod faults;
mod hostile;
mod net;
mod probe;
mod sleeping;
mod storing;
mod topics;

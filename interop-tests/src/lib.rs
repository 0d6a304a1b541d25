//! Real clients on real sockets, and the model check of the broker core.

//! Virtual time, a lossy link and a scripted peer for protocol tests.

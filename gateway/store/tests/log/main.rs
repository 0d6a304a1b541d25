//! The log of a store on files that fail and lose what was not synced.

#![allow(clippy::unwrap_used, reason = "a test fails where it is not as expected")]

mod client;
mod faults;
mod reserve;
mod segments;

//! The log: segments of frames, their topic indexes, and what of it is in memory.

pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod recover;
pub(crate) mod ring;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod view;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

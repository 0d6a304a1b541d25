//! How much a shard has to remember.

use super::Shard;

/// Sizes of a shard's tables. Once all clients are gone, all sessions have ended and everything retained and delayed
/// has expired, on every shard of the node, all of them are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Census {
    /// Connections, those that wait for admission included.
    pub links: usize,
    /// Sessions, with and without a connection.
    pub sessions: usize,
    /// Topic filters that lead to somebody on this node.
    pub filters: usize,
    /// SUBSCRIBE packets that wait for other shards.
    pub operations: usize,
    /// Subscriptions whose retained messages are on their way.
    pub replays: usize,
    /// Exclusive topics that this shard keeps account of.
    pub exclusive: usize,
    /// Questions to the control plane that somebody waits for.
    pub questions: usize,
    /// Retained messages that this shard keeps.
    pub retained: usize,
    /// Delayed messages.
    pub delayed: usize,
    /// Shared groups that this shard reads the journal for.
    pub groups: usize,
    /// Commits that are not complete.
    pub commits: usize,
}

impl Shard {
    /// Counts what the shard remembers. Costs nothing to speak of.
    pub fn census(&self) -> Census {
        Census {
            links: self.links.len(),
            sessions: self.sessions.len(),
            filters: self.index.len(),
            operations: self.operations.len(),
            replays: self.replays.len(),
            exclusive: self.exclusive.len(),
            questions: self.tickets.len(),
            retained: self.retained.len(),
            delayed: self.delayed.len(),
            groups: self.owned.len(),
            commits: self.commits.len(),
        }
    }
}

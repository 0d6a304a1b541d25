//! `$exclusive/<topic>`: a subscription that one client holds alone. The shard that a topic hashes to keeps account.

use crate::{ClientId, ShardId};

use super::{Shard, ShardMessage, partition};

impl Shard {
    /// The shard that keeps account of a topic.
    pub(super) fn keeper(&self, topic: &str) -> ShardId {
        partition(topic, self.shards)
    }

    /// Claims `topic` for a filter of an operation. `Some`: decided at once.
    pub(super) fn claim_exclusive(
        &mut self,
        client_id: ClientId,
        operation: u64,
        at: usize,
        topic: &str,
    ) -> Option<bool> {
        let keeper = self.keeper(topic);
        if keeper == self.id {
            return Some(self.grant_exclusive(topic, &client_id));
        }
        let topic = topic.into();
        self.outbound.push(
            keeper,
            ShardMessage::ExclusiveClaim {
                operation,
                at,
                topic,
                client_id,
            },
        );
        None
    }

    /// True if `client_id` now holds `topic`, or held it already.
    pub(super) fn grant_exclusive(&mut self, topic: &str, client_id: &ClientId) -> bool {
        match self.exclusive.get(topic) {
            Some(holder) => holder == client_id,
            None => {
                self.exclusive.insert(topic.into(), client_id.clone());
                true
            }
        }
    }

    /// The client's subscription on `topic` has ended.
    pub(super) fn release_exclusive(&mut self, client_id: &ClientId, topic: &str) {
        let keeper = self.keeper(topic);
        if keeper == self.id {
            self.forget_exclusive(topic, client_id);
        } else {
            let message = ShardMessage::ExclusiveRelease {
                topic: topic.into(),
                client_id: client_id.clone(),
            };
            self.outbound.push(keeper, message);
        }
    }

    pub(super) fn forget_exclusive(&mut self, topic: &str, client_id: &ClientId) {
        if self.exclusive.get(topic) == Some(client_id) {
            self.exclusive.remove(topic);
        }
    }
}

//! What the other shards of the node say.

use crate::{ShardId, Timestamp};

use super::{RouteChange, Shard, ShardMessage, retain::Lookup, route::Member};

impl Shard {
    pub(super) fn handle_message(&mut self, now: Timestamp, from: ShardId, message: ShardMessage) {
        match message {
            ShardMessage::Publish(message, is_stored) => self.route_forwarded(now, &message, is_stored),
            ShardMessage::Dispatch { to, target, message } => self.deliver_shared(now, &to, &target, message),
            ShardMessage::Lease {
                to,
                target,
                sequence,
                message,
                is_repeated,
            } => self.deliver_lease(now, &to, &target, sequence, message, is_repeated),
            ShardMessage::Settled {
                target,
                sequence,
                is_taken,
            } => self.lease_settled(&target, sequence, is_taken),
            ShardMessage::Returned {
                target,
                sequence,
                was_sent,
            } => self.lease_returned(&target, sequence, was_sent),
            ShardMessage::Route(change) => self.change_route(from, change),
            ShardMessage::Barrier(operation) => self.pass(from, operation),
            ShardMessage::Passed(operation) => self.operation_passed(now, operation),
            ShardMessage::Retain(message) => self.retain_early(&message),
            ShardMessage::RetainFailed(message) => self.retained_for_now(&message),
            ShardMessage::RetainedQuery {
                replay,
                filter,
                after,
            } => {
                self.look_up(Lookup {
                    asker: from,
                    replay,
                    filter,
                    after,
                });
            }
            ShardMessage::RetainedPage {
                replay,
                messages,
                next,
            } => {
                self.fill_replay(replay, messages, next);
            }
            ShardMessage::ExclusiveClaim {
                operation,
                at,
                topic,
                client_id,
            } => {
                let granted = self.grant_exclusive(&topic, &client_id);
                self.outbound.push(
                    from,
                    ShardMessage::ExclusiveAnswer {
                        operation,
                        at,
                        granted,
                    },
                );
            }
            ShardMessage::ExclusiveAnswer {
                operation,
                at,
                granted,
            } => {
                self.exclusive_answered(now, operation, at, granted);
            }
            ShardMessage::ExclusiveRelease { topic, client_id } => self.forget_exclusive(&topic, &client_id),
        }
    }

    fn change_route(&mut self, from: ShardId, change: RouteChange) {
        match change {
            RouteChange::Add { filter, durable } => {
                let id = self.index.insert(&filter);
                self.index.get_mut(id).remote_mut(durable).insert(from);
            }
            RouteChange::Remove { filter, durable } => {
                if let Some(id) = self.index.find(&filter) {
                    self.index.get_mut(id).remote_mut(durable).remove(from);
                    self.drop_route_if_empty(id);
                }
            }
            RouteChange::Member {
                target,
                client_id,
                online,
                durable,
            } => {
                let member = Member {
                    shard: from,
                    client_id,
                    durable,
                };
                self.add_member(&target.filter, &target.group, member, online);
            }
            RouteChange::Leave { target, client_id } => {
                self.remove_member(&target.filter, &target.group, &client_id);
            }
        }
    }
}

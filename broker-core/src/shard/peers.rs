//! What the other shards of the node say.

use crate::{ShardId, Timestamp};

use super::{RouteChange, Shard, ShardMessage, retain::Lookup, route::Member};

impl Shard {
    pub(super) fn handle_message(&mut self, now: Timestamp, from: ShardId, message: ShardMessage) {
        match message {
            ShardMessage::Publish(message) => self.route_forwarded(now, &message),
            ShardMessage::Dispatch { to, target, message } => self.deliver_shared(now, &to, &target, message),
            ShardMessage::Route(change) => self.change_route(from, change),
            ShardMessage::Barrier(operation) => self.outbound.push(from, ShardMessage::Passed(operation)),
            ShardMessage::Passed(operation) => self.operation_passed(now, operation),
            ShardMessage::Retain(message) => self.retain_here(&message),
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
            RouteChange::Add(filter) => {
                let id = self.index.insert(&filter);
                self.index.get_mut(id).remote.insert(from);
            }
            RouteChange::Remove(filter) => {
                if let Some(id) = self.index.find(&filter) {
                    self.index.get_mut(id).remote.remove(from);
                    self.drop_route_if_empty(id);
                }
            }
            RouteChange::Member {
                target,
                client_id,
                online,
            } => {
                let id = self.index.insert(&target.filter);
                let member = Member {
                    shard: from,
                    client_id,
                };
                self.index
                    .get_mut(id)
                    .group_or_insert(&target.filter, &target.group)
                    .set(member, online);
            }
            RouteChange::Leave { target, client_id } => {
                if let Some(id) = self.index.find(&target.filter) {
                    self.index.get_mut(id).leave_group(&target.group, &client_id);
                    self.drop_route_if_empty(id);
                }
            }
        }
    }
}

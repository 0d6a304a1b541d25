//! All hooks of a node: one method per point, a one-liner for the shard.

use std::{fmt, sync::Arc};

use super::{
    ClientConnected, ClientDisconnected, Hook, HookContext, HookPoint, HookPoints, PublishVerdict,
    Subscribing, TopicUse,
};
use crate::{
    ClientId, ClientInfo, Connect, DisconnectCause, Message, ReasonCode, Subscribe, SubscribeOptions,
    Timestamp, Unsubscribe,
    admission::{Action, Authentication, Credentials, Verdict},
    topic,
};

/// The hooks, by priority. A point that no hook wants costs one test of a bit.
///
/// Each method asks [`Hooks::wants`] itself. Call `wants` first only where the arguments cost something to make.
#[derive(Clone, Default)]
pub struct Hooks {
    hooks: Vec<Registered>,
    wanted: HookPoints,
}

#[derive(Clone)]
struct Registered {
    priority: i32,
    points: HookPoints,
    hook: Arc<dyn Hook>,
}

impl Hooks {
    /// No hooks.
    pub fn new() -> Hooks {
        Hooks::default()
    }

    /// Adds a hook behind all of its priority or higher.
    pub fn register(&mut self, priority: i32, hook: Arc<dyn Hook>) {
        let points = hook.points();
        let at = self.hooks.partition_point(|known| known.priority >= priority);
        self.wanted = self.wanted.union(points);
        self.hooks.insert(
            at,
            Registered {
                priority,
                points,
                hook,
            },
        );
    }

    /// True if some hook wants to be called at `point`.
    pub fn wants(&self, point: HookPoint) -> bool {
        self.wanted.contains(point)
    }

    fn at(&self, point: HookPoint) -> impl Iterator<Item = &dyn Hook> {
        let hooks = if self.wants(point) { &self.hooks[..] } else { &[] };
        hooks
            .iter()
            .filter(move |known| known.points.contains(point))
            .map(|known| &*known.hook)
    }

    /// `client.connect`.
    ///
    /// # Errors
    ///
    /// The code of the first hook that refuses the client.
    pub fn client_connect(&self, ctx: &mut HookContext<'_>, connect: &mut Connect) -> Result<(), ReasonCode> {
        self.at(HookPoint::ClientConnect)
            .try_for_each(|hook| hook.client_connect(ctx, connect))
    }

    /// `client.connack`, admitted or refused.
    pub fn client_connack(
        &self,
        ctx: &mut HookContext<'_>,
        connect: &Connect,
        reason: ReasonCode,
        user_properties: &mut Vec<(String, String)>,
    ) {
        for hook in self.at(HookPoint::ClientConnack) {
            hook.client_connack(ctx, connect, reason, user_properties);
        }
    }

    /// `client.connected`.
    pub fn client_connected(&self, ctx: &mut HookContext<'_>, connected: &ClientConnected<'_>) {
        for hook in self.at(HookPoint::ClientConnected) {
            hook.client_connected(ctx, connected);
        }
    }

    /// `client.disconnected`.
    pub fn client_disconnected(&self, ctx: &mut HookContext<'_>, disconnected: &ClientDisconnected<'_>) {
        for hook in self.at(HookPoint::ClientDisconnected) {
            hook.client_disconnected(ctx, disconnected);
        }
    }

    /// `client.authenticate`: the first answer that is not [`Authentication::Ignore`].
    pub fn client_authenticate(
        &self,
        ctx: &mut HookContext<'_>,
        credentials: &Credentials<'_>,
    ) -> Authentication {
        self.at(HookPoint::ClientAuthenticate)
            .map(|hook| hook.client_authenticate(ctx, credentials))
            .find(|answer| *answer != Authentication::Ignore)
            .unwrap_or(Authentication::Ignore)
    }

    /// `client.authorize`: the first answer that is not [`Verdict::Ignore`].
    pub fn client_authorize(
        &self,
        ctx: &mut HookContext<'_>,
        client: &ClientInfo,
        action: Action,
        topic: &str,
    ) -> Verdict {
        self.at(HookPoint::ClientAuthorize)
            .map(|hook| hook.client_authorize(ctx, client, action, topic))
            .find(|verdict| *verdict != Verdict::Ignore)
            .unwrap_or(Verdict::Ignore)
    }

    /// `client.subscribe`. Returns, per filter, the code that refuses it; empty if no hook wants the point. A
    /// filter that a hook made invalid is refused.
    pub fn client_subscribe(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        subscribe: &mut Subscribe,
    ) -> Vec<Option<ReasonCode>> {
        if !self.wants(HookPoint::ClientSubscribe) {
            return Vec::new();
        }
        let mut denied = vec![None; subscribe.filters.len()];
        for hook in self.at(HookPoint::ClientSubscribe) {
            let mut subscribing = Subscribing {
                filters: &mut subscribe.filters,
                denied: &mut denied,
                user_properties: &subscribe.user_properties,
            };
            hook.client_subscribe(ctx, client, &mut subscribing);
        }
        for ((filter, _), code) in subscribe.filters.iter().zip(&mut denied) {
            if code.is_none() && !topic::is_valid_filter(filter) {
                *code = Some(ReasonCode::TopicFilterInvalid);
            }
        }
        denied
    }

    /// `client.unsubscribe`.
    pub fn client_unsubscribe(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        unsubscribe: &mut Unsubscribe,
    ) {
        for hook in self.at(HookPoint::ClientUnsubscribe) {
            hook.client_unsubscribe(
                ctx,
                client,
                &mut unsubscribe.filters,
                &unsubscribe.user_properties,
            );
        }
    }

    /// `session.created`.
    pub fn session_created(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>) {
        for hook in self.at(HookPoint::SessionCreated) {
            hook.session_created(ctx, client);
        }
    }

    /// `session.subscribed`.
    pub fn session_subscribed(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        filter: &str,
        options: SubscribeOptions,
        is_new: bool,
    ) {
        for hook in self.at(HookPoint::SessionSubscribed) {
            hook.session_subscribed(ctx, client, filter, options, is_new);
        }
    }

    /// `session.unsubscribed`.
    pub fn session_unsubscribed(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        filter: &str,
        options: SubscribeOptions,
    ) {
        for hook in self.at(HookPoint::SessionUnsubscribed) {
            hook.session_unsubscribed(ctx, client, filter, options);
        }
    }

    /// `session.resumed`.
    pub fn session_resumed(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>) {
        for hook in self.at(HookPoint::SessionResumed) {
            hook.session_resumed(ctx, client);
        }
    }

    /// `session.discarded`.
    pub fn session_discarded(&self, ctx: &mut HookContext<'_>, client_id: &ClientId) {
        for hook in self.at(HookPoint::SessionDiscarded) {
            hook.session_discarded(ctx, client_id);
        }
    }

    /// `session.takenover`.
    pub fn session_taken_over(&self, ctx: &mut HookContext<'_>, client_id: &ClientId) {
        for hook in self.at(HookPoint::SessionTakenOver) {
            hook.session_taken_over(ctx, client_id);
        }
    }

    /// `session.terminated`.
    pub fn session_terminated(
        &self,
        ctx: &mut HookContext<'_>,
        client_id: &ClientId,
        cause: Option<DisconnectCause>,
    ) {
        for hook in self.at(HookPoint::SessionTerminated) {
            hook.session_terminated(ctx, client_id, cause);
        }
    }

    /// `message.publish`: the message to route.
    ///
    /// # Errors
    ///
    /// The code for the publisher, if a hook dropped the message; it need not be an error code.
    pub fn message_publish(
        &self,
        ctx: &mut HookContext<'_>,
        mut message: Message,
    ) -> Result<Message, ReasonCode> {
        for hook in self.at(HookPoint::MessagePublish) {
            match hook.message_publish(ctx, &message) {
                PublishVerdict::Continue => {}
                PublishVerdict::Replace(other) => message = other,
                PublishVerdict::Stop(other) => return Ok(other),
                PublishVerdict::Drop(reason) => return Err(reason),
            }
        }
        Ok(message)
    }

    /// `message.delivered`.
    pub fn message_delivered(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>, message: &Message) {
        for hook in self.at(HookPoint::MessageDelivered) {
            hook.message_delivered(ctx, client, message);
        }
    }

    /// `message.dropped`.
    pub fn message_dropped(
        &self,
        ctx: &mut HookContext<'_>,
        message: &Message,
        client: Option<&Arc<ClientInfo>>,
        reason: &'static str,
    ) {
        for hook in self.at(HookPoint::MessageDropped) {
            hook.message_dropped(ctx, message, client, reason);
        }
    }

    /// `message.acked`.
    pub fn message_acked(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>, message: &Message) {
        for hook in self.at(HookPoint::MessageAcked) {
            hook.message_acked(ctx, client, message);
        }
    }

    /// `topic.rewrite`: the topic to use instead, in the client's own words; `None`: as it is. Each hook sees
    /// what the one before made of it. A result that is not a valid topic name or filter is not used.
    pub fn topic_rewrite(&self, client: &ClientInfo, topic_use: TopicUse, topic: &str) -> Option<String> {
        let mut current: Option<String> = None;
        for hook in self.at(HookPoint::TopicRewrite) {
            let from = current.as_deref().unwrap_or(topic);
            let Some(rewritten) = hook.topic_rewrite(client, topic_use, from) else {
                continue;
            };
            let valid = match topic_use {
                TopicUse::Publish => topic::is_valid_name(&rewritten),
                TopicUse::Subscribe | TopicUse::Unsubscribe => topic::is_valid_filter(&rewritten),
            };
            if valid {
                current = Some(rewritten);
            }
        }
        current
    }

    /// When [`Hooks::tick`] must be called, if at all.
    pub fn next_tick(&self) -> Option<Timestamp> {
        self.at(HookPoint::Tick).filter_map(Hook::next_tick).min()
    }

    /// `tick`: calls the hooks whose time has come.
    pub fn tick(&self, ctx: &mut HookContext<'_>) {
        for hook in self.at(HookPoint::Tick) {
            if hook.next_tick().is_some_and(|due| due <= ctx.now) {
                hook.tick(ctx);
            }
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.hooks.iter().map(|known| (known.priority, known.hook.name())))
            .finish()
    }
}

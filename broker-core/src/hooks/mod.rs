//! Hooks: code that is called at the points that EMQX names, from `client.connect` to `message.acked`.
//!
//! Hooks run on the data plane, in the middle of a shard's work: they must not block. What takes longer goes to a
//! queue of the hook's own. What a hook wants done comes back as [`HookEffect`]s.

mod auto_subscribe;
mod context;
mod json;
mod presence;
mod registry;
mod rewrite;
mod sys_topics;

use std::sync::Arc;

pub use auto_subscribe::{AutoSubscribe, AutoSubscribeTopic};
pub use context::{ClientConnected, ClientDisconnected, HookContext, HookEffect, HookEffects, Subscribing};
pub use presence::Presence;
pub use registry::Hooks;
pub use rewrite::{Rewrite, RewriteAction, RewriteError, RewriteRule};
pub use sys_topics::{SysIntervals, SysSource, SysTopics};

use crate::{
    ClientId, ClientInfo, Connect, DisconnectCause, Message, ReasonCode, SubscribeOptions, Timestamp,
    admission::{Action, Authentication, Credentials, Verdict},
};

macro_rules! hook_points {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A point at which hooks are called.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum HookPoint {
            $(#[doc = concat!("`", $text, "`")] $(#[$doc])* $name,)*
        }

        impl HookPoint {
            /// All points.
            pub const ALL: &'static [HookPoint] = &[$(HookPoint::$name,)*];

            /// The name that EMQX gave it; `topic.rewrite` and `tick` are our own.
            pub const fn name(self) -> &'static str {
                match self {
                    $(HookPoint::$name => $text,)*
                }
            }
        }
    };
}

hook_points! {
    ClientConnect = "client.connect";
    ClientConnack = "client.connack";
    ClientConnected = "client.connected";
    ClientDisconnected = "client.disconnected";
    ClientAuthenticate = "client.authenticate";
    ClientAuthorize = "client.authorize";
    ClientSubscribe = "client.subscribe";
    ClientUnsubscribe = "client.unsubscribe";
    SessionCreated = "session.created";
    SessionSubscribed = "session.subscribed";
    SessionUnsubscribed = "session.unsubscribed";
    SessionResumed = "session.resumed";
    SessionDiscarded = "session.discarded";
    SessionTakenOver = "session.takenover";
    SessionTerminated = "session.terminated";
    MessagePublish = "message.publish";
    MessageDelivered = "message.delivered";
    MessageDropped = "message.dropped";
    MessageAcked = "message.acked";
    /// Before authorization, on every topic and filter that a client names.
    TopicRewrite = "topic.rewrite";
    /// Housekeeping, on shard 0 only.
    Tick = "tick";
}

/// A set of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HookPoints(u32);

impl HookPoints {
    /// No point.
    pub const NONE: HookPoints = HookPoints(0);

    /// These points.
    pub const fn of(points: &[HookPoint]) -> HookPoints {
        let mut bits = 0;
        let mut at = 0;
        while at < points.len() {
            bits |= 1 << points[at] as u32;
            at += 1;
        }
        HookPoints(bits)
    }

    /// True if `point` is among them.
    pub const fn contains(self, point: HookPoint) -> bool {
        self.0 & (1 << point as u32) != 0
    }

    /// The points of both.
    #[must_use]
    pub const fn union(self, other: HookPoints) -> HookPoints {
        HookPoints(self.0 | other.0)
    }
}

/// What `message.publish` makes of a message.
#[derive(Clone, Debug)]
pub enum PublishVerdict {
    /// It goes on to the next hook.
    Continue,
    /// This one goes on to the next hook instead.
    Replace(Message),
    /// This one is published; later hooks are not asked.
    Stop(Message),
    /// Nothing is published; later hooks are not asked. The publisher is told this code; one below 0x80 tells it
    /// nothing of the drop.
    Drop(ReasonCode),
}

/// What a topic is going to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicUse {
    /// Topic name of a message or of a Will.
    Publish,
    /// Topic filter of a subscription.
    Subscribe,
    /// Topic filter of a subscription that ends.
    Unsubscribe,
}

/// Code that is called at the points it names. Every method does nothing unless written.
///
/// One hook serves all shards: it is called from their threads at once. A hook of higher priority is called first;
/// among equals, the one registered first.
#[expect(
    unused_variables,
    reason = "the parameters of methods that do nothing are documentation"
)]
pub trait Hook: Send + Sync {
    /// Name for logs and counters.
    fn name(&self) -> &str;

    /// The points it wants; asked once, when it is registered. Methods of other points are never called.
    fn points(&self) -> HookPoints;

    /// `client.connect`: before anything is checked. May edit what the client asks for, except its client id: that
    /// stays as it came, since it has said which worker the connection belongs to.
    ///
    /// # Errors
    ///
    /// The code that refuses the client; later hooks are not asked.
    fn client_connect(&self, ctx: &mut HookContext<'_>, connect: &mut Connect) -> Result<(), ReasonCode> {
        Ok(())
    }

    /// `client.connack`: the answer is about to be sent. `user_properties` are those of the answer.
    fn client_connack(
        &self,
        ctx: &mut HookContext<'_>,
        connect: &Connect,
        reason: ReasonCode,
        user_properties: &mut Vec<(String, String)>,
    ) {
    }

    /// `client.connected`: admitted, its session is there.
    fn client_connected(&self, ctx: &mut HookContext<'_>, connected: &ClientConnected<'_>) {}

    /// `client.disconnected`.
    fn client_disconnected(&self, ctx: &mut HookContext<'_>, disconnected: &ClientDisconnected<'_>) {}

    /// `client.authenticate`: before the chain of authenticators. Anything but [`Authentication::Ignore`] decides.
    fn client_authenticate(
        &self,
        ctx: &mut HookContext<'_>,
        credentials: &Credentials<'_>,
    ) -> Authentication {
        Authentication::Ignore
    }

    /// `client.authorize`: before the sources of authorization and their cache. Anything but [`Verdict::Ignore`]
    /// decides. `topic` as in [`crate::admission::Authorizer::authorize`].
    fn client_authorize(
        &self,
        ctx: &mut HookContext<'_>,
        client: &ClientInfo,
        action: Action,
        topic: &str,
    ) -> Verdict {
        Verdict::Ignore
    }

    /// `client.subscribe`: before authorization.
    fn client_subscribe(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        subscribing: &mut Subscribing<'_>,
    ) {
    }

    /// `client.unsubscribe`: filters may change, but neither their number nor their order.
    fn client_unsubscribe(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        filters: &mut [String],
        user_properties: &[(String, String)],
    ) {
    }

    /// `session.created`.
    fn session_created(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>) {}

    /// `session.subscribed`; `filter` in the client's words, `is_new` unless it replaced a subscription.
    fn session_subscribed(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        filter: &str,
        options: SubscribeOptions,
        is_new: bool,
    ) {
    }

    /// `session.unsubscribed`; `options` are those that it had.
    fn session_unsubscribed(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        filter: &str,
        options: SubscribeOptions,
    ) {
    }

    /// `session.resumed`.
    fn session_resumed(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>) {}

    /// `session.discarded`: by a clean start.
    fn session_discarded(&self, ctx: &mut HookContext<'_>, client_id: &ClientId) {}

    /// `session.takenover`: by another connection of the same client.
    fn session_taken_over(&self, ctx: &mut HookContext<'_>, client_id: &ClientId) {}

    /// `session.terminated`; `cause` is `None` if the session expired while its client was away.
    fn session_terminated(
        &self,
        ctx: &mut HookContext<'_>,
        client_id: &ClientId,
        cause: Option<DisconnectCause>,
    ) {
    }

    /// `message.publish`: authorized, about to be routed. Its topic is absolute.
    fn message_publish(&self, ctx: &mut HookContext<'_>, message: &Message) -> PublishVerdict {
        PublishVerdict::Continue
    }

    /// `message.delivered`: handed to the peer of `client`.
    fn message_delivered(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>, message: &Message) {}

    /// `message.dropped`: `reason` is a stable word such as `no_subscribers`, `queue_full`, `expired`. `client` is
    /// whom it was meant for; `None`: the message as a whole went nowhere.
    fn message_dropped(
        &self,
        ctx: &mut HookContext<'_>,
        message: &Message,
        client: Option<&Arc<ClientInfo>>,
        reason: &'static str,
    ) {
    }

    /// `message.acked`: a delivery of QoS 1 or 2 is complete.
    fn message_acked(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>, message: &Message) {}

    /// `topic.rewrite`: the topic to use instead of `topic`, in the client's own words (no mountpoint; a filter
    /// with its `$share/GROUP/`); `None` leaves it. Must give the same answer for subscribing and unsubscribing.
    fn topic_rewrite(&self, client: &ClientInfo, topic_use: TopicUse, topic: &str) -> Option<String> {
        None
    }

    /// When [`Hook::tick`] is to be called next, if at all. Asked on shard 0 at its start and after each tick.
    fn next_tick(&self) -> Option<Timestamp> {
        None
    }

    /// `tick`: the time of [`Hook::next_tick`] has come.
    fn tick(&self, ctx: &mut HookContext<'_>) {}
}

#[cfg(test)]
mod tests;

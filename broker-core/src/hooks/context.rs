//! What a hook knows and may cause.

use std::sync::Arc;

use crate::{ClientId, ClientInfo, Message, MessageParts, ReasonCode, SubscribeOptions, Timestamp};

/// What a hook is given besides the facts of its point.
#[derive(Debug)]
pub struct HookContext<'a> {
    /// The time.
    pub now: Timestamp,
    /// Name of this node.
    pub node_name: &'a str,
    /// What the hook wants done.
    pub effects: &'a mut HookEffects,
}

impl<'a> HookContext<'a> {
    /// The context of one point.
    pub fn new(now: Timestamp, node_name: &'a str, effects: &'a mut HookEffects) -> HookContext<'a> {
        HookContext {
            now,
            node_name,
            effects,
        }
    }

    /// Publishes a message of the gateway's own, under an absolute topic. A topic longer than 65 535 bytes is
    /// dropped and counted.
    pub fn publish(&mut self, parts: &MessageParts<'_>) {
        match parts.publish_absolute(self.now, ClientInfo::system()) {
            Some(message) => self.effects.push(HookEffect::Publish(message)),
            None => self.effects.dropped += 1,
        }
    }
}

/// Something that a hook wants done. The client must be the one that the point was about: a shard acts on its own
/// clients only, and ignores what names another one.
#[derive(Clone, Debug)]
pub enum HookEffect {
    /// Route this message. It passes neither authorization nor `message.publish`, so a hook never meets its own
    /// messages.
    Publish(Message),
    /// Subscribe the client; filters in its own words. Passes neither authorization nor `client.subscribe`.
    Subscribe(ClientId, Vec<(String, SubscribeOptions)>),
    /// End subscriptions of the client; filters in its own words.
    Unsubscribe(ClientId, Vec<String>),
    /// End the client's connection.
    Disconnect(ClientId, ReasonCode),
}

/// What hooks want done, in order. The shard takes it after the point.
#[derive(Debug, Default)]
pub struct HookEffects {
    effects: Vec<HookEffect>,
    dropped: u64,
}

impl HookEffects {
    /// Most effects between two takings; more are dropped and counted, so a faulty hook cannot exhaust memory.
    pub const MAX: usize = 4096;

    /// Appends an effect.
    pub fn push(&mut self, effect: HookEffect) {
        if self.effects.len() < HookEffects::MAX {
            self.effects.push(effect);
        } else {
            self.dropped += 1;
        }
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Takes what there is to do, in order. The buffer stays for the next time.
    pub fn drain(&mut self) -> impl Iterator<Item = HookEffect> + '_ {
        self.effects.drain(..)
    }

    /// Effects dropped so far: beyond [`HookEffects::MAX`], or with a topic too long.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// A client that has been admitted, at `client.connected`.
#[derive(Clone, Copy, Debug)]
pub struct ClientConnected<'a> {
    /// Who it is.
    pub client: &'a Arc<ClientInfo>,
    /// When it was admitted.
    pub connected_at: Timestamp,
    /// Keep alive in force, seconds; 0: none.
    pub keep_alive: u16,
    /// It discarded an earlier session.
    pub clean_start: bool,
    /// Seconds that its session outlives the connection.
    pub session_expiry_interval: u32,
    /// Deliveries of QoS 1 and 2 that it accepts at once.
    pub receive_maximum: u16,
    /// It declared itself a bridge.
    pub is_bridge: bool,
    /// It resumed a session.
    pub session_present: bool,
    /// User properties of its CONNECT.
    pub user_properties: &'a [(String, String)],
}

/// A client whose connection has ended, at `client.disconnected`.
#[derive(Clone, Copy, Debug)]
pub struct ClientDisconnected<'a> {
    /// Who it was.
    pub client: &'a Arc<ClientInfo>,
    /// When it had been admitted.
    pub connected_at: Timestamp,
    /// Why it ended.
    pub cause: crate::DisconnectCause,
    /// User properties of its DISCONNECT.
    pub user_properties: &'a [(String, String)],
}

/// A SUBSCRIBE as hooks may edit it: filters may change, but neither their number nor their order, since each one
/// has its code in the SUBACK [MQTT-3.8.4-6].
#[derive(Debug)]
pub struct Subscribing<'a> {
    /// Filters in the client's words and their options.
    pub filters: &'a mut [(String, SubscribeOptions)],
    /// Per filter: the code that refuses it.
    pub denied: &'a mut [Option<ReasonCode>],
    /// User properties of the SUBSCRIBE.
    pub user_properties: &'a [(String, String)],
}

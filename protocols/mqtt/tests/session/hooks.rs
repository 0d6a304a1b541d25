//! Extensions that refuse, drop and disconnect with whatever code they like.

use std::sync::Arc;

use broker_core::{
    ClientInfo, Message, ReasonCode,
    hooks::{Hook, HookContext, HookEffect, HookPoint, HookPoints, PublishVerdict, Subscribing},
};
use mqtt::codec::{Connect, Packet};

use crate::net::*;

/// Answers everything with one code.
struct Refusing(ReasonCode);

impl Hook for Refusing {
    fn name(&self) -> &str {
        "refusing"
    }

    fn points(&self) -> HookPoints {
        HookPoints::of(&[
            HookPoint::ClientConnect,
            HookPoint::ClientSubscribe,
            HookPoint::MessagePublish,
            HookPoint::ClientUnsubscribe,
        ])
    }

    fn client_connect(
        &self,
        _: &mut HookContext<'_>,
        connect: &mut broker_core::Connect,
    ) -> Result<(), ReasonCode> {
        if connect.client_id == "good" {
            Ok(())
        } else {
            Err(self.0)
        }
    }

    fn client_subscribe(
        &self,
        _: &mut HookContext<'_>,
        _: &Arc<ClientInfo>,
        subscribing: &mut Subscribing<'_>,
    ) {
        subscribing.denied.fill(Some(self.0));
    }

    fn message_publish(&self, _: &mut HookContext<'_>, _: &Message) -> PublishVerdict {
        PublishVerdict::Drop(self.0)
    }

    fn client_unsubscribe(
        &self,
        ctx: &mut HookContext<'_>,
        client: &Arc<ClientInfo>,
        _: &mut [String],
        _: &[(String, String)],
    ) {
        let effect = HookEffect::Disconnect(client.client_id.clone(), self.0);
        ctx.effects.push(effect);
    }
}

/// What clients may be told instead of a code that the packet type does not have (§2.4, Table 2-6).
#[test]
fn a_packet_carries_only_codes_that_it_has() {
    use ReasonCode::*;
    // The hook's code, then those of CONNACK, PUBACK, SUBACK and DISCONNECT.
    for (given, [connack, puback_code, suback_code, disconnect]) in [
        (QuotaExceeded, [QuotaExceeded; 4]),
        (Banned, [Banned, NotAuthorized, NotAuthorized, NotAuthorized]),
        (
            ServerShuttingDown,
            [
                ServerUnavailable,
                UnspecifiedError,
                UnspecifiedError,
                ServerShuttingDown,
            ],
        ),
        (
            TopicAliasInvalid,
            [
                ProtocolError,
                UnspecifiedError,
                UnspecifiedError,
                TopicAliasInvalid,
            ],
        ),
        (
            PacketIdentifierNotFound,
            [
                UnspecifiedError,
                UnspecifiedError,
                UnspecifiedError,
                UnspecifiedError,
            ],
        ),
    ] {
        let mut common = anonymous();
        common.hooks.register(0, Arc::new(Refusing(given)));
        let mut net = Net::with_common(1, common, "");
        let client = net.dial(Connect::new(V5, "bad"));
        assert_eq!(net.connack(client).reason, connack, "{given:?}");
        net.expect_closed(client);
        let client = net.client(V5, "good");
        net.send(client, Packet::Publish(acked("t", "", Q1, 1)));
        net.expect(client, because(puback(1), puback_code));
        net.send(client, Packet::Publish(acked("t", "", Q2, 2)));
        net.expect(client, because(pubrec(2), puback_code));
        net.send(client, subscribe(3, &[sub("t", Q0)]));
        net.expect(client, suback(3, &[suback_code]));
        net.send(client, unsubscribe(4, &["t"]));
        let packets = net.take(client);
        assert_eq!(packets[0], unsuback(4, &[NoSubscriptionExisted]));
        assert_eq!(
            packets[1],
            Packet::Disconnect(mqtt::codec::Disconnect::new(disconnect))
        );
        net.expect_closed(client);
    }
}

#[test]
fn a_refusal_is_never_a_success() {
    let mut common = anonymous();
    common.hooks.register(0, Arc::new(Refusing(ReasonCode::Success)));
    let mut net = Net::with_common(1, common, "");
    for version in [V4, V5] {
        let client = net.dial(Connect::new(version, "bad"));
        assert!(net.connack(client).reason.is_error());
        net.expect_closed(client);
    }
}

#[test]
fn a_message_may_be_dropped_in_silence() {
    let mut common = anonymous();
    common
        .hooks
        .register(0, Arc::new(Refusing(ReasonCode::NoMatchingSubscribers)));
    let mut net = Net::with_common(1, common, "");
    let client = net.client(V5, "good");
    net.send(client, Packet::Publish(acked("t", "", Q2, 1)));
    net.expect(client, because(pubrec(1), ReasonCode::NoMatchingSubscribers));
    net.send(client, pubrel(1));
    net.expect(client, pubcomp(1));
}

/// Renames every client, and says something every second.
struct Busy(std::sync::atomic::AtomicU64);

impl Hook for Busy {
    fn name(&self) -> &str {
        "busy"
    }

    fn points(&self) -> HookPoints {
        HookPoints::of(&[HookPoint::ClientConnect, HookPoint::Tick])
    }

    fn client_connect(
        &self,
        _: &mut HookContext<'_>,
        connect: &mut broker_core::Connect,
    ) -> Result<(), ReasonCode> {
        connect.client_id = "renamed".to_owned();
        Ok(())
    }

    fn next_tick(&self) -> Option<broker_core::Timestamp> {
        let next = self.0.load(std::sync::atomic::Ordering::Relaxed);
        Some(broker_core::Timestamp::from_millis(next))
    }

    fn tick(&self, ctx: &mut HookContext<'_>) {
        let next = ctx.now.after_secs(1).as_millis();
        self.0.store(next, std::sync::atomic::Ordering::Relaxed);
        ctx.publish(&broker_core::MessageParts::new("tick", b"x"));
    }
}

fn busy(from: broker_core::Timestamp) -> broker_core::shard::Common {
    let mut common = anonymous();
    let hook = Busy(from.as_millis().into());
    common.hooks.register(0, Arc::new(hook));
    common
}

#[test]
fn a_client_keeps_its_identifier() {
    let mut net = Net::with_common(2, busy(broker_core::Timestamp::NEVER), "");
    let client = net.dial(Connect::new(V5, ""));
    let connack = net.connack(client);
    assert!(connack.properties.assigned_client_identifier.is_some());
}

#[test]
fn hooks_that_come_with_a_reload_are_called_in_time() {
    let mut net = Net::with_shards(2, |_| {});
    let reader = net.subscriber(V4, "r", &[("tick", Q0)]);
    net.pass(10);
    net.expect_nothing(reader);
    for _ in 0..3 {
        net.node.reconfigure(busy(net.node.now().after_secs(1)));
    }
    net.pass_ms(2_500);
    assert_eq!(net.publishes(reader).len(), 2);
}

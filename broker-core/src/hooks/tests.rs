use std::sync::Mutex;

use super::*;
use crate::{MessageParts, Subscribe};

type Log = Arc<Mutex<Vec<&'static str>>>;

/// Wants all points, writes its name down when called, and answers as it is told.
struct Probe {
    name: &'static str,
    log: Log,
    points: HookPoints,
    publish: PublishVerdict,
    verdict: Verdict,
    rewrite: Option<&'static str>,
}

impl Probe {
    fn new(name: &'static str, log: &Log) -> Probe {
        Probe {
            name,
            log: Arc::clone(log),
            points: HookPoints::of(HookPoint::ALL),
            publish: PublishVerdict::Continue,
            verdict: Verdict::Ignore,
            rewrite: None,
        }
    }
    fn called(&self) {
        self.log.lock().unwrap().push(self.name);
    }
}

impl Hook for Probe {
    fn name(&self) -> &str {
        self.name
    }
    fn points(&self) -> HookPoints {
        self.points
    }
    fn client_connect(&self, _: &mut HookContext<'_>, connect: &mut Connect) -> Result<(), ReasonCode> {
        self.called();
        connect.client_id.push_str(self.name);
        match self.verdict {
            Verdict::Deny => Err(ReasonCode::Banned),
            _ => Ok(()),
        }
    }
    fn client_authorize(&self, _: &mut HookContext<'_>, _: &ClientInfo, _: Action, _: &str) -> Verdict {
        self.called();
        self.verdict
    }
    fn client_subscribe(
        &self,
        _: &mut HookContext<'_>,
        _: &Arc<ClientInfo>,
        subscribing: &mut Subscribing<'_>,
    ) {
        self.called();
        subscribing.filters[0].0.push_str(self.name);
        if self.verdict == Verdict::Deny {
            subscribing.denied[1] = Some(ReasonCode::QuotaExceeded);
        }
    }
    fn message_publish(&self, _: &mut HookContext<'_>, _: &Message) -> PublishVerdict {
        self.called();
        self.publish.clone()
    }
    fn message_acked(&self, ctx: &mut HookContext<'_>, client: &Arc<ClientInfo>, _: &Message) {
        self.called();
        let effect = HookEffect::Disconnect(client.client_id.clone(), ReasonCode::AdministrativeAction);
        ctx.effects.push(effect);
    }
    fn topic_rewrite(&self, _: &ClientInfo, _: TopicUse, topic: &str) -> Option<String> {
        self.rewrite.map(|suffix| format!("{topic}{suffix}"))
    }
}

fn message(topic: &str) -> Message {
    let now = Timestamp::from_millis(0);
    MessageParts::new(topic, b"")
        .publish_absolute(now, ClientInfo::system())
        .unwrap()
}

fn with_context<T>(run: impl FnOnce(&mut HookContext<'_>) -> T) -> (T, HookEffects) {
    let mut effects = HookEffects::default();
    let result = run(&mut HookContext::new(
        Timestamp::from_millis(0),
        "n",
        &mut effects,
    ));
    (result, effects)
}

fn taken(log: &Log) -> Vec<&'static str> {
    std::mem::take(&mut log.lock().unwrap())
}

#[test]
fn hooks_are_called_by_priority_and_then_in_order_of_registration() {
    let (log, mut hooks) = (Log::default(), Hooks::new());
    for (priority, name) in [(0, "c"), (10, "a"), (0, "d"), (5, "b"), (-1, "e")] {
        hooks.register(priority, Arc::new(Probe::new(name, &log)));
    }
    let (result, _) = with_context(|ctx| hooks.message_publish(ctx, message("t")));
    assert_eq!(result.unwrap().topic(), "t");
    assert_eq!(taken(&log), ["a", "b", "c", "d", "e"]);
    assert_eq!(
        format!("{hooks:?}"),
        r#"[(10, "a"), (5, "b"), (0, "c"), (0, "d"), (-1, "e")]"#
    );
}

#[test]
fn a_point_that_nobody_wants_is_not_called() {
    let (log, mut hooks) = (Log::default(), Hooks::new());
    hooks.register(
        0,
        Arc::new(Probe {
            points: HookPoints::of(&[HookPoint::MessagePublish]),
            ..Probe::new("a", &log)
        }),
    );
    for point in HookPoint::ALL {
        assert_eq!(
            hooks.wants(*point),
            *point == HookPoint::MessagePublish,
            "{}",
            point.name()
        );
    }
    let client = ClientInfo::system();
    let ((), effects) = with_context(|ctx| hooks.message_acked(ctx, client, &message("t")));
    assert!(effects.is_empty() && taken(&log).is_empty());
    let _ = with_context(|ctx| hooks.message_publish(ctx, message("t")));
    assert_eq!(taken(&log), ["a"]);
}

#[test]
fn a_message_is_replaced_stopped_or_dropped() {
    for (second, expected, called) in [
        (PublishVerdict::Continue, Ok("one"), vec!["1", "2", "3"]),
        (
            PublishVerdict::Replace(message("two")),
            Ok("two"),
            vec!["1", "2", "3"],
        ),
        (PublishVerdict::Stop(message("two")), Ok("two"), vec!["1", "2"]),
        (
            PublishVerdict::Drop(ReasonCode::QuotaExceeded),
            Err(ReasonCode::QuotaExceeded),
            vec!["1", "2"],
        ),
    ] {
        let (log, mut hooks) = (Log::default(), Hooks::new());
        for (name, publish) in [
            ("1", PublishVerdict::Replace(message("one"))),
            ("2", second),
            ("3", PublishVerdict::Continue),
        ] {
            hooks.register(
                0,
                Arc::new(Probe {
                    publish,
                    ..Probe::new(name, &log)
                }),
            );
        }
        let (result, _) = with_context(|ctx| hooks.message_publish(ctx, message("zero")));
        assert_eq!(
            result.as_ref().map(Message::topic).map_err(|code| *code),
            expected
        );
        assert_eq!(taken(&log), called);
    }
}

#[test]
fn the_first_verdict_decides() {
    for verdict in [Verdict::Allow, Verdict::Deny] {
        let (log, mut hooks) = (Log::default(), Hooks::new());
        hooks.register(3, Arc::new(Probe::new("1", &log)));
        hooks.register(
            2,
            Arc::new(Probe {
                verdict,
                ..Probe::new("2", &log)
            }),
        );
        hooks.register(1, Arc::new(Probe::new("3", &log)));
        let action = Action::Subscribe {
            qos: crate::QoS::AtMostOnce,
        };
        let (found, _) = with_context(|ctx| hooks.client_authorize(ctx, ClientInfo::system(), action, "t"));
        assert_eq!(found, verdict);
        assert_eq!(taken(&log), ["1", "2"]);
    }
    let nobody = with_context(|ctx| {
        let action = Action::Subscribe {
            qos: crate::QoS::AtMostOnce,
        };
        Hooks::new().client_authorize(ctx, ClientInfo::system(), action, "t")
    });
    assert_eq!(nobody.0, Verdict::Ignore);
}

#[test]
fn a_refused_connection_ends_the_chain() {
    let (log, mut hooks) = (Log::default(), Hooks::new());
    hooks.register(2, Arc::new(Probe::new("1", &log)));
    hooks.register(
        1,
        Arc::new(Probe {
            verdict: Verdict::Deny,
            ..Probe::new("2", &log)
        }),
    );
    hooks.register(0, Arc::new(Probe::new("3", &log)));
    let mut connect = Connect::plain("c");
    let (result, _) = with_context(|ctx| hooks.client_connect(ctx, &mut connect));
    assert_eq!(result, Err(ReasonCode::Banned));
    assert_eq!((connect.client_id.as_str(), taken(&log)), ("c12", vec!["1", "2"]));
}

#[test]
fn filters_are_edited_in_turn_refused_one_by_one_and_checked_afterwards() {
    let (log, mut hooks) = (Log::default(), Hooks::new());
    hooks.register(
        2,
        Arc::new(Probe {
            verdict: Verdict::Deny,
            ..Probe::new("/x", &log)
        }),
    );
    hooks.register(1, Arc::new(Probe::new("/y", &log)));
    let mut subscribe = Subscribe {
        packet_id: crate::PacketId::FIRST,
        filters: vec![
            ("a".to_owned(), SubscribeOptions::default()),
            ("b".to_owned(), SubscribeOptions::default()),
        ],
        subscription_id: None,
        user_properties: Vec::new(),
    };
    let (denied, _) = with_context(|ctx| hooks.client_subscribe(ctx, ClientInfo::system(), &mut subscribe));
    assert_eq!(denied, [None, Some(ReasonCode::QuotaExceeded)]);
    assert_eq!(subscribe.filters[0].0, "a/x/y");
    hooks.register(0, Arc::new(Probe::new("#", &log)));
    let (denied, _) = with_context(|ctx| hooks.client_subscribe(ctx, ClientInfo::system(), &mut subscribe));
    assert_eq!(
        denied,
        [
            Some(ReasonCode::TopicFilterInvalid),
            Some(ReasonCode::QuotaExceeded)
        ]
    );
}

#[test]
fn rewriting_is_a_chain_and_ignores_what_is_no_topic() {
    let (log, mut hooks) = (Log::default(), Hooks::new());
    for (priority, rewrite) in [(3, Some("/1")), (2, Some("/#")), (1, None), (0, Some("/2"))] {
        hooks.register(
            priority,
            Arc::new(Probe {
                rewrite,
                ..Probe::new("r", &log)
            }),
        );
    }
    let client = ClientInfo::system();
    let rewritten = |topic_use| hooks.topic_rewrite(client, topic_use, "t");
    assert_eq!(rewritten(TopicUse::Publish).as_deref(), Some("t/1/2"));
    assert_eq!(rewritten(TopicUse::Subscribe).as_deref(), Some("t/1/#"));
    assert_eq!(Hooks::new().topic_rewrite(client, TopicUse::Publish, "t"), None);
}

#[test]
fn effects_are_bounded_and_counted() {
    let (log, mut hooks) = (Log::default(), Hooks::new());
    hooks.register(0, Arc::new(Probe::new("a", &log)));
    let client = ClientInfo::system();
    let ((), mut effects) = with_context(|ctx| {
        for _ in 0..HookEffects::MAX + 3 {
            hooks.message_acked(ctx, client, &message("t"));
        }
        ctx.publish(&MessageParts::new(&"x".repeat(65_536), b""));
    });
    assert_eq!(effects.dropped(), 4);
    assert_eq!(effects.drain().count(), HookEffects::MAX);
    assert!(effects.is_empty());
}

//! Hooks of an application in a running broker: who is asked first, and who decides.

use tidegate::embed::{
    Broker, Client, ClientError, Message, MessageParts, QoS, ReasonCode, block_on,
    hooks::{Hook, HookContext, HookPoint, HookPoints, PublishVerdict},
};

/// Appends its name to every payload, and goes on, ends the chain or drops as the topic says.
struct Sign(&'static str);

impl Hook for Sign {
    fn name(&self) -> &str {
        self.0
    }

    fn points(&self) -> HookPoints {
        HookPoints::of(&[HookPoint::MessagePublish])
    }

    fn message_publish(&self, ctx: &mut HookContext<'_>, message: &Message) -> PublishVerdict {
        let payload = [message.payload(), self.0.as_bytes()].concat();
        let parts = MessageParts {
            qos: message.qos(),
            ..MessageParts::new(message.topic(), &payload)
        };
        let signed = parts.publish_absolute(ctx.now, message.origin());
        let signed = signed.expect("the topic is as long as before");
        match message.topic().strip_suffix(self.0) {
            Some("stop/") => PublishVerdict::Stop(signed),
            Some("drop/") => PublishVerdict::Drop(ReasonCode::NotAuthorized),
            Some("pass/") => PublishVerdict::Continue,
            _ => PublishVerdict::Replace(signed),
        }
    }
}

async fn publish(client: &Client, topic: &str) -> Result<ReasonCode, ClientError> {
    client.publish(topic, "").qos(QoS::AtLeastOnce).await
}

#[test]
fn higher_priorities_come_first_and_may_end_the_chain() {
    let broker = Broker::builder()
        .hook(-5, Sign("c"))
        .hook(10, Sign("a"))
        .hook(3, Sign("b"))
        .start()
        .unwrap();
    block_on(async {
        let client = broker.client("c").connect().await.unwrap();
        let mut stream = client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
        for (topic, payload) in [
            ("t", "abc"),
            ("pass/a", "bc"),
            ("pass/b", "ac"),
            ("stop/a", "a"),
            ("stop/b", "ab"),
            ("stop/c", "abc"),
        ] {
            assert_eq!(publish(&client, topic).await, Ok(ReasonCode::Success));
            let received = stream.next().await.unwrap();
            assert_eq!(
                (received.topic(), received.payload()),
                (topic, payload.as_bytes())
            );
        }
        let denied = publish(&client, "drop/b").await;
        assert_eq!(denied, Err(ClientError::Refused(ReasonCode::NotAuthorized)));
        assert_eq!(publish(&client, "last").await, Ok(ReasonCode::Success));
        assert_eq!(stream.next().await.unwrap().topic(), "last");
    });
    broker.shutdown();
}

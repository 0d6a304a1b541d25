//! Publishing from inside the process.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use broker_core::{Message, MessageParts, PropertiesBuilder, Property, QoS, ReasonCode, topic};
use tokio::sync::oneshot;

use super::{ClientError, client::Client, shared::Command};

/// A message to be published: made by [`Client::publish`], sent by awaiting it.
///
/// ```no_run
/// # async fn example(client: tidegate::embed::Client) -> Result<(), tidegate::embed::ClientError> {
/// use tidegate::embed::QoS;
///
/// client.publish("plant/1/level", "42").qos(QoS::AtLeastOnce).retain(true).await?;
/// # Ok(())
/// # }
/// ```
///
/// Awaiting it waits for room first (the broker's Receive Maximum bounds what one client has under way), then for the
/// acknowledgement: PUBACK, or PUBREC and PUBCOMP. QoS 0 has none: it is done when the message is on its way. The
/// result is the broker's reason code, `NoMatchingSubscribers` (0x10) included; one of 0x80 and above is an error.
///
/// Dropped while it waits for room, it publishes nothing; dropped later, the message is published all the same.
#[must_use = "a message is published when this is awaited"]
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    client: &'a Client,
    topic: &'a str,
    payload: &'a [u8],
    qos: QoS,
    retain: bool,
    expiry_interval: Option<u32>,
    payload_is_utf8: bool,
    content_type: Option<&'a str>,
    response_topic: Option<&'a str>,
    correlation_data: Option<&'a [u8]>,
    user_properties: Vec<(&'a str, &'a str)>,
}

impl<'a> Publish<'a> {
    pub(super) fn new(client: &'a Client, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            client,
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expiry_interval: None,
            payload_is_utf8: false,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        }
    }

    /// Quality of service; default: at most once.
    pub fn qos(mut self, qos: QoS) -> Publish<'a> {
        self.qos = qos;
        self
    }

    /// Retain it as the last value of its topic (§3.3.1.3).
    pub fn retain(mut self, retain: bool) -> Publish<'a> {
        self.retain = retain;
        self
    }

    /// Do not deliver it later than this, in whole seconds, rounded up (§3.3.2.3.3).
    pub fn expiry(mut self, expiry: Duration) -> Publish<'a> {
        let seconds = expiry.as_millis().div_ceil(1000);
        self.expiry_interval = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    /// Declares the payload to be UTF-8 text (§3.3.2.3.2); the broker checks it.
    pub fn text(mut self) -> Publish<'a> {
        self.payload_is_utf8 = true;
        self
    }

    /// Content type, such as a MIME type (§3.3.2.3.9).
    pub fn content_type(mut self, content_type: &'a str) -> Publish<'a> {
        self.content_type = Some(content_type);
        self
    }

    /// Topic for the answer (§3.3.2.3.5).
    pub fn response_topic(mut self, topic: &'a str) -> Publish<'a> {
        self.response_topic = Some(topic);
        self
    }

    /// What ties the answer to this message (§3.3.2.3.6).
    pub fn correlation_data(mut self, data: &'a [u8]) -> Publish<'a> {
        self.correlation_data = Some(data);
        self
    }

    /// Adds a user property; names may recur (§3.3.2.3.7).
    pub fn user_property(mut self, name: &'a str, value: &'a str) -> Publish<'a> {
        self.user_properties.push((name, value));
        self
    }

    async fn send(self) -> Result<ReasonCode, ClientError> {
        let message = self.message()?;
        let permit = self.client.permit().await?;
        let (reply, answer) = if self.qos == QoS::AtMostOnce {
            (None, None)
        } else {
            let (reply, answer) = oneshot::channel();
            (Some(reply), Some(answer))
        };
        self.client.send(Command::Publish {
            message,
            reply,
            permit,
        })?;
        let reason = match answer {
            Some(answer) => answer.await.map_err(|_| self.client.ended())?,
            None => ReasonCode::Success,
        };
        if reason.is_error() {
            return Err(ClientError::Refused(reason));
        }
        Ok(reason)
    }

    fn message(&self) -> Result<Message, ClientError> {
        let invalid_topic = |topic: &str| ClientError::InvalidTopic(topic.to_owned());
        if !topic::is_valid_name(self.topic) {
            return Err(invalid_topic(self.topic));
        }
        // [MQTT-3.3.2-14]
        if let Some(topic) = self.response_topic.filter(|topic| !topic::is_valid_name(topic)) {
            return Err(invalid_topic(topic));
        }
        let properties = self.properties()?;
        let parts = MessageParts {
            topic: self.topic,
            qos: self.qos,
            retain: self.retain,
            expiry_interval: self.expiry_interval,
            properties: properties.as_properties(),
            payload: self.payload,
        };
        parts
            .publish(self.client.now(), self.client.info())
            .ok_or_else(|| invalid_topic(self.topic))
    }

    fn properties(&self) -> Result<PropertiesBuilder, ClientError> {
        let mut properties = PropertiesBuilder::new();
        let mut push = |name: &'static str, property: Property<'_>| {
            // [MQTT-1.5.4-2]
            let is_text = match property {
                Property::ContentType(text) | Property::ResponseTopic(text) => !text.contains('\0'),
                Property::User(name, value) => !name.contains('\0') && !value.contains('\0'),
                Property::PayloadFormat(_) | Property::CorrelationData(_) => true,
            };
            if is_text && properties.push(property) {
                Ok(())
            } else {
                Err(ClientError::InvalidProperty(name))
            }
        };
        if self.payload_is_utf8 {
            push("payload format", Property::PayloadFormat(true))?;
        }
        if let Some(content_type) = self.content_type {
            push("content type", Property::ContentType(content_type))?;
        }
        if let Some(topic) = self.response_topic {
            push("response topic", Property::ResponseTopic(topic))?;
        }
        if let Some(data) = self.correlation_data {
            push("correlation data", Property::CorrelationData(data))?;
        }
        for (name, value) in &self.user_properties {
            push("user property", Property::User(name, value))?;
        }
        Ok(properties)
    }
}

impl<'a> IntoFuture for Publish<'a> {
    type Output = Result<ReasonCode, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

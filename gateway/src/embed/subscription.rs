//! A subscription as a stream.

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use broker_core::{QoS, ReasonCode, SubscribeOptions};
use futures_core::Stream;
use tokio::sync::oneshot;

use super::{
    ClientError,
    client::Client,
    queue::{Item, Queue},
    received::Received,
    shared::Command,
};

/// The messages of one subscription. A message of QoS 1 or 2 is acknowledged when it is taken from here.
///
/// The stream ends with the connection, or when the subscription is ended by [`Client::unsubscribe`]. Dropped, it
/// unsubscribes; what it still holds is given up. [`Subscription::detach`] leaves the subscription to the session.
pub struct Subscription {
    client: Client,
    filter: String,
    queue: Arc<Queue>,
    granted: ReasonCode,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Dropping it unsubscribes.
    Subscribed,
    /// Somebody else answers for the subscription, or there is none.
    Forgotten,
}

impl Subscription {
    pub(super) fn new(client: Client, filter: &str, queue: Arc<Queue>) -> Subscription {
        Subscription {
            client,
            filter: filter.to_owned(),
            queue,
            granted: ReasonCode::Success,
            state: State::Subscribed,
        }
    }

    pub(super) fn grant(&mut self, code: ReasonCode) {
        self.granted = code;
    }

    pub(super) fn forget(&mut self) {
        self.state = State::Forgotten;
    }

    /// For a callback, which does not end its subscription and does not keep its client.
    pub(super) fn into_queue(mut self) -> Arc<Queue> {
        self.forget();
        Arc::clone(&self.queue)
    }

    /// The filter, as the client gave it.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The code that granted it: `Success`, `GrantedQoS1` or `GrantedQoS2`, the highest QoS of its messages.
    pub fn granted(&self) -> ReasonCode {
        self.granted
    }

    /// Messages of QoS 0 that were dropped because the application was too slow.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// The next message; `None` at the end. May be cancelled without losing a message.
    pub async fn next(&mut self) -> Option<Received> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The next message if there is one already.
    pub fn try_next(&mut self) -> Option<Received> {
        self.queue.pop().map(take)
    }

    /// Unsubscribes and waits until the broker has done it.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn unsubscribe(mut self) -> Result<ReasonCode, ClientError> {
        let _permit = self.client.permit().await?;
        let (reply, answer) = oneshot::channel();
        self.forget();
        self.client.send(Command::Unsubscribe {
            filter: mem::take(&mut self.filter),
            only: Some(Arc::clone(&self.queue)),
            reply: Some(reply),
        })?;
        // No answer comes if `Client::unsubscribe` was quicker.
        match answer.await {
            Ok(code) => Ok(code),
            Err(_) if self.client.end().is_none() => Ok(ReasonCode::NoSubscriptionExisted),
            Err(_) => Err(self.client.ended()),
        }
    }

    /// Ends the stream and leaves the subscription to the session, with the messages of QoS 1 and 2 that were not
    /// taken: they come when the client subscribes to the filter again, now or on a later connection of the session.
    /// Until then they count against the client's receive maximum.
    pub fn detach(mut self) {
        self.forget();
        // After the end of the connection the session has the subscription anyway.
        let _ = self.client.send(Command::Detach {
            filter: mem::take(&mut self.filter),
            queue: Arc::clone(&self.queue),
        });
    }
}

/// Letting the ticket go acknowledges the message.
fn take(item: Item) -> Received {
    let Item { received, ticket } = item;
    drop(ticket);
    received
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.queue.poll(context).map(|item| item.map(take))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.state == State::Subscribed {
            // After the end of the connection there is nothing to end: a kept session keeps its subscriptions.
            let _ = self.client.send(Command::Unsubscribe {
                filter: mem::take(&mut self.filter),
                only: Some(Arc::clone(&self.queue)),
                reply: None,
            });
            drop(self.queue.drain());
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({:?} of {:?})", self.filter, self.client)
    }
}

/// How to subscribe: a [`QoS`] where the rest may be as it is by default.
pub trait IntoSubscribeOptions {
    /// The options of MQTT 5 §3.8.3.1.
    fn into_options(self) -> SubscribeOptions;
}

impl IntoSubscribeOptions for QoS {
    fn into_options(self) -> SubscribeOptions {
        SubscribeOptions {
            qos: self,
            ..SubscribeOptions::default()
        }
    }
}

impl IntoSubscribeOptions for SubscribeOptions {
    fn into_options(self) -> SubscribeOptions {
        self
    }
}

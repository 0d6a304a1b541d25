//! An admitted client.

use std::{fmt, sync::Arc, time::Duration};

use broker_core::{ClientInfo, Disconnect, DisconnectCause, ReasonCode, Timestamp, topic};
use driver::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    ClientError, End,
    callbacks::Callbacks,
    publish::Publish,
    queue::Queue,
    received::Received,
    shared::{Command, Shared},
    subscription::{IntoSubscribeOptions, Subscription},
};

/// A client inside the process, admitted by the broker. Cheap to clone; all clones are the same client.
///
/// It is disconnected by [`Client::disconnect`], or when its last clone and the last of its subscriptions are gone.
/// Its session then ends or stays, as the client was connected.
#[derive(Clone)]
pub struct Client(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) info: Arc<ClientInfo>,
    pub(super) session_present: bool,
    /// Seconds that the session outlives this connection.
    pub(super) session_expiry_interval: u32,
    pub(super) permits: Arc<Semaphore>,
    pub(super) clock: Clock,
    pub(super) qos0_max: usize,
    pub(super) callbacks: Callbacks,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.info.client_id)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.shared.send(Command::Disconnect {
            disconnect: goodbye(DisconnectCause::Normal, None),
            reply: None,
        });
    }
}

/// The end of a connection by its client.
pub(super) fn goodbye(cause: DisconnectCause, session_expiry_interval: Option<u32>) -> Disconnect {
    Disconnect {
        cause,
        session_expiry_interval,
        keeps_will: false,
        user_properties: Vec::new(),
    }
}

/// Seconds that a session outlives its connection, rounded up; `u32::MAX`, for ever, from 136 years on.
pub(super) fn expiry_seconds(expiry: Duration) -> u32 {
    u32::try_from(expiry.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

impl Client {
    /// Its identifier: the one it asked for, or the one that the broker assigned.
    pub fn id(&self) -> &str {
        self.0.info.client_id.as_str()
    }

    /// Who it is to the broker.
    pub fn info(&self) -> &Arc<ClientInfo> {
        &self.0.info
    }

    /// True if it resumed a session: its subscriptions are there and what waited is on its way. Messages of QoS 1 and
    /// 2 wait for [`Client::subscribe`] with the same filter, and are not acknowledged before; as long as they wait,
    /// they count against the receive maximum.
    pub fn session_present(&self) -> bool {
        self.0.session_present
    }

    /// Why the connection is over; `None` while it is not.
    pub fn end(&self) -> Option<End> {
        self.0.shared.end()
    }

    /// Messages that none of its subscriptions claimed and that were dropped: of subscriptions that something else
    /// made for it (`auto_subscribe`, hooks), and QoS 0 of a resumed session.
    pub fn unclaimed(&self) -> u64 {
        self.0.shared.unclaimed()
    }

    /// A message to publish; await what this returns.
    pub fn publish<'a, P>(&'a self, topic: &'a str, payload: &'a P) -> Publish<'a>
    where
        P: AsRef<[u8]> + ?Sized,
    {
        Publish::new(self, topic, payload.as_ref())
    }

    /// Subscribes; `options` are a [`QoS`](broker_core::QoS) or
    /// [`SubscribeOptions`](broker_core::SubscribeOptions). `filter` may begin with
    /// `$share/GROUP/`, `$exclusive/` and the like.
    ///
    /// Messages of QoS 1 and 2 are acknowledged when the application takes them from the stream, so a slow
    /// application is sent no more than its receive maximum at a time, and the rest waits in its session. Messages of
    /// QoS 0 wait in the stream up to the client's [bound](super::ClientBuilder::qos0_queue); above it they are dropped
    /// and [counted](Subscription::dropped), retained messages that were published with QoS 0 included. A message that
    /// matches several subscriptions of the client comes once to each of their streams.
    ///
    /// # Errors
    /// The filter is not valid, the client has a subscription to it already, or the broker refuses it.
    pub async fn subscribe(
        &self,
        filter: &str,
        options: impl IntoSubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        let queue = Queue::new(self.0.qos0_max);
        let options = options.into_options();
        if !topic::is_valid_filter(filter) {
            return Err(ClientError::InvalidFilter(filter.to_owned()));
        }
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Subscribe {
            filter: filter.to_owned(),
            options,
            queue: Arc::clone(&queue),
            reply,
            permit,
        })?;
        // Dropped while it waits, it unsubscribes.
        let mut subscription = Subscription::new(self.clone(), filter, queue);
        match answer.await {
            Ok(Ok(code)) if code.is_error() => {
                subscription.forget();
                Err(ClientError::Refused(code))
            }
            Ok(Ok(code)) => {
                subscription.grant(code);
                Ok(subscription)
            }
            Ok(Err(_)) => {
                subscription.forget();
                Err(ClientError::AlreadySubscribed(filter.to_owned()))
            }
            Err(_) => {
                subscription.forget();
                Err(self.ended())
            }
        }
    }

    /// Subscribes, and calls `callback` with each message until the client ends or
    /// [unsubscribes](Client::unsubscribe). Returns the code that grants it.
    ///
    /// Callbacks of all clients of a [`Broker`](super::Broker) run one after the other on a thread of their own: one
    /// that takes long delays other callbacks, never the broker. A message of QoS 1 or 2 is acknowledged when the
    /// callback has returned; the bounds are those of [`Client::subscribe`]. A callback that panics is called again
    /// for the next message (logged). One that holds a clone of this client keeps it connected until
    /// [`Client::disconnect`] or the end of the broker.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn on_message(
        &self,
        filter: &str,
        options: impl IntoSubscribeOptions,
        callback: impl FnMut(Received) + Send + 'static,
    ) -> Result<ReasonCode, ClientError> {
        let subscription = self.subscribe(filter, options).await?;
        let granted = subscription.granted();
        self.0
            .callbacks
            .add(subscription.into_queue(), Box::new(callback));
        Ok(granted)
    }

    /// Ends a subscription, whoever made it: a stream of it ends, its callback is called no more, and one of a resumed
    /// session is given up with what waits. The code is `NoSubscriptionExisted` (0x11) if there was none.
    ///
    /// # Errors
    /// The filter is not valid, or the connection is over.
    pub async fn unsubscribe(&self, filter: &str) -> Result<ReasonCode, ClientError> {
        if !topic::is_valid_filter(filter) {
            return Err(ClientError::InvalidFilter(filter.to_owned()));
        }
        // Bounds how many are under way.
        let _permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Unsubscribe {
            filter: filter.to_owned(),
            only: None,
            reply: Some(reply),
        })?;
        answer.await.map_err(|_| self.ended())
    }

    /// Says goodbye: no Will is published. Streams still give what they hold, and end; what a kept session will send
    /// again they give up.
    ///
    /// # Errors
    /// The connection was over already.
    pub async fn disconnect(&self) -> Result<(), ClientError> {
        self.leave(goodbye(DisconnectCause::Normal, None)).await
    }

    /// As [`Client::disconnect`], and the session is kept for `expiry` from now on, or ends with `Duration::ZERO`. A
    /// session that was to end with its connection cannot be kept (§3.14.2.2.2); it ends.
    ///
    /// # Errors
    /// The connection was over already.
    pub async fn disconnect_for(&self, expiry: Duration) -> Result<(), ClientError> {
        let seconds = (self.0.session_expiry_interval > 0).then(|| expiry_seconds(expiry));
        self.leave(goodbye(DisconnectCause::Normal, seconds)).await
    }

    /// Says goodbye and has the Will published (§3.14.2.1, 0x04).
    ///
    /// # Errors
    /// The connection was over already.
    pub async fn disconnect_with_will(&self) -> Result<(), ClientError> {
        let cause = DisconnectCause::ByClient(ReasonCode::DisconnectWithWill);
        self.leave(goodbye(cause, None)).await
    }

    async fn leave(&self, disconnect: Disconnect) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Disconnect {
            disconnect,
            reply: Some(reply),
        })?;
        answer.await.map_err(|_| self.ended())
    }

    pub(super) fn send(&self, command: Command) -> Result<(), ClientError> {
        Ok(self.0.shared.send(command)?)
    }

    /// Room for one more exchange with the broker.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, ClientError> {
        if let Some(end) = self.end() {
            return Err(end.into());
        }
        // Permits come back at the end of the connection, too, so nobody waits for ever.
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        permit.map_err(|_| self.ended())
    }

    /// Why an answer will not come.
    pub(super) fn ended(&self) -> ClientError {
        self.end().unwrap_or(End::BrokerEnded).into()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

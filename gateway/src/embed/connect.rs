//! From a client that wants in to one that is admitted.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use broker_core::{
    ClientInfo, Connect, ConnectionInfo, DisconnectCause, Properties, PropertiesBuilder, ReasonCode, Will,
    topic,
};
use driver::{CallError, Clock, WorkerHandle};
use tokio::sync::{Semaphore, oneshot};

use super::{
    ClientError,
    callbacks::Callbacks,
    client::{Client, Inner, expiry_seconds, goodbye},
    peer::Peer,
    shared::{Command, Shared},
};

/// Exchanges with the broker that one client may have under way, if the broker's Receive Maximum allows them.
const UNDER_WAY_MAX: u16 = 1024;
/// Messages of QoS 0 that wait in one stream, unless the builder says otherwise.
const QOS0_QUEUE: usize = 1000;

/// A client that is about to connect: made by [`Broker::client`](super::Broker::client).
///
/// By default it starts clean, and its session ends with its connection.
#[must_use = "nobody connects until `connect` is awaited"]
pub struct ClientBuilder {
    handle: WorkerHandle,
    clock: Clock,
    callbacks: Callbacks,
    receive_maximum: u16,
    qos0_max: usize,
    connect: Connect,
}

impl ClientBuilder {
    pub(super) fn new(
        handle: WorkerHandle,
        clock: Clock,
        callbacks: Callbacks,
        receive_maximum: u16,
        client_id: &str,
    ) -> ClientBuilder {
        ClientBuilder {
            handle,
            clock,
            callbacks,
            receive_maximum,
            qos0_max: QOS0_QUEUE,
            connect: Connect {
                client_id: client_id.to_owned(),
                username: None,
                password: None,
                peer: None,
                local: None,
                connection: connection(),
                certificate: None,
                mountpoint: "".into(),
                clean_start: true,
                session_expiry_interval: 0,
                keep_alive: 0,
                receive_maximum: u16::MAX,
                auth: None,
                will: None,
                user_properties: Vec::new(),
                is_bridge: false,
                keeps_will: false,
                may_sleep: false,
                wake: None,
            },
        }
    }

    /// User name and password, for the broker's authenticators.
    pub fn credentials(mut self, username: &str, password: impl AsRef<[u8]>) -> ClientBuilder {
        self.connect.username = Some(username.to_owned());
        self.connect.password = Some(password.as_ref().to_vec());
        self
    }

    /// False: resumes the session if there is one (§3.1.2.4).
    pub fn clean_start(mut self, clean_start: bool) -> ClientBuilder {
        self.connect.clean_start = clean_start;
        self
    }

    /// How long the session outlives the connection, in whole seconds, rounded up (§3.1.2.11.2); the broker's
    /// `mqtt.session_expiry_interval` limits it. From 136 years on: for ever.
    pub fn session_expiry(mut self, expiry: Duration) -> ClientBuilder {
        self.connect.session_expiry_interval = expiry_seconds(expiry);
        self
    }

    /// Published if the client ends without [`Client::disconnect`]: closed by the broker, or taken over.
    pub fn will(mut self, will: Will) -> ClientBuilder {
        self.connect.will = Some(will);
        self
    }

    /// Deliveries of QoS 1 and 2 that the application may have before it has taken one, over all its subscriptions; 0
    /// counts as 1. The broker's `mqtt.max_inflight` limits it. Default: only that does.
    pub fn receive_maximum(mut self, receive_maximum: u16) -> ClientBuilder {
        self.connect.receive_maximum = receive_maximum.max(1);
        self
    }

    /// Messages of QoS 0 that wait in each stream; above it new ones are dropped and
    /// [counted](super::Subscription::dropped). Default: 1000.
    pub fn qos0_queue(mut self, messages: usize) -> ClientBuilder {
        self.qos0_max = messages;
        self
    }

    /// Adds a user property for hooks (§3.1.2.11.8).
    pub fn user_property(mut self, name: &str, value: &str) -> ClientBuilder {
        self.connect
            .user_properties
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// Connects: the client passes the same admission, hooks and limits as any other. Dropped before it is done, the
    /// client disconnects.
    ///
    /// # Errors
    /// Refused, busy, or the broker has ended.
    pub async fn connect(self) -> Result<Client, ClientError> {
        self.check()?;
        let shared = Arc::new(Shared::default());
        let (reply, answer) = oneshot::channel();
        let peer = Peer::new(Arc::clone(&shared), self.connect, reply);
        let waiting = Waiting(Some(Arc::clone(&shared)));
        let (handle, place) = (self.handle.clone(), Arc::clone(&shared));
        let attached = self.handle.run(move |worker| {
            let link = worker.attach(Box::new(peer), None);
            place.attached(handle, link);
            worker.with_peer(link, |peer, now, effects| peer.handle_input(now, &[], effects));
        });
        match attached {
            Ok(()) => {}
            Err(CallError::Busy) => return Err(ClientError::Busy),
            Err(CallError::Ended) => return Err(super::End::BrokerEnded.into()),
        }
        let connected = match answer.await {
            Ok(Ok(connected)) => connected,
            Ok(Err(closing)) => return Err(ClientError::NotAdmitted(closing)),
            Err(_) => return Err(shared.end().unwrap_or(super::End::BrokerEnded).into()),
        };
        waiting.done();
        let permits = usize::from(self.receive_maximum.clamp(1, UNDER_WAY_MAX));
        Ok(Client(Arc::new(Inner {
            shared,
            info: connected.client,
            session_present: connected.session_present,
            session_expiry_interval: connected.session_expiry_interval,
            permits: Arc::new(Semaphore::new(permits)),
            clock: self.clock,
            qos0_max: self.qos0_max,
            callbacks: self.callbacks,
        })))
    }

    /// What a decoder would have refused.
    fn check(&self) -> Result<(), ClientError> {
        let id = &self.connect.client_id;
        // [MQTT-3.1.3-4]
        if id.contains('\0') || id.len() > usize::from(u16::MAX) {
            return Err(ClientError::Refused(ReasonCode::ClientIdentifierNotValid));
        }
        let Some(will) = &self.connect.will else {
            return Ok(());
        };
        if !topic::is_valid_name(&will.topic) {
            return Err(ClientError::InvalidTopic(will.topic.clone()));
        }
        // They go to other clients as they are.
        let given = Properties::from_validated(&will.properties);
        let mut encoded = PropertiesBuilder::new();
        if !given.iter().all(|property| encoded.push(property)) || encoded.as_properties() != given {
            return Err(ClientError::InvalidProperty("will properties"));
        }
        Ok(())
    }
}

/// A connect that is given up before its answer ends the client.
struct Waiting(Option<Arc<Shared>>);

impl Waiting {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            // It may be over already.
            let _ = shared.send(Command::Disconnect {
                disconnect: goodbye(DisconnectCause::Normal, None),
                reply: None,
            });
        }
    }
}

/// What all embedded clients have in common.
fn connection() -> Arc<ConnectionInfo> {
    static CONNECTION: LazyLock<Arc<ConnectionInfo>> =
        LazyLock::new(|| ClientInfo::internal("", false).connection);
    Arc::clone(&CONNECTION)
}

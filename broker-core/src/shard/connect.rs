//! CONNECT: from a client that asks to be admitted to a session with a connection.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::{
    AuthData, ClientId, ClientInfo, Closing, Connect, Connected, Event, LinkId, MqttConfig, Properties,
    ReasonCode, Timestamp, Will,
    admission::{AuthorizationCache, ExchangeState, Grant, Template},
    session::{Exchange, Outgoing, Replays, Session, SessionKey, Subscriptions, Tenant},
    topic,
};

use super::{Link, Shard, Ticket, shard_of};

/// A client between its CONNECT and its CONNACK.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) connect: Connect,
    pub(super) client_id: ClientId,
    pub(super) client_id_assigned: bool,
    pub(super) stage: Stage,
    /// Last data of enhanced authentication, for the CONNACK.
    pub(super) last: Option<AuthData>,
}

/// How far it has come.
pub(super) enum Stage {
    /// Nothing is asked yet.
    Arrived,
    /// The control plane works on the answer to this question.
    Asked(Ticket),
    /// Enhanced authentication waits for the client's next AUTH.
    Exchange(ExchangeState),
    /// Authentication is over.
    Admitted,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Arrived => "Arrived",
            Stage::Asked(_) => "Asked",
            Stage::Exchange(_) => "Exchange",
            Stage::Admitted => "Admitted",
        })
    }
}

impl Shard {
    pub(super) fn connect(&mut self, now: Timestamp, link: LinkId, mut connect: Connect) {
        let hooked = if connect.wake.is_some() {
            Ok(())
        } else {
            self.metrics.client_connect.inc();
            self.connect_point(now, &mut connect)
        };
        let client_id_assigned = connect.client_id.is_empty();
        let client_id = if client_id_assigned {
            self.assign_client_id()
        } else {
            ClientId::new(&connect.client_id)
        };
        let connecting = Connecting {
            connect,
            client_id,
            client_id_assigned,
            stage: Stage::Arrived,
            last: None,
        };
        let refusal = hooked
            .err()
            .map(Closing::new)
            .or_else(|| self.refusal(now, &connecting))
            .or_else(|| self.wake_refusal(now, &connecting));
        self.links.insert(link, Link::Connecting(Box::new(connecting)));
        match refusal {
            Some(closing) => self.refuse(now, link, closing),
            None => self.authenticate(now, link),
        }
    }

    /// An identifier that belongs to this shard and that nobody can guess from others.
    fn assign_client_id(&mut self) -> ClientId {
        loop {
            let mut hasher = DefaultHasher::new();
            (self.secret, self.next_number()).hash(&mut hasher);
            let low = hasher.finish();
            self.secret.hash(&mut hasher);
            let id = format!("auto-{:016X}{low:016X}", hasher.finish());
            if shard_of(&id, self.shards) == self.id && !self.by_client.contains_key(id.as_str()) {
                return ClientId::new(&id);
            }
        }
    }

    /// What speaks against the client before anybody is asked who it is.
    fn refusal(&self, now: Timestamp, connecting: &Connecting) -> Option<Closing> {
        let limits = &self.common.config.mqtt;
        let connect = &connecting.connect;
        if connect.client_id.len() > usize::from(limits.max_clientid_len) {
            return Some(Closing::because(
                ReasonCode::ClientIdentifierNotValid,
                format!("client identifier longer than {} bytes", limits.max_clientid_len),
            ));
        }
        if let Some(closing) = connect.will.as_ref().and_then(|will| will_refusal(will, limits)) {
            return Some(closing);
        }
        let host = connect.peer.map(|peer| peer.ip());
        if self
            .banned
            .check(now, &connecting.client_id, connect.username.as_deref(), host)
            .is_some()
        {
            return Some(Closing::new(ReasonCode::Banned));
        }
        self.common.config.redirect.as_ref().map(|redirect| Closing {
            reason: if redirect.moved {
                ReasonCode::ServerMoved
            } else {
                ReasonCode::UseAnotherServer
            },
            text: None,
            server_reference: Some(redirect.server_reference.clone()),
        })
    }

    /// The client is not admitted.
    pub(super) fn refuse(&mut self, now: Timestamp, link: LinkId, closing: Closing) {
        let Some(Link::Connecting(connecting)) = self.links.remove(&link) else {
            return;
        };
        if let Stage::Asked(ticket) = connecting.stage {
            self.tickets.remove(&ticket);
        }
        if connecting.connect.wake.is_some() {
            self.metrics.client_awake_refused.inc();
        } else {
            self.metrics.client_refused.inc();
            self.connack_point(now, &connecting.connect, closing.reason);
        }
        self.emit(link, Event::Refused(Box::new(closing)));
    }

    /// The client is who it says: find or make its session.
    pub(super) fn admit(&mut self, now: Timestamp, link: LinkId, grant: Grant) {
        let client = match self.links.get_mut(&link) {
            Some(Link::Connecting(connecting)) => identify(connecting, &grant),
            _ => return,
        };
        let client = match client {
            Ok(client) => Arc::new(client),
            Err(closing) => return self.refuse(now, link, closing),
        };
        let Some(Link::Connecting(connecting)) = self.links.get(&link) else {
            return;
        };
        let clean_start = connecting.connect.clean_start;
        let resumed = match connecting.connect.wake.clone() {
            Some(guard) => match self.session_to_wake(now, &client.client_id, &guard) {
                Some(key) => Some(key),
                None => return self.refuse(now, link, Closing::new(ReasonCode::BadUserNameOrPassword)),
            },
            None => self.existing_session(now, &client.client_id, clean_start),
        };
        if self.wait_for_ending(&client.client_id, link, &grant) {
            return;
        }
        if let Some(Link::Connecting(connecting)) = self.links.remove(&link) {
            self.begin_connection(now, link, client, *connecting, resumed, &grant);
        }
    }

    fn begin_connection(
        &mut self,
        now: Timestamp,
        link: LinkId,
        client: Arc<ClientInfo>,
        connecting: Connecting,
        resumed: Option<SessionKey>,
        grant: &Grant,
    ) {
        let Connecting {
            connect,
            client_id_assigned,
            last,
            ..
        } = connecting;
        // Then nobody must find it again, whatever happens.
        let is_removed = self.is_being_removed(&client.client_id);
        let terms = self.terms(&connect);
        let mut session = new_session(link, now, &client, &connect, &terms, grant.expires_at);
        session.connection = self.next_number();
        let (key, replays) = match resumed {
            Some(key) => (key, self.resume(key, session, &connect)),
            None => (self.create(session, connect.may_sleep), Vec::new()),
        };
        if resumed.is_some() {
            self.drop_aged(now, key);
        }
        self.links.insert(link, Link::Online(key));
        self.stats.connections.add(1);
        let user_properties = self.count_connection(now, &connect, resumed.is_some());
        let session = self.session(key);
        let sleeper = session.sleeper.as_ref();
        let event = Event::Connected(Box::new(Connected {
            client,
            session_present: resumed.is_some(),
            client_id_assigned,
            session_expiry_interval: session.expiry_interval,
            server_keep_alive: terms.keep_alive,
            auth: last,
            user_properties,
            notes: sleeper.map_or_else(Vec::new, |sleeper| sleeper.notes().to_vec()),
            will: session.will.clone().filter(|_| connect.keeps_old_will()),
        }));
        let is_stored = self.token(key).is_some();
        self.store_session(key);
        if is_stored || is_removed {
            self.session_mut(key).opening = true;
            self.hold_event(link, event);
        } else {
            self.emit(link, event);
        }
        if connect.wake.is_none() {
            self.announce_presence(key, true);
            self.connected_point(now, key, &connect, resumed.is_some());
        }
        self.fetch_deliveries(key);
        for filter in replays {
            self.resume_replay(key, &filter);
        }
        self.arm_session(key);
        self.ready.push_back(key);
    }

    /// A client is admitted. Returns the user properties that hooks add to the answer; of a client that wakes they are
    /// not told.
    fn count_connection(
        &mut self,
        now: Timestamp,
        connect: &Connect,
        is_resumed: bool,
    ) -> Vec<(String, String)> {
        if connect.wake.is_some() {
            self.metrics.client_awake.inc();
            return Vec::new();
        }
        if connect.username.is_none() && connect.auth.is_none() {
            self.metrics.client_auth_anonymous.inc();
        }
        if is_resumed {
            self.metrics.session_resumed.inc();
        }
        self.metrics.client_connected.inc();
        self.connack_point(now, connect, ReasonCode::Success)
    }

    /// The session that the client finds, without a connection. A clean start, or a session that lived no longer than
    /// its connection, leaves none.
    fn existing_session(
        &mut self,
        now: Timestamp,
        client_id: &ClientId,
        clean_start: bool,
    ) -> Option<SessionKey> {
        let key = *self.by_client.get(client_id)?;
        // Its timer may be a moment late: an expired session is not resumed, a Will that is due is published.
        self.do_due(now, key);
        let key = *self.by_client.get(client_id)?;
        self.take_over(now, key, clean_start);
        self.by_client.get(client_id).copied()
    }

    fn terms(&self, connect: &Connect) -> Terms {
        let limits = &self.common.config.mqtt;
        let most = u32::try_from(limits.session_expiry_interval.as_secs()).unwrap_or(u32::MAX);
        Terms {
            expiry_interval: connect.session_expiry_interval.min(most),
            keep_alive: limits.imposed_keep_alive(connect.keep_alive),
            window: limits.max_inflight.min(connect.receive_maximum).max(1),
        }
    }

    /// Ends the connection that the session has, and the session if the newcomer wants none of it. A session that
    /// does not outlive its connection ends with it.
    fn take_over(&mut self, now: Timestamp, key: SessionKey, clean_start: bool) {
        let client_id = self.sessions[key.0 as usize].client_id().clone();
        if self.online(key).is_some() {
            self.metrics.session_takenover.inc();
            self.taken_over_point(now, &client_id);
            self.close_session(now, key, Closing::new(ReasonCode::SessionTakenOver));
        }
        if clean_start && self.by_client.contains_key(&client_id) {
            self.metrics.session_discarded.inc();
            self.discarded_point(now, &client_id);
            self.forgive_sleeper(key);
            self.terminate(now, key, None);
        }
    }

    fn create(&mut self, mut session: Session, may_sleep: bool) -> SessionKey {
        self.metrics.session_created.inc();
        let client_id = session.client.client_id.clone();
        if session.expiry_interval > 0 || may_sleep {
            session.stored = Some(self.new_stored(&client_id));
        }
        let at = self.sessions.insert(Tenant::Online(Box::new(session)));
        let key = SessionKey(u32::try_from(at).expect("fewer than 2^32 sessions fit into memory"));
        self.by_client.insert(client_id, key);
        self.stats.sessions.set(self.sessions.len() as u64);
        key
    }
}

/// A session without a past.
fn new_session(
    link: LinkId,
    now: Timestamp,
    client: &Arc<ClientInfo>,
    connect: &Connect,
    terms: &Terms,
    admitted_until: Option<Timestamp>,
) -> Session {
    let exchange = connect.auth.is_some().then(|| {
        Box::new(Exchange {
            client_id: client.client_id.clone(),
            connect: Connect {
                will: None,
                ..connect.clone()
            },
            state: None,
            asked: false,
        })
    });
    Session {
        client: Arc::clone(client),
        link,
        connection: 0,
        connected_at: now,
        congested: false,
        opening: false,
        held: 0,
        expiry_interval: terms.expiry_interval,
        subscriptions: Subscriptions::default(),
        outgoing: Outgoing::new(terms.window),
        awaiting_rel: Vec::new(),
        will: connect.will.clone().map(Box::new),
        replays: Replays::default(),
        authorization_cache: AuthorizationCache::default(),
        admitted_until: admitted_until.unwrap_or(Timestamp::NEVER),
        exchange,
        is_bridge: connect.is_bridge,
        retry_at: Timestamp::NEVER,
        armed: Timestamp::NEVER,
        mark: (0, 0),
        turns: None,
        stored: None,
        sleeper: None,
    }
}

/// What the client gets of what it asked for.
struct Terms {
    expiry_interval: u32,
    keep_alive: Option<u16>,
    window: u16,
}

/// The client as the broker knows it from here on.
fn identify(connecting: &mut Connecting, grant: &Grant) -> Result<ClientInfo, Closing> {
    let connect = &connecting.connect;
    let username = grant
        .username
        .clone()
        .or_else(|| connect.username.as_deref().map(Arc::from));
    let mut client = ClientInfo {
        client_id: connecting.client_id.clone(),
        username,
        peer: connect.peer,
        local: connect.local,
        connection: Arc::clone(&connect.connection),
        certificate: connect.certificate.clone(),
        attributes: grant.attributes.clone(),
        // A template that is empty is its own expansion, shared by all clients of the listener.
        mountpoint: Arc::clone(&connect.mountpoint),
        is_superuser: grant.is_superuser,
    };
    if !connect.mountpoint.is_empty() {
        let rendered = Template::parse(&connect.mountpoint)
            .ok()
            .and_then(|template| template.render(&client));
        match rendered {
            // A client id with a wildcard or a separator must not widen what it can reach.
            Some(mountpoint) if is_safe(&connect.mountpoint, &mountpoint) => {
                client.mountpoint = mountpoint.into()
            }
            _ => {
                return Err(Closing::because(
                    ReasonCode::NotAuthorized,
                    format!(
                        "the listener's mountpoint {} cannot be filled in",
                        connect.mountpoint
                    ),
                ));
            }
        }
    }
    Ok(client)
}

/// True if the values put into `template` brought no wildcard and no level of their own.
fn is_safe(template: &str, rendered: &str) -> bool {
    !topic::has_wildcard(rendered)
        && topic::levels(template) == topic::levels(rendered)
        && !rendered.contains('\0')
}

/// What speaks against publishing this Will, so that its client hears of it while it can.
pub(super) fn will_refusal(will: &Will, limits: &MqttConfig) -> Option<Closing> {
    if will.qos > limits.max_qos_allowed {
        return Some(Closing::new(ReasonCode::QoSNotSupported));
    }
    if will.retain && !limits.retain_available {
        return Some(Closing::new(ReasonCode::RetainNotSupported));
    }
    if topic::levels(&will.topic) > usize::from(limits.max_topic_levels) {
        return Some(Closing::because(
            ReasonCode::TopicNameInvalid,
            format!("will topic with more than {} levels", limits.max_topic_levels),
        ));
    }
    if will.payload.len() > limits.max_payload_size as usize {
        return Some(Closing::because(
            ReasonCode::QuotaExceeded,
            "will payload too large",
        ));
    }
    // §3.1.3.2.3
    if Properties::from_validated(&will.properties).payload_is_utf8()
        && std::str::from_utf8(&will.payload).is_err()
    {
        return Some(Closing::because(
            ReasonCode::PayloadFormatInvalid,
            "will payload is not UTF-8",
        ));
    }
    None
}

//! What both ways of relaying keep of a client.

use std::{collections::BTreeMap, sync::Arc};

use broker_core::{
    ClientId, ClientInfo, Connect, Connected, Event, NOTES_BYTES_MAX, ReasonCode, Timestamp, Will,
};
use bytes::Bytes;

/// User name and password.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What the protocol has noted with a session ([`broker_core::Request::Note`]). In memory: it ends with the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    by_number: BTreeMap<u16, Bytes>,
    bytes: usize,
}

/// Bytes that a note counts beside its value.
const NOTE_BYTES: usize = 2;

impl Notes {
    /// Sets or removes a note, if there is room.
    pub(crate) fn set(&mut self, number: u16, value: Option<Bytes>) -> ReasonCode {
        let size = |value: &Bytes| value.len() + NOTE_BYTES;
        let before = self.by_number.get(&number).map_or(0, size);
        let bytes = self.bytes - before + value.as_ref().map_or(0, size);
        if bytes > NOTES_BYTES_MAX {
            return ReasonCode::QuotaExceeded;
        }
        self.bytes = bytes;
        match value {
            Some(value) => self.by_number.insert(number, value),
            None => self.by_number.remove(&number),
        };
        ReasonCode::Success
    }

    /// Who knows this may wake the client.
    pub(crate) fn guard(&self) -> Option<&Bytes> {
        self.by_number.get(&0)
    }

    pub(crate) fn list(&self) -> Vec<(u16, Bytes)> {
        self.by_number
            .iter()
            .map(|(&number, value)| (number, value.clone()))
            .collect()
    }
}

/// The client of a CONNECT.
pub(crate) fn client_info(client_id: &str, connect: &Connect) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        client_id: ClientId::new(client_id),
        username: connect.username.as_deref().map(Arc::from),
        peer: connect.peer,
        local: connect.local,
        connection: Arc::clone(&connect.connection),
        certificate: connect.certificate.clone(),
        attributes: Vec::new(),
        mountpoint: "".into(),
        is_superuser: false,
    })
}

/// Tells a peer that its client is connected.
pub(crate) fn connected(
    client: &Arc<ClientInfo>,
    connect: &Connect,
    session_present: bool,
    notes: &Notes,
    will: Option<Box<Will>>,
) -> Event {
    Event::Connected(Box::new(Connected {
        client: Arc::clone(client),
        session_present,
        client_id_assigned: connect.client_id.is_empty(),
        session_expiry_interval: connect.session_expiry_interval,
        server_keep_alive: None,
        auth: None,
        user_properties: Vec::new(),
        notes: notes.list(),
        will,
    }))
}

/// How far a client that woke is with what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// It is not awake in this sense.
    Off,
    /// Messages are under way to it; so often may the broker still be asked whether there are more.
    Delivering(u8),
    /// The broker was asked: so many answers must come without a message before them.
    Asking(u8, u8),
}

/// Waits longer from failure to failure, and not at all after a success.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    failures: u32,
    until: Timestamp,
}

impl Backoff {
    /// Longest pause, milliseconds.
    const LONGEST: u64 = 60_000;

    pub(crate) fn new() -> Backoff {
        Backoff {
            failures: 0,
            until: Timestamp::from_millis(0),
        }
    }

    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    pub(crate) fn until(&self) -> Timestamp {
        self.until
    }

    /// One second, then twice as long each time; up to a quarter more, by `random`, so that gateways do not come back
    /// together. Attempts that were made together and fail together are one failure.
    pub(crate) fn failed(&mut self, now: Timestamp, random: u64) {
        if self.failures > 0 && !self.is_over(now) {
            return;
        }
        let pause = Backoff::LONGEST.min(1000 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let millis = pause + random % (pause / 4);
        self.until = now.after(std::time::Duration::from_millis(millis));
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Backoff::new();
    }
}

//! Connections and sessions: their beginning, their end, and what time does to them (§3.1, §3.14, §4.1).

use std::rc::Rc;

use broker_core::{Connect, Disconnect, DisconnectCause, LinkId, Properties, QoS, ReasonCode, Will};

use super::{Answer, NEVER, Note, Origin, Reference, Session};

impl Reference {
    /// A CONNECT.
    pub fn connect(&mut self, link: LinkId, connect: &Connect) {
        if let Some(reason) = self.refusal(connect) {
            return self.expect(link, Answer::Refused(reason));
        }
        let assigned = connect.client_id.is_empty();
        let client = if assigned {
            format!("?{}", link.0)
        } else {
            connect.client_id.clone()
        };
        // [MQTT-3.1.4-3]
        if let Some(old) = self.find(&client).and_then(|at| self.sessions[at].link) {
            self.expect(old, Answer::Close(ReasonCode::SessionTakenOver));
            self.end_connection(&client, false);
        }
        // [MQTT-3.1.2-4]
        if connect.clean_start && self.find(&client).is_some() {
            self.terminate(&client);
        }
        let limits = &self.config.mqtt;
        let most = u32::try_from(limits.session_expiry_interval.as_secs()).unwrap_or(u32::MAX);
        let expiry = connect.session_expiry_interval.min(most);
        let window = limits.max_inflight.min(connect.receive_maximum).max(1);
        let keep_alive = limits.server_keepalive.filter(|&secs| secs != connect.keep_alive);
        let found = self.find(&client);
        let at = found.unwrap_or_else(|| {
            self.sessions.push(Session::new(client));
            self.sessions.len() - 1
        });
        let session = &mut self.sessions[at];
        session.link = Some(link);
        session.is_v5 = connect.connection.proto_ver >= 5;
        session.expiry = expiry;
        session.is_stored |= expiry > 0;
        session.expires_at = NEVER;
        session.will.clone_from(&connect.will);
        session.will_at = NEVER;
        session.window = window;
        self.expect(
            link,
            Answer::Connected {
                present: found.is_some(),
                expiry,
                keep_alive,
                assigned,
            },
        );
    }

    fn refusal(&self, connect: &Connect) -> Option<ReasonCode> {
        let limits = &self.config.mqtt;
        if connect.client_id.len() > usize::from(limits.max_clientid_len) {
            return Some(ReasonCode::ClientIdentifierNotValid);
        }
        if let Some(will) = &connect.will {
            // [MQTT-3.2.2-12], [MQTT-3.2.2-13]
            if will.qos > limits.max_qos_allowed {
                return Some(ReasonCode::QoSNotSupported);
            }
            if will.retain && !limits.retain_available {
                return Some(ReasonCode::RetainNotSupported);
            }
        }
        let redirect = self.config.redirect.as_ref()?;
        Some(if redirect.moved {
            ReasonCode::ServerMoved
        } else {
            ReasonCode::UseAnotherServer
        })
    }

    /// The broker has named a client that gave no identifier.
    pub(super) fn name_client(&mut self, link: LinkId, client: &str) {
        let placeholder = format!("?{}", link.0);
        if let Some(at) = self.find(&placeholder) {
            self.sessions[at].client = client.to_owned();
        }
    }

    pub(super) fn disconnect(&mut self, at: usize, disconnect: &Disconnect) {
        let most = self.config.mqtt.session_expiry_interval.as_secs();
        let session = &mut self.sessions[at];
        if let Some(seconds) = disconnect.session_expiry_interval {
            session.expiry = seconds.min(u32::try_from(most).unwrap_or(u32::MAX));
        }
        let client = session.client.clone();
        self.end_connection(&client, disconnect.cause == DisconnectCause::Normal);
    }

    pub(super) fn end_connection(&mut self, client: &str, is_normal: bool) {
        let now = self.now;
        let Some(at) = self.find(client) else { return };
        let session = &mut self.sessions[at];
        session.link = None;
        session.congested = false;
        session.expires_at = later(now, session.expiry);
        for entry in &mut session.inflight {
            entry.sent = false;
        }
        for (_, is_anew) in &mut session.replays {
            *is_anew = true;
        }
        for copy in &mut session.waiting {
            // Neither QoS 0 (§4.1) nor what was retained is promised across connections.
            copy.optional |= copy.qos == QoS::AtMostOnce || copy.origin != Origin::Live;
        }
        // [MQTT-3.14.4-3]
        if is_normal {
            session.will = None;
        }
        match &session.will {
            Some(will) if will.delay_interval > 0 => session.will_at = later(now, will.delay_interval),
            Some(_) => self.publish_will(client),
            None => {}
        }
        let Some(at) = self.find(client) else { return };
        if self.sessions[at].expiry == 0 {
            self.terminate(client);
        } else {
            for target in self.targets_of(client) {
                self.leave_group(client, &target, true);
            }
        }
    }

    pub(super) fn terminate(&mut self, client: &str) {
        // [MQTT-3.1.2-8]: the Will is due when the session ends, whatever its delay.
        self.publish_will(client);
        let mut targets = self.targets_of(client);
        let Some(at) = self.find(client) else { return };
        // Also of groups that it has left while a delivery was under way.
        targets.extend(
            self.sessions[at]
                .inflight
                .iter()
                .filter_map(|entry| match &entry.copy.origin {
                    Origin::Shared(target) => Some(target.clone()),
                    _ => None,
                }),
        );
        self.sessions[at].subscriptions.clear();
        for target in targets {
            self.leave_group(client, &target, false);
        }
        for debt in &mut self.debts {
            debt.holders.retain(|(holder, _)| holder != client);
        }
        self.debts.retain(|debt| !debt.holders.is_empty());
        self.sessions.remove(at);
    }

    fn publish_will(&mut self, client: &str) {
        let Some(at) = self.find(client) else { return };
        self.sessions[at].will_at = NEVER;
        let Some(will) = self.sessions[at].will.take() else {
            return;
        };
        let note = self.note_of_will(client, &will);
        // Nobody is left to be told of an error.
        let _ = self.dispatch(Rc::new(note));
    }

    fn note_of_will(&self, client: &str, will: &Will) -> Note {
        let data = Properties::from_validated(&will.properties).correlation_data();
        let number = data.and_then(|data| data.try_into().ok());
        Note {
            number: u64::from_be_bytes(number.unwrap_or_default()),
            publisher: client.to_owned(),
            topic: will.topic.clone(),
            payload: will.payload.clone(),
            qos: will.qos,
            retain: will.retain,
            expires: will
                .expiry_interval
                .map_or(NEVER, |seconds| self.now + u64::from(seconds) * 1000),
        }
    }

    /// When something happens by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        let sessions = self
            .sessions
            .iter()
            .filter(|session| session.link.is_none())
            .map(|session| session.expires_at.min(session.will_at));
        let delayed = self.delayed.iter().map(|(due, _, _)| *due);
        sessions.chain(delayed).min().filter(|&at| at < NEVER)
    }

    /// Lets happen what is due first, if it is due by `until`. False if nothing is.
    pub fn fire(&mut self, until: u64) -> bool {
        let Some(at) = self.next_deadline().filter(|&at| at <= until) else {
            return false;
        };
        self.now = self.now.max(at);
        let first = self
            .delayed
            .iter()
            .enumerate()
            .filter(|(_, (due, _, _))| *due <= at)
            .min_by_key(|(_, (due, arrival, _))| (*due, *arrival))
            .map(|(place, _)| place);
        if let Some(place) = first {
            let (_, _, note) = self.delayed.remove(place);
            if note.expires > self.now {
                if note.retain {
                    self.late.insert(note.number, Rc::clone(&note));
                }
                // Nobody is left to be told of an error.
                let _ = self.dispatch(note);
            }
            return true;
        }
        let is_due = |session: &&Session| session.link.is_none();
        let due = self
            .sessions
            .iter()
            .filter(is_due)
            .find(|session| session.expires_at.min(session.will_at) <= at)
            .map(|session| (session.client.clone(), session.will_at <= at));
        match due {
            Some((client, true)) => self.publish_will(&client),
            Some((client, false)) => self.terminate(&client),
            None => {}
        }
        true
    }
}

fn later(now: u64, seconds: u32) -> u64 {
    match seconds {
        u32::MAX => NEVER,
        seconds => now + u64::from(seconds) * 1000,
    }
}

impl Session {
    fn new(client: String) -> Session {
        Session {
            client,
            link: None,
            is_v5: true,
            congested: false,
            expiry: 0,
            expires_at: NEVER,
            will: None,
            will_at: NEVER,
            subscriptions: Vec::new(),
            waiting: Vec::new(),
            inflight: Vec::new(),
            next_id: 1,
            window: 1,
            awaiting_rel: Vec::new(),
            is_stored: false,
            replays: Vec::new(),
        }
    }
}

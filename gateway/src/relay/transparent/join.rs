//! CONNECT: a client that comes, comes back or wakes.

use broker_core::topic;

use super::*;
use crate::relay::{
    client::{Credentials, client_info, connected},
    deliveries::Deliveries,
};

impl Transparent {
    pub(super) fn connect(
        &mut self,
        now: Timestamp,
        link: LinkId,
        mut connect: Box<Connect>,
        out: &mut Output,
    ) {
        if let Some(guard) = connect.wake.take() {
            return self.wake(now, link, &connect, &guard, out);
        }
        if connect.username.is_none() && connect.password.is_none() {
            connect.username.clone_from(&self.terms.credentials.username);
            connect.password.clone_from(&self.terms.credentials.password);
        }
        let client_id: Arc<str> = match connect.client_id.as_str() {
            "" => format!("sn-{:016x}", self.random.next()).into(),
            id => id.into(),
        };
        let sleeper = self.homes.get(&client_id).and_then(|home| home.serving);
        if let Some(key) = sleeper
            && self.is_same_sleeper(key, &connect)
        {
            if !connect.clean_start {
                return self.go_on(now, key, link, &connect, out);
            }
            self.leave(now, key, true, out);
        }
        self.join(now, client_id, link, connect, out);
    }

    /// The line is that of a client that sleeps and of whom this CONNECT may be: it says the same to the broker.
    fn is_same_sleeper(&self, key: usize, connect: &Connect) -> bool {
        match &self.lines[key].stage {
            Stage::Serving(service) => {
                let credentials = &service.credentials;
                service.link.is_none()
                    && credentials.username == connect.username
                    && credentials.password == connect.password
            }
            _ => false,
        }
    }

    /// A PINGREQ of a client that sleeps (§6.14).
    fn wake(&mut self, now: Timestamp, link: LinkId, connect: &Connect, guard: &[u8], out: &mut Output) {
        let home = self.homes.get(connect.client_id.as_str());
        if let Some(key) = home.and_then(|home| home.serving)
            && let line = &mut self.lines[key]
            && let (Stage::Serving(service), Some(connection)) = (&mut line.stage, &mut line.connection)
            && service.link.is_none()
            && service.notes.guard().is_some_and(|note| *note == guard)
        {
            self.by_link.insert(link, key);
            let will = service.will.clone();
            let event = connected(&service.client, connect, true, &service.notes, will);
            out.events.push((link, event));
            let counters = &mut self.counters;
            let mut context = Context {
                now,
                connection,
                counters,
                out,
            };
            service.attach(link, connect.receive_maximum, true, &mut context);
            self.arm(key);
        } else {
            let closing = Closing::new(ReasonCode::BadUserNameOrPassword);
            out.events.push((link, Event::Refused(Box::new(closing))));
        }
    }

    /// CONNECT of a client that sleeps, with its session: the connection to the broker has stayed.
    fn go_on(&mut self, now: Timestamp, key: usize, link: LinkId, connect: &Connect, out: &mut Output) {
        let line = &mut self.lines[key];
        let (Stage::Serving(service), Some(connection)) = (&mut line.stage, &mut line.connection) else {
            return;
        };
        let mut kept = None;
        match &connect.will {
            Some(will) => service.set_will(Some(Box::new(will.clone()))),
            None if connect.keeps_will => kept.clone_from(&service.will),
            None if service.will.is_some() => service.set_will(None),
            None => {}
        }
        service.client = client_info(&line.client_id, connect);
        self.by_link.insert(link, key);
        let event = connected(&service.client, connect, true, &service.notes, kept);
        out.events.push((link, event));
        let counters = &mut self.counters;
        let mut context = Context {
            now,
            connection,
            counters,
            out,
        };
        service.attach(link, connect.receive_maximum, false, &mut context);
        self.arm(key);
    }

    /// A new line, opened at once unless another one has to end first.
    fn join(
        &mut self,
        now: Timestamp,
        client_id: Arc<str>,
        link: LinkId,
        mut connect: Box<Connect>,
        out: &mut Output,
    ) {
        if !self.backoff.is_over(now) {
            let closing = Closing::because(ReasonCode::ServerUnavailable, "the broker cannot be reached");
            return out.events.push((link, Event::Refused(Box::new(closing))));
        }
        if let Some(old) = self.by_link.remove(&link) {
            // A peer asks only once; if not, the last word counts.
            self.remove(now, old, out);
        }
        let serving = self.homes.get(&client_id).and_then(|home| home.serving);
        let kept = match serving.map(|key| &self.lines[key].stage) {
            Some(Stage::Serving(service)) => Some((service.notes.clone(), service.will.clone())),
            _ => self.kept.take(&client_id),
        };
        let (notes, will) = kept.filter(|_| !connect.clean_start).unwrap_or_default();
        connect.keeps_will &= connect.will.is_none();
        if connect.keeps_will {
            connect.will = will.map(|will| *will);
        }
        let key = self.lines.insert(Line {
            client_id: Arc::clone(&client_id),
            connection: None,
            stage: Stage::Joining { link, connect, notes },
            armed: Timestamp::NEVER,
        });
        self.by_link.insert(link, key);
        let home = self.homes.entry(client_id).or_default();
        if home.leaving.is_none() {
            return self.open(now, key, out);
        }
        if let Some(other) = home.waiting.replace(key) {
            self.refuse(now, other, Closing::new(ReasonCode::SessionTakenOver), out);
        }
    }

    fn refuse(&mut self, now: Timestamp, key: usize, closing: Closing, out: &mut Output) {
        if let Some(line) = self.lines.get(key)
            && let Stage::Joining { link, .. } = &line.stage
        {
            out.notices.push(Notice::Refused {
                client_id: line.client_id.to_string(),
                reason: closing.reason.text().to_owned(),
            });
            out.events.push((*link, Event::Refused(Box::new(closing))));
        }
        self.remove(now, key, out);
    }

    pub(super) fn open(&mut self, now: Timestamp, key: usize, out: &mut Output) {
        let line = &self.lines[key];
        let Stage::Joining { connect, .. } = &line.stage else {
            return;
        };
        let will = connect.will.as_ref();
        if will.is_some_and(|will| !topic::is_valid_name(&will.topic)) {
            return self.refuse(now, key, Closing::new(ReasonCode::TopicNameInvalid), out);
        }
        let mut packet = mqtt::codec::Connect::new(mqtt::codec::ProtocolVersion::V4, &line.client_id);
        packet.clean_start = connect.clean_start;
        packet.keep_alive = self.terms.timing.keep_alive_secs();
        packet.username = connect.username.as_deref();
        // MQTT 3.1.1 knows no password without a user name [MQTT-3.1.2-22].
        packet.password = connect.password.as_deref().filter(|_| packet.username.is_some());
        packet.will = will.map(|will| mqtt::codec::Will {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            delay_interval: 0,
            expiry_interval: None,
            properties: [].as_slice().into(),
        });
        self.connections += 1;
        let conn = ConnId(self.connections);
        match Connection::open(now, conn, self.terms.timing, packet, out) {
            Ok(connection) => {
                self.by_conn.insert(conn, key);
                self.lines[key].connection = Some(connection);
                self.arm(key);
            }
            Err(error) => {
                let closing = Closing::because(ReasonCode::ClientIdentifierNotValid, error.to_string());
                self.refuse(now, key, closing, out);
            }
        }
    }

    /// CONNACK.
    pub(super) fn joined(
        &mut self,
        now: Timestamp,
        key: usize,
        session_present: bool,
        reason: ReasonCode,
        out: &mut Output,
    ) {
        if reason.is_error() {
            return self.refuse(now, key, Closing::new(reason), out);
        }
        let line = &mut self.lines[key];
        let client_id = Arc::clone(&line.client_id);
        let Stage::Joining { link, connect, notes } = std::mem::replace(&mut line.stage, Stage::Closing)
        else {
            return;
        };
        let credentials = Credentials {
            username: connect.username.clone(),
            password: connect.password.clone(),
        };
        let client = client_info(&client_id, &connect);
        let deliveries = Deliveries::new(self.terms.queue);
        let mut service = Service::new(client, credentials, deliveries);
        service.will = connect.will.clone().map(Box::new);
        service.notes = notes;
        service.is_clean = connect.clean_start;
        if let Some(old) = self.homes.get(&client_id).and_then(|home| home.serving) {
            self.taken_over(now, old, out);
        }
        self.homes.entry(client_id).or_default().serving = Some(key);
        let kept = service.will.clone().filter(|_| connect.keeps_will);
        let event = connected(&service.client, &connect, session_present, &service.notes, kept);
        out.events.push((link, event));
        let line = &mut self.lines[key];
        out.notices.push(Notice::Connected {
            client_id: line.client_id.to_string(),
            session_present,
        });
        if let Some(connection) = &mut line.connection {
            let counters = &mut self.counters;
            let mut context = Context {
                now,
                connection,
                counters,
                out,
            };
            service.attach(link, connect.receive_maximum, false, &mut context);
        }
        line.stage = Stage::Serving(Box::new(service));
    }

    fn taken_over(&mut self, now: Timestamp, key: usize, out: &mut Output) {
        let closing = Closing::new(ReasonCode::SessionTakenOver);
        let line = &self.lines[key];
        if let Stage::Serving(service) = &line.stage
            && let Some(link) = service.link
        {
            out.notices.push(Notice::Disconnected {
                client_id: line.client_id.to_string(),
                reason: closing.reason.text().to_owned(),
            });
            out.events.push((link, Event::Close(Box::new(closing))));
        }
        self.leave(now, key, false, out);
    }
}

//! Connections that begin and end, and the end of everything.

use std::sync::Arc;

use broker_core::{
    Closing, Connect, Connected, ConnectionInfo, Disconnect, DisconnectCause, LinkId, QoS, Request,
    Timestamp, Will,
};

use super::{
    Acks, CLIENTS, Durable,
    client::Life,
    ledger::{Fate, Kind, Note, SLACK_MS},
    subscriptions::is_shared,
};
use crate::model::script;

const DELAYS: [u32; 5] = [0, 0, 0, 2, 10];

impl Durable {
    pub(super) fn connect(&mut self, at: usize) -> Result<(), String> {
        let is_v5 = self.clients[at].is_v5;
        let clean_start = self.random.chance(8);
        let expiry = match (is_v5, clean_start) {
            (true, _) => [0, 5, 60, u32::MAX, u32::MAX, u32::MAX][self.random.below(6)],
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        let acks = Acks::any(&mut self.random);
        self.connect_with(at, clean_start, expiry, acks)
    }

    pub(super) fn connect_with(
        &mut self,
        at: usize,
        clean_start: bool,
        expiry: u32,
        acks: Acks,
    ) -> Result<(), String> {
        // Of two connections that wait for the control plane the one answered last wins: the client gives up the first.
        if let Some(link) = self.clients[at].link.filter(|_| !self.clients[at].is_online()) {
            self.give_up(at);
            self.node.handle(link, lost(None));
            self.events()?;
        }
        let clean_start = clean_start || self.clients[at].must_clean;
        let expiry = if clean_start && !self.clients[at].is_v5 {
            0
        } else {
            expiry
        };
        let link = LinkId(self.node.links() + 1);
        self.ledger.tick += 1;
        let tick = self.ledger.tick;
        self.replace(at);
        let will = self.random.chance(30).then(|| self.will(at));
        let now = self.now();
        let client = &mut self.clients[at];
        client.will = will.as_ref().map(|(number, _)| *number);
        client.link = Some(link);
        client.acks = acks;
        client.clean_start = clean_start;
        client.expiry = expiry;
        client.connect_at = now;
        client.window = [1, 2, 10, 100][self.random.below(4)];
        if clean_start {
            self.leave_groups(at);
            // The end of a session is the end of the wait.
            if let Some(number) = self.clients[at].last_will
                && let Some(Fate::Due(due, is_firm)) = self.ledger.fate(number)
            {
                self.ledger.set_fate(number, Fate::Due(due.min(now), is_firm));
            }
            let client = &mut self.clients[at];
            let (subscriptions, epoch) = (std::mem::take(&mut client.subscriptions), client.epoch);
            client.begin_session();
            client.epoch = epoch;
            client.subscriptions = subscriptions;
            client.subscriptions.doubt(tick);
        }
        self.owners.insert(link, at);
        let connect = Connect {
            clean_start,
            session_expiry_interval: expiry,
            will: will.map(|(_, will)| will),
            receive_maximum: self.clients[at].window,
            ..blank(at, if self.clients[at].is_v5 { 5 } else { 4 })
        };
        self.log(|_| format!("{link:?} = client {at} {acks:?}: {connect:?}"));
        self.node.connect(connect);
        Ok(())
    }

    /// The client's connection, if it has one, is to be replaced by another.
    fn replace(&mut self, at: usize) {
        let Some(link) = self.clients[at].link else { return };
        if let Some(number) = self.clients[at].will.take() {
            self.ledger.set_fate(number, Fate::Maybe);
        }
        let client = &mut self.clients[at];
        client.life = match client.expiry {
            0 => Life::NONE,
            _ => Life {
                sure_until: u64::MAX,
                gone_from: u64::MAX,
            },
        };
        client.settled_life = None;
        client.unlink();
        client.replaced = Some(link);
    }

    fn will(&mut self, at: usize) -> (u64, Will) {
        let number = self.ledger.next_number();
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][self.random.below(2)];
        let topic = format!("will/{at}");
        self.ledger.add(Note {
            topic: topic.clone(),
            qos,
            kind: Kind::Will(Fate::Armed),
            ..self.blank_note(at)
        });
        let delay_interval = if self.clients[at].is_v5 {
            DELAYS[self.random.below(DELAYS.len())]
        } else {
            0
        };
        let will = Will {
            topic,
            payload: vec![u8::try_from(delay_interval).expect("a small number")],
            qos,
            retain: false,
            delay_interval,
            expiry_interval: None,
            properties: script::identity(number).as_properties().encoded().to_vec(),
        };
        self.delays.insert(number, delay_interval);
        (number, will)
    }

    pub(super) fn connected(&mut self, at: usize, link: LinkId, connected: &Connected) -> Result<(), String> {
        let now = self.now();
        let client = &mut self.clients[at];
        let (life, present) = (client.life, connected.session_present);
        if client.is_online() {
            return Err(format!("{link:?} has two CONNACKs"));
        }
        // The end of a session that could not be stored is not known after a crash.
        let is_over = life.is_over(client.connect_at) && self.faulty_at.is_none();
        if present && (client.clean_start || is_over) {
            return Err(format!(
                "client {at}: a session is present, but {life:?} at {now}"
            ));
        }
        if !present && !client.clean_start && life.is_sure(now) {
            return Err(format!("client {at}: no session, but {life:?} at {now}"));
        }
        client.info = Some(Arc::clone(&connected.client));
        client.settled_life = None;
        client.replaced = None;
        client.must_clean = false;
        client.replays += 1;
        if let Some(number) = client.last_will.take() {
            let connect_at = self.clients[at].connect_at;
            self.will_at_return(number, present, connect_at);
        }
        if !present {
            self.leave_groups(at);
            self.clients[at].begin_session();
        }
        self.resend(at, link);
        Ok(())
    }

    /// The client is back: is the Will of its last connection published?
    fn will_at_return(&mut self, number: u64, present: bool, connect_at: u64) {
        let now = self.now();
        let Some(Fate::Due(due, is_firm)) = self.ledger.fate(number) else {
            return;
        };
        if !present {
            self.ledger.set_fate(number, Fate::Due(due.min(now), is_firm));
        } else if now < due {
            self.ledger.set_fate(number, Fate::Never);
            self.ledger.close(number);
        } else if connect_at < due + SLACK_MS {
            // The CONNECT may have come before it.
            self.ledger.set_fate(number, Fate::Maybe);
        }
    }

    /// A member that leaves, or whose session ends, may take messages of its groups with it.
    pub(super) fn leave_groups(&mut self, at: usize) {
        let filters: Vec<String> = self.clients[at]
            .subscriptions
            .filters()
            .filter(|filter| is_shared(filter))
            .map(str::to_owned)
            .collect();
        for filter in filters {
            self.left.insert(filter, self.ledger.tick);
        }
    }

    /// The client or the network ends the connection.
    pub(super) fn lose(&mut self, at: usize) -> Result<(), String> {
        let Some(link) = self.clients[at].link else {
            return Ok(());
        };
        if !self.clients[at].is_online() {
            self.give_up(at);
            self.request(link, lost(None));
            return self.events();
        }
        let is_goodbye = self.random.chance(40);
        let client = &self.clients[at];
        let may_change = is_goodbye && client.is_v5 && client.expiry > 0 && self.random.chance(25);
        let changed = may_change.then(|| [0, 5, 100][self.random.below(3)]);
        self.gone(at, is_goodbye, changed);
        let disconnect = Disconnect {
            cause: if is_goodbye {
                DisconnectCause::Normal
            } else {
                DisconnectCause::ConnectionLost
            },
            session_expiry_interval: changed,
            keeps_will: false,
            user_properties: Vec::new(),
        };
        self.request(link, Request::Disconnect(Box::new(disconnect)));
        self.owners.remove(&link);
        self.events()
    }

    /// What follows from the end of a connection that was answered.
    pub(super) fn gone(&mut self, at: usize, is_goodbye: bool, changed: Option<u32>) {
        let now = self.now();
        let client = &mut self.clients[at];
        let expiry = changed.unwrap_or(client.expiry);
        let (before, after) = (Life::from(now, now, client.expiry), Life::from(now, now, expiry));
        client.longest = client.expiry.max(expiry);
        if client.longest == 0 {
            client.life = Life::NONE;
            client.settled_life = None;
        } else {
            client.life = Life {
                sure_until: before.sure_until.min(after.sure_until),
                gone_from: u64::MAX,
            };
            client.settled_life = Some(after);
        }
        let is_unstored = client.expiry == 0;
        let will = client.will.take();
        client.last_will = will;
        client.unlink();
        if let Some(number) = will {
            let delay = self.delays[&number].min(expiry);
            let fate = match (is_goodbye, self.fault.is_some()) {
                (true, _) => Fate::Never,
                (false, true) => Fate::Maybe,
                (false, false) => Fate::Due(now + u64::from(delay) * 1000, false),
            };
            self.ledger.set_fate(number, fate);
        }
        if is_unstored || expiry == 0 {
            self.leave_groups(at);
        }
    }

    /// The end of a connection that was not answered: what it changed is not known.
    pub(super) fn give_up(&mut self, at: usize) {
        let now = self.now();
        let client = &mut self.clients[at];
        let (link, replaced) = (client.link, client.replaced.take());
        let was_sure = client.life.is_sure(now);
        let sure_until = if client.clean_start {
            0
        } else {
            let old = if replaced.is_some() {
                now
            } else {
                client.life.sure_until
            };
            old.min(Life::from(now, now, client.expiry).sure_until)
        };
        client.life = Life {
            sure_until,
            ..Life::UNKNOWN
        };
        // A session that had ended was made anew, perhaps.
        client.must_clean |= client.clean_start || !was_sure;
        client.settled_life = None;
        client.longest = u32::MAX;
        let wills = [client.will.take(), client.last_will.take()];
        client.unlink();
        for number in wills.into_iter().flatten() {
            if matches!(self.ledger.fate(number), Some(Fate::Armed | Fate::Due(..))) {
                self.ledger.set_fate(number, Fate::Maybe);
            }
        }
        if let Some(replaced) = replaced {
            self.owners.remove(&replaced);
            self.node.handle(replaced, lost(None));
        }
        if let Some(link) = link {
            self.owners.remove(&link);
        }
        self.leave_groups(at);
    }

    /// The broker ends the connection, or refuses it.
    pub(super) fn closed(&mut self, at: usize, link: LinkId, closing: &Closing) -> Result<(), String> {
        self.owners.remove(&link);
        if self.clients[at].link != Some(link) {
            return Ok(());
        }
        if self.faulty_at.is_none() {
            return Err(format!("client {at} on {link:?} is sent away: {closing:?}"));
        }
        if self.clients[at].is_online() {
            self.gone(at, false, None);
        } else {
            self.give_up(at);
        }
        Ok(())
    }

    /// The process is killed, and starts again.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        self.log(|_| "CRASH".to_owned());
        let from = self.now();
        let mut shards = u16::try_from(self.node.shards().len()).expect("made from a u16");
        self.node.crash();
        self.ledger.crash();
        if self.random.chance(40) {
            let down = u64::from(self.random.between(1, 20_000));
            self.node
                .set_clock(Timestamp::from_millis(self.node.now().as_millis() + down));
        }
        if self.random.chance(70) {
            self.set_fault(None);
            self.stall(false);
        }
        loop {
            if self.random.chance(30) {
                shards = u16::try_from(1 + self.random.below(5)).expect("at most 5");
            }
            self.node.start(shards);
            if !self.random.chance(15) {
                break;
            }
            for _ in 0..self.random.below(30) {
                self.node.step();
            }
            self.node.crash();
        }
        let down = self.now() - from;
        self.log(|_| format!("{shards} shards after {down} ms"));
        for at in 0..CLIENTS {
            self.cut_off(at, from);
        }
        self.owners.clear();
        self.node.open();
        Ok(())
    }

    /// The client was connected, or not, when the process was killed at `from`.
    pub(super) fn cut_off(&mut self, at: usize, from: u64) {
        let now = self.now();
        let client = &mut self.clients[at];
        if client.link.is_none() {
            if client.settled_life.is_some() {
                let late = Life::from(now, now, client.longest);
                client.settled_life = Some(Life {
                    sure_until: client.life.sure_until,
                    gone_from: late.gone_from,
                });
            }
            return;
        }
        if !client.is_online() {
            return self.give_up(at);
        }
        let expiry = client.expiry;
        client.life = match expiry {
            0 => Life::NONE,
            _ => Life {
                sure_until: Life::from(from, from, expiry).sure_until,
                gone_from: u64::MAX,
            },
        };
        client.longest = expiry;
        client.settled_life = (expiry > 0).then(|| Life::from(from, now, expiry));
        let will = client.will.take();
        client.last_will = will;
        client.unlink();
        if let Some(number) = will {
            let delay = self.delays[&number].min(expiry);
            let fate = match expiry {
                0 => Fate::Maybe,
                _ => Fate::Due(now + u64::from(delay) * 1000, false),
            };
            self.ledger.set_fate(number, fate);
        }
        if expiry == 0 {
            self.leave_groups(at);
        }
    }
}

pub(super) fn lost(session_expiry_interval: Option<u32>) -> Request {
    Request::Disconnect(Box::new(Disconnect {
        cause: DisconnectCause::ConnectionLost,
        session_expiry_interval,
        keeps_will: false,
        user_properties: Vec::new(),
    }))
}

pub(in crate::model) fn blank(at: usize, proto_ver: u8) -> Connect {
    Connect {
        client_id: format!("c{at}"),
        username: None,
        password: None,
        peer: None,
        local: None,
        connection: Arc::new(ConnectionInfo {
            protocol: "mqtt",
            proto_name: "MQTT",
            proto_ver,
            listener: "tcp:default".into(),
            zone: "default".into(),
        }),
        certificate: None,
        mountpoint: "".into(),
        clean_start: true,
        session_expiry_interval: 0,
        keep_alive: 0,
        receive_maximum: 65_535,
        auth: None,
        will: None,
        user_properties: Vec::new(),
        is_bridge: false,
        keeps_will: false,
        may_sleep: false,
        wake: None,
    }
}

//! The table of associations and handshakes of one socket.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::error::Unspecified;
use broker_core::Timestamp;
use bytes::Bytes;
use slab::Slab;

use super::{
    AssociationId, Outcome, PLAINTEXT_BYTES_MAX, Path,
    association::{Association, Said},
    cookie::Cookies,
    handshake::{Done, Failure, Handshake, Progress},
    hello::{ClientHello, Fragment, hello_verify_request, kind},
    record::{Alert, ContentType, Record, plain_alert},
    server::DtlsServer,
    sources::Sources,
};

mod timeouts;

/// RFC 6347 §4.2.4.1.
const RETRANSMIT_FIRST: Duration = Duration::from_secs(1);
const RETRANSMIT_MAX: Duration = Duration::from_secs(60);
/// A hello that is repeated sooner is not answered again: who repeats what another has sent must not make more of it.
const REPEAT_MIN: Duration = Duration::from_millis(500);
/// Time between two lines of the log that say that a limit is reached.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// All associations of one socket.
pub struct Associations {
    server: Arc<DtlsServer>,
    /// 0: no limit.
    associations_max: usize,
    cookies: Cookies,
    open: Slab<Association>,
    by_remote: HashMap<SocketAddr, usize>,
    handshakes: HashMap<SocketAddr, Box<Pending>>,
    sources: Sources,
    timers: BTreeSet<(Timestamp, Due)>,
    serial: u64,
    /// When the log may next say that a limit is reached.
    log_again: Timestamp,
}

/// A handshake under way.
struct Pending {
    path: Path,
    handshake: Handshake,
    deadline: Timestamp,
    /// When the server's flight was sent last.
    sent: Timestamp,
    /// Until it is sent again.
    interval: Duration,
    /// Of the timer.
    due: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Handshake(SocketAddr),
    Association(AssociationId),
}

impl Associations {
    /// None yet. `associations_max`: at a time, handshakes included; 0: no limit. Above it, hellos are not answered
    /// (counted, logged at most once a second), except those of addresses that have an association.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(server: Arc<DtlsServer>, associations_max: usize) -> Result<Associations, Unspecified> {
        Ok(Associations {
            server,
            associations_max,
            cookies: Cookies::new()?,
            open: Slab::new(),
            by_remote: HashMap::new(),
            handshakes: HashMap::new(),
            sources: Sources::default(),
            timers: BTreeSet::new(),
            serial: 0,
            log_again: Timestamp::default(),
        })
    }

    /// New handshakes are made with `server`. Those under way and all associations go on.
    pub fn reconfigure(&mut self, server: Arc<DtlsServer>) {
        self.server = server;
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many handshakes are under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// A datagram has come in. `local`: the own address that it was sent to, if known.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
        out: &mut Vec<Outcome>,
    ) {
        let path = Path { remote: from, local };
        let mut rest = datagram;
        loop {
            let Some(record) = Record::take(&mut rest) else {
                return drop_it(out, "malformed_record");
            };
            self.handle_record(now, &path, &record, out);
            if rest.is_empty() {
                return;
            }
        }
    }

    fn handle_record(&mut self, now: Timestamp, path: &Path, record: &Record<'_>, out: &mut Vec<Outcome>) {
        if record.epoch == 0 && record.content == ContentType::Handshake {
            let fragment = Fragment::take(&mut { record.body });
            if let Some(fragment) = fragment.filter(|fragment| fragment.kind == kind::CLIENT_HELLO) {
                return self.handle_hello(now, path, record.sequence, &fragment, out);
            }
        }
        let mut unused = "no_association";
        if let Some(&index) = self.by_remote.get(&path.remote) {
            let association = &mut self.open[index];
            match association.channel.open(record) {
                Said::Nothing(reason) => unused = reason,
                said => {
                    association.heard = now;
                    association.has_spoken |= matches!(said, Said::Data(_));
                    let id = association.id(index);
                    return self.handle_said(id, said, out);
                }
            }
        }
        if !self.handshakes.contains_key(&path.remote) {
            return drop_it(out, unused);
        }
        self.advance(now, path, record, out);
    }

    fn handle_said(&mut self, id: AssociationId, said: Said, out: &mut Vec<Outcome>) {
        match said {
            Said::Nothing(reason) => drop_it(out, reason),
            Said::Data(plaintext) => out.push(Outcome::Data { id, plaintext }),
            Said::Answer(datagram) => out.push(self.open[id.index].path.transmit(datagram)),
            Said::End(reason) => self.end(id, reason, out),
        }
    }

    fn handle_hello(
        &mut self,
        now: Timestamp,
        path: &Path,
        sequence: u64,
        fragment: &Fragment<'_>,
        out: &mut Vec<Outcome>,
    ) {
        let Some(body) = fragment.whole() else {
            return drop_it(out, "fragmented_hello");
        };
        let Some(hello) = ClientHello::parse(body) else {
            return drop_it(out, "malformed_hello");
        };
        if let Some(pending) = self.handshakes.get_mut(&path.remote)
            && pending.handshake.is_from(&hello)
        {
            return match now.since(pending.sent) < REPEAT_MIN {
                true => drop_it(out, "repeated_hello"),
                false => pending.send_flight(now, out),
            };
        }
        if let Some(reason) = self.full(now, path) {
            return drop_it(out, reason);
        }
        let Some(cookie) = self.cookies.verify(now, path, &hello) else {
            let cookie = self.cookies.make(now, path, &hello);
            let datagram = hello_verify_request(sequence, fragment.number, &cookie);
            return out.push(path.transmit(datagram));
        };
        let known = self.by_remote.get(&path.remote).map(|&index| &self.open[index]);
        if known.is_some_and(|association| association.cookie == cookie) {
            return drop_it(out, "repeated_hello");
        }
        if let Some(reason) = self.too_many(now, path) {
            return drop_it(out, reason);
        }
        match Handshake::start(self.server.clone(), &hello, cookie, (fragment, sequence)) {
            Ok(handshake) => self.begin(now, path, handshake, out),
            Err(failure) => fail(path, failure, sequence, out),
        }
    }

    /// Why a hello along `path` cannot be answered.
    fn full(&mut self, now: Timestamp, path: &Path) -> Option<&'static str> {
        let may_replace = self.handshakes.contains_key(&path.remote);
        let reason = if self.handshakes.len() >= self.server.handshakes_max && !may_replace {
            "handshakes_full"
        } else if self.associations_max != 0
            && self.open.len() + self.handshakes.len() >= self.associations_max
            && !may_replace
            && !self.by_remote.contains_key(&path.remote)
        {
            "associations_full"
        } else {
            return None;
        };
        self.log_limit(now, path, reason);
        Some(reason)
    }

    /// Why the client, whose address is proven, has to wait. If it need not, this one counts.
    fn too_many(&mut self, now: Timestamp, path: &Path) -> Option<&'static str> {
        let replaces = self.handshakes.contains_key(&path.remote);
        let ip = path.remote.ip();
        let max = self.server.handshakes_max;
        let refusal = self.sources.refusal(now, ip, max, replaces);
        match refusal {
            Some(reason) => self.log_limit(now, path, reason),
            None => self.sources.asked(ip),
        }
        refusal
    }

    fn log_limit(&mut self, now: Timestamp, path: &Path, reason: &'static str) {
        if now >= self.log_again {
            self.log_again = now.after(LOG_INTERVAL);
            tracing::warn!(
                reason,
                client = %path.remote,
                handshakes = self.handshakes.len(),
                associations = self.open.len(),
                "DTLS hellos are not answered"
            );
        }
    }

    fn begin(&mut self, now: Timestamp, path: &Path, handshake: Handshake, out: &mut Vec<Outcome>) {
        self.forget_handshake(path.remote);
        let deadline = now.after(self.server.handshake_timeout);
        let mut pending = Box::new(Pending {
            path: *path,
            handshake,
            deadline,
            sent: now,
            interval: RETRANSMIT_FIRST,
            due: deadline.min(now.after(RETRANSMIT_FIRST)),
        });
        pending.send_flight(now, out);
        self.timers.insert((pending.due, Due::Handshake(path.remote)));
        self.handshakes.insert(path.remote, pending);
        self.sources.began(path.remote.ip());
    }

    fn forget_handshake(&mut self, remote: SocketAddr) {
        if let Some(pending) = self.handshakes.remove(&remote) {
            self.timers.remove(&(pending.due, Due::Handshake(remote)));
            self.sources.ended(remote.ip());
        }
    }

    /// Offers a record to the handshake along `path`.
    fn advance(&mut self, now: Timestamp, path: &Path, record: &Record<'_>, out: &mut Vec<Outcome>) {
        let Some(pending) = self.handshakes.get_mut(&path.remote) else {
            return;
        };
        match pending.handshake.handle(now, record) {
            Ok(Progress::Waiting) => {}
            Ok(Progress::Dropped(reason)) => drop_it(out, reason),
            Ok(Progress::Done(done)) => {
                self.forget_handshake(path.remote);
                self.establish(now, path, *done, out);
            }
            Err(failure) => {
                let sequence = pending.handshake.next_sequence();
                self.forget_handshake(path.remote);
                fail(path, failure, sequence, out);
            }
        }
    }

    fn establish(&mut self, now: Timestamp, path: &Path, mut done: Done, out: &mut Vec<Outcome>) {
        let Some(datagram) = done.channel.last_flight() else {
            return drop_it(out, "internal_error");
        };
        out.push(path.transmit(datagram));
        if let Some(&index) = self.by_remote.get(&path.remote) {
            let id = self.open[index].id(index);
            self.forget(id);
            out.push(Outcome::Closed {
                id,
                reason: "replaced",
            });
        }
        self.serial += 1;
        let due = now.after(self.server.patience(false));
        let index = self.open.insert(Association {
            serial: self.serial,
            path: *path,
            channel: done.channel,
            cookie: done.cookie,
            heard: now,
            has_spoken: false,
            due,
        });
        self.by_remote.insert(path.remote, index);
        let id = self.open[index].id(index);
        self.timers.insert((due, Due::Association(id)));
        out.push(Outcome::Opened {
            id,
            from: path.remote,
            local: path.local,
            identity: done.identity,
        });
    }

    /// Sends `plaintext` in one record: at most [`PLAINTEXT_BYTES_MAX`] bytes. It is dropped if there are more, or the
    /// association has ended.
    pub fn send(&mut self, now: Timestamp, id: AssociationId, plaintext: &[u8], out: &mut Vec<Outcome>) {
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return drop_it(out, "too_long");
        }
        let Some(association) = self.get_mut(id) else {
            return drop_it(out, "no_association");
        };
        match association.channel.seal(ContentType::ApplicationData, plaintext) {
            Some(datagram) => out.push(association.path.transmit(datagram)),
            None => self.close(now, id, "sequence_exhausted", out),
        }
    }

    /// Says goodbye and forgets the association. Nothing happens if it has ended already.
    pub fn close(
        &mut self,
        _now: Timestamp,
        id: AssociationId,
        reason: &'static str,
        out: &mut Vec<Outcome>,
    ) {
        if self.get_mut(id).is_some() {
            self.end(id, reason, out);
        }
    }

    /// Ends everything: the socket is to be closed.
    pub fn close_all(&mut self, reason: &'static str, out: &mut Vec<Outcome>) {
        let all: Vec<_> = self
            .open
            .iter()
            .map(|(index, association)| association.id(index))
            .collect();
        for id in all {
            self.end(id, reason, out);
        }
        self.handshakes.clear();
        self.sources = Sources::default();
        self.timers.clear();
    }

    fn end(&mut self, id: AssociationId, reason: &'static str, out: &mut Vec<Outcome>) {
        if let Some(mut association) = self.forget(id) {
            if let Some(datagram) = association
                .channel
                .seal(ContentType::Alert, &Alert::CloseNotify.bytes())
            {
                out.push(association.path.transmit(datagram));
            }
            out.push(Outcome::Closed { id, reason });
        }
    }

    fn get_mut(&mut self, id: AssociationId) -> Option<&mut Association> {
        let association = self.open.get_mut(id.index)?;
        (association.serial == id.serial).then_some(association)
    }

    fn forget(&mut self, id: AssociationId) -> Option<Association> {
        self.get_mut(id)?;
        let association = self.open.remove(id.index);
        self.by_remote.remove(&association.path.remote);
        self.timers.remove(&(association.due, Due::Association(id)));
        Some(association)
    }
}

impl Pending {
    fn send_flight(&mut self, now: Timestamp, out: &mut Vec<Outcome>) {
        self.sent = now;
        let path = self.path;
        self.handshake
            .flight(|datagram| out.push(path.transmit(datagram)));
    }
}

impl Association {
    fn id(&self, index: usize) -> AssociationId {
        AssociationId {
            index,
            serial: self.serial,
        }
    }
}

impl Path {
    fn transmit(&self, datagram: Bytes) -> Outcome {
        Outcome::Transmit {
            to: self.remote,
            local: self.local,
            datagram,
        }
    }
}

fn drop_it(out: &mut Vec<Outcome>, reason: &'static str) {
    out.push(Outcome::Dropped { reason });
}

/// A handshake has failed: the client is told, if there is something to tell.
fn fail(path: &Path, failure: Failure, sequence: u64, out: &mut Vec<Outcome>) {
    tracing::debug!(client = %path.remote, reason = failure.reason, "DTLS handshake failed");
    if let Some(alert) = failure.alert {
        out.push(path.transmit(plain_alert(alert, sequence)));
    }
    drop_it(out, failure.reason);
}

//! Publishers with a window each: what `publish` and `live` have in common.

use crate::{
    net::Net,
    options::{self, Options},
    wire::{self, Packet, Publication, Stamp},
};

/// Bytes of QoS 0 that a socket may owe before its publisher waits.
const UNSENT_MAX: usize = 64 << 10;

struct Publisher {
    connected: bool,
    /// Identifiers that are not in use.
    free: Vec<u16>,
    /// When the message under each identifier was sent.
    sent_micros: Vec<u64>,
    numbered: u64,
}

/// All publishers of a run, which share a number of messages.
pub(crate) struct Publishers {
    of: Publication,
    topic: String,
    topics: u64,
    window: u16,
    /// Messages that are to be sent in all.
    pub(crate) count: u64,
    publishers: Vec<Publisher>,
    pub(crate) connected: usize,
    pub(crate) closed: u64,
    /// Messages sent, by all.
    pub(crate) sent: u64,
    /// Messages acknowledged for good, by all. QoS 0: the same as `sent`.
    pub(crate) acknowledged: u64,
    /// From PUBLISH to PUBACK, or to PUBREC.
    pub(crate) micros: Vec<u32>,
    scratch: Vec<u8>,
    pub(crate) pongs: usize,
}

impl Publishers {
    pub(crate) fn new(options: &Options, v5: bool) -> Result<Publishers, options::Error> {
        let window: u16 = options.get("window", 50)?;
        let number: usize = options.get("publishers", 1)?;
        let publisher = || Publisher {
            connected: false,
            free: (1..=window).rev().collect(),
            sent_micros: vec![0; usize::from(window) + 1],
            numbered: 0,
        };
        Ok(Publishers {
            of: Publication {
                v5,
                qos: options.get("qos", 1)?,
                retain: options.get("retain", false)?,
                payload_bytes: options.get("size", 64)?,
            },
            topic: options.get("topic", "dur/{n}".to_owned())?,
            topics: options.get("topics", 1000)?,
            window,
            count: options.get("count", 100_000)?,
            publishers: (0..number).map(|_| publisher()).collect(),
            connected: 0,
            closed: 0,
            sent: 0,
            acknowledged: 0,
            micros: Vec::new(),
            scratch: Vec::new(),
            pongs: 0,
        })
    }

    pub(crate) fn number(&self) -> usize {
        self.publishers.len()
    }

    pub(crate) fn qos(&self) -> u8 {
        self.of.qos
    }

    /// Whether every message was sent and, above QoS 0, acknowledged.
    pub(crate) fn done(&self) -> bool {
        self.sent >= self.count && self.acknowledged >= self.count
    }

    /// Sends one message if the window is open. `unsent` is what the socket owes.
    pub(crate) fn send(&mut self, index: usize, now_micros: u64, unsent: usize, out: &mut Vec<u8>) -> bool {
        let publisher = &mut self.publishers[index];
        if self.sent >= self.count || !publisher.connected {
            return false;
        }
        let id = if self.of.qos == 0 {
            if unsent > UNSENT_MAX {
                return false;
            }
            0
        } else {
            let Some(id) = publisher.free.pop() else {
                return false;
            };
            publisher.sent_micros[usize::from(id)] = now_micros;
            id
        };
        let stamp = Stamp {
            sender: index as u32,
            number: publisher.numbered,
            sent_micros: now_micros,
        };
        self.scratch.clear();
        wire::fill(
            &mut self.scratch,
            &self.topic,
            index as u64,
            self.sent % self.topics.max(1),
        );
        publisher.numbered += 1;
        self.sent += 1;
        // A pattern comes from the command line: it is text.
        let topic = std::str::from_utf8(&self.scratch).unwrap_or_default();
        wire::publish(out, &self.of, topic, id, stamp);
        if self.of.qos == 0 {
            self.acknowledged += 1;
        }
        true
    }

    /// Sends all that windows allow.
    pub(crate) fn send_all(&mut self, net: &mut Net) {
        for index in 0..self.publishers.len() {
            let now = net.micros();
            while self.send(index, now, net.unsent(index), net.out(index)) {}
            net.flush(index);
        }
    }

    /// What the broker answers to a publisher.
    pub(crate) fn packet(&mut self, index: usize, packet: &Packet<'_>, now_micros: u64, out: &mut Vec<u8>) {
        match *packet {
            Packet::Connack { code: 0, .. } => {
                self.publishers[index].connected = true;
                self.connected += 1;
            }
            Packet::Puback(id) => {
                self.answered(index, id, now_micros);
                self.completed(index, id);
            }
            Packet::Pubrec(id) => {
                self.answered(index, id, now_micros);
                wire::acknowledge(out, 0x62, id);
            }
            Packet::Pubcomp(id) => self.completed(index, id),
            Packet::Pingresp => self.pongs += 1,
            _ => {}
        }
    }

    fn answered(&mut self, index: usize, id: u16, now_micros: u64) {
        if let Some(sent) = self.publishers[index].sent_micros.get(usize::from(id)) {
            self.micros.push(now_micros.saturating_sub(*sent) as u32);
        }
    }

    fn completed(&mut self, index: usize, id: u16) {
        if id <= self.window {
            self.publishers[index].free.push(id);
            self.acknowledged += 1;
        }
    }
}

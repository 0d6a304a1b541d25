//! Sessions that take messages, and what is wrong with what they get.

use std::collections::BTreeMap;

use crate::wire::{self, Packet};

/// What sessions have got.
#[derive(Default)]
pub(crate) struct Receivers {
    /// By session and sender: the highest number that came.
    last: BTreeMap<(usize, u32), u64>,
    /// Identifiers of QoS 2 that were acknowledged and not yet released.
    unreleased: BTreeMap<(usize, u16), ()>,
    pub(crate) received: u64,
    /// Messages with the number of an earlier one, or a lower: doubled, or out of order.
    pub(crate) backwards: u64,
    pub(crate) connected: usize,
    pub(crate) present: usize,
    pub(crate) refused: usize,
    pub(crate) subscribed: usize,
    pub(crate) closed: u64,
    /// From the sender to here, where both are in one process.
    pub(crate) micros: Vec<u32>,
}

impl Receivers {
    /// Takes a packet for a session, and acknowledges it.
    pub(crate) fn packet(&mut self, session: usize, packet: &Packet<'_>, now_micros: u64, out: &mut Vec<u8>) {
        match *packet {
            Packet::Connack {
                code: 0,
                session_present,
            } => {
                self.connected += 1;
                self.present += usize::from(session_present);
            }
            Packet::Connack { .. } | Packet::Suback { refused: true } => self.refused += 1,
            Packet::Suback { refused: false } => self.subscribed += 1,
            Packet::Pubrel(id) => {
                self.unreleased.remove(&(session, id));
                wire::acknowledge(out, 0x70, id);
            }
            Packet::Publish { qos, id, payload } => {
                match qos {
                    0 => {}
                    1 => wire::acknowledge(out, 0x40, id),
                    _ => {
                        wire::acknowledge(out, 0x50, id);
                        if self.unreleased.insert((session, id), ()).is_some() {
                            return;
                        }
                    }
                }
                self.received += 1;
                self.take(session, payload, now_micros);
            }
            _ => {}
        }
    }

    fn take(&mut self, session: usize, payload: &[u8], now_micros: u64) {
        let Some(stamp) = wire::stamp(payload) else {
            return;
        };
        self.micros
            .push(now_micros.saturating_sub(stamp.sent_micros) as u32);
        let next = self.last.entry((session, stamp.sender)).or_insert(0);
        // Numbers begin at 0; kept is the one after the highest.
        if stamp.number < *next {
            self.backwards += 1;
        } else {
            *next = stamp.number + 1;
        }
    }
}

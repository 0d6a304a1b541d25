//! Persistent sessions that connect, subscribe, and leave.

use std::{collections::BTreeMap, error::Error, io, time::Duration};

use crate::{
    Run,
    net::Client,
    wire::{self, Packet, Session},
};

/// Filters of one SUBSCRIBE packet at most.
const FILTERS_MAX: u64 = 500;

struct Creation {
    prefix: String,
    filter: String,
    each: u64,
    qos: u8,
    session: Session,
    /// By link: which session, and how many filters it has asked for.
    under_way: BTreeMap<usize, (u64, u64)>,
    created: u64,
    failed: u64,
}

impl Creation {
    fn subscribe(&self, number: u64, from: u64, out: &mut Vec<u8>) -> u64 {
        let to = self.each.min(from + FILTERS_MAX);
        let filters: Vec<String> = (from..to)
            .map(|n| wire::filled(&self.filter, number, n))
            .collect();
        let id = (from / FILTERS_MAX + 1) as u16;
        wire::subscribe(out, self.session.v5, id, &filters, self.qos);
        to
    }

    fn begin(&mut self, link: usize, number: u64, out: &mut Vec<u8>) {
        wire::connect(out, &format!("{}{number}", self.prefix), self.session);
        let asked = if self.each == 0 {
            0
        } else {
            self.subscribe(number, 0, out)
        };
        self.under_way.insert(link, (number, asked));
    }
}

impl Client for Creation {
    fn packet(&mut self, link: usize, packet: Packet<'_>, out: &mut Vec<u8>) {
        let Some(&(number, asked)) = self.under_way.get(&link) else {
            return;
        };
        let finished = match packet {
            Packet::Connack { code: 0, .. } => self.each == 0,
            Packet::Suback { refused: false } if asked < self.each => {
                let asked = self.subscribe(number, asked, out);
                self.under_way.insert(link, (number, asked));
                false
            }
            Packet::Suback { refused: false } => true,
            Packet::Connack { .. } | Packet::Suback { .. } => {
                self.failed += 1;
                true
            }
            _ => false,
        };
        if finished {
            self.created += 1;
            wire::disconnect(out);
        }
    }

    fn closed(&mut self, link: usize) {
        self.under_way.remove(&link);
    }
}

pub(crate) fn run(run: &mut Run) -> Result<(), Box<dyn Error>> {
    let options = &run.options;
    let sessions: u64 = options.get("sessions", 1000)?;
    let limit: usize = options.get("under-way", 200)?;
    let mut creation = Creation {
        prefix: options.get("prefix", "s".to_owned())?,
        filter: options.get("filter", "dev/{s}/{n}".to_owned())?,
        each: options.get("each", 1)?,
        qos: options.get("qos", 1)?,
        session: run.session(options.get("clean", false)?)?,
        under_way: BTreeMap::new(),
        created: 0,
        failed: 0,
    };
    let phase = run.process.begin();
    let (mut opened, mut idle) = (0, 0);
    while opened < sessions || !creation.under_way.is_empty() {
        while opened < sessions && creation.under_way.len() < limit {
            let link = run.net.open(run.v5)?;
            creation.begin(link, opened, run.net.out(link));
            opened += 1;
        }
        let before = (creation.created, creation.under_way.len());
        run.net.turn(Duration::from_millis(100), &mut creation)?;
        idle = if before == (creation.created, creation.under_way.len()) {
            idle + 1
        } else {
            0
        };
        if idle > 600 {
            return Err(
                io::Error::other(format!("no session in a minute, after {}", creation.created)).into(),
            );
        }
    }
    phase.end(&mut run.report, "session", sessions, None);
    run.report
        .number("failed", (creation.failed + sessions - creation.created) as f64);
    Ok(())
}

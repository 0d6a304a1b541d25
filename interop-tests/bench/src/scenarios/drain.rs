//! Sessions that come back and take what has waited for them.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use super::receiver::Receivers;
use crate::{
    Run,
    net::Client,
    wire::{self, Packet},
};

#[derive(Default)]
struct Drain {
    receivers: Receivers,
    /// Connections whose CONNACK has not come.
    connecting: usize,
    pongs: usize,
}

impl Client for Drain {
    fn packet(&mut self, link: usize, packet: Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::Connack { .. } => self.connecting = self.connecting.saturating_sub(1),
            Packet::Pingresp => self.pongs += 1,
            _ => {}
        }
        self.receivers.packet(link, &packet, 0, out);
    }

    fn closed(&mut self, _: usize) {
        self.receivers.closed += 1;
    }
}

pub(crate) fn run(run: &mut Run) -> Result<(), Box<dyn Error>> {
    let options = &run.options;
    let sessions: usize = options.get("sessions", 1)?;
    let expect: u64 = options.get("expect", 100_000)?;
    let under_way: usize = options.get("under-way", 200)?;
    let prefix: String = options.get("prefix", "s".to_owned())?;
    let patience = Duration::from_secs_f64(options.get("patience-seconds", 20.0)?);
    let session = run.session(options.get("clean", false)?)?;
    let mut drain = Drain::default();
    let phase = run.process.begin();
    let mut opened = 0;
    let mut progress = (0, Instant::now());
    let mut first = None;
    while drain.receivers.received < expect || opened < sessions || drain.connecting > 0 {
        while opened < sessions && drain.connecting < under_way {
            let link = run.net.open(run.v5)?;
            wire::connect(run.net.out(link), &format!("{prefix}{opened}"), session);
            opened += 1;
            drain.connecting += 1;
        }
        run.net.turn(Duration::from_millis(100), &mut drain)?;
        let now = drain.receivers.received + drain.receivers.connected as u64;
        if drain.receivers.received > 0 {
            first.get_or_insert_with(|| phase.began().elapsed());
        }
        if now != progress.0 {
            progress = (now, Instant::now());
        } else if progress.1.elapsed() > patience {
            break;
        }
    }
    let seconds = progress.1.duration_since(phase.began()).as_secs_f64();
    phase.end(
        &mut run.report,
        "message",
        drain.receivers.received,
        Some(seconds),
    );
    let closed = drain.receivers.closed;
    leave(run, &mut drain, sessions)?;
    let receivers = &drain.receivers;
    if let Some(first) = first {
        run.report.number("first_message_ms", first.as_secs_f64() * 1e3);
    }
    run.report
        .number("lost", expect.saturating_sub(receivers.received) as f64);
    run.report
        .number("surplus", receivers.received.saturating_sub(expect) as f64);
    run.report.number("backwards", receivers.backwards as f64);
    run.report.number("sessions_present", receivers.present as f64);
    run.report
        .number("closed_or_refused", closed as f64 + receivers.refused as f64);
    Ok(())
}

/// Takes what comes in front of the answer to a PINGREQ, too, so that what is doubled is seen, and leaves.
fn leave(run: &mut Run, drain: &mut Drain, sessions: usize) -> std::io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    for link in 0..sessions {
        wire::ping(run.net.out(link));
        run.net.flush(link);
    }
    run.until(
        drain,
        PATIENCE,
        |drain| drain.pongs >= sessions,
        |drain| drain.pongs as u64,
    )?;
    let closed = |drain: &Drain| drain.receivers.closed;
    for link in 0..sessions {
        wire::disconnect(run.net.out(link));
        run.net.flush(link);
    }
    run.until(drain, PATIENCE, |drain| closed(drain) >= sessions as u64, closed)?;
    Ok(())
}

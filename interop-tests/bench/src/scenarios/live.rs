//! Subscribers that are there while it is published, end to end.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use super::{
    publish::{self, Load, Pace},
    receiver::Receivers,
};
use crate::{
    Run,
    net::Client,
    wire::{self, Packet},
};

struct Live {
    load: Load,
    receivers: Receivers,
}

impl Client for Live {
    fn packet(&mut self, link: usize, packet: Packet<'_>, out: &mut Vec<u8>) {
        // Publishers have the first links.
        if link < self.load.publishers.number() {
            self.load.packet(link, packet, out);
        } else {
            let now = self.load.micros();
            self.receivers.packet(link, &packet, now, out);
        }
    }

    fn closed(&mut self, link: usize) {
        if link < self.load.publishers.number() {
            self.load.closed(link);
        } else {
            self.receivers.closed += 1;
        }
    }
}

fn subscribe(run: &mut Run, live: &mut Live, subscribers: usize) -> Result<(), Box<dyn Error>> {
    let options = &run.options;
    let prefix: String = options.get("prefix", "live".to_owned())?;
    let filter: String = options.get("filter", "dur/#".to_owned())?;
    let qos: u8 = options.get("sub-qos", 1)?;
    let session = run.session(options.get("clean", false)?)?;
    for number in 0..subscribers {
        let link = run.net.open(run.v5)?;
        let out = run.net.out(link);
        wire::connect(out, &format!("{prefix}{number}"), session);
        wire::subscribe(
            out,
            session.v5,
            1,
            &[wire::filled(&filter, number as u64, 0)],
            qos,
        );
    }
    let (done, _) = run.until(
        live,
        Duration::from_secs(60),
        |live| live.receivers.subscribed == subscribers,
        |live| live.receivers.subscribed as u64,
    )?;
    if done {
        Ok(())
    } else {
        Err("not all subscribers were let in".into())
    }
}

pub(crate) fn run(run: &mut Run) -> Result<(), Box<dyn Error>> {
    let subscribers: usize = run.options.get("subscribers", 1)?;
    let each: u64 = run.options.get("each", subscribers as u64)?;
    let patience = Duration::from_secs_f64(run.options.get("patience-seconds", 20.0)?);
    let seconds: Option<f64> = run.options.optional("seconds")?;
    let mut pace = run.options.optional("rate")?.map(Pace::new);
    let began = Instant::now();
    let load = publish::connect(run, "publisher")?;
    let mut live = Live {
        load,
        receivers: Receivers::default(),
    };
    subscribe(run, &mut live, subscribers)?;
    run.report.number("setup_ms", began.elapsed().as_secs_f64() * 1e3);
    let paced_turn = Duration::from_millis(if pace.is_some() { 1 } else { 100 });
    let phase = run.process.begin();
    if let Some(pace) = &mut pace {
        *pace = Pace::new(run.options.get("rate", 0.0)?);
    } else {
        live.load.publishers.send_all(&mut run.net);
    }
    let mut progress = (0, Instant::now());
    loop {
        let publishers = &mut live.load.publishers;
        if seconds.is_some_and(|limit| phase.began().elapsed().as_secs_f64() > limit) {
            publishers.count = publishers.sent;
        }
        if publishers.done() && live.receivers.received >= publishers.count * each {
            break;
        }
        publish::send(&mut run.net, &mut live.load, pace.as_mut());
        run.net.turn(paced_turn, &mut live)?;
        let now = live.receivers.received + live.load.publishers.acknowledged;
        if now != progress.0 {
            progress = (now, Instant::now());
        } else if progress.1.elapsed() > patience {
            break;
        }
    }
    let took = progress.1.duration_since(phase.began()).as_secs_f64();
    let expect = live.load.publishers.count * each;
    let receivers = &mut live.receivers;
    phase.end(&mut run.report, "message", receivers.received, Some(took));
    run.report
        .number("published", live.load.publishers.acknowledged as f64);
    run.report.durations("ack", &mut live.load.publishers.micros);
    run.report.durations("end_to_end", &mut receivers.micros);
    run.report
        .number("lost", expect.saturating_sub(receivers.received) as f64);
    run.report.number("backwards", receivers.backwards as f64);
    let closed = receivers.closed + live.load.publishers.closed;
    run.report
        .number("closed_or_refused", closed as f64 + receivers.refused as f64);
    Ok(())
}

//! Publishers, until all that they sent is acknowledged.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use super::publisher::Publishers;
use crate::{
    Run,
    net::{Client, Net},
    wire::{self, Packet},
};

/// Without any acknowledgement for so long the broker is taken to have stopped.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishers and the clock that they are timed by.
pub(crate) struct Load {
    pub(crate) publishers: Publishers,
    pub(crate) began: Instant,
    /// Filled windows are refilled when an acknowledgement comes: without a rate.
    pub(crate) saturate: bool,
}

impl Load {
    pub(crate) fn micros(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

impl Client for Load {
    fn packet(&mut self, link: usize, packet: Packet<'_>, out: &mut Vec<u8>) {
        let now = self.micros();
        self.publishers.packet(link, &packet, now, out);
        if self.saturate && self.publishers.qos() > 0 && !matches!(packet, Packet::Connack { .. }) {
            while self.publishers.send(link, now, 0, out) {}
        }
    }

    fn closed(&mut self, _: usize) {
        self.publishers.closed += 1;
    }
}

/// Connects publishers on the first links of a run.
pub(crate) fn connect(run: &mut Run, prefix: &str) -> Result<Load, Box<dyn Error>> {
    let mut load = Load {
        publishers: Publishers::new(&run.options, run.v5)?,
        began: Instant::now(),
        saturate: run.options.optional::<f64>("rate")?.is_none(),
    };
    let session = wire::Session {
        v5: run.v5,
        clean: true,
        expiry_seconds: 0,
    };
    for index in 0..load.publishers.number() {
        let link = run.net.open(run.v5)?;
        wire::connect(
            run.net.out(link),
            &format!("{prefix}{}-{index}", std::process::id()),
            session,
        );
    }
    let number = load.publishers.number();
    let (done, _) = run.until(
        &mut load,
        PATIENCE,
        |load| load.publishers.connected == number,
        |load| load.publishers.connected as u64,
    )?;
    if done {
        Ok(load)
    } else {
        Err("not all publishers were let in".into())
    }
}

/// Sends at a steady rate, in all; what is due is counted from `began`.
pub(crate) struct Pace {
    per_second: f64,
    began: Instant,
    sent: u64,
    next: usize,
}

impl Pace {
    pub(crate) fn new(per_second: f64) -> Pace {
        Pace {
            per_second,
            began: Instant::now(),
            sent: 0,
            next: 0,
        }
    }

    /// Which publisher has to send, if a message is due.
    pub(crate) fn due(&mut self, publishers: usize) -> Option<usize> {
        let due = (self.began.elapsed().as_secs_f64() * self.per_second) as u64;
        if self.sent >= due {
            return None;
        }
        self.sent += 1;
        self.next = (self.next + 1) % publishers;
        Some(self.next)
    }
}

/// Sends what is due, or for QoS 0 without a rate what the sockets take.
pub(crate) fn send(net: &mut Net, load: &mut Load, pace: Option<&mut Pace>) {
    let now = load.micros();
    match pace {
        Some(pace) => {
            while let Some(index) = pace.due(load.publishers.number()) {
                let unsent = net.unsent(index);
                load.publishers.send(index, now, unsent, net.out(index));
                net.flush(index);
            }
        }
        None if load.publishers.qos() == 0 => load.publishers.send_all(net),
        None => {}
    }
}

pub(crate) fn run(run: &mut Run) -> Result<(), Box<dyn Error>> {
    let mut load = connect(run, "publisher")?;
    let seconds: Option<f64> = run.options.optional("seconds")?;
    let mut pace = run.options.optional("rate")?.map(Pace::new);
    let turn = Duration::from_millis(if load.saturate && load.publishers.qos() > 0 {
        100
    } else {
        1
    });
    let phase = run.process.begin();
    if load.saturate {
        load.publishers.send_all(&mut run.net);
    }
    let mut progress = (0, Instant::now());
    while !load.publishers.done() {
        if seconds.is_some_and(|limit| phase.began().elapsed().as_secs_f64() > limit) {
            load.publishers.count = load.publishers.sent;
        }
        send(&mut run.net, &mut load, pace.as_mut());
        run.net.turn(turn, &mut load)?;
        if progress.0 != load.publishers.acknowledged {
            progress = (load.publishers.acknowledged, Instant::now());
        } else if progress.1.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("nothing in a minute, after {}", progress.0)).into());
        }
        if load.publishers.closed > 0 {
            return Err(io::Error::other(format!("a publisher was closed, after {}", progress.0)).into());
        }
    }
    // QoS 0 is done when the broker has read it.
    for link in 0..load.publishers.number() {
        wire::ping(run.net.out(link));
        run.net.flush(link);
    }
    let number = load.publishers.number();
    run.until(
        &mut load,
        PATIENCE,
        |load| load.publishers.pongs >= number,
        |load| load.publishers.pongs as u64,
    )?;
    phase.end(&mut run.report, "message", load.publishers.count, None);
    run.report.durations("ack", &mut load.publishers.micros);
    Ok(())
}

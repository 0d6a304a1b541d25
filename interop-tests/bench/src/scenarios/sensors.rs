//! Sensors that speak MQTT-SN: they connect, register a topic and subscribe to another, publish, sleep and wake.

use std::{
    collections::HashSet,
    error::Error,
    io::{BufRead, Write},
    time::{Duration, Instant},
};

use crate::{
    Run,
    fleet::{Fleet, Next, Task},
    process::{Phase, Process},
    report::Report,
    sn::{self, Frame},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// How the sensors are.
struct Plan {
    prefix: String,
    clean: bool,
    seconds: u16,
    /// Their topics: one that they publish to, one that they subscribe to.
    topics: bool,
}

impl Plan {
    fn client_id(&self, sensor: usize) -> String {
        format!("{}{sensor}", self.prefix)
    }
}

/// Each connects, and registers and subscribes to its topics.
struct Connect<'a> {
    plan: &'a Plan,
    topic_ids: &'a mut [[u8; 2]],
    refused: u64,
}

impl Task for Connect<'_> {
    fn begin(&mut self, sensor: usize) -> Vec<u8> {
        sn::connect(&self.plan.client_id(sensor), self.plan.clean, self.plan.seconds)
    }

    fn hear(&mut self, sensor: usize, frame: Frame<'_>) -> Next {
        match frame {
            Frame::ConnAck(0) if !self.plan.topics => Next::Done,
            Frame::ConnAck(0) => Next::Request(sn::register(1, &format!("data/{sensor}"))),
            Frame::RegAck { topic_id, code: 0 } => {
                self.topic_ids[sensor] = topic_id;
                Next::Request(sn::subscribe(2, &format!("cmd/{sensor}")))
            }
            Frame::SubAck(0) => Next::Done,
            Frame::ConnAck(_) | Frame::RegAck { .. } | Frame::SubAck(_) => {
                self.refused += 1;
                Next::Done
            }
            _ => Next::Wait,
        }
    }
}

/// Each falls asleep.
struct Sleep(u16);

impl Task for Sleep {
    fn begin(&mut self, _: usize) -> Vec<u8> {
        sn::sleep(self.0)
    }

    fn hear(&mut self, _: usize, frame: Frame<'_>) -> Next {
        match frame {
            Frame::Disconnect => Next::Done,
            _ => Next::Wait,
        }
    }
}

/// Each publishes with QoS 1, one message whenever it is its turn, until the time is over.
struct Publish<'a> {
    topic_ids: &'a [[u8; 2]],
    data: Vec<u8>,
    until: Instant,
    msg_id: u16,
    acknowledged: u64,
    refused: u64,
}

impl Task for Publish<'_> {
    fn begin(&mut self, sensor: usize) -> Vec<u8> {
        self.msg_id = self.msg_id.checked_add(1).unwrap_or(1);
        sn::publish(sn::QOS_1, self.topic_ids[sensor], self.msg_id, &self.data)
    }

    fn hear(&mut self, _: usize, frame: Frame<'_>) -> Next {
        match frame {
            Frame::PubAck(0) => self.acknowledged += 1,
            Frame::PubAck(_) => self.refused += 1,
            _ => return Next::Wait,
        }
        Next::Done
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Each wakes, takes what there is, and sleeps on.
struct Wake<'a> {
    plan: &'a Plan,
    received: u64,
    distinct: HashSet<(usize, Vec<u8>)>,
    strangers: u64,
}

impl Task for Wake<'_> {
    fn begin(&mut self, sensor: usize) -> Vec<u8> {
        sn::pingreq(&self.plan.client_id(sensor))
    }

    fn hear(&mut self, sensor: usize, frame: Frame<'_>) -> Next {
        match frame {
            Frame::Register { topic_id, msg_id } => Next::Answer(sn::accept_register(topic_id, msg_id)),
            Frame::Publish {
                flags,
                topic_id,
                msg_id,
                data,
            } => {
                self.received += 1;
                self.distinct.insert((sensor, data.to_vec()));
                match flags & sn::QOS {
                    sn::QOS_1 => Next::Answer(sn::puback(topic_id, msg_id)),
                    _ => Next::Wait,
                }
            }
            Frame::PingResp => Next::Done,
            // The gateway does not know it.
            Frame::Disconnect => {
                self.strangers += 1;
                Next::Done
            }
            _ => Next::Wait,
        }
    }
}

pub(crate) fn run(run: &mut Run) -> Result<(), Box<dyn Error>> {
    let options = &run.options;
    let sensors: usize = options.get("sensors", 10_000)?;
    let under_way: usize = options.get("under-way", 200)?;
    let asleep = ((sensors as f64) * options.get("asleep", 0.5)?) as usize;
    let seconds: f64 = options.get("seconds", 4.0)?;
    let size: usize = options.get("size", 32)?;
    let pause: bool = options.get("pause", false)?;
    let plan = Plan {
        prefix: options.get("prefix", "sensor-".to_owned())?,
        clean: options.get("clean", false)?,
        seconds: options.get("keep-alive", 3600)?,
        topics: options.get("topics", 1)? > 0,
    };
    let mut fleet = Fleet::new(
        options.get("sn-server", ([127, 0, 0, 1], 1884).into())?,
        sensors,
        options.get("behind", 1)?,
    )?;
    let mut topic_ids = vec![[0; 2]; sensors];

    let phase = run.process.begin();
    let mut connect = Connect {
        plan: &plan,
        topic_ids: &mut topic_ids,
        refused: 0,
    };
    let connected = fleet.run(&mut connect, 0..sensors, under_way, PATIENCE)? as u64 - connect.refused;
    end(run, phase, "connect", "peer", connected);
    run.report
        .number("not_connected", sensors as f64 - connected as f64);

    let phase = run.process.begin();
    let slept = fleet.run(&mut Sleep(plan.seconds), 0..asleep, under_way, PATIENCE)?;
    end(run, phase, "sleep", "sleep", slept as u64);

    if plan.topics && seconds > 0.0 {
        let phase = run.process.begin();
        let mut publish = Publish {
            topic_ids: &topic_ids,
            data: vec![b'x'; size],
            until: Instant::now() + Duration::from_secs_f64(seconds),
            msg_id: 0,
            acknowledged: 0,
            refused: 0,
        };
        fleet.run(&mut publish, (asleep..sensors).cycle(), under_way, PATIENCE)?;
        end(run, phase, "publish", "message", publish.acknowledged);
        run.report.number("refused", publish.refused as f64);
    }
    if pause {
        run.process = wait_for_word(run.process)?;
    }
    let phase = run.process.begin();
    let mut wake = Wake {
        plan: &plan,
        received: 0,
        distinct: HashSet::new(),
        strangers: 0,
    };
    let woken = fleet.run(&mut wake, 0..asleep, under_way, PATIENCE)?;
    end(run, phase, "wake", "wake", woken as u64);
    run.report.number("received_asleep", wake.received as f64);
    run.report.number("distinct_asleep", wake.distinct.len() as f64);
    run.report.number("strangers", wake.strangers as f64);
    run.report.number("not_woken", asleep as f64 - woken as f64);
    run.report.number("repeated", fleet.repeated as f64);
    Ok(())
}

fn end(run: &mut Run, phase: Phase, name: &str, unit: &str, count: u64) {
    let mut report = Report::default();
    phase.end(&mut report, unit, count, None);
    run.report.phase(name, report);
}

/// Says that half of them sleep, and goes on once a line has come: with the broker of the process that it names.
fn wait_for_word(process: Process) -> Result<Process, Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "asleep")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    match line.trim() {
        "" => Ok(process),
        pid => Ok(Process::new(Some(pid.parse()?))),
    }
}

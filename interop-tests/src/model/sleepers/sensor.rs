//! One sensor, what it has been promised, and what it may not see.

mod hears;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_core::{Connect, DisconnectCause, QoS, Request, Will};
use testkit::{Node, Random};

use super::{Line, SLACK_MS, blank, disconnect};

/// What is known of a sensor's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Gone,
    /// It is kept, and its client is lost.
    Away,
    /// Its client is connected.
    Connected,
    /// It is to sleep until then, and does not know yet that it does.
    Drowsy(u64),
    /// It sleeps until then.
    Asleep(u64),
    /// It is awake, and slept until then, if that is known.
    Awake(Option<u64>),
    /// The process was killed before it was known.
    Unknown,
}

/// What was asked for last, while it is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Connect {
        clean_start: bool,
        is_will_new: bool,
    },
    Wake,
    /// With a guard that is not its own.
    Hijack,
    /// To wake although it is lost.
    Overslept,
}

#[derive(Debug)]
pub(super) struct Sensor {
    at: usize,
    /// Seconds that its session is kept once it is lost.
    expiry: u32,
    pub(super) state: State,
    asked: Asked,
    line: Option<Line>,
    /// In a hundred cases, so often it acknowledges.
    pub(super) acks: u32,
    is_subscribed: bool,
    notes: BTreeMap<u16, Vec<u8>>,
    /// Messages of QoS 1 that it has not acknowledged; true: the publisher has its acknowledgement.
    owed: BTreeMap<u32, bool>,
    seen: BTreeSet<u32>,
    /// Seen not as a repetition.
    fresh: BTreeSet<u32>,
    /// Messages of QoS 0 that are to come; true: surely.
    casual: VecDeque<(u32, bool)>,
    /// The last message before it woke.
    gate: u32,
    is_drained: bool,
    /// The Will in force.
    will: Option<u32>,
    last_will: u32,
    /// Wills that are to be published, and those that may be.
    published: BTreeSet<u32>,
    doubtful: BTreeSet<u32>,
}

impl Sensor {
    pub(super) fn new(at: usize) -> Sensor {
        Sensor {
            at,
            expiry: if at.is_multiple_of(2) { 0 } else { 1_000_000 },
            state: State::Gone,
            asked: Asked::Nothing,
            line: None,
            acks: 100,
            is_subscribed: false,
            notes: BTreeMap::new(),
            owed: BTreeMap::new(),
            seen: BTreeSet::new(),
            fresh: BTreeSet::new(),
            casual: VecDeque::new(),
            gate: 0,
            is_drained: false,
            will: None,
            last_will: u32::try_from(at + 1).expect("few sensors") * 1_000_000,
            published: BTreeSet::new(),
            doubtful: BTreeSet::new(),
        }
    }

    /// It cannot be told whether its time is over.
    pub(super) fn is_close(&self, now: u64) -> bool {
        match self.state {
            State::Drowsy(until) | State::Asleep(until) | State::Awake(Some(until)) => {
                now.abs_diff(until) < SLACK_MS
            }
            _ => false,
        }
    }

    pub(super) fn pass(&mut self, now: u64) {
        if let State::Asleep(until) = self.state
            && now > until
        {
            self.lost();
        }
    }

    /// It is lost: its Will is published.
    fn lost(&mut self) {
        self.published.extend(self.will.take());
        self.casual.clear();
        self.state = if self.expiry > 0 { State::Away } else { State::Gone };
        if self.state == State::Gone {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.is_subscribed = false;
        self.notes.clear();
        self.owed.clear();
        self.seen.clear();
        self.fresh.clear();
        self.casual.clear();
    }

    fn doubt(&mut self) {
        self.state = State::Unknown;
        self.doubtful.extend(self.will);
        self.casual.iter_mut().for_each(|(_, is_sure)| *is_sure = false);
    }

    /// The process was killed, and has started.
    pub(super) fn killed(&mut self, now: u64) {
        self.line = None;
        self.asked = Asked::Nothing;
        match self.state {
            State::Gone | State::Away => {}
            State::Connected => self.lost(),
            State::Drowsy(_) | State::Unknown | State::Awake(None) => self.doubt(),
            State::Asleep(until) | State::Awake(Some(until)) if now > until => self.lost(),
            State::Asleep(until) | State::Awake(Some(until)) => self.state = State::Asleep(until),
        }
        self.casual.clear();
    }

    pub(super) fn published(&mut self, number: u32, qos: QoS, is_held: bool) {
        if !self.is_subscribed {
            return;
        }
        if qos > QoS::AtMostOnce {
            self.owed.insert(number, false);
        } else if !matches!(self.state, State::Away | State::Gone) {
            self.casual
                .push_back((number, self.state != State::Unknown && !is_held));
        }
    }

    pub(super) fn acknowledged(&mut self, number: u32) {
        if let Some(is_sure) = self.owed.get_mut(&number) {
            *is_sure = true;
        }
    }

    /// Something happens to it of which it is not known whether it lasts.
    pub(super) fn vanish(&mut self, node: &mut Node, random: &mut Random) {
        let Some(line) = self.line.clone() else { return };
        match self.state {
            State::Connected if random.chance(30) => {
                disconnect(node, &line, DisconnectCause::ConnectionLost);
                self.line = None;
                // Now, or when the process has started.
                self.lost();
                if self.state == State::Gone {
                    self.line = None;
                }
            }
            State::Connected | State::Awake(_) => {
                disconnect(node, &line, DisconnectCause::Asleep(100));
                self.state = State::Drowsy(node.now().as_millis() + 100_000);
            }
            _ => {}
        }
    }

    /// It does what sensors do.
    pub(super) fn act(
        &mut self,
        node: &mut Node,
        random: &mut Random,
        now: u64,
        last: u32,
    ) -> Result<(), String> {
        let pick = random.below(100);
        match self.state {
            State::Gone | State::Away | State::Unknown if pick < 60 => self.connect(node, random),
            State::Unknown => self.wake(node, random, last, Asked::Wake),
            State::Gone => self.wake(node, random, last, Asked::Hijack),
            State::Away => self.wake(node, random, last, Asked::Overslept),
            State::Drowsy(_) => {}
            State::Asleep(_) if pick < 60 => self.wake(node, random, last, Asked::Wake),
            State::Asleep(_) if pick < 70 => self.wake(node, random, last, Asked::Hijack),
            State::Asleep(_) => self.connect(node, random),
            State::Connected | State::Awake(_) => {
                let line = self.line.clone().ok_or("a connection without a line")?;
                match pick {
                    0..=59 => {
                        let seconds = random.between(1, 60);
                        self.state = State::Drowsy(now + u64::from(seconds) * 1000);
                        disconnect(node, &line, DisconnectCause::Asleep(seconds));
                    }
                    60..=69 => {
                        disconnect(node, &line, DisconnectCause::ConnectionLost);
                        self.line = None;
                        self.lost();
                    }
                    70..=79 => self.connect(node, random),
                    _ => {
                        let number = u16::try_from(random.between(1, 5)).expect("a small number");
                        let value = vec![7; random.below(50)];
                        self.notes.insert(number, value.clone());
                        line.ask(node, Request::Note(number, Some(value.into())));
                    }
                }
            }
        }
        Ok(())
    }

    /// It leaves for good.
    pub(super) fn end(&mut self, node: &mut Node) {
        let Some(line) = self.line.take() else { return };
        let disconnect = broker_core::Disconnect {
            cause: DisconnectCause::Normal,
            session_expiry_interval: Some(0),
            keeps_will: false,
            user_properties: Vec::new(),
        };
        line.ask(node, Request::Disconnect(Box::new(disconnect)));
        self.will = None;
        self.state = State::Gone;
        self.forget();
    }

    /// Links may be connected again.
    fn open(&mut self, node: &mut Node, random: &mut Random) -> Line {
        let again = self
            .line
            .take()
            .filter(|_| matches!(self.state, State::Asleep(_)) && random.chance(50));
        let line = again.unwrap_or_else(|| Line::open(node));
        self.line = Some(line.clone());
        self.acks = if random.chance(70) { 100 } else { 50 };
        line
    }

    fn connect(&mut self, node: &mut Node, random: &mut Random) {
        // Where it was connected its Will is published: another takes its place.
        if self.state == State::Connected {
            self.lost();
        }
        let clean_start = random.chance(20);
        let keeps_will = random.chance(40);
        let will = random.chance(70).then(|| {
            self.last_will += 1;
            Will {
                topic: format!("wills/{}", self.at),
                payload: self.last_will.to_be_bytes().to_vec(),
                qos: QoS::AtLeastOnce,
                retain: false,
                delay_interval: 0,
                expiry_interval: None,
                properties: Vec::new(),
            }
        });
        let line = self.open(node, random);
        self.asked = Asked::Connect {
            clean_start,
            is_will_new: will.is_some() || !keeps_will,
        };
        if will.is_some() || !keeps_will || clean_start {
            self.will = will.is_some().then_some(self.last_will);
        }
        let connect = Connect {
            clean_start,
            session_expiry_interval: self.expiry,
            may_sleep: true,
            will,
            keeps_will,
            ..blank(self.at, 4)
        };
        line.ask(node, Request::Connect(Box::new(connect)));
    }

    fn wake(&mut self, node: &mut Node, random: &mut Random, last: u32, asked: Asked) {
        let line = self.open(node, random);
        self.asked = asked;
        self.gate = last;
        self.is_drained = false;
        let guard = match asked {
            Asked::Wake => self.guard(),
            _ => b"no guard".to_vec(),
        };
        let connect = Connect {
            wake: Some(guard.into()),
            ..blank(self.at, 4)
        };
        line.ask(node, Request::Connect(Box::new(connect)));
    }

    fn guard(&self) -> Vec<u8> {
        format!("guard of {}", self.at).into_bytes()
    }
}

//! What a sensor hears, and whether it is right.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::{Connected, Delivery, Event, ReasonCode, Request};
use testkit::{Node, Random};

use super::{
    super::{Line, number_of, subscribe},
    Asked, Sensor, State,
};

impl Sensor {
    /// Hears one thing. False if there was nothing.
    pub(in super::super) fn hear(&mut self, node: &mut Node, random: &mut Random) -> Result<bool, String> {
        let Some(event) = self.line.as_ref().and_then(Line::hear) else {
            return Ok(false);
        };
        let (at, state, asked) = (self.at, self.state, self.asked);
        self.take(node, random, event)
            .map_err(|what| format!("sensor {at}, {state:?}, {asked:?}: {what}"))?;
        Ok(true)
    }

    fn take(&mut self, node: &mut Node, random: &mut Random, event: Event) -> Result<(), String> {
        match event {
            Event::Connected(connected) => self.connected(node, &connected),
            Event::Refused(closing) => self.refused(closing.reason),
            Event::Deliver(delivery) => self.delivered(node, random, &delivery),
            Event::Asleep => match self.state {
                State::Drowsy(until) => {
                    self.state = State::Asleep(until);
                    Ok(())
                }
                _ => Err("it sleeps without having asked for it".to_owned()),
            },
            Event::Drained => self.drained(),
            Event::SubAck(..) => {
                self.is_subscribed = true;
                Ok(())
            }
            Event::Noted(_, ReasonCode::Success) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn refused(&mut self, reason: ReasonCode) -> Result<(), String> {
        self.line = None;
        match (std::mem::replace(&mut self.asked, Asked::Nothing), self.state) {
            _ if reason != ReasonCode::BadUserNameOrPassword => Err(format!("refused: {reason:?}")),
            (Asked::Hijack, _) | (Asked::Overslept, State::Away | State::Gone) => Ok(()),
            (Asked::Wake, State::Unknown) => {
                // So it was lost.
                self.doubtful.retain(|will| Some(*will) != self.will);
                self.lost();
                Ok(())
            }
            other => Err(format!("refused: {other:?}")),
        }
    }

    fn connected(&mut self, node: &mut Node, connected: &Connected) -> Result<(), String> {
        let asked = std::mem::replace(&mut self.asked, Asked::Nothing);
        let present = connected.session_present;
        let expected = match (asked, self.state) {
            (
                Asked::Connect {
                    clean_start: true, ..
                },
                _,
            )
            | (_, State::Gone) => Some(false),
            (_, State::Unknown) => None,
            _ => Some(true),
        };
        if expected.is_some_and(|expected| expected != present)
            || matches!(asked, Asked::Hijack | Asked::Overslept)
        {
            return Err(format!("session present: {present}"));
        }
        let is_will_new = matches!(
            asked,
            Asked::Connect {
                is_will_new: true,
                ..
            }
        );
        if self.state == State::Unknown && !is_will_new {
            // Now it is known whether it has been published.
            self.doubtful.retain(|will| Some(*will) != self.will);
            if connected.will.is_none() {
                self.published.extend(self.will.take());
            }
        }
        let has_will = !is_will_new && present && self.will.is_some();
        if connected.will.is_some() != has_will {
            return Err(format!(
                "a Will that was kept: {:?}, {:?}",
                connected.will, self.will
            ));
        }
        self.state = match (asked, self.state) {
            (Asked::Wake, State::Asleep(until)) => State::Awake(Some(until)),
            (Asked::Wake, _) => State::Awake(None),
            _ => State::Connected,
        };
        if present {
            let notes = connected.notes.iter();
            let notes: BTreeMap<u16, Vec<u8>> =
                notes.map(|(number, value)| (*number, value.to_vec())).collect();
            return if notes == self.notes {
                Ok(())
            } else {
                Err(format!("notes {notes:?}"))
            };
        }
        self.forget();
        let line = self.line.clone().ok_or("a CONNACK without a line")?;
        subscribe(node, &line, "news");
        self.notes.insert(0, self.guard());
        line.ask(node, Request::Note(0, Some(self.guard().into())));
        Ok(())
    }

    fn delivered(&mut self, node: &mut Node, random: &mut Random, delivery: &Delivery) -> Result<(), String> {
        let number = number_of(delivery.message.payload())?;
        let Some(packet_id) = delivery.packet_id else {
            return self.casual(number);
        };
        if !self.owed.contains_key(&number) && !self.seen.contains(&number) {
            return Err(format!("{number} is not for it"));
        }
        if matches!(self.state, State::Awake(_)) && number > self.gate {
            return Err(format!("{number} came after it woke"));
        }
        if self.seen.last().is_some_and(|last| number < *last) && !self.seen.contains(&number) {
            return Err(format!("{number} is out of order"));
        }
        if !delivery.dup && !self.fresh.insert(number) {
            return Err(format!("{number} comes again, not as a repetition"));
        }
        self.seen.insert(number);
        if random.chance(self.acks) {
            self.owed.remove(&number);
            let line = self.line.clone().ok_or("a delivery without a line")?;
            line.ask(node, Request::PubAck(packet_id, ReasonCode::Success));
        }
        Ok(())
    }

    fn casual(&mut self, number: u32) -> Result<(), String> {
        while let Some((next, is_sure)) = self.casual.pop_front() {
            if next == number {
                return Ok(());
            }
            if is_sure {
                return Err(format!("{number} of QoS 0 instead of {next}"));
            }
        }
        Err(format!("{number} of QoS 0 is not for it"))
    }

    fn drained(&mut self) -> Result<(), String> {
        let left = self.owed.range(..=self.gate).find(|(_, is_sure)| **is_sure);
        let is_awake = matches!(self.state, State::Awake(_));
        if !is_awake || self.is_drained || left.is_some() {
            return Err(format!("drained, but {left:?}; before: {}", self.is_drained));
        }
        self.is_drained = true;
        Ok(())
    }

    /// Nothing is under way: it has what it can have.
    pub(in super::super) fn check(&mut self) -> Result<(), String> {
        let until = match self.state {
            State::Connected => u32::MAX,
            State::Awake(_) => self.gate,
            _ => return Ok(()),
        };
        if let Some(casual) = self.casual.iter().find(|(_, is_sure)| *is_sure) {
            return Err(format!("sensor {}: {casual:?} of QoS 0 is missing", self.at));
        }
        let left = self.owed.range(..=until).find(|(_, is_sure)| **is_sure);
        let is_over = self.state == State::Connected || self.is_drained;
        if self.acks == 100 && (left.is_some() || !is_over) {
            return Err(format!(
                "sensor {}: {left:?} is missing, drained {is_over}",
                self.at
            ));
        }
        Ok(())
    }

    pub(in super::super) fn check_wills(&self, seen: &BTreeSet<u32>) -> Result<(), String> {
        let at = self.at;
        if let Some(missing) = self.published.difference(seen).next() {
            return Err(format!(
                "sensor {at}, {:?}: Will {missing} is missing",
                self.state
            ));
        }
        let first = u32::try_from(at + 1).expect("few sensors") * 1_000_000;
        let own = seen.range(first..first + 1_000_000);
        for will in own {
            if !self.published.contains(will) && !self.doubtful.contains(will) {
                return Err(format!("sensor {at}, {:?}: Will {will} is published", self.state));
            }
        }
        Ok(())
    }
}

//! What new subscribers see of the retained messages.

use std::collections::BTreeMap;

use crate::history::{ClientNo, Delivery, Fault, Kind, TextNo};

use super::Walk;

/// The retained messages as their publishers know them, and the subscribers that look at them.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// By topic: the last acknowledged number, and whether it removes the message.
    acknowledged: BTreeMap<TextNo, (u32, bool)>,
    running: BTreeMap<ClientNo, Observation>,
}

#[derive(Debug, Default)]
struct Observation {
    /// What was acknowledged before it subscribed.
    due: BTreeMap<TextNo, (u32, bool)>,
    /// The highest number it got.
    got: BTreeMap<TextNo, u32>,
}

impl Observations {
    pub(super) fn acknowledged(&mut self, topic: TextNo, number: u32, kind: Kind) {
        if matches!(kind, Kind::Retained | Kind::Clear) {
            let last = self.acknowledged.entry(topic).or_default();
            if last.0 < number {
                *last = (number, kind == Kind::Clear);
            }
        }
    }

    pub(super) fn begin(&mut self, client: ClientNo) {
        let observation = Observation {
            due: self.acknowledged.clone(),
            got: BTreeMap::new(),
        };
        self.running.insert(client, observation);
    }
}

impl Walk<'_> {
    pub(super) fn observe(&mut self, client: ClientNo, delivery: &Delivery) {
        let Some(running) = self.observations.running.get_mut(&client) else {
            return;
        };
        let got = running.got.entry(delivery.topic).or_default();
        *got = delivery.number.max(*got);
        let due = running.due.get(&delivery.topic).map_or(0, |(number, _)| *number);
        if delivery.retain && delivery.number < due {
            let text = format!("is retained, though {due} was acknowledged");
            let about = Some((delivery.publisher, delivery.number));
            self.violation(Fault::Retained, client, about, text);
        }
    }

    pub(super) fn observed(&mut self, client: ClientNo) {
        self.report.figures.observations += 1;
        let Some(seen) = self.observations.running.remove(&client) else {
            return;
        };
        for (topic, (number, is_clear)) in seen.due {
            if is_clear || seen.got.contains_key(&topic) {
                continue;
            }
            let removed_since = self.messages.iter().flat_map(|messages| (1..).zip(messages));
            let is_removed = removed_since
                .into_iter()
                .any(|(later, it): (u32, _)| it.kind == Kind::Clear && it.is_on(topic) && later > number);
            if !is_removed {
                let text = format!(
                    "nothing is retained on {}, though {number} was acknowledged",
                    self.history.topics[usize::from(topic)]
                );
                self.violation(Fault::Retained, client, None, text);
            }
        }
    }
}

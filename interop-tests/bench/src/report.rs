//! One JSON line per run.

use std::fmt::Write;

/// The figures of a run, in the order in which they were found.
#[derive(Default)]
pub(crate) struct Report {
    fields: Vec<(String, f64)>,
}

impl Report {
    pub(crate) fn number(&mut self, name: &str, value: f64) {
        self.fields.push((name.to_owned(), value));
    }

    /// Takes over the figures of a phase, whose name goes before theirs.
    pub(crate) fn phase(&mut self, name: &str, phase: Report) {
        let fields = phase.fields.into_iter();
        self.fields
            .extend(fields.map(|(field, value)| (format!("{name}_{field}"), value)));
    }

    /// Median, tails and maximum of durations in microseconds, as `name_p50_us` and so on.
    pub(crate) fn durations(&mut self, name: &str, micros: &mut [u32]) {
        if micros.is_empty() {
            return;
        }
        micros.sort_unstable();
        let at = |part: f64| f64::from(micros[((micros.len() - 1) as f64 * part) as usize]);
        for (suffix, part) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            self.fields.push((format!("{name}_{suffix}_us"), at(part)));
        }
    }

    /// The line.
    pub(crate) fn json(&self) -> String {
        let mut line = String::from("{");
        for (index, (name, value)) in self.fields.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Writing into a string cannot fail. Names are our own and need no escapes.
            let _ = write!(line, "{comma}\"{name}\": {value:.3}");
        }
        line.push('}');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_ranked() {
        let mut report = Report::default();
        let mut micros: Vec<u32> = (1..=1001).rev().collect();
        report.durations("ack", &mut micros);
        assert_eq!(
            report.json(),
            "{\"ack_p50_us\": 501.000, \"ack_p99_us\": 991.000, \"ack_p999_us\": 1000.000, \"ack_max_us\": 1001.000}"
        );
    }
}

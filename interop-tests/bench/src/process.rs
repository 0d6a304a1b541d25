//! What the broker's process has used, from /proc.

use std::{fs, time::Instant};

use crate::report::Report;

/// Clock ticks per second in /proc: the same on every Linux that this builds for.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process of the broker; without one nothing is reported of it.
#[derive(Clone, Copy)]
pub(crate) struct Process {
    pid: Option<u32>,
}

#[derive(Clone, Copy, Default)]
struct Usage {
    cpu_seconds: f64,
    /// Bytes that went, or will go, to the disk.
    disk_bytes: f64,
    resident_bytes: f64,
    peak_bytes: f64,
    own_cpu_seconds: f64,
    machine_cpu_seconds: f64,
}

/// The beginning of a phase that is measured.
pub(crate) struct Phase {
    process: Process,
    began: Instant,
    before: Usage,
}

impl Process {
    pub(crate) fn new(pid: Option<u32>) -> Process {
        Process { pid }
    }

    /// Begins a phase. The peak of memory counts from here where the system allows it.
    pub(crate) fn begin(self) -> Phase {
        if let Some(pid) = self.pid {
            // Only its owner may: otherwise the peak is the one since its start.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Phase {
            process: self,
            before: self.usage(),
            began: Instant::now(),
        }
    }

    fn usage(self) -> Usage {
        let mut usage = Usage {
            own_cpu_seconds: cpu_seconds("/proc/self/stat").unwrap_or_default(),
            machine_cpu_seconds: machine_cpu_seconds().unwrap_or_default(),
            ..Usage::default()
        };
        if let Some(pid) = self.pid {
            let of = |file: &str, key: &str| field(&format!("/proc/{pid}/{file}"), key).unwrap_or_default();
            usage.cpu_seconds = cpu_seconds(&format!("/proc/{pid}/stat")).unwrap_or_default();
            usage.disk_bytes = of("io", "write_bytes:");
            usage.resident_bytes = of("status", "VmRSS:") * 1024.0;
            usage.peak_bytes = of("status", "VmHWM:") * 1024.0;
        }
        usage
    }
}

impl Phase {
    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Ends the phase, in which `count` of `unit` were done, and reports it. `seconds` counts if it ended earlier
    /// than now.
    pub(crate) fn end(&self, report: &mut Report, unit: &str, count: u64, seconds: Option<f64>) {
        let seconds = seconds.unwrap_or_else(|| self.began.elapsed().as_secs_f64());
        let after = self.process.usage();
        let before = &self.before;
        let count_or_one = count.max(1) as f64;
        report.number(&format!("{unit}s"), count as f64);
        report.number("seconds", seconds);
        report.number(&format!("{unit}s_per_s"), count as f64 / seconds);
        let own = after.own_cpu_seconds - before.own_cpu_seconds;
        report.number("generator_cpu_percent", 100.0 * own / seconds);
        if self.process.pid.is_none() {
            return;
        }
        let cpu = after.cpu_seconds - before.cpu_seconds;
        let grown = after.resident_bytes - before.resident_bytes;
        report.number(&format!("cpu_us_per_{unit}"), cpu * 1e6 / count_or_one);
        report.number("cpu_percent", 100.0 * cpu / seconds);
        report.number(
            &format!("disk_bytes_per_{unit}"),
            (after.disk_bytes - before.disk_bytes) / count_or_one,
        );
        report.number(&format!("rss_bytes_per_{unit}"), grown / count_or_one);
        report.number("rss_before_mb", before.resident_bytes / 1e6);
        report.number("rss_mb", after.resident_bytes / 1e6);
        report.number("rss_peak_mb", after.peak_bytes / 1e6);
        let machine = after.machine_cpu_seconds - before.machine_cpu_seconds;
        report.number(
            "other_cpu_percent",
            100.0 * (machine - cpu - own).max(0.0) / seconds,
        );
    }
}

fn field(path: &str, key: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds(path: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    // The name in parentheses may hold blanks.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn machine_cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields = text.lines().next()?.split_whitespace().skip(1);
    let numbers: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = numbers
        .iter()
        .take(8)
        .enumerate()
        .filter(|(index, _)| ![3, 4].contains(index));
    Some(busy.map(|(_, ticks)| ticks).sum::<f64>() / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let process = Process::new(Some(std::process::id()));
        let usage = process.usage();
        assert!(usage.resident_bytes > 0.0);
        assert!(usage.peak_bytes >= usage.resident_bytes);
        assert!(usage.machine_cpu_seconds > 0.0);
    }
}

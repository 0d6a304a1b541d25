//! Publishes the state of the node under `$SYS/brokers`, as EMQX does.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Hook, HookContext, HookPoint, HookPoints};
use crate::{MessageParts, Timestamp};

/// Where the values come from. Called on shard 0's thread: it must not block.
pub trait SysSource: Send + Sync {
    /// Names of the nodes that are running, this one included.
    fn nodes(&self) -> Vec<String>;

    /// Version of the gateway.
    fn version(&self) -> String;

    /// Name of the product.
    fn sysdescr(&self) -> String;

    /// Calls `visit` with every gauge, such as `connections.count`.
    fn stats(&self, visit: &mut dyn FnMut(&str, u64));

    /// Calls `visit` with every counter, such as `messages.received`.
    fn metrics(&self, visit: &mut dyn FnMut(&str, u64));

    /// Calls `visit` with what there is to say of the store, below `store/`: topic levels and payload.
    fn store(&self, visit: &mut dyn FnMut(&str, &str));
}

/// How often; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysIntervals {
    /// `sys_topics.sys_msg_interval`: nodes, version, description, stats and metrics; default 1 minute.
    pub messages: Option<Duration>,
    /// `sys_topics.sys_heartbeat_interval`: uptime and time of day; default 30 seconds.
    pub heartbeat: Option<Duration>,
}

impl Default for SysIntervals {
    fn default() -> SysIntervals {
        SysIntervals {
            messages: Some(Duration::from_secs(60)),
            heartbeat: Some(Duration::from_secs(30)),
        }
    }
}

/// The hook that publishes `$SYS` topics, QoS 0:
///
/// | topic | payload |
/// |---|---|
/// | `$SYS/brokers`, retained | names of the nodes, separated by commas |
/// | `$SYS/brokers/NODE/version`, `…/sysdescr`, retained, expiry 1 h | text |
/// | `$SYS/brokers/NODE/uptime` | milliseconds |
/// | `$SYS/brokers/NODE/datetime` | RFC 3339, UTC |
/// | `$SYS/brokers/NODE/stats/A/B`, `…/metrics/A/B` | the value called `A.B`, decimal |
/// | `$SYS/brokers/NODE/store/state` | `ok`, `slow`, `full` or `failed` |
/// | `$SYS/brokers/NODE/store/A/B` | a number of the store, decimal |
pub struct SysTopics {
    source: Arc<dyn SysSource>,
    intervals: SysIntervals,
    started: Timestamp,
    // Written on shard 0's thread only; atomics because a hook is shared.
    messages_due: AtomicU64,
    heartbeat_due: AtomicU64,
}

/// Seconds after which a retained version or description expires, if nobody renews it.
const DESCRIPTION_EXPIRY_SECS: u32 = 3600;

impl SysTopics {
    /// Publishes what `source` says, for the first time at once. `started` is when the node started.
    pub fn new(source: Arc<dyn SysSource>, intervals: SysIntervals, started: Timestamp) -> SysTopics {
        let first = |interval: Option<Duration>| {
            let at = if interval.is_some() {
                started
            } else {
                Timestamp::NEVER
            };
            AtomicU64::new(at.as_millis())
        };
        SysTopics {
            source,
            intervals,
            started,
            messages_due: first(intervals.messages),
            heartbeat_due: first(intervals.heartbeat),
        }
    }

    fn heartbeat(&self, ctx: &mut HookContext<'_>) {
        let uptime = ctx.now.since(self.started).as_millis().to_string();
        publish(ctx, "uptime", &uptime);
        let datetime = rfc3339(ctx.now);
        publish(ctx, "datetime", &datetime);
    }

    fn messages(&self, ctx: &mut HookContext<'_>) {
        ctx.publish(&MessageParts {
            retain: true,
            ..MessageParts::new("$SYS/brokers", self.source.nodes().join(",").as_bytes())
        });
        for (name, value) in [
            ("version", self.source.version()),
            ("sysdescr", self.source.sysdescr()),
        ] {
            let topic = format!("$SYS/brokers/{}/{name}", ctx.node_name);
            ctx.publish(&MessageParts {
                retain: true,
                expiry_interval: Some(DESCRIPTION_EXPIRY_SECS),
                ..MessageParts::new(&topic, value.as_bytes())
            });
        }
        self.source
            .stats(&mut |name, value| publish_value(ctx, "stats", name, value));
        self.source
            .metrics(&mut |name, value| publish_value(ctx, "metrics", name, value));
        self.source
            .store(&mut |name, value| publish(ctx, &format!("store/{name}"), value));
    }
}

impl Hook for SysTopics {
    fn name(&self) -> &str {
        "sys_topics"
    }

    fn points(&self) -> HookPoints {
        HookPoints::of(&[HookPoint::Tick])
    }

    fn next_tick(&self) -> Option<Timestamp> {
        let messages = self.messages_due.load(Ordering::Relaxed);
        let heartbeat = self.heartbeat_due.load(Ordering::Relaxed);
        Some(Timestamp::from_millis(messages.min(heartbeat))).filter(|at| *at != Timestamp::NEVER)
    }

    fn tick(&self, ctx: &mut HookContext<'_>) {
        if is_due(&self.messages_due, self.intervals.messages, ctx.now) {
            self.messages(ctx);
        }
        if is_due(&self.heartbeat_due, self.intervals.heartbeat, ctx.now) {
            self.heartbeat(ctx);
        }
    }
}

impl fmt::Debug for SysTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SysTopics")
            .field("intervals", &self.intervals)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

/// True if `due` has come; it is then set to the next time. An interval below a millisecond counts as one, so
/// that a tick never follows itself at the same time.
fn is_due(due: &AtomicU64, interval: Option<Duration>, now: Timestamp) -> bool {
    let Some(interval) = interval else {
        return false;
    };
    if now.as_millis() < due.load(Ordering::Relaxed) {
        return false;
    }
    let next = now.after(interval.max(Duration::from_millis(1)));
    due.store(next.as_millis(), Ordering::Relaxed);
    true
}

fn publish_value(ctx: &mut HookContext<'_>, group: &str, name: &str, value: u64) {
    let name = format!("{group}/{}", name.replace('.', "/"));
    publish(ctx, &name, &value.to_string());
}

fn publish(ctx: &mut HookContext<'_>, name: &str, payload: &str) {
    let topic = format!("$SYS/brokers/{}/{name}", ctx.node_name);
    ctx.publish(&MessageParts::new(&topic, payload.as_bytes()));
}

/// RFC 3339 §5.6, UTC, whole seconds.
fn rfc3339(at: Timestamp) -> String {
    let secs = at.as_millis() / 1000;
    let (days, second) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
///
/// Counted in eras of 400 years that begin on 1 March, so that the leap day is the last day of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{HookEffect, HookEffects, Hooks};

    struct Source;

    impl SysSource for Source {
        fn nodes(&self) -> Vec<String> {
            vec!["a@h".to_owned(), "b@h".to_owned()]
        }
        fn version(&self) -> String {
            "0.1.0".to_owned()
        }
        fn sysdescr(&self) -> String {
            "Tidegate".to_owned()
        }
        fn stats(&self, visit: &mut dyn FnMut(&str, u64)) {
            visit("connections.count", 3);
        }
        fn metrics(&self, visit: &mut dyn FnMut(&str, u64)) {
            visit("messages.qos0.sent", 17);
        }
        fn store(&self, visit: &mut dyn FnMut(&str, &str)) {
            visit("state", "ok");
            visit("log/bytes", "4096");
        }
    }

    fn tick(hooks: &Hooks, at: u64) -> Vec<(String, String, bool, Option<u32>)> {
        let (now, mut effects) = (Timestamp::from_millis(at), HookEffects::default());
        hooks.tick(&mut HookContext::new(now, "a@h", &mut effects));
        let message = |effect| match effect {
            HookEffect::Publish(message) => (
                message.topic().to_owned(),
                String::from_utf8(message.payload().to_vec()).unwrap(),
                message.retain(),
                message.remaining_expiry_secs(now),
            ),
            other => panic!("{other:?}"),
        };
        effects.drain().map(message).collect()
    }

    fn hooks(intervals: SysIntervals) -> Hooks {
        let started = Timestamp::from_millis(1_700_000_000_000);
        let mut hooks = Hooks::new();
        hooks.register(0, Arc::new(SysTopics::new(Arc::new(Source), intervals, started)));
        hooks
    }

    #[test]
    fn the_tree_is_published_at_its_intervals() {
        let hooks = hooks(SysIntervals::default());
        let start = 1_700_000_000_000;
        let plain = |topic: &str, payload: &str| {
            (
                format!("$SYS/brokers/a@h/{topic}"),
                payload.to_owned(),
                false,
                None,
            )
        };
        let described = |topic: &str, payload: &str| {
            (
                format!("$SYS/brokers/a@h/{topic}"),
                payload.to_owned(),
                true,
                Some(3600),
            )
        };
        let messages = vec![
            ("$SYS/brokers".to_owned(), "a@h,b@h".to_owned(), true, None),
            described("version", "0.1.0"),
            described("sysdescr", "Tidegate"),
            plain("stats/connections/count", "3"),
            plain("metrics/messages/qos0/sent", "17"),
            plain("store/state", "ok"),
            plain("store/log/bytes", "4096"),
        ];
        assert_eq!(hooks.next_tick(), Some(Timestamp::from_millis(start)));
        let mut first = messages.clone();
        first.push(plain("uptime", "0"));
        first.push(plain("datetime", "2023-11-14T22:13:20Z"));
        assert_eq!(tick(&hooks, start), first);
        assert_eq!(hooks.next_tick(), Some(Timestamp::from_millis(start + 30_000)));
        assert_eq!(tick(&hooks, start + 29_999), []);
        let second = [
            plain("uptime", "30000"),
            plain("datetime", "2023-11-14T22:13:50Z"),
        ];
        assert_eq!(tick(&hooks, start + 30_000), second);
        assert_eq!(tick(&hooks, start + 60_000).len(), 9);
    }

    #[test]
    fn both_halves_can_be_turned_off() {
        let off = SysIntervals {
            messages: None,
            heartbeat: None,
        };
        assert_eq!(hooks(off).next_tick(), None);
        let heartbeat_only = hooks(SysIntervals {
            heartbeat: Some(Duration::ZERO),
            ..off
        });
        let start = 1_700_000_000_000;
        assert_eq!(tick(&heartbeat_only, start).len(), 2);
        assert_eq!(
            heartbeat_only.next_tick(),
            Some(Timestamp::from_millis(start + 1))
        );
    }

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        for (secs, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_millis(secs * 1000)), expected);
        }
    }
}

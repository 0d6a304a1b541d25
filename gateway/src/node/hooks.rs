//! The configured hooks, and those of an embedding application.

use std::sync::Arc;

use broker_core::{
    admission::{Authenticator, EnhancedAuthenticator},
    hooks::{AutoSubscribe, Hook, Hooks, Presence, Rewrite, SysIntervals, SysTopics},
};
use driver::Clock;

use crate::config::Settings;

use super::stats::NodeStats;

/// Priorities of the built-in hooks; a hook of an application comes before them with a higher number.
const REWRITE: i32 = 200;
const AUTO_SUBSCRIBE: i32 = 100;
const SYSTEM: i32 = 0;

/// What an embedding application adds to a node.
#[derive(Clone, Default)]
pub struct Extensions {
    pub(super) hooks: Vec<(i32, Arc<dyn Hook>)>,
    pub(super) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(super) enhanced: Vec<Arc<dyn EnhancedAuthenticator>>,
}

impl Extensions {
    /// None.
    pub fn new() -> Extensions {
        Extensions::default()
    }

    /// Calls `hook` at the points it names; higher priorities are called first. The built-in hooks have priorities
    /// from 0 to 200.
    #[must_use]
    pub fn hook(mut self, priority: i32, hook: Arc<dyn Hook>) -> Extensions {
        self.hooks.push((priority, hook));
        self
    }

    /// Asks `authenticator` after the configured ones.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Extensions {
        self.authenticators.push(authenticator);
        self
    }

    /// Offers a method of enhanced authentication (MQTT 5 §4.12).
    #[must_use]
    pub fn enhanced_authenticator(mut self, method: Arc<dyn EnhancedAuthenticator>) -> Extensions {
        self.enhanced.push(method);
        self
    }
}

pub(super) fn build(
    settings: &Settings,
    extensions: &Extensions,
    stats: &Arc<NodeStats>,
    clock: Clock,
) -> Hooks {
    let mut hooks = Hooks::new();
    for (priority, hook) in &extensions.hooks {
        hooks.register(*priority, Arc::clone(hook));
    }
    // The configuration is validated: a rule that does not compile has stopped the start.
    let rules: Vec<_> = settings
        .rewrite
        .iter()
        .filter_map(|rule| rule.compile().ok())
        .collect();
    if !rules.is_empty() {
        hooks.register(REWRITE, Arc::new(Rewrite::new(rules)));
    }
    let topics: Vec<_> = settings
        .auto_subscribe
        .iter()
        .filter_map(|topic| topic.compile().ok())
        .collect();
    if !topics.is_empty() {
        hooks.register(AUTO_SUBSCRIBE, Arc::new(AutoSubscribe::new(topics)));
    }
    let sys = &settings.sys_topics;
    let presence = Presence {
        connected: sys.client_connected,
        disconnected: sys.client_disconnected,
        subscribed: sys.client_subscribed,
        unsubscribed: sys.client_unsubscribed,
    };
    hooks.register(SYSTEM, Arc::new(presence));
    let intervals = SysIntervals {
        messages: sys.sys_msg_interval,
        heartbeat: sys.sys_heartbeat_interval,
    };
    hooks.register(
        SYSTEM,
        Arc::new(SysTopics::new(
            Arc::clone(stats) as _,
            intervals,
            stats.started(clock),
        )),
    );
    hooks
}

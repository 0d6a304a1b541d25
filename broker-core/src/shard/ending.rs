//! The end of sessions with very many subscriptions, in slices, so that nobody else has to wait for it.

use std::collections::VecDeque;

use crate::{
    ClientId, LinkId, Timestamp,
    admission::Grant,
    session::{Ending, SessionKey, Tenant},
};

use super::{FastMap, Link, Shard, connect::Stage};

/// Subscriptions that end before the worker has its turn again.
const SLICE: usize = 512;

/// Sessions that have ended but for their subscriptions.
#[derive(Debug, Default)]
pub(super) struct Endings {
    queue: VecDeque<SessionKey>,
    by_client: FastMap<ClientId, SessionKey>,
    /// Clients that are admitted when it is over: they must not meet what is left.
    waiting: FastMap<SessionKey, Vec<(LinkId, Grant)>>,
}

impl Endings {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Shard {
    /// Ends the subscriptions of a session that has ended: at once if they are few.
    pub(super) fn end_subscriptions(&mut self, key: SessionKey) -> Tenant {
        if self.sessions[key.0 as usize].subscriptions().len() <= SLICE {
            self.end_some(key);
            return self.sessions.remove(key.0 as usize);
        }
        let tenant = &mut self.sessions[key.0 as usize];
        let ending = Ending {
            client_id: tenant.client_id().clone(),
            token: tenant.token(),
            subscriptions: std::mem::take(tenant.subscriptions_mut()),
            armed: tenant.armed(),
        };
        self.endings.queue.push_back(key);
        self.endings.by_client.insert(ending.client_id.clone(), key);
        std::mem::replace(tenant, Tenant::Ending(Box::new(ending)))
    }

    fn end_some(&mut self, key: SessionKey) {
        let subscriptions = self.sessions[key.0 as usize].subscriptions().iter();
        let some: Vec<_> = subscriptions.take(SLICE).cloned().collect();
        for subscription in some {
            self.close_full_commit();
            self.remove_subscription(key, subscription.route, subscription.kind.group());
        }
    }

    /// Ends another slice.
    pub(super) fn ending_due(&mut self, now: Timestamp) {
        let Some(&key) = self.endings.queue.front() else {
            return;
        };
        self.end_some(key);
        if self.sessions[key.0 as usize].subscriptions().len() > 0 {
            return;
        }
        self.endings.queue.pop_front();
        let tenant = self.sessions.remove(key.0 as usize);
        self.endings.by_client.remove(tenant.client_id());
        self.stats.sessions.set(self.sessions.len() as u64);
        for (link, grant) in self.endings.waiting.remove(&key).into_iter().flatten() {
            // The link may have been connected again by another client, who is not admitted yet.
            let is_same = matches!(self.links.get(&link), Some(Link::Connecting(connecting))
                if connecting.client_id == *tenant.client_id() && matches!(connecting.stage, Stage::Admitted));
            if is_same {
                self.admit(now, link, grant);
            }
        }
    }

    /// True if an earlier session of this client still ends: then the client is admitted after that.
    pub(super) fn wait_for_ending(&mut self, client_id: &ClientId, link: LinkId, grant: &Grant) -> bool {
        let Some(key) = self.endings.by_client.get(client_id) else {
            return false;
        };
        let waiting = self.endings.waiting.entry(*key).or_default();
        waiting.push((link, grant.clone()));
        true
    }
}

//! Bans: who is kept out for a while.

use std::net::IpAddr;

use crate::{
    Closing, LinkId, ReasonCode, Timestamp,
    admission::{Ban, BannedBy, BannedFull},
    session::SessionKey,
};

use super::{Link, Shard};

impl Shard {
    /// Keeps `who` out until the ban ends, and ends the connections of those it meets here. A ban is a matter of the
    /// whole node: it has to be given to every shard.
    ///
    /// # Errors
    /// If there are as many bans as the table holds.
    pub fn ban(&mut self, now: Timestamp, who: BannedBy, ban: Ban) -> Result<(), BannedFull> {
        self.now = now;
        self.banned.insert(now, who, ban)?;
        let links = self.links.iter().filter_map(|(&link, state)| match state {
            &Link::Online(key) if self.session_is_banned(now, key) => Some((link, key)),
            _ => None,
        });
        let mut online: Vec<(LinkId, SessionKey)> = links.collect();
        online.sort_unstable();
        for (_, key) in online {
            self.close_session(now, key, Closing::new(ReasonCode::AdministrativeAction));
        }
        self.apply_effects(now);
        Ok(())
    }

    /// Lifts a ban. `None`: there was none.
    pub fn unban(&mut self, who: &BannedBy) -> Option<Ban> {
        self.banned.remove(who)
    }

    /// True if nobody may connect from this address now. What comes from a stranger there is not worth an answer.
    pub fn is_banned(&self, now: Timestamp, host: IpAddr) -> bool {
        self.banned.check_host(now, host).is_some()
    }

    fn session_is_banned(&self, now: Timestamp, key: SessionKey) -> bool {
        let client = &self.session(key).client;
        let host = client.peer.map(|peer| peer.ip());
        self.banned
            .check(now, &client.client_id, client.username.as_deref(), host)
            .is_some()
    }
}

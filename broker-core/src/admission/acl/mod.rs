//! Rules in EMQX's `acl.conf`, of both generations (2.x–4.x with `%u`, `pubsub`; 5.x with `${username}`, `all`).
//!
//! The first rule that fits the client, the action and the topic decides; without one, the file has nothing to say.

mod parse;
mod rule;
mod term;

pub use parse::AclError;
pub use rule::{
    AclRule, ActionFilter, Cidr, Permission, SecurityProfile, TextMatch, TopicFilter, TopicFilterError, Who,
};

use super::{Action, Authorizer, Verdict};
use crate::ClientInfo;

/// The rules of a file, in their order.
#[derive(Clone, Debug, Default)]
pub struct AclRules {
    rules: Vec<AclRule>,
    profile: SecurityProfile,
}

impl AclRules {
    /// Reads rules in the grammar of `acl.conf`.
    ///
    /// # Errors
    ///
    /// The first mistake, with its line and column and what was expected there.
    pub fn parse(text: &str) -> Result<AclRules, AclError> {
        Ok(AclRules {
            rules: parse::rules(text)?,
            profile: SecurityProfile::default(),
        })
    }

    /// Rules from elsewhere: a database, a token.
    pub fn new(rules: Vec<AclRule>) -> AclRules {
        AclRules {
            rules,
            profile: SecurityProfile::default(),
        }
    }

    /// The profile that `{security_profile, …}` is compared with; [`SecurityProfile::Legacy`] unless set.
    #[must_use]
    pub fn with_security_profile(mut self, profile: SecurityProfile) -> AclRules {
        self.profile = profile;
        self
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[AclRule] {
        &self.rules
    }
}

impl Authorizer for AclRules {
    fn name(&self) -> &str {
        "file"
    }

    fn authorize(&self, client: &ClientInfo, action: Action, topic: &str) -> Verdict {
        self.rules
            .iter()
            .find(|rule| rule.applies(client, self.profile, action, topic))
            .map_or(Verdict::Ignore, |rule| match rule.permission {
                Permission::Allow => Verdict::Allow,
                Permission::Deny => Verdict::Deny,
            })
    }
}

#[cfg(test)]
mod tests;

//! The configured admission: users, rules.

use std::{fs, path::PathBuf, sync::Arc};

use broker_core::admission::{
    AclError, AclRules, Admission, AuthenticationChain, Authorization, Authorizer, CacheConfig, NoMatch,
};

use crate::{
    auth::{UserAuthenticator, Users, UsersError},
    config::{self, Settings},
};

use super::Extensions;

/// A file that admission needs is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The users file.
    #[error("authentication.users_file: {0}")]
    Users(#[from] UsersError),
    /// The file of access rules cannot be read.
    #[error("acl_file: cannot read {}: {cause}; give it the right name and let the gateway's user read it", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The file of access rules is not in EMQX's grammar.
    #[error("acl_file: {}, {cause}", path.display())]
    Rules {
        /// Which file.
        path: PathBuf,
        /// Line, column and what was expected.
        cause: AclError,
    },
}

pub(super) fn build(settings: &Settings, extensions: &Extensions) -> Result<Admission, AdmissionError> {
    let allow_anonymous = settings.broker.allow_anonymous;
    let mut authentication = AuthenticationChain::new(allow_anonymous);
    if let Some(path) = &settings.authentication.users_file {
        let users = Users::read(path)?;
        let by = settings.authentication.user_id_type;
        authentication.push(Arc::new(UserAuthenticator::new(users, by, !allow_anonymous)));
    }
    for authenticator in &extensions.authenticators {
        authentication.push(Arc::clone(authenticator));
    }
    let mut admission = Admission {
        authentication,
        authorization: authorization(settings)?,
        ..Admission::default()
    };
    for method in &extensions.enhanced {
        admission.enhanced.insert(Arc::clone(method));
    }
    Ok(admission)
}

fn authorization(settings: &Settings) -> Result<Authorization, AdmissionError> {
    let mut sources: Vec<Arc<dyn Authorizer>> = Vec::new();
    if let Some(path) = &settings.acl_file {
        let text = fs::read_to_string(path).map_err(|cause| AdmissionError::Unreadable {
            path: path.clone(),
            cause,
        })?;
        let rules = AclRules::parse(&text).map_err(|cause| AdmissionError::Rules {
            path: path.clone(),
            cause,
        })?;
        sources.push(Arc::new(rules));
    }
    let settings = &settings.authorization;
    let no_match = match settings.no_match {
        config::NoMatch::Allow => NoMatch::Allow,
        config::NoMatch::Deny => NoMatch::Deny,
    };
    let cache = CacheConfig {
        enable: settings.cache_enable,
        max_size: settings.cache_max_size,
        ttl: settings.cache_ttl,
    };
    Ok(Authorization::new(sources, no_match, cache))
}

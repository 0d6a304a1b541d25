//! Admission, once for every protocol: who may connect, and what a connected client may publish and subscribe.
//!
//! The order is fixed: [`Banned`] → [`AuthenticationChain`] (or an [`EnhancedAuthenticator`]) → attributes,
//! superuser, expiry → mountpoint; then, for every topic, rewrite → [`Authorization`] → limits.
//!
//! Authorization sees topics **in the client's own words**: without its mountpoint, and without `$share/GROUP/`
//! and its relatives. A rule therefore means the same whatever listener the client uses.

mod acl;
mod authentication;
mod authorization;
mod banned;
mod placeholder;

pub use acl::{
    AclError, AclRule, AclRules, ActionFilter, Cidr, Permission, SecurityProfile, TextMatch, TopicFilter,
    TopicFilterError, Who,
};
pub use authentication::{
    Authentication, AuthenticationChain, AuthenticationStep, Authenticator, Credentials,
    EnhancedAuthenticator, EnhancedAuthenticators, ExchangeState, Grant,
};
pub use authorization::{
    Action, Authorization, AuthorizationCache, Authorizer, CacheConfig, NoMatch, Verdict,
};
pub use banned::{Ban, Banned, BannedBy, BannedFull};
pub use placeholder::{Placeholder, Template, UnknownPlaceholder};

/// Everything of admission that is replaced as a whole when the configuration is reloaded.
#[derive(Debug, Default)]
pub struct Admission {
    /// Name and password, token, or certificate.
    pub authentication: AuthenticationChain,
    /// Methods of MQTT 5 §4.12.
    pub enhanced: EnhancedAuthenticators,
    /// What an admitted client may do.
    pub authorization: Authorization,
}

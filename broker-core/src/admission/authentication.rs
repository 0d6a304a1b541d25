//! Who a client is: the chain of authenticators, and enhanced authentication (MQTT 5 §4.12).

use std::{any::Any, fmt, net::SocketAddr, sync::Arc};

use crate::{CertificateInfo, ClientId, Connect, ConnectionInfo, ReasonCode, Timestamp};

/// Who a client says it is.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The client id, already assigned if the client sent none.
    pub client_id: &'a ClientId,
    /// User name, if any.
    pub username: Option<&'a str>,
    /// Password or token, if any.
    pub password: Option<&'a [u8]>,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// Protocol, version and listener.
    pub connection: &'a Arc<ConnectionInfo>,
    /// Its verified certificate, if any.
    pub certificate: Option<&'a Arc<CertificateInfo>>,
}

impl<'a> Credentials<'a> {
    /// What `connect` says, under the client id that the broker settled on.
    pub fn new(connect: &'a Connect, client_id: &'a ClientId) -> Credentials<'a> {
        Credentials {
            client_id,
            username: connect.username.as_deref(),
            password: connect.password.as_deref(),
            peer: connect.peer,
            local: connect.local,
            connection: &connect.connection,
            certificate: connect.certificate.as_ref(),
        }
    }
}

impl fmt::Debug for Credentials<'_> {
    /// Never shows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What an authenticator makes of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// The client is who it says.
    Allow(Grant),
    /// It is not: this is what it is told. Later authenticators are not asked.
    Deny(ReasonCode),
    /// This authenticator does not know it; the next one is asked.
    Ignore,
}

/// What an admitted client gets along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Authorization does not apply to it.
    pub is_superuser: bool,
    /// Attributes for mountpoints, rules and events, by name.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
    /// The client is disconnected at this time (the end of a token); `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Replaces the client id, before a session is looked up.
    pub client_id: Option<ClientId>,
    /// Replaces the user name.
    pub username: Option<Arc<str>>,
}

/// A backend that checks credentials.
pub trait Authenticator: Send + Sync {
    /// Name for logs and counters, such as `built_in_database`.
    fn name(&self) -> &str;

    /// Checks credentials. May block: it runs on the control plane, never on a shard's thread. A backend that
    /// cannot be reached answers by its configured policy, not by waiting without end.
    fn authenticate(&self, now: Timestamp, credentials: &Credentials<'_>) -> Authentication;
}

/// The authenticators in their order; the first that does not ignore the client decides.
///
/// If all ignore it, `allow_anonymous` decides. With `allow_anonymous` and a chain, a client may come in under a
/// user name that no authenticator knows: rules that name users then mean no more than the name. Set it to
/// `false` wherever rules tell users apart.
#[derive(Clone, Default)]
pub struct AuthenticationChain {
    authenticators: Vec<Arc<dyn Authenticator>>,
    allow_anonymous: bool,
}

impl AuthenticationChain {
    /// An empty chain: `allow_anonymous` decides alone.
    pub fn new(allow_anonymous: bool) -> AuthenticationChain {
        AuthenticationChain {
            authenticators: Vec::new(),
            allow_anonymous,
        }
    }

    /// Appends an authenticator: it is asked after those before it.
    pub fn push(&mut self, authenticator: Arc<dyn Authenticator>) {
        self.authenticators.push(authenticator);
    }

    /// The answer that needs no backend: `Some` if and only if the chain is empty. A shard asks this first and
    /// leaves its thread only for `None`.
    pub fn inline(&self) -> Option<Authentication> {
        self.authenticators
            .is_empty()
            .then(|| self.anonymous(ReasonCode::NotAuthorized))
    }

    /// Asks the authenticators in turn. Never [`Authentication::Ignore`]. May block; for the control plane.
    pub fn authenticate(&self, now: Timestamp, credentials: &Credentials<'_>) -> Authentication {
        self.authenticators
            .iter()
            .map(|authenticator| authenticator.authenticate(now, credentials))
            .find(|answer| *answer != Authentication::Ignore)
            .unwrap_or_else(|| {
                // As for a wrong password, so that the code does not tell which users exist.
                let is_named = credentials.username.is_some() || credentials.password.is_some();
                self.anonymous(if is_named {
                    ReasonCode::BadUserNameOrPassword
                } else {
                    ReasonCode::NotAuthorized
                })
            })
    }

    fn anonymous(&self, refusal: ReasonCode) -> Authentication {
        if self.allow_anonymous {
            Authentication::Allow(Grant::default())
        } else {
            Authentication::Deny(refusal)
        }
    }
}

impl fmt::Debug for AuthenticationChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.authenticators.iter().map(|one| one.name()).collect();
        f.debug_struct("AuthenticationChain")
            .field("authenticators", &names)
            .field("allow_anonymous", &self.allow_anonymous)
            .finish()
    }
}

/// What an [`EnhancedAuthenticator`] remembers between two steps of one exchange. The shard keeps it with the
/// parked client, so an abandoned exchange costs nothing once the connection is gone.
pub type ExchangeState = Box<dyn Any + Send>;

/// The outcome of one step of enhanced authentication.
pub enum AuthenticationStep {
    /// AUTH with Continue authentication (0x18): the client must send more.
    Continue {
        /// For the client.
        data: Option<Vec<u8>>,
        /// Comes back with the client's next AUTH.
        state: ExchangeState,
    },
    /// The client is who it says.
    Success {
        /// Final data for the CONNACK, or for the AUTH that ends a re-authentication.
        data: Option<Vec<u8>>,
        /// What it gets along.
        grant: Grant,
    },
    /// Refused with this code.
    Fail(ReasonCode),
}

impl fmt::Debug for AuthenticationStep {
    /// Shows neither data nor state: both may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthenticationStep::Continue { .. } => f.write_str("Continue"),
            AuthenticationStep::Success { grant, .. } => f.debug_tuple("Success").field(grant).finish(),
            AuthenticationStep::Fail(reason) => f.debug_tuple("Fail").field(reason).finish(),
        }
    }
}

/// A method of enhanced authentication (MQTT 5 §4.12), such as SCRAM. May block, like an [`Authenticator`].
pub trait EnhancedAuthenticator: Send + Sync {
    /// The Authentication Method, compared byte by byte.
    fn method(&self) -> &str;

    /// The CONNECT, or the AUTH with Re-authenticate (0x19), and the client's first data.
    fn start(&self, now: Timestamp, credentials: &Credentials<'_>, data: Option<&[u8]>)
    -> AuthenticationStep;

    /// A further AUTH of the client, with the state of the step before.
    fn step(
        &self,
        now: Timestamp,
        credentials: &Credentials<'_>,
        state: ExchangeState,
        data: Option<&[u8]>,
    ) -> AuthenticationStep;
}

/// The methods of enhanced authentication that are offered.
#[derive(Clone, Default)]
pub struct EnhancedAuthenticators(Vec<Arc<dyn EnhancedAuthenticator>>);

impl EnhancedAuthenticators {
    /// Offers a method; one of the same name is replaced.
    pub fn insert(&mut self, authenticator: Arc<dyn EnhancedAuthenticator>) {
        self.0.retain(|known| known.method() != authenticator.method());
        self.0.push(authenticator);
    }

    /// The method of that name. `None` is answered with Bad authentication method (0x8C) [§4.12].
    pub fn get(&self, method: &str) -> Option<&Arc<dyn EnhancedAuthenticator>> {
        self.0.iter().find(|known| known.method() == method)
    }
}

impl fmt::Debug for EnhancedAuthenticators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|one| one.method()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn connect(username: Option<&str>) -> Connect {
        Connect {
            username: username.map(str::to_owned),
            password: Some(b"secret word".to_vec()),
            ..Connect::plain("")
        }
    }

    /// Knows one user name, and counts how often it is asked.
    struct Knows(&'static str, Authentication, AtomicUsize);

    impl Authenticator for Knows {
        fn name(&self) -> &str {
            self.0
        }
        fn authenticate(&self, _now: Timestamp, credentials: &Credentials<'_>) -> Authentication {
            self.2.fetch_add(1, Ordering::Relaxed);
            if credentials.username == Some(self.0) {
                self.1.clone()
            } else {
                Authentication::Ignore
            }
        }
    }

    #[test]
    fn the_first_authenticator_that_knows_the_client_decides() {
        let superuser = Authentication::Allow(Grant {
            is_superuser: true,
            ..Grant::default()
        });
        let bad = Authentication::Deny(ReasonCode::BadUserNameOrPassword);
        let make = |name, answer: &Authentication| Arc::new(Knows(name, answer.clone(), AtomicUsize::new(0)));
        let first = make("alice", &bad);
        let second = make("alice", &superuser);
        let third = make("bob", &superuser);
        for (allow_anonymous, fallback) in [
            (true, Authentication::Allow(Grant::default())),
            (false, Authentication::Deny(ReasonCode::NotAuthorized)),
        ] {
            let mut chain = AuthenticationChain::new(allow_anonymous);
            assert_eq!(chain.inline(), Some(fallback.clone()));
            for one in [&first, &second, &third] {
                chain.push(Arc::clone(one) as Arc<dyn Authenticator>);
            }
            assert_eq!(chain.inline(), None);
            let id = ClientId::new("c");
            let ask = |username: Option<&str>| {
                let mut connect = connect(username);
                connect.password = username.map(|_| b"secret word".to_vec());
                chain.authenticate(Timestamp::from_millis(0), &Credentials::new(&connect, &id))
            };
            assert_eq!(ask(Some("alice")), bad);
            assert_eq!(ask(Some("bob")), superuser);
            let unknown = if allow_anonymous {
                fallback.clone()
            } else {
                bad.clone()
            };
            assert_eq!(ask(Some("carol")), unknown);
            assert_eq!(ask(None), fallback);
        }
        assert_eq!(first.2.load(Ordering::Relaxed), 8);
        assert_eq!(second.2.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn a_password_is_never_shown() {
        let (connect, id) = (connect(Some("alice")), ClientId::new("c"));
        let shown = format!("{:?}", Credentials::new(&connect, &id));
        assert!(shown.contains("alice") && shown.contains("has_password: true"));
        assert!(!shown.contains("secret") && !shown.contains("115, 101"));
    }

    /// A challenge-response method for tests: the client answers a challenge by its bytes in reverse order, twice;
    /// the second challenge is its first answer's length. It shows that the state of an exchange travels as a value.
    struct Reverse;

    struct Challenged {
        challenge: Vec<u8>,
        round: u8,
    }

    impl Reverse {
        fn challenge(challenge: &[u8], round: u8) -> AuthenticationStep {
            AuthenticationStep::Continue {
                data: Some(challenge.to_vec()),
                state: Box::new(Challenged {
                    challenge: challenge.to_vec(),
                    round,
                }),
            }
        }
    }

    impl EnhancedAuthenticator for Reverse {
        fn method(&self) -> &str {
            "REVERSE"
        }

        fn start(&self, now: Timestamp, _: &Credentials<'_>, data: Option<&[u8]>) -> AuthenticationStep {
            match data {
                None => Reverse::challenge(now.as_millis().to_string().as_bytes(), 1),
                Some(_) => AuthenticationStep::Fail(ReasonCode::ProtocolError),
            }
        }

        fn step(
            &self,
            _: Timestamp,
            credentials: &Credentials<'_>,
            state: ExchangeState,
            data: Option<&[u8]>,
        ) -> AuthenticationStep {
            let Ok(state) = state.downcast::<Challenged>() else {
                return AuthenticationStep::Fail(ReasonCode::ImplementationSpecificError);
            };
            let expected: Vec<u8> = state.challenge.iter().rev().copied().collect();
            match data {
                Some(answer) if answer != expected => AuthenticationStep::Fail(ReasonCode::NotAuthorized),
                Some(answer) if state.round == 1 => {
                    Reverse::challenge(format!("length {}", answer.len()).as_bytes(), 2)
                }
                Some(_) => AuthenticationStep::Success {
                    data: Some(b"welcome".to_vec()),
                    grant: Grant {
                        username: credentials.username.map(Arc::from),
                        ..Grant::default()
                    },
                },
                None => AuthenticationStep::Fail(ReasonCode::ProtocolError),
            }
        }
    }

    fn exchange(answers: &[&str]) -> AuthenticationStep {
        let mut offered = EnhancedAuthenticators::default();
        offered.insert(Arc::new(Reverse));
        let method = offered.get("REVERSE").unwrap();
        let (connect, id) = (connect(Some("alice")), ClientId::new("c"));
        let (now, credentials) = (Timestamp::from_millis(123), Credentials::new(&connect, &id));
        let mut step = method.start(now, &credentials, None);
        for answer in answers {
            step = match step {
                AuthenticationStep::Continue { state, .. } => {
                    method.step(now, &credentials, state, Some(answer.as_bytes()))
                }
                ended => panic!("{ended:?}"),
            };
        }
        step
    }

    #[test]
    fn an_exchange_takes_as_many_steps_as_its_method_needs() {
        match exchange(&["321"]) {
            AuthenticationStep::Continue { data, .. } => assert_eq!(data.unwrap(), b"length 3"),
            other => panic!("{other:?}"),
        }
        match exchange(&["321", "3 htgnel"]) {
            AuthenticationStep::Success { data, grant } => {
                assert_eq!(data.unwrap(), b"welcome");
                assert_eq!(grant.username.as_deref(), Some("alice"));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            exchange(&["123"]),
            AuthenticationStep::Fail(ReasonCode::NotAuthorized)
        ));
    }

    #[test]
    fn a_state_of_another_method_is_refused_and_unknown_methods_are_not_offered() {
        let (connect, id) = (connect(None), ClientId::new("c"));
        let foreign: ExchangeState = Box::new(7_u8);
        let step = Reverse.step(
            Timestamp::from_millis(0),
            &Credentials::new(&connect, &id),
            foreign,
            Some(b""),
        );
        assert!(matches!(
            step,
            AuthenticationStep::Fail(ReasonCode::ImplementationSpecificError)
        ));
        let mut offered = EnhancedAuthenticators::default();
        offered.insert(Arc::new(Reverse));
        offered.insert(Arc::new(Reverse));
        assert_eq!(format!("{offered:?}"), "[\"REVERSE\"]");
        assert!(offered.get("reverse").is_none());
    }
}

//! Authentication: decided here if no backend is needed, else asked of the control plane, while the client waits.

use std::sync::Arc;

use crate::{
    AuthData, ClientId, Closing, Connect, Event, LinkId, ReasonCode, Timestamp,
    admission::{Authentication, AuthenticationStep, Credentials, ExchangeState, Grant},
    hooks::HookContext,
    session::SessionKey,
};

use super::{
    Common, Link, Output, Shard, Ticket,
    connect::{Connecting, Stage},
};

/// What a shard asks the control plane: may block there.
#[derive(Debug)]
pub struct Question {
    connect: Connect,
    client_id: ClientId,
    step: Step,
}

enum Step {
    /// User name and password, token, certificate.
    Basic,
    /// First data of enhanced authentication.
    Start(AuthData),
    /// Further data of it.
    Next(AuthData, ExchangeState),
}

impl std::fmt::Debug for Step {
    /// Shows neither data nor state: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Basic => "Basic",
            Step::Start(_) => "Start",
            Step::Next(..) => "Next",
        })
    }
}

/// The answer of the control plane.
#[derive(Debug)]
pub struct Reply(AuthenticationStep);

impl Question {
    /// Works out the answer. May block, so not on a shard's thread.
    pub fn answer(self, now: Timestamp, common: &Common) -> Reply {
        let credentials = Credentials::new(&self.connect, &self.client_id);
        let admission = &common.admission;
        let step = match self.step {
            Step::Basic => basic(admission.authentication.authenticate(now, &credentials)),
            Step::Start(auth) => match admission.enhanced.get(&auth.method) {
                Some(method) => method.start(now, &credentials, auth.data.as_deref()),
                None => AuthenticationStep::Fail(ReasonCode::BadAuthenticationMethod),
            },
            Step::Next(auth, state) => match admission.enhanced.get(&auth.method) {
                Some(method) => method.step(now, &credentials, state, auth.data.as_deref()),
                None => AuthenticationStep::Fail(ReasonCode::BadAuthenticationMethod),
            },
        };
        Reply(step)
    }

    /// The answer of a control plane that has too much to do: the client may come again later.
    pub fn refuse_busy() -> Reply {
        Reply(AuthenticationStep::Fail(ReasonCode::ServerBusy))
    }
}

fn basic(authentication: Authentication) -> AuthenticationStep {
    match authentication {
        Authentication::Allow(grant) => AuthenticationStep::Success { data: None, grant },
        Authentication::Deny(reason) => AuthenticationStep::Fail(reason),
        Authentication::Ignore => AuthenticationStep::Fail(ReasonCode::NotAuthorized),
    }
}

impl Shard {
    /// Begins to authenticate the client of `link`, which is in the table of links.
    pub(super) fn authenticate(&mut self, now: Timestamp, link: LinkId) {
        let Some(Link::Connecting(connecting)) = self.links.get_mut(&link) else {
            return;
        };
        if let Some(auth) = connecting.connect.auth.clone() {
            if self.common.admission.enhanced.get(&auth.method).is_none() {
                return self.refuse(now, link, Closing::new(ReasonCode::BadAuthenticationMethod));
            }
            return self.ask(link, Step::Start(auth));
        }
        let credentials = Credentials::new(&connecting.connect, &connecting.client_id);
        let common = Arc::clone(&self.common);
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        let decided = common.hooks.client_authenticate(&mut context, &credentials);
        let inline = match decided {
            Authentication::Ignore => common.admission.authentication.inline(),
            decided => Some(decided),
        };
        match inline {
            Some(authentication) => self.take_step(now, link, basic(authentication)),
            None => self.ask(link, Step::Basic),
        }
    }

    fn ask(&mut self, link: LinkId, step: Step) {
        let ticket = Ticket(self.next_number());
        let Some(Link::Connecting(connecting)) = self.links.get_mut(&link) else {
            return;
        };
        connecting.stage = Stage::Asked(ticket);
        let question = Question {
            connect: connecting.connect.clone(),
            client_id: connecting.client_id.clone(),
            step,
        };
        self.tickets.insert(ticket, link);
        self.outputs.push_back(Output::Ask(ticket, Box::new(question)));
    }

    /// An AUTH packet: a further step of an exchange, or the start of a re-authentication (§4.12.1).
    pub(super) fn auth(&mut self, now: Timestamp, link: LinkId, auth: AuthData) {
        match self.links.get_mut(&link) {
            Some(Link::Connecting(connecting)) => {
                let method = connecting.connect.auth.as_ref().map(|auth| auth.method.as_str());
                // [MQTT-4.12.0-3], [MQTT-4.12.0-5]
                let expected = matches!(connecting.stage, Stage::Exchange(_))
                    && auth.reason == ReasonCode::ContinueAuthentication
                    && method == Some(&auth.method);
                match std::mem::replace(&mut connecting.stage, Stage::Admitted) {
                    Stage::Exchange(state) if expected => self.ask(link, Step::Next(auth, state)),
                    _ => self.refuse(now, link, Closing::new(ReasonCode::ProtocolError)),
                }
            }
            Some(&mut Link::Online(key)) => self.reauthenticate(now, link, key, auth),
            None => {}
        }
    }

    /// The control plane has answered.
    pub(super) fn authenticated(&mut self, now: Timestamp, ticket: Ticket, reply: Reply) {
        let Some(link) = self.tickets.remove(&ticket) else {
            return;
        };
        match self.links.get(&link) {
            Some(Link::Connecting(connecting)) if matches!(connecting.stage, Stage::Asked(asked) if asked == ticket) =>
            {
                self.take_step(now, link, reply.0);
            }
            Some(&Link::Online(key)) => self.reauthenticated(now, link, key, reply.0),
            _ => {}
        }
    }

    fn take_step(&mut self, now: Timestamp, link: LinkId, step: AuthenticationStep) {
        let Some(Link::Connecting(connecting)) = self.links.get_mut(&link) else {
            return;
        };
        match step {
            AuthenticationStep::Continue { data, state } => {
                connecting.stage = Stage::Exchange(state);
                let method = connecting.method();
                let reason = ReasonCode::ContinueAuthentication;
                self.emit(link, Event::Auth(Box::new(AuthData { reason, method, data })));
            }
            AuthenticationStep::Success { data, grant } => {
                connecting.stage = Stage::Admitted;
                if connecting.connect.auth.is_some() {
                    let method = connecting.method();
                    connecting.last = Some(AuthData {
                        reason: ReasonCode::Success,
                        method,
                        data,
                    });
                }
                self.admit(now, link, grant);
            }
            AuthenticationStep::Fail(reason) => {
                self.metrics.authentication_failure.inc();
                self.refuse(now, link, Closing::new(reason));
            }
        }
    }
}

impl Connecting {
    fn method(&self) -> String {
        self.connect
            .auth
            .as_ref()
            .map(|auth| auth.method.clone())
            .unwrap_or_default()
    }
}

/// Re-authentication of an admitted client (§4.12.1).
impl Shard {
    fn reauthenticate(&mut self, now: Timestamp, link: LinkId, key: SessionKey, auth: AuthData) {
        let Some(exchange) = self.session_mut(key).exchange.as_mut() else {
            // A client that connected without a method must not send AUTH [MQTT-4.12.0-6].
            return self.close_session(now, key, Closing::new(ReasonCode::ProtocolError));
        };
        if exchange
            .connect
            .auth
            .as_ref()
            .is_none_or(|first| first.method != auth.method)
        {
            // [MQTT-4.12.1-1]
            return self.close_session(now, key, Closing::new(ReasonCode::ProtocolError));
        }
        let (connect, client_id) = (exchange.connect.clone(), exchange.client_id.clone());
        let state = exchange.state.take();
        let step = match (auth.reason, state) {
            (ReasonCode::ReAuthenticate, None) if !exchange.asked => Step::Start(auth),
            (ReasonCode::ContinueAuthentication, Some(state)) => Step::Next(auth, state),
            _ => return self.close_session(now, key, Closing::new(ReasonCode::ProtocolError)),
        };
        exchange.asked = true;
        let ticket = Ticket(self.next_number());
        self.tickets.insert(ticket, link);
        self.outputs.push_back(Output::Ask(
            ticket,
            Box::new(Question {
                connect,
                client_id,
                step,
            }),
        ));
    }

    fn reauthenticated(&mut self, now: Timestamp, link: LinkId, key: SessionKey, step: AuthenticationStep) {
        let session = self.session_mut(key);
        let Some(exchange) = session.exchange.as_mut() else {
            return;
        };
        exchange.asked = false;
        let method = exchange
            .connect
            .auth
            .as_ref()
            .map(|auth| auth.method.clone())
            .unwrap_or_default();
        match step {
            AuthenticationStep::Continue { data, state } => {
                exchange.state = Some(state);
                let reason = ReasonCode::ContinueAuthentication;
                self.emit(link, Event::Auth(Box::new(AuthData { reason, method, data })));
            }
            AuthenticationStep::Success { data, grant } => {
                self.renew(key, &grant);
                let reason = ReasonCode::Success;
                self.emit(link, Event::Auth(Box::new(AuthData { reason, method, data })));
            }
            AuthenticationStep::Fail(reason) => self.close_session(now, key, Closing::new(reason)),
        }
    }

    /// A new grant prolongs the admission; rights and attributes stay those of the connection.
    fn renew(&mut self, key: SessionKey, grant: &Grant) {
        let session = self.session_mut(key);
        session.admitted_until = grant.expires_at.unwrap_or(Timestamp::NEVER);
        session.authorization_cache.clear();
        self.arm_session(key);
    }
}

//! Who a client is, beyond what it says: `clientinfo_override`, and the guard of its sleep.

use std::{fmt::Write, sync::Arc};

use broker_core::{CertificateInfo, ClientId, Connect, Identity, Request};
use bytes::Bytes;

use super::{Peer, state::Setup};
use crate::{Roaming, Transport};

impl Peer {
    /// The client id under which the broker knows a client that calls itself `said`.
    pub(super) fn effective_client_id(&self, said: &str) -> Box<str> {
        match &self.settings.clientinfo_override.clientid {
            Some(template) => self.expand(template, said).into(),
            None => said.into(),
        }
    }

    /// The request that admits a client; the caller adds what is special.
    pub(super) fn connect_request(&self, client_id: &str) -> Connect {
        let settings = &self.settings;
        let text = |template: &Option<String>| {
            let text = template
                .as_deref()
                .map(|template| self.expand(template, client_id));
            text.filter(|text| !text.is_empty())
        };
        let transport = self.transport.as_ref();
        Connect {
            client_id: client_id.to_owned(),
            username: text(&settings.clientinfo_override.username),
            password: text(&settings.clientinfo_override.password).map(String::into_bytes),
            peer: transport.map(|transport| transport.remote.address),
            local: transport.and_then(|transport| transport.local),
            connection: Arc::clone(&settings.connection),
            certificate: self.certificate().cloned(),
            mountpoint: Arc::clone(&settings.mountpoint),
            clean_start: false,
            session_expiry_interval: settings.session_expiry_interval,
            keep_alive: 0,
            receive_maximum: settings.max_inflight.max(1),
            auth: None,
            will: None,
            keeps_will: false,
            user_properties: Vec::new(),
            is_bridge: false,
            may_sleep: true,
            wake: None,
        }
    }

    /// The request for a session that sleeps.
    pub(super) fn wake_request(&self, client_id: &ClientId) -> Request {
        Request::Connect(Box::new(Connect {
            keeps_will: true,
            wake: Some(self.guard()),
            ..self.connect_request(client_id.as_str())
        }))
    }

    /// What a CONNECT asks for (§6.3).
    pub(super) fn setup_request(&self, setup: &Setup) -> Connect {
        let mut connect = self.connect_request(&setup.client_id);
        connect.clean_start = setup.clean_session;
        connect.keeps_will = !setup.clean_session && !setup.will;
        connect.keep_alive = setup.duration;
        if setup.clean_session {
            connect.session_expiry_interval = 0;
        }
        connect
    }

    /// What a client must have in common with the one that fell asleep, to take its place.
    pub(super) fn guard(&self) -> Bytes {
        let mut guard = String::new();
        if let Some(transport) = &self.transport {
            let remote = &transport.remote;
            match self.settings.roaming {
                Roaming::Any => {}
                Roaming::Host => guard.push_str(&remote.address.ip().to_canonical().to_string()),
                Roaming::Never => guard.push_str(&remote.address.to_string()),
            }
            if self.settings.roaming != Roaming::Any {
                guard.push('/');
                guard.push_str(&hex(transport));
            }
            match &transport.identity {
                // Nobody may be woken over plain UDP who fell asleep over DTLS.
                None => write!(guard, "\non {}", self.settings.connection.listener)
                    .expect("a string takes everything"),
                Some(Identity::Psk(name)) => {
                    write!(guard, "\npsk {name}").expect("a string takes everything")
                }
                Some(Identity::Certificate(certificate)) => {
                    write!(guard, "\nsubject {}", certificate.subject).expect("a string takes everything");
                }
            }
        }
        guard.into()
    }

    fn certificate(&self) -> Option<&Arc<CertificateInfo>> {
        match self.transport.as_ref()?.identity.as_ref()? {
            Identity::Certificate(certificate) => Some(certificate),
            Identity::Psk(_) => None,
        }
    }

    /// `template` with its placeholders replaced. One that nobody knows is left as it stands; what there is no value
    /// for becomes nothing.
    fn expand(&self, template: &str, client_id: &str) -> String {
        let mut expanded = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("${") {
            expanded.push_str(before);
            let Some((name, behind)) = after.split_once('}') else {
                expanded.push_str("${");
                rest = after;
                continue;
            };
            match self.placeholder(name, client_id) {
                Some(value) => expanded.push_str(&value),
                None => write!(expanded, "${{{name}}}").expect("a string takes everything"),
            }
            rest = behind;
        }
        expanded.push_str(rest);
        expanded
    }

    fn placeholder(&self, name: &str, client_id: &str) -> Option<String> {
        let transport = self.transport.as_ref();
        let address = transport.map(|transport| transport.remote.address);
        let value = match name {
            "Packet.headers.clientid" => Some(client_id.to_owned()),
            "ConnInfo.peername" => address.map(|address| address.to_string()),
            "ConnInfo.peerhost" => address.map(|address| address.ip().to_canonical().to_string()),
            "ConnInfo.sockport" => transport
                .and_then(|transport| transport.local)
                .map(|local| local.port().to_string()),
            "ConnInfo.node" => transport.map(hex),
            "ConnInfo.identity" => match transport.and_then(|transport| transport.identity.as_ref()) {
                Some(Identity::Psk(name)) => Some(name.as_ref().to_owned()),
                Some(Identity::Certificate(certificate)) => certificate.common_name.clone(),
                None => None,
            },
            _ => return None,
        };
        Some(value.unwrap_or_default())
    }
}

/// The node behind the forwarder, if there is one.
fn hex(transport: &Transport) -> String {
    let bytes = transport.remote.node.iter().flatten();
    bytes.fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

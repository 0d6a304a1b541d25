//! The server's side of the opening handshake (RFC 6455 §4.2), without I/O.

use tungstenite::{
    error::ProtocolError,
    handshake::{
        machine::TryParse,
        server::{Request, create_response, write_response},
    },
    http::{HeaderValue, header},
};

use crate::{PeerFactory, WebSocketMeta, WebSocketSettings};

/// Longest request accepted, with all its headers.
pub(crate) const HEADER_BYTES_MAX: usize = 8 << 10;

/// What to answer a request.
pub(crate) enum Answer {
    /// The connection is a WebSocket from here on.
    Accept {
        response: Vec<u8>,
        meta: Box<WebSocketMeta>,
        factory: PeerFactory,
    },
    /// The connection ends after the response.
    Refuse { response: Vec<u8>, why: String },
}

/// The answer to the request at the front of `bytes`, which is removed; `None` if it is incomplete. Called after every
/// read.
pub(crate) fn answer(bytes: &mut Vec<u8>, settings: &WebSocketSettings) -> Option<Answer> {
    match bytes.first() {
        None => return None,
        // A method is a token in upper case (RFC 9110 §9.1): an MQTT client on this port is told apart at once.
        Some(first) if !first.is_ascii_uppercase() => return Some(refuse("400 Bad Request", "not HTTP")),
        Some(_) => {}
    }
    if !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let is_full = bytes.len() >= HEADER_BYTES_MAX;
        return is_full.then(|| refuse("431 Request Header Fields Too Large", "request headers too large"));
    }
    let request = match Request::try_parse(bytes) {
        Ok(Some((len, request))) => {
            bytes.drain(..len);
            request
        }
        Ok(None) => return Some(refuse("400 Bad Request", "not HTTP")),
        Err(error) => return Some(refuse_upgrade(&error)),
    };
    Some(check(&request, settings).unwrap_or_else(|refusal| refusal))
}

fn check(request: &Request, settings: &WebSocketSettings) -> Result<Answer, Answer> {
    let path = request.uri().path();
    let route = settings
        .routes
        .iter()
        .find(|route| route.path == path)
        .ok_or_else(|| refuse("404 Not Found", "no service under this path"))?;
    let mut response = create_response(request).map_err(|error| refuse_upgrade(&error))?;
    let text = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if text(header::HOST).is_none() {
        return Err(refuse("400 Bad Request", "no Host header (RFC 6455 §4.2.1)"));
    }
    let origin = text(header::ORIGIN);
    let allowed = &settings.allowed_origins;
    let is_allowed = |origin: &str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    // Browsers always send it; what is not a browser cannot be tricked by a foreign page (RFC 6455 §10.2).
    if !allowed.is_empty() && !origin.is_none_or(is_allowed) {
        return Err(refuse("403 Forbidden", "origin not allowed"));
    }
    let subprotocol = choose(request, &route.subprotocols, route.subprotocol_required)?;
    if let Some(chosen) = &subprotocol {
        let value = HeaderValue::from_str(chosen)
            .map_err(|_| refuse("500 Internal Server Error", "sub-protocol is not a token"))?;
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(|error| refuse("400 Bad Request", &error.to_string()))?;
    let meta = Box::new(WebSocketMeta {
        path: path.to_owned(),
        subprotocol,
        cookie: text(header::COOKIE).map(str::to_owned),
        origin: origin.map(str::to_owned),
    });
    Ok(Answer::Accept {
        response: bytes,
        meta,
        factory: route.factory.clone(),
    })
}

/// The first sub-protocol offered that is spoken here (RFC 6455 §4.2.2, item 5).
fn choose(request: &Request, spoken: &[String], is_required: bool) -> Result<Option<String>, Answer> {
    let offered: Vec<&str> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let chosen = offered
        .iter()
        .find(|name| spoken.iter().any(|spoken| spoken == *name));
    match chosen {
        Some(name) => Ok(Some((*name).to_owned())),
        None if offered.is_empty() && !is_required => Ok(None),
        None if offered.is_empty() => Err(refuse("400 Bad Request", "no sub-protocol offered")),
        None => Err(refuse(
            "400 Bad Request",
            "no sub-protocol offered that is spoken here",
        )),
    }
}

fn refuse_upgrade(error: &tungstenite::Error) -> Answer {
    use ProtocolError::{
        MissingConnectionUpgradeHeader, MissingSecWebSocketVersionHeader, MissingUpgradeWebSocketHeader,
        WrongHttpMethod,
    };
    let status = match error {
        tungstenite::Error::Protocol(WrongHttpMethod) => "405 Method Not Allowed\r\nAllow: GET",
        tungstenite::Error::Protocol(
            MissingConnectionUpgradeHeader | MissingUpgradeWebSocketHeader | MissingSecWebSocketVersionHeader,
        ) => "426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
        _ => "400 Bad Request",
    };
    refuse(status, &error.to_string())
}

/// `status` may go on with headers.
fn refuse(status: &str, why: &str) -> Answer {
    let response = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{why}\n",
        why.len() + 1
    );
    Answer::Refuse {
        response: response.into_bytes(),
        why: why.to_owned(),
    }
}

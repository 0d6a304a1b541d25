//! Verification of texts. An error completes the sentence "VALUE …".

use broker_core::{admission::Template, topic};

use super::super::{
    bind::Bind,
    field::Priorities,
    listener::ListenerKind,
    mqttsn::{Broadcast, DatagramKind},
};

fn ensure(is_valid: bool, problem: &str) -> Result<(), String> {
    if is_valid { Ok(()) } else { Err(problem.to_owned()) }
}

/// The name of a listener: what a key, an environment variable and an ACL rule can all spell.
pub(super) fn object_name(text: &str) -> Result<(), String> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    ensure(
        (1..=64).contains(&text.len()) && text.bytes().all(valid) && !text.contains("__"),
        "is not 1 to 64 lower-case letters, digits, `_` and `-`, without `__`",
    )
}

pub(super) fn path(_: &str) -> Result<(), String> {
    Ok(())
}

pub(super) fn required_path(text: &str) -> Result<(), String> {
    ensure(!text.is_empty(), "is empty")
}

/// One level of a topic: it stands in `$SYS/brokers/NODE/…`, and in topics and rules through `${zone}`.
pub(super) fn level(text: &str) -> Result<(), String> {
    ensure(
        topic::is_valid_name(text) && !text.contains('/') && !text.contains(char::is_whitespace),
        "is empty or contains `/`, `+`, `#` or a blank",
    )
}

pub(super) fn mountpoint(text: &str) -> Result<(), String> {
    ensure(
        text.is_empty() || topic::is_valid_name(text),
        "contains a wildcard or is too long",
    )?;
    Template::parse(text)
        .map(drop)
        .map_err(|error| format!("has an {error}"))
}

pub(super) fn filter(text: &str) -> Result<(), String> {
    ensure(
        topic::is_valid_filter(text),
        "is not a topic filter (MQTT 5 §4.7)",
    )
}

pub(super) fn topic_name(text: &str) -> Result<(), String> {
    ensure(topic::is_valid_name(text), "is not a topic name (MQTT 5 §4.7)")
}

pub(super) fn broadcast(text: &str) -> Result<(), String> {
    text.parse::<Broadcast>().map(drop).map_err(str::to_owned)
}

/// Text of `clientinfo_override`; its placeholders are those of [`mqtt_sn::ClientInfoOverride`].
pub(super) fn client_info(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 6] = [
        "ConnInfo.peername",
        "ConnInfo.peerhost",
        "ConnInfo.sockport",
        "ConnInfo.node",
        "ConnInfo.identity",
        "Packet.headers.clientid",
    ];
    for part in text.split("${").skip(1) {
        let (name, _) = part
            .split_once('}')
            .ok_or("has a placeholder without its closing brace")?;
        if !KNOWN.contains(&name) {
            return Err(format!("has the unknown placeholder `${{{name}}}`"));
        }
    }
    Ok(())
}

pub(super) fn priorities(text: &str) -> Result<(), String> {
    Priorities::parse(text).map(drop)
}

/// Whether it compiles is judged with the rule as a whole.
pub(super) fn expression(text: &str) -> Result<(), String> {
    ensure(!text.is_empty(), "is empty")
}

pub(super) fn bind(text: &str) -> Result<(), String> {
    text.parse::<Bind>().map(drop).map_err(str::to_owned)
}

/// The path of a request (RFC 9112 §3.2.1), without a query.
pub(super) fn request_path(text: &str) -> Result<(), String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    ensure(
        text.starts_with('/') && text.bytes().all(valid),
        "is not a path that starts with `/`",
    )
}

/// A token, as Sec-WebSocket-Protocol wants it (RFC 6455 §4.1, RFC 9110 §5.6.2).
pub(super) fn token(text: &str) -> Result<(), String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    ensure(
        !text.is_empty() && text.bytes().all(valid),
        "is not a token (RFC 6455 §4.1)",
    )
}

/// An origin as browsers serialise it (RFC 6454 §6.2).
pub(super) fn origin(text: &str) -> Result<(), String> {
    let host = text.split_once("://").map(|(_, host)| host);
    ensure(
        text == "null" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' '])),
        "is not an origin such as https://app.example:8443",
    )
}

pub(super) fn tls_version(text: &str) -> Result<(), String> {
    match text {
        "tlsv1.2" | "tlsv1.3" => Ok(()),
        "tlsv1" | "tlsv1.1" | "sslv3" => Err("is not offered: RFC 8996 forbids it".to_owned()),
        _ => Err("is not a version of TLS".to_owned()),
    }
}

/// Server addresses separated by blanks (MQTT 5 §4.11); the packet's string bounds the length.
pub(super) fn server_reference(text: &str) -> Result<(), String> {
    ensure(text.len() <= usize::from(u16::MAX), "is longer than 65535 bytes")
}

pub(super) const ALL: &[ListenerKind] = &ListenerKind::ALL;
pub(super) const WEB_SOCKET: &[ListenerKind] = &[ListenerKind::Ws, ListenerKind::Wss];
pub(super) const TLS: &[ListenerKind] = &[ListenerKind::Ssl, ListenerKind::Wss];
pub(super) const DATAGRAM: &[DatagramKind] = &DatagramKind::ALL;
pub(super) const DTLS: &[DatagramKind] = &[DatagramKind::Dtls];

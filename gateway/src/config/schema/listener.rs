//! Keys of listeners: `listeners.<type>.<name>.*`.

use super::{
    Access, Spec,
    checks::{self, ALL, TLS, WEB_SOCKET},
    lens,
};
use crate::config::{
    field::Words,
    listener::{Enable, Verify},
    value::{Keyword, Kind},
};

const INFINITY: Option<Keyword> = Some(Keyword {
    word: "infinity",
    zero: false,
});
const PATH: Kind = Kind::Text {
    allowed: "a path, or nothing",
    check: checks::path,
};

pub(super) static SPECS: &[Spec] = &[
    Spec {
        pattern: "listeners.<type>.<name>.bind",
        kind: Kind::Text {
            allowed: "PORT, :PORT, IPV4:PORT or [IPV6]:PORT",
            check: checks::bind,
        },
        access: Access::Listener(ALL, lens!(bind)),
        doc: "Where the listener waits. A port alone means every address of the machine, IPv4 and IPv6; `[::]` does \
              too, but fails where there is no IPv6; `0.0.0.0` takes IPv4 only. Port 0 lets the system choose, and \
              the start-up line says which. A listener of another name than `default` must have one.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.enable",
        kind: Kind::Choice(Enable::WORDS),
        access: Access::Listener(ALL, lens!(enable)),
        doc: "Whether the listener is opened. `auto` opens a tcp or ws listener, and an ssl or wss listener as soon \
              as it has a `certfile` and a `keyfile`.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.max_connections",
        kind: Kind::Integer {
            min: 1,
            max: 1_000_000_000,
            keyword: INFINITY,
        },
        access: Access::Listener(ALL, lens!(max_connections)),
        doc: "Connections that the listener holds at once; a further one is closed as soon as it was accepted. \
              `infinity` leaves it to the file descriptors that the process may open.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.mountpoint",
        kind: Kind::Text {
            allowed: "a topic prefix without wildcards, or nothing",
            check: checks::mountpoint,
        },
        access: Access::Listener(ALL, lens!(mountpoint)),
        doc: "Prefix put before every topic of the listener's clients, and taken off what they receive, so that they \
              see only what is below it. `${clientid}`, `${username}`, `${peerhost}`, `${zone}`, \
              `${cert_common_name}` and `${client_attrs.NAME}` are replaced.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.zone",
        kind: Kind::Text {
            allowed: "text without `/`, `+`, `#` and blanks",
            check: checks::level,
        },
        access: Access::Listener(ALL, lens!(zone)),
        doc: "Name that authorization rules and `${zone}` know the listener's clients by.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.tcp_options.backlog",
        kind: Kind::Integer {
            min: 1,
            max: 65_535,
            keyword: None,
        },
        access: Access::Listener(ALL, lens!(tcp.backlog)),
        doc: "Connections that may wait to be accepted. The system has a limit of its own \
              (net.core.somaxconn on Linux).",
    },
    Spec {
        pattern: "listeners.<type>.<name>.tcp_options.nodelay",
        kind: Kind::Boolean,
        access: Access::Listener(ALL, lens!(tcp.nodelay)),
        doc: "Send small packets at once (TCP_NODELAY) instead of waiting to fill a segment.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.tcp_options.send_timeout",
        kind: Kind::Duration {
            min: 1000,
            max: 3_600_000,
            step: 1,
            keyword: INFINITY,
        },
        access: Access::Listener(ALL, lens!(tcp.send_timeout)),
        doc: "A connection whose peer takes none of the data waiting for it during this time is closed. Workers carry \
              connections of all listeners: the shortest time of the enabled ones holds for all.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.tcp_options.high_watermark",
        kind: Kind::Size {
            min: 4096,
            max: 1 << 30,
            keyword: None,
        },
        access: Access::Listener(ALL, lens!(tcp.high_watermark)),
        doc: "Data waiting to be sent on a connection above which it gets no more: its messages wait in the session, \
              within mqtt.max_mqueue_len and max_mqueue_bytes, and nothing is read from it. The lowest mark of the \
              enabled listeners holds for all.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.websocket.mqtt_path",
        kind: Kind::Text {
            allowed: "a path that starts with `/`",
            check: checks::request_path,
        },
        access: Access::Listener(WEB_SOCKET, lens!(websocket.mqtt_path)),
        doc: "Path that a client must ask for; any other gets 404.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.websocket.fail_if_no_subprotocol",
        kind: Kind::Boolean,
        access: Access::Listener(WEB_SOCKET, lens!(websocket.fail_if_no_subprotocol)),
        doc: "Refuse a client that names none of the `supported_subprotocols`, as MQTT demands [MQTT-6.0.0-3]. Turn \
              it off for clients that forget the header.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.websocket.supported_subprotocols",
        kind: Kind::List {
            allowed: "tokens (RFC 6455 §4.1)",
            check: checks::token,
        },
        access: Access::Listener(WEB_SOCKET, lens!(websocket.supported_subprotocols)),
        doc: "Values of Sec-WebSocket-Protocol that mean MQTT. The first of the client's that is in this list is \
              confirmed.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.websocket.check_origin_enable",
        kind: Kind::Boolean,
        access: Access::Listener(WEB_SOCKET, lens!(websocket.check_origin_enable)),
        doc: "Refuse, with 403, web pages from elsewhere than `check_origins`. A client that sends no Origin header \
              is not a browser and is let through.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.websocket.check_origins",
        kind: Kind::List {
            allowed: "origins such as https://app.example:8443",
            check: checks::origin,
        },
        access: Access::Listener(WEB_SOCKET, lens!(websocket.check_origins)),
        doc: "Origins that `check_origin_enable` permits, as browsers write them: scheme, host, and the port unless \
              it is the scheme's own.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.websocket.max_frame_size",
        kind: Kind::Size {
            min: 1,
            max: 256 << 20,
            keyword: INFINITY,
        },
        access: Access::Listener(WEB_SOCKET, lens!(websocket.max_frame_size)),
        doc: "Largest payload of one WebSocket frame; a larger frame closes the connection with status 1009. \
              `infinity` leaves it to `mqtt.max_packet_size`.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.ssl_options.certfile",
        kind: PATH,
        access: Access::Listener(TLS, lens!(OptionalPath, tls.certfile)),
        doc: "PEM file with the server's certificate, followed by the chain up to, but without, the root. Read again \
              on SIGHUP. `tidegate cert` makes one for development.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.ssl_options.keyfile",
        kind: PATH,
        access: Access::Listener(TLS, lens!(OptionalPath, tls.keyfile)),
        doc: "PEM file with the private key of the certificate (PKCS #8, PKCS #1 or SEC 1, not encrypted). Nobody \
              but the user that runs Tidegate should be able to read it.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.ssl_options.cacertfile",
        kind: PATH,
        access: Access::Listener(TLS, lens!(OptionalPath, tls.cacertfile)),
        doc: "PEM file with the authorities whose client certificates are accepted. Needed for `verify_peer`.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.ssl_options.verify",
        kind: Kind::Choice(Verify::WORDS),
        access: Access::Listener(TLS, lens!(tls.verify)),
        doc: "`verify_peer` asks clients for a certificate and closes the connection of one whose certificate is not \
              signed by an authority of `cacertfile`. `verify_none` does not ask.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.ssl_options.fail_if_no_peer_cert",
        kind: Kind::Boolean,
        access: Access::Listener(TLS, lens!(tls.fail_if_no_peer_cert)),
        doc: "With `verify_peer`, also refuse a client that presents no certificate at all.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.ssl_options.versions",
        kind: Kind::List {
            allowed: "tlsv1.2 and tlsv1.3",
            check: checks::tls_version,
        },
        access: Access::Listener(TLS, lens!(tls.versions)),
        doc: "Versions of TLS that are offered; the order does not matter, the newest that both sides know is taken.",
    },
    Spec {
        pattern: "listeners.<type>.<name>.ssl_options.handshake_timeout",
        kind: Kind::Duration {
            min: 1000,
            max: 300_000,
            step: 1,
            keyword: None,
        },
        access: Access::Listener(TLS, lens!(tls.handshake_timeout)),
        doc: "Time for the TLS handshake, on a wss listener together with the WebSocket handshake; a connection that \
              has not finished it is closed. A ws listener allows 15 s.",
    },
];

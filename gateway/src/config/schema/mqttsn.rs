//! Keys of the MQTT-SN gateway: `gateway.mqttsn.*`.

use mqtt_sn::Roaming;

use super::{
    Access, Spec,
    checks::{self, DATAGRAM, DTLS},
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
const AUTO: Option<Keyword> = Some(Keyword {
    word: "auto",
    zero: false,
});
const PATH: Kind = Kind::Text {
    allowed: "a path, or nothing",
    check: checks::path,
};
const MOUNTPOINT: Kind = Kind::Text {
    allowed: "a topic prefix without wildcards, or nothing",
    check: checks::mountpoint,
};
const TOPIC: Kind = Kind::Text {
    allowed: "a topic name",
    check: checks::topic_name,
};
const OVERRIDE: Kind = Kind::Text {
    allowed: "text with placeholders, or nothing",
    check: checks::client_info,
};
const BUFFER: Kind = Kind::Size {
    min: 4096,
    max: 1 << 30,
    keyword: AUTO,
};

pub(super) static SPECS: &[Spec] = &[
    Spec {
        pattern: "gateway.mqttsn.enable",
        kind: Kind::Boolean,
        access: Access::Node(lens!(mqttsn.enable)),
        doc: "Whether MQTT-SN is served. If not, none of its listeners is opened.",
    },
    Spec {
        pattern: "gateway.mqttsn.gateway_id",
        kind: Kind::Integer {
            min: 1,
            max: 255,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.gateway_id)),
        doc: "Number that names this gateway in ADVERTISE and GWINFO (MQTT-SN §5.4.2, §5.4.4). Gateways that can hear \
              the same clients have different ones. A change needs a restart.",
    },
    Spec {
        pattern: "gateway.mqttsn.broadcast",
        kind: Kind::Text {
            allowed: "true, false, or IPV4:PORT or [IPV6]:PORT of a broadcast address or multicast group",
            check: checks::broadcast,
        },
        access: Access::Node(lens!(mqttsn.broadcast)),
        doc: "Whether and where the gateway advertises itself (MQTT-SN §6.1). `true`: to 255.255.255.255:1884, all \
              hosts of the local network. A multicast group, such as 239.1.1.1:1884, is also joined, so that SEARCHGW \
              sent to it is heard. `false`: no ADVERTISE; SEARCHGW is answered all the same. A change needs a restart.",
    },
    Spec {
        pattern: "gateway.mqttsn.advertise_interval",
        kind: Kind::Duration {
            min: 1000,
            max: 65_535_000,
            step: 1000,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.advertise_interval)),
        doc: "Time between two ADVERTISE (T_ADV). The specification recommends more than 15 minutes (MQTT-SN §7.2), so \
              that networks of little bandwidth are not filled. Of no effect without `gateway.mqttsn.broadcast`. A \
              change needs a restart.",
    },
    Spec {
        pattern: "gateway.mqttsn.gwinfo_delay",
        kind: Kind::Duration {
            min: 0,
            max: 60_000,
            step: 1,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.gwinfo_delay)),
        doc: "SEARCHGW is answered after a random time up to this, so that several gateways do not answer at once \
              (T_GWINFO, MQTT-SN §6.1); the specification recommends 5 s. `0s` answers at once, which is right where \
              there is one gateway. A change needs a restart.",
    },
    Spec {
        pattern: "gateway.mqttsn.enable_qos3",
        kind: Kind::Boolean,
        access: Access::Node(lens!(mqttsn.enable_qos3)),
        doc: "Take PUBLISH of QoS -1 (MQTT-SN §6.8): messages to predefined or short topics from anybody, without \
              CONNECT. They are published by the client `NegQoS-Client`, on other listeners than the default one by \
              `NegQoS-Client-NAME` (of dtls: `NegQoS-Client-dtls:NAME`), which authentication and authorization rules \
              apply to. A change needs a restart.",
    },
    Spec {
        pattern: "gateway.mqttsn.idle_timeout",
        kind: Kind::Duration {
            min: 1000,
            max: 300_000,
            step: 1,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.idle_timeout)),
        doc: "Time that a client may take for its CONNECT, with the topic and message of its Will (MQTT-SN §6.2). Then \
              it is forgotten.",
    },
    Spec {
        pattern: "gateway.mqttsn.retry_interval",
        kind: Kind::Duration {
            min: 1000,
            max: 300_000,
            step: 1,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.retry_interval)),
        doc: "What a client does not answer is sent again after this time (T_RETRY, MQTT-SN §6.13). The specification \
              recommends 10 s to 15 s (§7.2).",
    },
    Spec {
        pattern: "gateway.mqttsn.retry_max",
        kind: Kind::Integer {
            min: 1,
            max: 100,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.retry_max)),
        doc: "How often it is sent again before the client counts as lost (N_RETRY, MQTT-SN §6.13). The specification \
              recommends 3 to 5 (§7.2).",
    },
    Spec {
        pattern: "gateway.mqttsn.max_inflight",
        kind: Kind::Integer {
            min: 1,
            max: 65_535,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.max_inflight)),
        doc: "Messages of QoS 1 and 2 that a client is sent before it has acknowledged the first. Small devices take \
              one at a time; `mqtt.max_inflight` bounds it, too.",
    },
    Spec {
        pattern: "gateway.mqttsn.max_waiting",
        kind: Kind::Integer {
            min: 1,
            max: 65_535,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.max_waiting)),
        doc: "Messages that wait for a client to accept the topic ids that the gateway registers for them (MQTT-SN \
              §6.10). At the limit those of QoS 0 are dropped.",
    },
    Spec {
        pattern: "gateway.mqttsn.max_topic_ids",
        kind: Kind::Integer {
            min: 1,
            max: 64_510,
            keyword: None,
        },
        access: Access::Node(lens!(mqttsn.max_topic_ids)),
        doc: "Topic ids of one session, registered by the client and by the gateway. A further REGISTER or SUBSCRIBE is \
              refused as congestion. They are kept as long as the session is.",
    },
    Spec {
        pattern: "gateway.mqttsn.session_expiry_interval",
        kind: Kind::Duration {
            min: 0,
            max: (u32::MAX as u64 - 1) * 1000,
            step: 1000,
            keyword: INFINITY,
        },
        access: Access::Node(lens!(Expiry, mqttsn.session_expiry_interval)),
        doc: "How long a session without the CleanSession flag outlives its client, which has disconnected or is lost. \
              `mqtt.session_expiry_interval` bounds it. The session of a client that sleeps lasts at least until the \
              sleep is over.",
    },
    Spec {
        pattern: "gateway.mqttsn.roaming",
        kind: Kind::Choice(Roaming::WORDS),
        access: Access::Node(lens!(mqttsn.roaming)),
        doc: "From where a client that sleeps may wake: any address (`any`), since those of NAT and mobile networks \
              change; any port of the address that it went to sleep at (`host`); or only from that address and port \
              (`never`). Whoever may wake it gets its messages, and plain UDP proves nobody: where that matters, use \
              dtls, on which only the identity that went to sleep wakes.",
    },
    Spec {
        pattern: "gateway.mqttsn.mountpoint",
        kind: MOUNTPOINT,
        access: Access::Node(lens!(mqttsn.mountpoint)),
        doc: "Prefix put before every topic of MQTT-SN clients, and taken off what they receive; predefined topics are \
              below it, too. For listeners that have no mountpoint of their own. The same placeholders.",
    },
    Spec {
        pattern: "gateway.mqttsn.clientinfo_override.username",
        kind: OVERRIDE,
        access: Access::Node(lens!(mqttsn.clientinfo_override.username)),
        doc: "User name of the clients, which MQTT-SN does not know. `${ConnInfo.identity}` is what DTLS has proven, the \
              PSK identity or the common name of the certificate; `${Packet.headers.clientid}` the client id; \
              `${ConnInfo.peername}`, `${ConnInfo.peerhost}`, `${ConnInfo.sockport}` and `${ConnInfo.node}` (behind a \
              forwarder, in hexadecimal) say where it is. Empty: none.",
    },
    Spec {
        pattern: "gateway.mqttsn.clientinfo_override.password",
        kind: OVERRIDE,
        access: Access::Node(lens!(mqttsn.clientinfo_override.password)),
        doc: "Password of the clients, which MQTT-SN does not know; the placeholders of the user name are replaced. \
              Empty: none.",
    },
    Spec {
        pattern: "gateway.mqttsn.clientinfo_override.clientid",
        kind: OVERRIDE,
        access: Access::Node(lens!(mqttsn.clientinfo_override.clientid)),
        doc: "Client id in place of the one that the client says, by the same placeholders: `${ConnInfo.identity}` \
              gives each DTLS identity one session of its own. Empty: what the client says.",
    },
    Spec {
        pattern: "gateway.mqttsn.predefined.<id>",
        kind: TOPIC,
        access: Access::Predefined(lens!(topic)),
        doc: "Topic of the predefined topic id `<id>`, 1 to 1024, which every client may use without registering it \
              (MQTT-SN §6.7).",
    },
    Spec {
        pattern: "gateway.mqttsn.clients.<clientid>.predefined.<id>",
        kind: TOPIC,
        access: Access::Predefined(lens!(topic)),
        doc: "Topic of a predefined topic id for one client, instead of the one that all have. The client id is written \
              as it is, dots included; `=` is written %3D, `%` %25, and a control character likewise. Environment \
              variables cannot spell one with upper-case letters or `__`.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.bind",
        kind: Kind::Text {
            allowed: "PORT, :PORT, IPV4:PORT or [IPV6]:PORT",
            check: checks::bind,
        },
        access: Access::Datagram(DATAGRAM, lens!(bind)),
        doc: "Where the listener waits. A port alone means every address of the machine, IPv4 and IPv6. Port 0 lets the \
              system choose, and the start-up line says which. A listener of another name than `default` must have one.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.enable",
        kind: Kind::Choice(Enable::WORDS),
        access: Access::Datagram(DATAGRAM, lens!(enable)),
        doc: "Whether the listener is opened. `auto` opens an udp listener, and a dtls listener as soon as it has a \
              `certfile` with a `keyfile`, or a `psk_file`.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.max_connections",
        kind: Kind::Integer {
            min: 1,
            max: 1_000_000_000,
            keyword: INFINITY,
        },
        access: Access::Datagram(DATAGRAM, lens!(max_connections)),
        doc: "Clients that the listener knows at once, those that sleep included. Above it, a newcomer \
              takes the place of the client that has said nothing since its first datagram, the oldest such one; if there \
              is none, its datagrams are dropped and counted. UDP lets anybody pretend to be many: this is what bounds the \
              memory that it costs.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.mountpoint",
        kind: MOUNTPOINT,
        access: Access::Datagram(DATAGRAM, lens!(mountpoint)),
        doc: "Prefix put before every topic of the listener's clients, and taken off what they receive. `${clientid}`, \
              `${username}`, `${peerhost}`, `${zone}`, `${cert_common_name}` and `${client_attrs.NAME}` are replaced. \
              Empty: `gateway.mqttsn.mountpoint`.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.zone",
        kind: Kind::Text {
            allowed: "text without `/`, `+`, `#` and blanks",
            check: checks::level,
        },
        access: Access::Datagram(DATAGRAM, lens!(zone)),
        doc: "Name that authorization rules and `${zone}` know the listener's clients by.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.udp_options.recbuf",
        kind: BUFFER,
        access: Access::Datagram(DATAGRAM, lens!(recbuf)),
        doc: "What the kernel keeps of datagrams that were not read yet (SO_RCVBUF), for each worker; beyond it they are \
              lost. The system bounds it (net.core.rmem_max on Linux). `auto`: the system's default.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.udp_options.sndbuf",
        kind: BUFFER,
        access: Access::Datagram(DATAGRAM, lens!(sndbuf)),
        doc: "What the kernel keeps of datagrams that were not sent yet (SO_SNDBUF), for each worker. The system bounds \
              it (net.core.wmem_max on Linux). `auto`: the system's default.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.certfile",
        kind: PATH,
        access: Access::Datagram(DTLS, lens!(OptionalPath, dtls.certfile)),
        doc: "PEM file with the server's certificate, followed by the chain up to, but without, the root. Read again \
              on SIGHUP. `tidegate cert` makes one for development.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.keyfile",
        kind: PATH,
        access: Access::Datagram(DTLS, lens!(OptionalPath, dtls.keyfile)),
        doc: "PEM file with the private key of the certificate, not encrypted. Nobody but the user that runs Tidegate \
              should be able to read it.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.cacertfile",
        kind: PATH,
        access: Access::Datagram(DTLS, lens!(OptionalPath, dtls.cacertfile)),
        doc: "PEM file with the authorities whose client certificates are accepted. Needed for `verify_peer`.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.verify",
        kind: Kind::Choice(Verify::WORDS),
        access: Access::Datagram(DTLS, lens!(dtls.verify)),
        doc: "`verify_peer` asks clients that do not use a pre-shared key for a certificate, and ends the handshake of \
              one whose certificate is not signed by an authority of `cacertfile`. `verify_none` does not ask.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.fail_if_no_peer_cert",
        kind: Kind::Boolean,
        access: Access::Datagram(DTLS, lens!(dtls.fail_if_no_peer_cert)),
        doc: "With `verify_peer`, also refuse a client that presents no certificate at all.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.psk_file",
        kind: PATH,
        access: Access::Datagram(DTLS, lens!(OptionalPath, dtls.psk_file)),
        doc: "File with the pre-shared keys of clients (RFC 4279), one IDENTITY:KEY per line, as EMQX has it: KEY is \
              text, or after `hex:` bytes in hexadecimal. Read again on SIGHUP: it counts for the next handshake. \
              Nobody but the user that runs Tidegate should be able to read it. With a certificate as well, the client \
              chooses.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.handshake_timeout",
        kind: Kind::Duration {
            min: 1000,
            max: 300_000,
            step: 1,
            keyword: None,
        },
        access: Access::Datagram(DTLS, lens!(dtls.handshake_timeout)),
        doc: "Time for the DTLS handshake. One that has not finished is forgotten.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.handshakes_max",
        kind: Kind::Integer {
            min: 1,
            max: 1_000_000,
            keyword: None,
        },
        access: Access::Datagram(DTLS, lens!(dtls.handshakes_max)),
        doc: "Handshakes under way at a time. Above it, new ones are not answered, and the client tries again. A client \
              that has not proven its address by a cookie (RFC 6347 §4.2.1) costs nothing.",
    },
    Spec {
        pattern: "gateway.mqttsn.listeners.<type>.<name>.dtls_options.idle_timeout",
        kind: Kind::Duration {
            min: 10_000,
            max: 2_592_000_000,
            step: 1,
            keyword: None,
        },
        access: Access::Datagram(DTLS, lens!(dtls.idle_timeout)),
        doc: "An association on which nothing has come in for so long is forgotten. It has to be longer than clients \
              sleep: one that wakes after it gets no answer until it makes a new handshake. Then, as the same \
              identity, it finds its session, its topic ids and what has waited. The longest sleep that MQTT-SN can \
              say is 65 535 seconds, 18 hours and 12 minutes.",
    },
];

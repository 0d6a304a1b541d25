//! Listeners: from their settings to sockets that make MQTT peers.

use std::sync::{Arc, Mutex, PoisonError};

use broker_core::MqttConfig;
use driver::{
    Clock, ConnectionMeta, ListenError, Listener, ListenerConfig, ListenerInfo, PeerFactory, Service,
    WebSocketRoute, WebSocketSettings, Workers,
};
use mqtt::peer::{Peer, PeerSettings, Transport};

use crate::config;

/// WebSocket messages are passed on as they come: their bound costs no memory, and MQTT has its own.
const WEBSOCKET_MESSAGE_MAX: u64 = 1 << 40;

/// The settings that new peers of a listener get; replaced at a reload.
pub(super) type CurrentSettings = Arc<Mutex<Arc<PeerSettings>>>;

/// Settings for the MQTT peers of a listener.
pub(super) fn peer_settings(listener: &config::Listener, mqtt: &MqttConfig) -> Arc<PeerSettings> {
    let (mountpoint, zone) = (&listener.mountpoint, &listener.zone);
    Arc::new(PeerSettings::new(mqtt.clone(), mountpoint, &listener.id(), zone))
}

/// Opens one listener. Without an address it listens on IPv6 and IPv4, or on IPv4 where there is no IPv6.
pub(super) fn open(
    workers: &Workers,
    listener: &config::Listener,
    settings: &CurrentSettings,
) -> Result<Listener, ListenError> {
    let mut first = None;
    for address in listener.bind.candidates() {
        let factory = factory(settings, workers.clock());
        let opened = workers.listen(ListenerConfig {
            info: Arc::new(ListenerInfo {
                name: listener.id().into(),
                zone: listener.zone.as_str().into(),
                mountpoint: listener.mountpoint.as_str().into(),
            }),
            bind: address,
            ipv6_only: false,
            backlog: i32::try_from(listener.tcp.backlog).unwrap_or(i32::MAX),
            nodelay: listener.tcp.nodelay,
            max_connections: listener.max_connections.unwrap_or(0),
            handshake_timeout: listener.tls.handshake_timeout,
            tls: listener.tls_settings(),
            service: service(listener, factory),
        });
        match opened {
            Ok(opened) => return Ok(opened),
            Err(error @ ListenError::Tls { .. }) => return Err(error),
            // The next candidate, for machines without IPv6; a port in use is in use there, too.
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.expect("there is at least one candidate"))
}

fn service(listener: &config::Listener, factory: PeerFactory) -> Service {
    if !listener.kind.is_websocket() {
        return Service::Stream(factory);
    }
    let options = &listener.websocket;
    let mut settings = WebSocketSettings::new(WebSocketRoute {
        path: options.mqtt_path.clone(),
        subprotocols: options.supported_subprotocols.clone(),
        subprotocol_required: options.fail_if_no_subprotocol,
        factory,
    });
    settings.message_bytes_max = options
        .max_frame_size
        .map_or(WEBSOCKET_MESSAGE_MAX, |bytes| bytes as u64);
    if options.check_origin_enable {
        settings.allowed_origins.clone_from(&options.check_origins);
    }
    Service::WebSocket(settings)
}

fn factory(settings: &CurrentSettings, clock: Clock) -> PeerFactory {
    let settings = Arc::clone(settings);
    Arc::new(move |meta: ConnectionMeta| {
        let transport = Transport {
            peer: Some(meta.peer),
            local: Some(meta.local),
            certificate: meta.certificate,
        };
        let settings = Arc::clone(&settings.lock().unwrap_or_else(PoisonError::into_inner));
        Box::new(Peer::new(clock.now(), settings, transport))
    })
}

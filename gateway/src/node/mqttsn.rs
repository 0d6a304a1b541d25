//! MQTT-SN: from its settings to datagram listeners, whose endpoints make its peers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use broker_core::{ConnectionInfo, Endpoint, Peer, Timestamp};
use driver::{
    DatagramConfig, DatagramListener, DtlsSettings, EndpointFactory, EndpointMeta, ListenError, ListenerInfo,
    PskLookup, Workers,
};
use mqtt_sn::{
    ClientInfoOverride, Predefined, Settings, Transport, codec::TopicId, endpoint, peer::Counters,
};

use crate::{
    auth::{PskError, PskTable},
    config::{self, MqttSn},
};

/// An open listener and what it was opened from.
pub(super) struct Open {
    pub(super) settings: config::DatagramListener,
    pub(super) listener: Arc<DatagramListener>,
    peers: Arc<CurrentSettings>,
    keys: CurrentKeys,
}

/// What an open listener takes over at a reload: everything that may fail has been done.
pub(super) struct Reload {
    peers: Arc<Settings>,
    keys: Option<Arc<PskTable>>,
    pub(super) dtls: Option<DtlsSettings>,
}

/// The settings that new peers of a listener get, and the common one has; replaced at a reload.
struct CurrentSettings(Arc<Mutex<Arc<Settings>>>);

/// The keys for the next handshakes of a listener; replaced at a reload.
type CurrentKeys = Arc<Mutex<Arc<PskTable>>>;

impl Open {
    /// Opens a listener. Without an address it listens on IPv6 and IPv4, or on IPv4 where there is no IPv6.
    pub(super) fn new(
        workers: &Workers,
        gateway: &MqttSn,
        listener: &config::DatagramListener,
        keys: Arc<PskTable>,
    ) -> Result<Open, ListenError> {
        let settings = peer_settings(gateway, listener, Arc::default());
        let peers = Arc::new(CurrentSettings(Arc::new(Mutex::new(Arc::clone(&settings)))));
        let keys = Arc::new(Mutex::new(keys));
        let mut first = None;
        for address in listener.bind.candidates() {
            let opened = workers.listen_datagram(DatagramConfig {
                info: Arc::new(ListenerInfo {
                    name: listener.id().into(),
                    zone: listener.zone.as_str().into(),
                    mountpoint: gateway.mountpoint_of(listener).into(),
                }),
                bind: address,
                ipv6_only: false,
                receive_buffer_bytes: listener.recbuf,
                send_buffer_bytes: listener.sndbuf,
                max_connections: listener.max_connections.unwrap_or(0),
                broadcast: gateway.broadcast.address(),
                dtls: listener.dtls_settings(lookup(listener, &keys)),
                endpoint: endpoints(&settings, &peers),
            });
            match opened {
                Ok(opened) => {
                    return Ok(Open {
                        settings: listener.clone(),
                        listener: Arc::new(opened),
                        peers,
                        keys,
                    });
                }
                Err(error @ ListenError::Tls { .. }) => return Err(error),
                // The next candidate, for machines without IPv6; a port in use is in use there, too.
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.expect("there is at least one candidate"))
    }

    /// Reads what `gateway` names for this listener, without changing it yet. A listener that is no longer named stays
    /// as it was opened.
    pub(super) fn prepare(&self, gateway: &MqttSn) -> Result<Reload, PskError> {
        let mut listeners = gateway.listeners.iter();
        let configured = listeners
            .find(|listener| listener.kind == self.settings.kind && listener.name == self.settings.name)
            .unwrap_or(&self.settings);
        let keys = configured.dtls.psk_file.as_deref().map(PskTable::read);
        Ok(Reload {
            peers: peer_settings(gateway, configured, self.counters()),
            keys: keys.transpose()?.map(Arc::new),
            dtls: configured.dtls_settings(lookup(configured, &self.keys)),
        })
    }

    /// What its peers count.
    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.peers.get().counters)
    }

    /// Takes over what was prepared, for new peers and handshakes.
    pub(super) fn take_over(&self, reload: Reload) {
        *self.peers.0.lock().unwrap_or_else(PoisonError::into_inner) = reload.peers;
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = reload.keys.unwrap_or_default();
    }
}

/// The keys of a listener that is about to be opened; none if it has no `psk_file`.
pub(super) fn keys(listener: &config::DatagramListener) -> Result<Arc<PskTable>, PskError> {
    let path = listener.dtls.psk_file.as_deref();
    let keys = path.map(PskTable::read).transpose()?;
    Ok(Arc::new(keys.unwrap_or_default()))
}

fn lookup(listener: &config::DatagramListener, keys: &CurrentKeys) -> Option<PskLookup> {
    listener.dtls.psk_file.as_ref()?;
    let keys = Arc::clone(keys);
    Some(Arc::new(move |identity| {
        let keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(identity).map(<[u8]>::to_vec)
    }))
}

/// Endpoints keep the settings that they are made with: what they say to everyone does not change at a reload.
fn endpoints(settings: &Arc<Settings>, peers: &Arc<CurrentSettings>) -> EndpointFactory {
    let (settings, peers) = (Arc::clone(settings), Arc::clone(peers));
    Arc::new(move |meta: EndpointMeta| -> Box<dyn Endpoint> {
        let (settings, peers) = (Arc::clone(&settings), Arc::clone(&peers));
        let peers: Arc<dyn endpoint::Peers> = peers;
        Box::new(endpoint::Endpoint::with_peers(
            settings,
            meta.is_first,
            meta.seed,
            peers,
        ))
    })
}

impl CurrentSettings {
    fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl endpoint::Peers for CurrentSettings {
    fn open(&self, now: Timestamp, transport: Transport) -> Box<dyn Peer> {
        Box::new(mqtt_sn::Peer::new(now, self.get(), transport))
    }

    fn common(&self, client_id: &str, seed: u64) -> Box<dyn Peer> {
        let current = CurrentSettings(Arc::clone(&self.0));
        Box::new(mqtt_sn::Peer::common(
            Arc::new(move || current.get()),
            client_id,
            seed,
        ))
    }
}

/// Settings for the endpoints and peers of a listener, which count here.
pub(crate) fn peer_settings(
    gateway: &MqttSn,
    listener: &config::DatagramListener,
    counters: Arc<Counters>,
) -> Arc<Settings> {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let texts = &gateway.clientinfo_override;
    Arc::new(Settings {
        connection: Arc::new(ConnectionInfo {
            protocol: "mqtt-sn",
            proto_name: "MQTT-SN",
            proto_ver: 1,
            listener: listener.id().into(),
            zone: listener.zone.as_str().into(),
        }),
        mountpoint: gateway.mountpoint_of(listener).into(),
        gateway_id: gateway.gateway_id,
        advertise_interval: gateway.broadcast.address().map(|_| gateway.advertise_interval),
        gwinfo_delay_max: gateway.gwinfo_delay,
        enable_qos3: gateway.enable_qos3,
        idle_timeout: gateway.idle_timeout,
        retry_interval: gateway.retry_interval,
        retry_max: gateway.retry_max,
        max_inflight: gateway.max_inflight,
        max_waiting: gateway.max_waiting,
        max_topic_ids: gateway.max_topic_ids,
        session_expiry_interval: u32::try_from(gateway.session_expiry_interval.as_secs()).unwrap_or(u32::MAX),
        roaming: gateway.roaming,
        predefined: Arc::new(predefined(gateway)),
        clientinfo_override: ClientInfoOverride {
            username: given(&texts.username),
            password: given(&texts.password),
            clientid: given(&texts.clientid),
        },
        counters,
    })
}

fn predefined(gateway: &MqttSn) -> Predefined {
    let mut predefined = Predefined::default();
    for topic in &gateway.predefined {
        let topics: &mut BTreeMap<_, _> = match &topic.client {
            None => &mut predefined.global,
            Some(client) => predefined.clients.entry(client.as_str().into()).or_default(),
        };
        topics.insert(TopicId(topic.id), topic.topic.as_str().into());
    }
    predefined
}

/// Adds up the counters of these listeners and of their peers.
pub(super) fn count(listeners: &[(Arc<DatagramListener>, Arc<Counters>)], visit: &mut dyn FnMut(&str, u64)) {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |name: String, value: u64| *sums.entry(name).or_insert(0) += value;
    for (listener, peers) in listeners {
        for (name, value) in peers.iter() {
            add(format!("mqttsn.{name}"), value);
        }
        let counters = listener.counters();
        let named = [
            ("received", counters.received),
            ("received_bytes", counters.received_bytes),
            ("sent", counters.sent),
            ("sent_bytes", counters.sent_bytes),
            ("errors", counters.errors),
            ("forwarded", counters.forwarded),
            ("returned", counters.returned),
        ];
        for (name, value) in named {
            add(format!("mqttsn.datagrams.{name}"), value);
        }
        for (reason, value) in &counters.dropped {
            add(format!("mqttsn.datagrams.dropped.{reason}"), *value);
        }
        add("mqttsn.clients.opened".to_owned(), counters.opened);
        add("mqttsn.clients.closed".to_owned(), counters.closed);
    }
    for (name, value) in sums {
        visit(&name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DatagramKind, PredefinedTopic};

    #[test]
    fn the_next_handshake_finds_the_keys_of_the_last_reload() {
        let table = |text: &str| Arc::new(PskTable::parse(text).unwrap());
        let mut listener = config::DatagramListener::new(DatagramKind::Dtls, "default");
        let keys = Arc::new(Mutex::new(table("a:1\nb:2\n")));
        assert!(lookup(&listener, &keys).is_none());
        listener.dtls.psk_file = Some("psk.conf".into());
        let lookup = lookup(&listener, &keys).unwrap();
        assert_eq!(lookup("b"), Some(b"2".to_vec()));
        *keys.lock().unwrap() = table("b:3\n");
        assert_eq!([lookup("a"), lookup("b")], [None, Some(b"3".to_vec())]);
    }

    #[test]
    fn settings_of_peers() {
        let mut gateway = MqttSn {
            mountpoint: "m/".to_owned(),
            ..MqttSn::default()
        };
        for (client, id, topic) in [(None, 1, "a"), (None, 2, "b"), (Some("c"), 1, "c/a")] {
            gateway.predefined.push(PredefinedTopic {
                client: client.map(str::to_owned),
                id,
                topic: topic.to_owned(),
            });
        }
        let settings = peer_settings(&gateway, &gateway.listeners[0], Arc::default());
        assert_eq!(&*settings.connection.listener, "mqttsn:udp:default");
        assert_eq!(&*settings.mountpoint, "m/");
        assert_eq!(
            (settings.advertise_interval, settings.session_expiry_interval),
            (None, 7200)
        );
        assert_eq!(settings.clientinfo_override, ClientInfoOverride::default());
        let predefined = &settings.predefined;
        assert_eq!(predefined.global.len(), 2);
        assert_eq!(&*predefined.global[&TopicId(2)], "b");
        assert_eq!(&*predefined.clients["c"][&TopicId(1)], "c/a");

        gateway.listeners[0].mountpoint = "own/".to_owned();
        gateway.broadcast = config::Broadcast::On;
        gateway.session_expiry_interval = std::time::Duration::from_secs(u32::MAX.into());
        let settings = peer_settings(&gateway, &gateway.listeners[0], Arc::default());
        assert_eq!(&*settings.mountpoint, "own/");
        assert_eq!(settings.advertise_interval, Some(gateway.advertise_interval));
        assert_eq!(settings.session_expiry_interval, u32::MAX);
    }
}

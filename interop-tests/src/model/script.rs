//! What clients do next: random values over all features, from a small world in which things meet.

use std::{sync::Arc, time::Duration};

use broker_core::{
    ClientInfo, Config, Connect, ConnectionInfo, MessageParts, PacketId, PropertiesBuilder, Property,
    Publish, QoS, RetainHandling, SharedStrategy, Subscribe, SubscribeOptions, Timestamp, Will,
};

use testkit::Random;

const TOPICS: &[&str] = &[
    "a", "a/b", "a/b/c", "a/", "/a", "a//b", "b", "b/c", "$s/a", "$s/a/b",
];
const FILTERS: &[&str] = &[
    "a", "a/b", "a/b/c", "b", "#", "+", "a/#", "a/+", "+/b", "+/+", "/+", "a/+/c", "+/#", "$s/#", "$s/+",
    "b/#", "a/b/#", "a//b", "will/#", "will/+", "later/#", "nested/+", "b/c", "+/+/+",
];
const PREFIXES: &[&str] = &["$share/g/", "$share/h/", "$queue/", "$local/"];

/// Which corners of the world a run visits.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Short queues: no shared groups, whose members' queues are not determined, and no expiry.
    pub is_tight: bool,
}

impl World {
    /// The world and the configuration of a seed.
    pub fn choose(random: &mut Random) -> (World, Config) {
        let is_tight = random.chance(25);
        let mut config = Config {
            shared_strategy: [
                SharedStrategy::Random,
                SharedStrategy::RoundRobin,
                SharedStrategy::RoundRobinPerGroup,
                SharedStrategy::Sticky,
                SharedStrategy::Local,
                SharedStrategy::HashClientId,
                SharedStrategy::HashTopic,
            ][random.below(7)],
            ..Config::default()
        };
        let mqtt = &mut config.mqtt;
        mqtt.max_inflight = [1, 2, 5, 32][random.below(4)];
        mqtt.max_mqueue_bytes = 0;
        mqtt.max_mqueue_len = if is_tight { [2, 5][random.below(2)] } else { 0 };
        mqtt.max_awaiting_rel = [0, 2, 100][random.below(3)];
        mqtt.upgrade_qos = random.chance(15);
        mqtt.retain_available = !random.chance(10);
        mqtt.wildcard_subscription = !random.chance(5);
        mqtt.shared_subscription = !random.chance(10);
        mqtt.exclusive_subscription = !random.chance(10);
        mqtt.max_subscriptions = if random.chance(15) { 4 } else { 0 };
        mqtt.max_qos_allowed = if random.chance(10) {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        mqtt.server_keepalive = random.chance(20).then_some(30);
        mqtt.session_expiry_interval = Duration::from_secs(600);
        (World { is_tight }, config)
    }

    /// A CONNECT, of a client whose session may outlive its connection or not.
    pub fn connect(self, random: &mut Random, client_id: String, number: u64, may_last: bool) -> Connect {
        let is_v5 = random.chance(70);
        let clean_start = random.chance(25) || !(is_v5 || may_last);
        let expiry = match (is_v5, clean_start) {
            (true, _) if !may_last => 0,
            (true, _) => [0, 5, 60, u32::MAX, u32::MAX][random.below(5)],
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        let will = random
            .chance(40)
            .then(|| self.will(random, &client_id, number, is_v5));
        Connect {
            client_id,
            username: None,
            password: None,
            peer: None,
            local: None,
            connection: Arc::new(ConnectionInfo {
                protocol: "mqtt",
                proto_name: "MQTT",
                proto_ver: if is_v5 { 5 } else { 4 },
                listener: "tcp:default".into(),
                zone: "default".into(),
            }),
            certificate: None,
            mountpoint: "".into(),
            clean_start,
            session_expiry_interval: expiry,
            keep_alive: [0, 30, 60][random.below(3)],
            receive_maximum: if is_v5 {
                [1, 2, 3, 65_535][random.below(4)]
            } else {
                65_535
            },
            auth: None,
            will,
            user_properties: Vec::new(),
            is_bridge: false,
            keeps_will: false,
            may_sleep: false,
            wake: None,
        }
    }

    fn will(self, random: &mut Random, client_id: &str, number: u64, is_v5: bool) -> Will {
        // A retained Will has a topic of its own: when several are due at once, their order is not determined.
        let retain = random.chance(30);
        let topic = if retain {
            format!(
                "will/{client_id}{}",
                if client_id.is_empty() { number } else { 0 }
            )
        } else {
            random.pick(TOPICS).to_owned()
        };
        Will {
            topic,
            payload: format!("will {number}").into_bytes(),
            qos: any_qos(random),
            retain,
            delay_interval: if is_v5 { [0, 0, 3, 20][random.below(4)] } else { 0 },
            expiry_interval: self.expiry(random),
            properties: identity(number).as_properties().encoded().to_vec(),
        }
    }

    fn expiry(self, random: &mut Random) -> Option<u32> {
        (!self.is_tight && random.chance(15)).then(|| [1, 10, 100][random.below(3)])
    }

    /// A PUBLISH with this packet identifier, which only QoS 1 and 2 use.
    pub fn publish(
        self,
        random: &mut Random,
        now: Timestamp,
        origin: &Arc<ClientInfo>,
        packet_id: PacketId,
        number: u64,
    ) -> Publish {
        let qos = any_qos(random);
        let retain = random.chance(30);
        let topic = if random.chance(10) {
            let seconds = random.below(8);
            match random.below(8) {
                0 => "$delayed/x/a".to_owned(),
                // Late twice, so its order among other delayed ones is not determined: a topic of its own.
                1 => format!("$delayed/{seconds}/$delayed/2/nested/{}", origin.client_id),
                2 | 3 if !retain => format!("$delayed/{seconds}/{}", random.pick(TOPICS)),
                _ => format!("$delayed/{seconds}/later/{}", origin.client_id),
            }
        } else {
            random.pick(TOPICS).to_owned()
        };
        let payload = if retain && random.chance(30) {
            Vec::new()
        } else {
            format!("message {number}").into_bytes()
        };
        let properties = identity(number);
        let parts = MessageParts {
            topic: &topic,
            qos,
            retain,
            expiry_interval: self.expiry(random),
            properties: properties.as_properties(),
            payload: &payload,
        };
        Publish {
            message: parts.publish(now, origin).expect("a short topic"),
            packet_id: (qos > QoS::AtMostOnce).then_some(packet_id),
            dup: false,
        }
    }

    /// A filter in a client's words. Shared ones only of clients whose sessions end with their connections: where
    /// others are members, a group reads the journal, and who gets what is not determined.
    pub fn filter(self, random: &mut Random, may_last: bool) -> String {
        let filter = random.pick(FILTERS);
        match random.below(20) {
            0..=4 if !self.is_tight && may_last => format!("$local/{filter}"),
            0..=4 if !self.is_tight => format!("{}{filter}", random.pick(PREFIXES)),
            5 | 6 => format!("$exclusive/{}", random.pick(&["a", "b", "a/b", "a/#", "b/c"])),
            7 => ["$share/g", "$share/+/a", "$share//a", "$exclusive/"][random.below(4)].to_owned(),
            _ => filter.to_owned(),
        }
    }

    /// A SUBSCRIBE of a client that has subscribed to `known`. No two of its filters are the same subscription, and
    /// it can always be told for which of its groups a client gets a message: by an identifier of its own, or
    /// because there is only one.
    pub fn subscribe(
        self,
        random: &mut Random,
        packet_id: PacketId,
        is_v5: bool,
        may_last: bool,
        known: &[String],
    ) -> Subscribe {
        let mut is_grouped = false;
        let mut filters: Vec<(String, SubscribeOptions)> = Vec::new();
        for _ in 0..=random.below(3) {
            let filter = self.filter(random, may_last);
            let is_shared = is_shared(&filter);
            let is_other = |other: &String| self::is_shared(other) && *other != filter;
            if is_shared && (is_grouped || (!is_v5 && known.iter().any(is_other))) {
                continue;
            }
            is_grouped |= is_shared;
            let bare = |filter: &str| {
                let rest = filter.strip_prefix("$local/");
                rest.or(filter.strip_prefix("$exclusive/"))
                    .unwrap_or(filter)
                    .to_owned()
            };
            if filters.iter().any(|(other, _)| bare(other) == bare(&filter)) {
                continue;
            }
            let options = SubscribeOptions {
                qos: any_qos(random),
                no_local: is_v5 && !is_shared && random.chance(20),
                retain_as_published: is_v5 && random.chance(30),
                retain_handling: match random.below(if is_v5 { 5 } else { 1 }) {
                    0..=2 => RetainHandling::Send,
                    3 => RetainHandling::SendIfNew,
                    _ => RetainHandling::DoNotSend,
                },
            };
            filters.push((filter, options));
        }
        Subscribe {
            packet_id,
            filters,
            subscription_id: match is_grouped {
                true => is_v5.then(|| random.between(10, 268_435_455)),
                false => (is_v5 && random.chance(40)).then(|| random.between(1, 9)),
            },
            user_properties: Vec::new(),
        }
    }
}

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/") || filter.starts_with("$queue/")
}

/// Properties that carry a message's number.
pub fn identity(number: u64) -> PropertiesBuilder {
    let mut properties = PropertiesBuilder::new();
    let is_taken = properties.push(Property::CorrelationData(&number.to_be_bytes()));
    assert!(is_taken, "eight bytes are no more than 65 535");
    properties
}

/// One of the three.
pub fn any_qos(random: &mut Random) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(3)]
}

//! One shard with a store whose answers come late, or fail, or say no more than they must.

mod asleep;
mod forwarded;
mod full;
mod limits;

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc, task::Waker};

use super::*;
use crate::{
    ClientInfo, Connect, Disconnect, DisconnectCause, Event, MessageParts, PacketId, QoS, Subscribe,
    SubscribeOptions,
    admission::AuthenticationChain,
    store::{
        Entry, Fault, Journal, JournalError, JournalReply, JournalRequest, Key, Kv, KvReply, KvRequest,
        NewRecord, Page, Prefix, Value, Write,
        format::{FilterEntry, Name, Token},
        memory::{MemoryJournal, MemoryLimits, MemoryStore},
    },
};

struct Rig {
    shard: Shard,
    common: Arc<Common>,
    store: MemoryStore,
    journal: MemoryJournal,
    now: Timestamp,
    events: Vec<(LinkId, Event)>,
    links: u64,
    /// Reads and fetches wait until this is false again.
    is_slow: bool,
    slow: VecDeque<(Ticket, JournalRequest)>,
    /// The next tails fail.
    faults: usize,
    reads: usize,
    /// Commits fail.
    is_full: bool,
    /// Commits with messages fail.
    is_short: bool,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(Config::default())
    }

    fn with(config: Config) -> Rig {
        let common = Arc::new(Common {
            config,
            admission: Admission {
                authentication: AuthenticationChain::new(true),
                ..Admission::default()
            },
            ..Common::default()
        });
        let store = MemoryStore::new(MemoryLimits::default());
        let mut rig = Rig {
            shard: shard(&common),
            common,
            journal: store.journal(),
            store,
            now: Timestamp::from_millis(1000),
            events: Vec::new(),
            links: 0,
            is_slow: false,
            slow: VecDeque::new(),
            faults: 0,
            reads: 0,
            is_full: false,
            is_short: false,
        };
        rig.start();
        rig
    }

    /// The process is killed and starts again.
    fn crash(&mut self) {
        self.shard = shard(&self.common);
        self.journal = self.store.journal();
        self.slow.clear();
        self.events.clear();
        self.start();
    }

    fn entries(&self) -> Vec<Entry> {
        let request = KvRequest::Scan {
            prefix: Prefix::all(),
            after: None,
            page: Page {
                items_max: NonZeroU16::MAX,
                bytes_max: usize::MAX,
            },
        };
        let mut kv = self.store.kv();
        kv.submit(self.now, &mut VecDeque::from([(Ticket(0), request)]));
        let Some((_, Ok(KvReply::Scanned { entries, .. }))) = kv.poll(self.now, Waker::noop()) else {
            panic!("memory answers at once");
        };
        entries
    }

    fn start(&mut self) {
        for entry in self.entries() {
            self.shard.restore(self.now, &entry).unwrap();
        }
        self.shard.begin(self.now);
        self.turn();
        self.shard.open(self.now);
        self.turn();
    }

    fn turn(&mut self) {
        loop {
            while let Some(output) = self.shard.poll_output() {
                if let Output::Deliver(link, event) = output {
                    self.events.push((link, event));
                }
            }
            let mut requests = VecDeque::new();
            self.shard.take_store_requests(&mut requests);
            if !self.is_slow {
                requests.append(&mut self.slow);
            }
            let is_done = requests.is_empty();
            for (ticket, request) in requests {
                self.submit(ticket, request);
            }
            let mut is_answered = false;
            while let Some((ticket, result)) = self.journal.poll(self.now, Waker::noop()) {
                self.shard.handle_stored(self.now, ticket, result);
                is_answered = true;
            }
            if is_done && !is_answered {
                return;
            }
        }
    }

    fn submit(&mut self, ticket: Ticket, request: JournalRequest) {
        let from = match &request {
            JournalRequest::Read { .. } | JournalRequest::Fetch(_) if self.is_slow => {
                return self.slow.push_back((ticket, request));
            }
            JournalRequest::Commit { records, .. }
                if self.is_full || (self.is_short && !records.is_empty()) =>
            {
                let fault = JournalError::Fault(Fault::Full);
                return self.shard.handle_stored(self.now, ticket, Err(fault));
            }
            JournalRequest::Tail { .. } if self.faults > 0 => {
                self.faults -= 1;
                let fault = JournalError::Fault(Fault::Unavailable);
                return self.shard.handle_stored(self.now, ticket, Err(fault));
            }
            JournalRequest::Read { from, .. } => *from,
            _ => {
                return self
                    .journal
                    .submit(self.now, &mut VecDeque::from([(ticket, request)]));
            }
        };
        self.reads += 1;
        assert!(self.reads < 100, "it reads for ever");
        let mut journal = self.store.journal();
        journal.submit(self.now, &mut VecDeque::from([(ticket, request)]));
        let (_, mut result) = journal.poll(self.now, Waker::noop()).unwrap();
        if let Ok(JournalReply::Found {
            records,
            next,
            at_end: true,
            ..
        }) = &mut result
        {
            // All that it has to say.
            *next = records.last().map_or(from, |record| record.sequence.next());
        }
        self.shard.handle_stored(self.now, ticket, result);
    }

    fn pass(&mut self, millis: u64) {
        self.now = Timestamp::from_millis(self.now.as_millis() + millis);
        self.shard.handle_timeout(self.now);
        self.turn();
    }

    fn request(&mut self, link: LinkId, request: Request) {
        self.shard.handle(self.now, link, request);
        self.turn();
    }

    /// A client with room for one delivery at a time, whose session is kept for so many seconds.
    fn connect(&mut self, client: &str, expiry: u32) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        let connect = Connect {
            session_expiry_interval: expiry,
            clean_start: false,
            ..Connect::plain(client)
        };
        self.request(link, Request::Connect(Box::new(connect)));
        link
    }

    /// Another, whose Will `w` on `t` waits for so many seconds.
    fn connect_with_will(&mut self, client: &str, expiry: u32, delay: u32) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        let connect = Connect {
            session_expiry_interval: expiry,
            clean_start: false,
            will: Some(crate::Will {
                topic: "t".to_owned(),
                payload: b"w".to_vec(),
                qos: QoS::AtLeastOnce,
                retain: false,
                delay_interval: delay,
                expiry_interval: None,
                properties: Vec::new(),
            }),
            ..Connect::plain(client)
        };
        self.request(link, Request::Connect(Box::new(connect)));
        link
    }

    fn lose(&mut self, link: LinkId) {
        let disconnect = Disconnect {
            cause: DisconnectCause::ConnectionLost,
            session_expiry_interval: None,
            keeps_will: false,
            user_properties: Vec::new(),
        };
        self.request(link, Request::Disconnect(Box::new(disconnect)));
    }

    fn subscribe(&mut self, link: LinkId, filter: &str, qos: QoS) {
        let options = SubscribeOptions {
            qos,
            ..SubscribeOptions::default()
        };
        let subscribe = Subscribe {
            packet_id: PacketId::FIRST,
            filters: vec![(filter.to_owned(), options)],
            subscription_id: None,
            user_properties: Vec::new(),
        };
        self.request(link, Request::Subscribe(Box::new(subscribe)));
        self.take(link);
    }

    fn publish(&mut self, topic: &str, qos: QoS, payload: &str) {
        let parts = MessageParts {
            qos,
            ..MessageParts::new(topic, payload.as_bytes())
        };
        let message = parts.publish(self.now, ClientInfo::system()).unwrap();
        self.shard.publish_internal(self.now, message).unwrap();
        self.turn();
    }

    /// What the client of a link was given, in order, until now.
    fn take(&mut self, link: LinkId) -> Vec<(PacketId, String)> {
        let mut taken = Vec::new();
        self.events.retain(|(to, event)| {
            if let (true, Event::Deliver(delivery)) = (*to == link, event) {
                let payload = String::from_utf8(delivery.message.payload().to_vec()).unwrap();
                taken.push((delivery.packet_id.unwrap(), payload));
            }
            *to != link
        });
        taken
    }

    fn take_payloads(&mut self, link: LinkId) -> Vec<String> {
        self.take(link).into_iter().map(|(_, payload)| payload).collect()
    }

    /// Acknowledges everything, one by one, and returns the payloads.
    fn drain(&mut self, link: LinkId, qos: QoS) -> Vec<String> {
        let mut drained = Vec::new();
        loop {
            let taken = self.take(link);
            if taken.is_empty() {
                return drained;
            }
            for (packet_id, payload) in taken {
                drained.push(payload);
                self.acknowledge(link, qos, packet_id);
            }
        }
    }

    fn acknowledge(&mut self, link: LinkId, qos: QoS, packet_id: PacketId) {
        let success = ReasonCode::Success;
        if qos == QoS::AtLeastOnce {
            return self.request(link, Request::PubAck(packet_id, success));
        }
        self.request(link, Request::PubRec(packet_id, success));
        self.request(link, Request::PubComp(packet_id, success));
    }

    /// Something that concerns nobody here is committed.
    fn commit(&mut self, records: Vec<NewRecord>, writes: Vec<Write>) {
        let commit = JournalRequest::Commit {
            records,
            writes,
            dedup: None,
        };
        let mut journal = self.store.journal();
        journal.submit(self.now, &mut VecDeque::from([(Ticket(0), commit)]));
        assert!(journal.poll(self.now, Waker::noop()).is_some());
        self.turn();
    }
}

fn shard(common: &Arc<Common>) -> Shard {
    Shard::new(ShardSettings {
        id: ShardId(0),
        shards: 1,
        common: Arc::clone(common),
        seed: 1,
    })
}

#[test]
fn who_has_read_everything_is_up_to_date_though_the_log_is_longer() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.subscribe(link, "t", QoS::AtLeastOnce);
    rig.lose(link);
    let data = vec![0, 1, b'x'].into();
    rig.commit(vec![NewRecord { data, indexed: false }], Vec::new());
    let link = rig.connect("s", 60);
    assert_eq!(rig.reads, 1);
    rig.publish("t", QoS::AtLeastOnce, "1");
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["1"]);
    assert_eq!(rig.reads, 1, "it came from the tail");
}

#[test]
fn what_comes_while_a_page_is_on_its_way_comes_once() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.subscribe(link, "t", QoS::AtLeastOnce);
    rig.lose(link);
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.is_slow = true;
    let link = rig.connect("s", 60);
    rig.publish("t", QoS::AtLeastOnce, "2");
    rig.is_slow = false;
    rig.publish("t", QoS::AtLeastOnce, "3");
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["1", "2", "3"]);
}

#[test]
fn a_page_of_old_filters_hides_nothing_of_a_new_subscription() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.subscribe(link, "a", QoS::AtLeastOnce);
    rig.lose(link);
    rig.publish("a", QoS::AtLeastOnce, "1");
    rig.is_slow = true;
    let link = rig.connect("s", 60);
    rig.subscribe(link, "b", QoS::AtLeastOnce);
    rig.publish("b", QoS::AtLeastOnce, "2");
    rig.publish("a", QoS::AtLeastOnce, "3");
    rig.is_slow = false;
    rig.turn();
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["1", "2", "3"]);
}

#[test]
fn qos_2_out_of_order_is_not_read_again_after_a_second_crash() {
    let mut config = Config::default();
    config.mqtt.mqueue_priorities = Arc::new([("hi".into(), 5)].into());
    let mut rig = Rig::with(config);
    let link = rig.connect("s", 60);
    rig.subscribe(link, "#", QoS::ExactlyOnce);
    rig.lose(link);
    for (topic, payload) in [("lo", "1"), ("lo", "2"), ("hi", "3")] {
        rig.publish(topic, QoS::ExactlyOnce, payload);
    }
    let link = rig.connect("s", 60);
    assert_eq!(rig.take_payloads(link), ["3"]);
    rig.crash();
    let link = rig.connect("s", 60);
    let taken = rig.take(link);
    assert_eq!(taken[0].1, "3");
    rig.is_slow = true;
    rig.acknowledge(link, QoS::ExactlyOnce, taken[0].0);
    rig.pass(250);
    rig.crash();
    rig.is_slow = false;
    let link = rig.connect("s", 60);
    assert_eq!(rig.drain(link, QoS::ExactlyOnce), ["1", "2"]);
}

#[test]
fn a_tail_that_fails_is_asked_again() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.subscribe(link, "t", QoS::AtLeastOnce);
    rig.faults = 2;
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.publish("t", QoS::AtLeastOnce, "2");
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["1"], "the tail that waited");
    rig.pass(1000);
    rig.pass(1000);
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["2"]);
}

#[test]
fn what_is_left_of_a_session_goes_though_its_filters_share_a_route() {
    let mut rig = Rig::new();
    let client = Token::of("s");
    let entries = ["$share/g/t", "$share/h/t"].map(|filter| {
        let entry = FilterEntry {
            filter: filter.to_owned(),
            options: SubscribeOptions::default(),
            id: None,
            since: None,
            replay: false,
        };
        (Name::Filter(client, Token::of(filter)).key(), entry.encode())
    });
    let put = |(key, value): (Key, bytes::Bytes)| Write {
        key,
        value: Value::Put(value),
    };
    rig.commit(Vec::new(), entries.map(put).into());
    rig.crash();
    assert_eq!(rig.shard.index.len(), 0);
    assert!(rig.entries().is_empty());
}

#[test]
fn what_is_given_back_while_others_are_fetched_is_not_forgotten() {
    let mut rig = Rig::new();
    let keeper = rig.connect("keeper", 60);
    rig.subscribe(keeper, "$share/g/t", QoS::AtLeastOnce);
    rig.lose(keeper);
    let mut members = ["a", "b", "c"].map(|name| rig.connect(name, 0));
    for member in members {
        rig.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
    }
    for payload in ["1", "2", "3"] {
        rig.publish("t", QoS::AtLeastOnce, payload);
    }
    let mut had = members.map(|member| (rig.take_payloads(member), member));
    had.sort();
    members = had.map(|(_, member)| member);
    rig.is_slow = true;
    rig.lose(members[1]);
    rig.lose(members[0]);
    rig.is_slow = false;
    rig.turn();
    rig.acknowledge(members[2], QoS::AtLeastOnce, PacketId::FIRST);
    let mut drained = rig.drain(members[2], QoS::AtLeastOnce);
    drained.sort();
    assert_eq!(drained, ["1", "2"]);
}

#[test]
fn a_group_waits_for_no_member_that_has_gone_with_a_message() {
    let mut rig = Rig::new();
    let keeper = rig.connect("keeper", 60);
    rig.subscribe(keeper, "$share/g/t", QoS::ExactlyOnce);
    rig.lose(keeper);
    for expiry in [0, 1] {
        let member = rig.connect("m", expiry);
        rig.subscribe(member, "$share/g/t", QoS::ExactlyOnce);
        rig.publish("t", QoS::ExactlyOnce, "x");
        assert_eq!(rig.take_payloads(member), ["x"]);
        rig.lose(member);
        rig.pass(2000);
        assert_eq!(rig.shard.groups_need_from(), rig.shard.tail.next, "{expiry}");
    }
    let keeper = rig.connect("keeper", 60);
    assert!(rig.take_payloads(keeper).is_empty(), "[MQTT-4.8.2-5]");
    rig.crash();
    let keeper = rig.connect("keeper", 60);
    assert!(rig.take_payloads(keeper).is_empty());
}

#[test]
fn a_member_that_is_only_away_stays_one() {
    let mut rig = Rig::new();
    let away = rig.connect("away", 60);
    rig.subscribe(away, "$share/g/t", QoS::AtLeastOnce);
    rig.lose(away);
    // A message that another shard had chosen the member for before it heard of that.
    let id = rig.shard.index.find("t").unwrap();
    let target = Arc::clone(&rig.shard.index.get(id).group("g").unwrap().target);
    let message = MessageParts::new("t", b"0")
        .publish(rig.now, ClientInfo::system())
        .unwrap();
    rig.shard
        .deliver_shared(rig.now, &ClientId::new("away"), &target, message);
    rig.publish("t", QoS::AtLeastOnce, "1");
    let away = rig.connect("away", 60);
    assert_eq!(rig.drain(away, QoS::AtLeastOnce), ["1"]);
}

#[test]
fn a_topic_is_held_alone_across_a_crash() {
    let mut config = Config::default();
    config.mqtt.exclusive_subscription = true;
    let mut rig = Rig::with(config);
    let holder = rig.connect("holder", 60);
    rig.subscribe(holder, "$exclusive/t", QoS::AtLeastOnce);
    rig.crash();
    assert!(!rig.shard.grant_exclusive("t", &ClientId::new("other")));
    assert!(rig.shard.grant_exclusive("t", &ClientId::new("holder")));
}

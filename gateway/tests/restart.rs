//! A broker in this process that ends and starts again on the same directory. No process is started here: it would
//! hold the lock of every directory for a moment.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tidegate::embed::{
    Broker, BrokerError, Client, QoS, ReasonCode, RetainHandling, SubscribeOptions, block_on,
};

fn start(dir: &Path, workers: u16, durability: &str) -> Result<Broker, BrokerError> {
    Broker::builder()
        .set("node.workers", &workers.to_string())
        .set("node.data_dir", &dir.display().to_string())
        .set("durability", durability)
        .start()
}

async fn session(broker: &Broker, id: &str) -> Client {
    let builder = broker.client(id).clean_start(false);
    builder
        .session_expiry(Duration::from_secs(3600))
        .connect()
        .await
        .unwrap()
}

/// What the session `id` gets, of a subscription that it has already.
async fn backlog(broker: &Broker, id: &str, count: usize) -> Vec<String> {
    let client = session(broker, id).await;
    assert!(client.session_present(), "{id}");
    let again = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        retain_handling: RetainHandling::DoNotSend,
        ..SubscribeOptions::default()
    };
    let mut stream = client.subscribe("plant/#", again).await.unwrap();
    let mut texts = Vec::new();
    for _ in 0..count {
        let received = stream.next().await.unwrap();
        texts.push(String::from_utf8(received.payload().to_vec()).unwrap());
    }
    client.disconnect().await.unwrap();
    texts
}

fn metric(broker: &Broker, name: &str) -> u64 {
    let metrics = broker.metrics();
    let found = metrics.iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no metric {name}")).1
}

/// The error of a start that must fail.
fn refused(dir: &Path) -> String {
    match start(dir, 1, "sync") {
        Ok(_) => panic!("{} was taken", dir.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn sessions_and_messages_survive_a_restart_with_another_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<String> = (0..20).map(|number| format!("session {number}")).collect();
    for durability in ["sync", "async"] {
        let data = dir.path().join(durability);
        let broker = start(&data, 3, durability).unwrap();
        block_on(async {
            for id in &ids {
                let client = session(&broker, id).await;
                assert!(!client.session_present());
                client
                    .subscribe("plant/#", QoS::AtLeastOnce)
                    .await
                    .unwrap()
                    .detach();
                client.disconnect().await.unwrap();
            }
            let sender = broker.client("sender").connect().await.unwrap();
            for number in 0..10 {
                let payload = number.to_string();
                let sent = sender.publish("plant/1", &payload).qos(QoS::AtLeastOnce).await;
                assert_eq!(sent, Ok(ReasonCode::Success));
            }
            let kept = sender.publish("name", "Ficus").qos(QoS::AtLeastOnce).retain(true);
            assert_eq!(kept.await, Ok(ReasonCode::NoMatchingSubscribers));
        });
        assert!(metric(&broker, "store.records") <= 11, "a message is stored once");
        broker.shutdown();

        let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        for workers in [1, 4] {
            let broker = start(&data, workers, durability).unwrap();
            block_on(async {
                // Half of the sessions at each restart.
                for id in ids.iter().skip(usize::from(workers == 4)).step_by(2) {
                    assert_eq!(backlog(&broker, id, 10).await, expected, "{id}");
                }
                let reader = broker.client("").connect().await.unwrap();
                let mut names = reader.subscribe("name", QoS::AtLeastOnce).await.unwrap();
                assert_eq!(names.next().await.unwrap().payload(), b"Ficus");
            });
            broker.shutdown();
        }
    }
}

#[test]
fn without_durability_no_file_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let unasked = Broker::builder().set("node.data_dir", &data.display().to_string());
    unasked.start().unwrap().shutdown();
    start(&data, 1, "none").unwrap().shutdown();
    assert!(!data.exists());
}

#[test]
fn one_directory_belongs_to_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), 1, "sync").unwrap();
    let error = refused(dir.path());
    assert!(error.contains("is used by another process"), "{error}");
    first.shutdown();
    start(dir.path(), 1, "sync").unwrap().shutdown();
}

#[test]
fn a_directory_that_is_none_of_ours_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "twelve years").unwrap();
    let error = refused(dir.path());
    assert!(error.contains("is not empty and holds no store"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let newer = tempfile::tempdir().unwrap();
    start(newer.path(), 1, "sync").unwrap().shutdown();
    let version = newer.path().join("VERSION");
    let text = fs::read_to_string(&version).unwrap();
    fs::write(&version, text.replacen("format 1", "format 1000", 1)).unwrap();
    let error = refused(newer.path());
    assert!(error.contains("1000") && error.contains("install"), "{error}");
}

#[test]
fn only_its_user_reaches_a_node_through_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), 1, "sync").unwrap();
    let socket = dir.path().join("control.sock");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    broker.shutdown();
    assert!(!socket.exists());
}

#[test]
fn the_state_of_the_store_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), 1, "sync").unwrap();
    block_on(async {
        let reader = broker.client("").connect().await.unwrap();
        let options = SubscribeOptions::default();
        let mut states = reader
            .subscribe("$SYS/brokers/+/store/state", options)
            .await
            .unwrap();
        // Published with everything else, once a minute and at the start: which of the two comes is a matter of who is
        // faster, so the numbers are looked at instead.
        assert!(states.try_next().is_none_or(|state| state.payload() == b"ok"));
    });
    assert_eq!(metric(&broker, "store.state"), 0);
    assert!(metric(&broker, "store.log.segments") >= 1);
    broker.shutdown();
}

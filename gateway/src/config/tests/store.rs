//! What is kept, for how long, and in which order it is delivered.

use broker_core::{DefaultPriority, store::Durability};

use super::*;

#[test]
fn limits_of_the_store_can_be_switched_off() {
    let settings = |text| load_text(text).unwrap().settings;
    let defaults = settings("").store;
    assert_eq!(
        (defaults.durability, defaults.max_bytes, defaults.max_age),
        (Durability::Sync, Some(10 << 30), None)
    );
    let limited = settings("durability = async\nstore.max_age = 7d\nstore.max_bytes = infinity\n").store;
    assert_eq!(limited.durability, Durability::Async);
    assert_eq!(limited.max_age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(limited.max_bytes, None);
}

#[test]
fn the_age_of_waiting_messages_is_limited_if_asked_for() {
    let age = |text| load_text(text).unwrap().settings.broker.mqtt.mqueue_age_max;
    assert_eq!(age(""), None);
    assert_eq!(age("mqtt.max_mqueue_age = 90s"), Some(Duration::from_secs(90)));
    assert_eq!(age("mqtt.max_mqueue_age = 0"), None);
    assert_eq!(age("mqtt.max_mqueue_age = disabled"), None);
}

#[test]
fn topics_have_priorities() {
    let mqtt = |text| load_text(text).unwrap().settings.broker.mqtt;
    let named = mqtt("mqtt.mqueue_priorities = topic/1=10,topic/2 = 8");
    let priority = |topic| named.mqueue_priority(topic);
    assert_eq!(
        [priority("topic/1"), priority("topic/2"), priority("x")],
        [10, 8, 0]
    );
    let highest = mqtt("mqtt.mqueue_priorities = a=1\nmqtt.mqueue_default_priority = highest");
    assert_eq!(highest.mqueue_default_priority, DefaultPriority::Highest);
    assert!(highest.mqueue_priority("x") > highest.mqueue_priority("a"));
    assert!(
        mqtt("mqtt.mqueue_priorities = Disabled")
            .mqueue_priorities
            .is_empty()
    );
}

#[test]
fn priorities_that_are_none() {
    for (value, problem) in [
        ("a", "has `a`, which names no priority"),
        ("a=0", "has `0`, which is not a number from 1 to 255"),
        ("a=256", "has `256`, which is not a number from 1 to 255"),
        ("a=b=1", "has `b=1`, which is not a number from 1 to 255"),
        ("a/+=1", "has `a/+`, which is not a topic name"),
        ("=1", "has ``, which is not a topic name"),
        ("a=1, a=2", "names `a` twice"),
    ] {
        assert_eq!(
            errors(&format!("mqtt.mqueue_priorities = {value}")),
            [format!(
                "t.conf:1:26: mqtt.mqueue_priorities: `{value}` {problem}; allowed: TOPIC=NUMBER, separated by \
                 commas, with numbers from 1 to 255, or disabled"
            )]
        );
    }
}

//! What another shard has matched.

use super::*;
use crate::store::format::encode_message;

#[test]
fn a_retained_message_that_was_sent_at_once_does_not_come_from_the_journal_too() {
    let mut rig = Rig::new();
    let link = rig.connect("s", 60);
    rig.subscribe(link, "t", QoS::ExactlyOnce);
    for (number, is_forwarded) in [(1, true), (2, false), (3, true)] {
        let text = number.to_string();
        let parts = MessageParts {
            qos: QoS::AtLeastOnce,
            retain: true,
            ..MessageParts::new("t", text.as_bytes())
        };
        let mut message = parts.publish(rig.now, ClientInfo::system()).unwrap();
        message.set_id(number);
        if is_forwarded {
            // Its publisher's shard knows of no subscription here but one that needs no store.
            rig.shard.route_forwarded(rig.now, &message, false);
            rig.turn();
        }
        let data = encode_message(&message);
        rig.commit(vec![NewRecord { data, indexed: false }], Vec::new());
    }
    assert_eq!(rig.drain(link, QoS::AtLeastOnce), ["1", "2", "3"]);
}

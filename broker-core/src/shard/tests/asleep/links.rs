//! A link that is connected more than once.

use super::*;

impl Rig {
    /// A request while the store does not answer.
    fn request_unanswered(&mut self, link: LinkId, request: Request) {
        self.shard.handle(self.now, link, request);
        self.hand_out();
    }

    fn hand_out(&mut self) {
        while let Some(output) = self.shard.poll_output() {
            if let Output::Deliver(link, event) = output {
                self.events.push((link, event));
            }
        }
    }

    fn disconnect_unanswered(&mut self, link: LinkId, cause: DisconnectCause) {
        self.request_unanswered(link, Request::Disconnect(Box::new(ended(cause))));
    }
}

#[test]
fn a_link_that_is_connected_again_is_not_told_what_was_meant_for_its_first_client() {
    let mut rig = Rig::new();
    let link = LinkId(1000);
    rig.request_unanswered(link, Request::Connect(Box::new(sensor(0))));
    rig.request_unanswered(link, Request::Note(7, Some(Bytes::from_static(b"x"))));
    rig.disconnect_unanswered(link, DisconnectCause::Asleep(60));
    let mut next = sensor(0);
    next.client_id = "next".to_owned();
    rig.request_unanswered(link, Request::Connect(Box::new(next)));
    assert_eq!(rig.told(link), [""; 0]);
    rig.turn();
    assert_eq!(rig.told(link), ["connected"]);
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.subscribe(link, "t", QoS::AtLeastOnce);
    rig.publish("t", QoS::AtLeastOnce, "2");
    assert_eq!(rig.told_all(link), ["1: 2"]);
}

#[test]
fn a_subscription_of_an_earlier_connection_is_not_made_in_a_later_one() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.is_slow = true;
    rig.publish("t", QoS::AtLeastOnce, "1");
    rig.told(link);
    rig.disconnect_unanswered(link, DisconnectCause::Asleep(60));
    rig.request_unanswered(link, Request::Connect(Box::new(sensor(0))));
    rig.turn();
    rig.disconnect_unanswered(link, DisconnectCause::Asleep(60));
    rig.request_unanswered(link, Request::Connect(Box::new(sensor(0))));
    rig.is_slow = false;
    rig.turn();
    let told = rig.told_all(link);
    assert_eq!(
        told,
        ["resumed", "resumed", "1: 1 again"],
        "pages of the first are of no account"
    );
}

#[test]
fn a_sleep_is_answered_when_it_is_stored() {
    let mut rig = Rig::new();
    let link = rig.begin(sensor(0));
    rig.disconnect_unanswered(link, DisconnectCause::Asleep(60));
    assert_eq!(rig.told(link), [""; 0]);
    rig.turn();
    assert_eq!(rig.told(link), ["asleep"]);
    let link = rig.wake(GUARD);
    rig.told(link);
    rig.is_full = true;
    rig.end(link, DisconnectCause::Asleep(60));
    assert_eq!(rig.told(link), [""; 0]);
}

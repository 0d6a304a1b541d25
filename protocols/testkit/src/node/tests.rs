use super::*;

/// Echoes what it gets in pieces of two bytes, a second later; `!` ends it.
#[derive(Default)]
struct Echo {
    due: Option<Timestamp>,
    held: Vec<u8>,
}

impl Peer for Echo {
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        if input[0] == b'!' {
            *effects.close = Some(Close {
                reason: "asked",
                detail: String::new(),
            });
            return input.len();
        }
        if input.len() < 2 {
            return 0;
        }
        self.held.extend_from_slice(&input[..2]);
        self.due = Some(now.after_secs(1));
        2
    }

    fn handle_event(&mut self, _: Timestamp, _: Event, _: &mut Effects<'_>) {}

    fn handle_timeout(&mut self, _: Timestamp, effects: &mut Effects<'_>) {
        effects.wire.put(&self.held);
        self.held.clear();
        self.due = None;
    }

    fn handle_closed(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.due
    }

    fn is_parked(&self) -> bool {
        self.due.is_some()
    }
}

#[test]
fn a_peer_is_offered_what_it_left_and_called_at_its_time() {
    let mut node = Node::new(2, Common::default());
    let link = node.open(Echo::default());
    // The shard may have something of its own to do; what is not a whole piece adds nothing to it.
    let due = node.next_deadline();
    node.input(link, b"a");
    assert_eq!(node.next_deadline(), due);
    node.input(link, b"bcde!x");
    assert!(node.is_parked(link));
    node.advance(Duration::from_millis(999));
    assert_eq!(node.output_len(link), 0);
    node.advance(Duration::from_millis(1));
    assert_eq!(&node.output(link)[..], b"ab");
    node.advance(Duration::from_secs(60));
    assert_eq!(&node.output(link)[..], b"cde!");
    assert_eq!(node.closed(link), None, "`e!` is one piece");
    node.input(link, b"y!");
    node.advance(Duration::from_secs(1));
    assert_eq!(&node.output(link)[..], b"xy");
    assert_eq!(node.closed(link).map(|close| close.reason), Some("asked"));
    assert_eq!(node.now(), Node::START.after_secs(62));
}

#[test]
#[should_panic(expected = "nobody looked at the output")]
fn output_that_nobody_took_fails_the_test() {
    let mut node = Node::new(1, Common::default());
    let link = node.open(Echo::default());
    node.input(link, b"ab");
    node.advance(Duration::from_secs(1));
}

/// Sends every datagram back in two halves.
struct Halves;

impl Peer for Halves {
    fn handle_input(&mut self, _: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        let (left, right) = input.split_at(input.len() / 2);
        for half in [left, right] {
            effects.wire.put_datagram(|to| to.extend_from_slice(half));
        }
        input.len()
    }

    fn handle_event(&mut self, _: Timestamp, _: Event, _: &mut Effects<'_>) {}

    fn handle_timeout(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

#[test]
fn datagrams_go_in_and_come_out_one_by_one() {
    let mut node = Node::new(1, Common::default());
    let link = node.open(Halves);
    node.datagram(link, b"abcde");
    node.datagram(link, b"");
    node.datagram(link, b"f");
    assert_eq!(node.datagrams(link), [&b"ab"[..], b"cde", b"", b"", b"", b"f"]);
    assert!(node.datagrams(link).is_empty());
}

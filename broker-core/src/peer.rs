//! The contract between a protocol and the driver that carries it.
//!
//! A peer is one client as its protocol sees it. It performs no I/O and reads no clock. The driver calls one
//! `handle_*` method per happening and then acts on what the method left in [`Effects`]: it sends the bytes, and
//! passes the requests to the shard in their order. It asks [`Peer::poll_timeout`] after every call and
//! calls [`Peer::handle_timeout`] once that time has come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::{Event, Message, Request, Timestamp};

/// One client, seen by its protocol. `Send`, because its link goes to the worker of its client's shard once that is
/// known; no two threads ever use it at a time.
pub trait Peer: Send {
    /// Bytes (stream transports) or one datagram have come in. Returns how many bytes from the front were used;
    /// the rest is offered again with what follows it. A peer that [is parked](Peer::is_parked) uses nothing.
    fn handle_input(&mut self, now: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize;

    /// The shard has something for the client.
    fn handle_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>);

    /// The time that [`Peer::poll_timeout`] named has come.
    fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects<'_>);

    /// The transport is gone. What the peer still sends goes nowhere.
    fn handle_closed(&mut self, now: Timestamp, effects: &mut Effects<'_>);

    /// When [`Peer::handle_timeout`] must be called, if at all. May move at every other call.
    fn poll_timeout(&self) -> Option<Timestamp>;

    /// Whom it stands for, once the broker has admitted the client: for logs.
    fn client_id(&self) -> Option<&str> {
        None
    }

    /// The peer waits for an answer of the shard and takes no input until then: the driver stops reading.
    fn is_parked(&self) -> bool {
        false
    }
}

/// What a peer wants done, gathered during one call.
#[derive(Debug)]
pub struct Effects<'a> {
    /// Bytes for the client, appended.
    pub wire: &'a mut Outbox,
    /// Requests to the shard, appended in order.
    pub requests: &'a mut Vec<Request>,
    /// Set to end the connection once the bytes in `wire` are sent. The peer is not called again after that.
    pub close: &'a mut Option<Close>,
}

/// Why a peer ends its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// A stable word for counters and logs, such as `malformed_packet`.
    pub reason: &'static str,
    /// What exactly happened, for one log line.
    pub detail: String,
}

/// Bytes that wait to be written to one transport.
///
/// Small packets are copied one after another into one buffer, large payloads are held by reference, so that a
/// fan-out of a large message to many clients does not multiply it. Empty, it owns no memory.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Segment>,
    tail: BytesMut,
    len: usize,
}

#[derive(Debug)]
enum Segment {
    Bytes(Bytes),
    Payload(Message, usize),
}

impl Segment {
    fn as_slice(&self) -> &[u8] {
        match self {
            Segment::Bytes(bytes) => bytes,
            Segment::Payload(message, from) => &message.payload()[*from..],
        }
    }
}

impl Outbox {
    /// Payloads of at least this many bytes are held by reference instead of copied.
    pub const SHARE_FROM_BYTES: usize = 4096;

    /// An empty outbox.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Bytes not yet taken.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends what `write` appends to the buffer it is given.
    pub fn put_with(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        write(&mut self.tail);
        self.len += self.tail.len() - before;
    }

    /// Appends one datagram, as `write` appends it to the buffer it is given. An outbox holds either datagrams, each
    /// with its length before it, or the bytes of a stream. One that would be longer than 65 535 bytes is left out.
    pub fn put_datagram(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let start = self.tail.len();
        self.tail.extend_from_slice(&[0; 2]);
        write(&mut self.tail);
        match u16::try_from(self.tail.len() - start - 2) {
            Ok(len) => {
                self.tail[start..start + 2].copy_from_slice(&len.to_be_bytes());
                self.len += self.tail.len() - start;
            }
            Err(_) => self.tail.truncate(start),
        }
    }

    /// The first datagram that waits, without its length. [`Outbox::pop_datagram`] removes it.
    pub fn datagram(&self) -> Option<&[u8]> {
        let (len, rest) = self.tail.split_first_chunk()?;
        rest.get(..usize::from(u16::from_be_bytes(*len)))
    }

    /// Removes the first datagram: it is sent.
    pub fn pop_datagram(&mut self) {
        if let Some(len) = self.datagram().map(<[u8]>::len) {
            self.advance(len + 2);
        }
    }

    /// Appends the payload of `message`: a copy if it is small, a reference if it is large.
    pub fn put_payload(&mut self, message: &Message) {
        let payload = message.payload();
        if payload.len() < Outbox::SHARE_FROM_BYTES {
            return self.put(payload);
        }
        self.seal();
        self.len += payload.len();
        self.queue.push_back(Segment::Payload(message.clone(), 0));
    }

    /// The slices that wait, in order, at most `slices.len()` of them: for a vectored write.
    pub fn slices<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let waiting = self.queue.iter().map(Segment::as_slice).chain(tail);
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(waiting) {
            *slot = std::io::IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Removes `count` bytes from the front: they are written. Memory goes back once nothing waits.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len, "more written than waited");
        self.len -= count.min(self.len);
        while let Some(segment) = self.queue.front_mut() {
            let here = segment.as_slice().len();
            if count < here {
                match segment {
                    Segment::Bytes(bytes) => drop(bytes.split_to(count)),
                    Segment::Payload(_, from) => *from += count,
                }
                return;
            }
            count -= here;
            self.queue.pop_front();
        }
        if count == self.tail.len() {
            *self = Outbox::default();
        } else {
            drop(self.tail.split_to(count));
        }
    }

    /// All that waits, as one buffer: for tests and for transports that frame it.
    pub fn take(&mut self) -> Bytes {
        if self.queue.is_empty() {
            self.len = 0;
            return std::mem::take(&mut self.tail).freeze();
        }
        self.seal();
        let mut all = BytesMut::with_capacity(self.len);
        for segment in &self.queue {
            all.extend_from_slice(segment.as_slice());
        }
        *self = Outbox::default();
        all.freeze()
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(Segment::Bytes(self.tail.split().freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::{ClientInfo, MessageParts};

    #[test]
    fn datagrams_come_out_as_they_went_in() {
        let mut outbox = Outbox::new();
        outbox.put_datagram(|to| to.extend_from_slice(b"one"));
        outbox.put_datagram(|_| ());
        outbox.put_datagram(|to| to.resize(to.len() + 65_536, 0));
        outbox.put_datagram(|to| to.extend_from_slice(b"two"));
        assert_eq!(outbox.len(), 12);
        for expected in [&b"one"[..], b"", b"two"] {
            assert_eq!(outbox.datagram(), Some(expected));
            outbox.pop_datagram();
        }
        assert_eq!(outbox.datagram(), None);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_goes_in_comes_out_in_order_however_it_is_written() {
        let payload: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
        let message = MessageParts::new("t", &payload)
            .publish(Timestamp::from_millis(0), ClientInfo::system())
            .expect("a short topic");
        let mut outbox = Outbox::new();
        let mut expected = Vec::new();
        for _ in 0..3 {
            outbox.put(b"head");
            outbox.put_payload(&message);
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&payload);
        }
        outbox.put(b"end");
        expected.extend_from_slice(b"end");

        let mut written = Vec::new();
        while !outbox.is_empty() {
            assert_eq!(outbox.len(), expected.len() - written.len());
            let mut slices = [IoSlice::new(&[]); 4];
            let count = outbox.slices(&mut slices);
            let step = slices[..count]
                .iter()
                .map(|slice| slice.len())
                .sum::<usize>()
                .min(3_333);
            let mut left = step;
            for slice in &slices[..count] {
                let part = left.min(slice.len());
                written.extend_from_slice(&slice[..part]);
                left -= part;
            }
            outbox.advance(step);
        }
        assert_eq!(written, expected);
    }
}

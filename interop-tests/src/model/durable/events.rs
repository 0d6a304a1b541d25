//! What clients hear, and what they say to it.

use broker_core::{Event, LinkId, ReasonCode, Request};

use super::{Acks, Durable};

impl Durable {
    pub(super) fn events(&mut self) -> Result<(), String> {
        while let Some((link, event)) = self.node.poll_event() {
            self.ledger.tick += 1;
            let Some(&at) = self.owners.get(&link) else {
                // Its client has left.
                continue;
            };
            self.log(|_| match &event {
                Event::Deliver(delivery) => format!(
                    "{link:?} client {at} < PUBLISH {:?} {} {:?} {:?} dup {} retain {} ids {:?}",
                    crate::reference::number_of(&delivery.message),
                    delivery.message.topic(),
                    delivery.qos,
                    delivery.packet_id,
                    delivery.dup,
                    delivery.retain,
                    delivery.subscription_ids
                ),
                event => format!("{link:?} client {at} < {event:?}"),
            });
            match &event {
                Event::Close(closing) | Event::Refused(closing) => self.closed(at, link, closing)?,
                // What was on its way on a connection that was given up.
                _ if self.clients[at].link != Some(link) => {}
                Event::Connected(connected) => self.connected(at, link, connected)?,
                _ if !self.clients[at].is_online() => {
                    return Err(format!("{event:?} on {link:?} before its CONNACK"));
                }
                Event::Deliver(delivery) => self.delivered(at, link, delivery)?,
                event => self.answered(at, link, event)?,
            }
        }
        Ok(())
    }

    fn answered(&mut self, at: usize, link: LinkId, event: &Event) -> Result<(), String> {
        let tick = self.ledger.tick;
        let client = &mut self.clients[at];
        match event {
            Event::PubAck(id, reason) => {
                let place = client.publishing.iter().position(|one| one.id == id.get());
                let Some(one) = place.and_then(|place| client.publishing.remove(place)) else {
                    return Err(format!("{event:?} for {link:?}, which has sent no such thing"));
                };
                self.accept(one.number, *reason)
            }
            Event::PubRec(id, reason) => {
                let place = client.publishing.iter().position(|one| one.id == id.get());
                let Some(place) = place else {
                    return Err(format!("{event:?} for {link:?}, which has sent no such thing"));
                };
                let number = client.publishing[place].number;
                if reason.is_error() {
                    client.publishing.remove(place);
                    return self.accept(number, *reason);
                }
                client.publishing[place].is_released = true;
                self.accept(number, *reason)?;
                self.request(link, Request::PubRel(*id, ReasonCode::Success));
                Ok(())
            }
            Event::PubComp(id, reason) => {
                let place = client.publishing.iter().position(|one| one.id == id.get());
                let one = place.and_then(|place| client.publishing.remove(place));
                match one {
                    Some(one) if one.is_released && !reason.is_error() => Ok(()),
                    // The exchange was complete, and the client was not told.
                    Some(one) if one.is_released && *reason == ReasonCode::PacketIdentifierNotFound => Ok(()),
                    other => Err(format!("{event:?} for {link:?}, which had {other:?}")),
                }
            }
            Event::PubRel(id, _) => {
                client.receiving.remove(&id.get());
                self.owe(at, link, Request::PubComp(*id, ReasonCode::Success), None);
                Ok(())
            }
            Event::SubAck(id, codes) | Event::UnsubAck(id, codes) => {
                let Some((filters, asked)) = client.asking.remove(&id.get()) else {
                    return Err(format!("{event:?} for {link:?}, which has not asked"));
                };
                for (filter, code) in filters.iter().zip(codes) {
                    client.subscriptions.answer(tick, asked, filter, !code.is_error());
                }
                Ok(())
            }
            event => Err(format!("{event:?} for {link:?}")),
        }
    }

    fn accept(&mut self, number: u64, reason: ReasonCode) -> Result<(), String> {
        if !reason.is_error() {
            self.ledger.acknowledged(number);
        } else if self.faulty_at.is_some() {
            self.ledger.refused(number);
        } else {
            return Err(format!("{number} is refused: {reason:?}"));
        }
        Ok(())
    }

    /// The client has something to answer, and does so when it likes. `acked`: what it acknowledges thereby.
    pub(super) fn owe(&mut self, at: usize, link: LinkId, request: Request, acked: Option<(String, u64)>) {
        match self.clients[at].acks {
            Acks::AtOnce => self.answer(at, link, request, acked),
            Acks::Later | Acks::Never => self.clients[at].owed.push_back((request, acked)),
        }
    }

    pub(super) fn answer(&mut self, at: usize, link: LinkId, request: Request, acked: Option<(String, u64)>) {
        let crashes = self.ledger.crashes;
        let client = &mut self.clients[at];
        if let Request::PubAck(id, _) | Request::PubComp(id, _) = &request {
            client.unacked.remove(&id.get());
        }
        if let Some(got) = acked.and_then(|acked| client.got.get_mut(&acked)) {
            got.acked = Some(crashes);
        }
        self.request(link, request);
    }
}

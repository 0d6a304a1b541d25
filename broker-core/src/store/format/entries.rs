//! The values of entries.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Decoder, Encoder, FormatError,
    origin::{decode_client, encode_client},
};
use crate::{
    ClientInfo, PacketId, QoS, RetainHandling, SubscribeOptions, SubscriptionIds, Timestamp, Will,
    store::Sequence,
};

const VERSION: u8 = 1;

/// A persistent session, apart from its subscriptions and deliveries.
#[derive(Clone, Debug)]
pub struct SessionEntry {
    /// Whose it is.
    pub client: ClientInfo,
    /// Seconds that it outlives its connection; `u32::MAX`: for ever.
    pub expiry_interval: u32,
    /// Whether the client was there.
    pub presence: PresenceEntry,
    /// Published when the client is lost.
    pub will: Option<Will>,
    /// QoS 1 messages before it in the journal may have been sent without a note of it.
    pub repeats_before: Sequence,
}

/// Whether the client of a session was there when its entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceEntry {
    /// It was connected: if it is so at a start, the process was killed.
    Online,
    /// It was not.
    Offline {
        /// The session ends; [`Timestamp::NEVER`]: never.
        expires_at: Timestamp,
        /// The Will is published; [`Timestamp::NEVER`]: never.
        will_at: Timestamp,
    },
    /// It slept, and is lost if it is not back in time.
    Asleep {
        /// When that is: from then on its Will is due and its session expires.
        until: Timestamp,
        /// It had woken for what waited for it: if it is so at a start, the process was killed.
        is_awake: bool,
    },
}

impl SessionEntry {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = Encoder::with_capacity(128);
        to.u8(VERSION);
        encode_client(&self.client, &mut to);
        to.u32(self.expiry_interval);
        match self.presence {
            PresenceEntry::Online => to.u8(0),
            PresenceEntry::Offline { expires_at, will_at } => {
                to.u8(1);
                to.u64(expires_at.as_millis());
                to.u64(will_at.as_millis());
            }
            PresenceEntry::Asleep { until, is_awake } => {
                to.u8(2);
                to.u64(until.as_millis());
                to.u8(u8::from(is_awake));
            }
        }
        to.u8(u8::from(self.will.is_some()));
        if let Some(will) = &self.will {
            encode_will(will, &mut to);
        }
        to.u64(self.repeats_before.0);
        to.finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are no such entry; so of every other entry.
    pub fn decode(value: &[u8]) -> Result<SessionEntry, FormatError> {
        let mut from = Decoder::new(value);
        check_version(&mut from)?;
        let entry = SessionEntry {
            client: decode_client(&mut from)?,
            expiry_interval: from.u32()?,
            presence: decode_presence(&mut from)?,
            will: if from.flag()? {
                Some(decode_will(&mut from)?)
            } else {
                None
            },
            repeats_before: Sequence(from.u64()?),
        };
        from.end()?;
        Ok(entry)
    }
}

fn decode_presence(from: &mut Decoder<'_>) -> Result<PresenceEntry, FormatError> {
    Ok(match from.u8()? {
        0 => PresenceEntry::Online,
        1 => PresenceEntry::Offline {
            expires_at: Timestamp::from_millis(from.u64()?),
            will_at: Timestamp::from_millis(from.u64()?),
        },
        2 => PresenceEntry::Asleep {
            until: Timestamp::from_millis(from.u64()?),
            is_awake: from.flag()?,
        },
        _ => return Err(FormatError),
    })
}

fn check_version(from: &mut Decoder<'_>) -> Result<(), FormatError> {
    if from.u8()? == VERSION {
        Ok(())
    } else {
        Err(FormatError)
    }
}

fn encode_will(will: &Will, to: &mut Encoder) {
    to.text(&will.topic);
    to.bytes(&will.payload);
    to.u8(will.qos as u8);
    to.u8(u8::from(will.retain));
    to.u32(will.delay_interval);
    to.u8(u8::from(will.expiry_interval.is_some()));
    to.u32(will.expiry_interval.unwrap_or(0));
    to.bytes(&will.properties);
}

fn decode_will(from: &mut Decoder<'_>) -> Result<Will, FormatError> {
    Ok(Will {
        topic: from.text()?.to_owned(),
        payload: from.bytes()?.to_owned(),
        qos: decode_qos(from.u8()?)?,
        retain: from.flag()?,
        delay_interval: from.u32()?,
        expiry_interval: {
            let is_set = from.flag()?;
            let seconds = from.u32()?;
            is_set.then_some(seconds)
        },
        properties: from.bytes()?.to_owned(),
    })
}

fn decode_qos(level: u8) -> Result<QoS, FormatError> {
    QoS::new(level).ok_or(FormatError)
}

/// How far a session has read the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorEntry {
    /// Everything before it is complete, or an entry of its own.
    pub next: Sequence,
    /// The packet identifier to go on with.
    pub packet_id: PacketId,
    /// Deliveries of QoS 1 and 2 up to then.
    pub order: u64,
}

impl CursorEntry {
    /// As bytes.
    pub fn encode(self) -> Bytes {
        let mut to = Encoder::with_capacity(19);
        to.u8(VERSION);
        to.u64(self.next.0);
        to.u16(self.packet_id.get());
        to.u64(self.order);
        to.finish()
    }

    /// From bytes.
    pub fn decode(value: &[u8]) -> Result<CursorEntry, FormatError> {
        let mut from = Decoder::new(value);
        check_version(&mut from)?;
        let entry = CursorEntry {
            next: Sequence(from.u64()?),
            packet_id: PacketId::new(from.u16()?).ok_or(FormatError)?,
            order: from.u64()?,
        };
        from.end()?;
        Ok(entry)
    }
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterEntry {
    /// With its prefix (`$share/…`) and the client's mountpoint.
    pub filter: String,
    /// As granted.
    pub options: SubscribeOptions,
    /// Subscription identifier.
    pub id: Option<u32>,
    /// It gets what stands from there on in the journal; `None`: from the commit on that wrote this entry.
    pub since: Option<Sequence>,
    /// Its retained messages have not all been sent.
    pub replay: bool,
}

impl FilterEntry {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = Encoder::with_capacity(self.filter.len() + 24);
        to.u8(VERSION);
        to.text(&self.filter);
        let options = &self.options;
        to.u8(options.qos as u8
            | u8::from(options.no_local) << 2
            | u8::from(options.retain_as_published) << 3
            | (options.retain_handling as u8) << 4
            | u8::from(self.replay) << 6);
        to.u32(self.id.unwrap_or(0));
        to.u64(self.since.map_or(0, |since| since.0));
        to.finish()
    }

    /// From bytes.
    pub fn decode(value: &[u8]) -> Result<FilterEntry, FormatError> {
        let mut from = Decoder::new(value);
        check_version(&mut from)?;
        let filter = from.text()?.to_owned();
        let bits = from.u8()?;
        let entry = FilterEntry {
            filter,
            options: SubscribeOptions {
                qos: decode_qos(bits & 3)?,
                no_local: bits & 4 != 0,
                retain_as_published: bits & 8 != 0,
                retain_handling: match bits >> 4 & 3 {
                    0 => RetainHandling::Send,
                    1 => RetainHandling::SendIfNew,
                    2 => RetainHandling::DoNotSend,
                    _ => return Err(FormatError),
                },
            },
            replay: bits & 0x40 != 0,
            id: Some(from.u32()?).filter(|id| *id > 0),
            since: Some(Sequence(from.u64()?)).filter(|since| since.0 > 0),
        };
        from.end()?;
        Ok(entry)
    }
}

/// A delivery that its client has not acknowledged in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingEntry {
    /// Entries of one session are in the order of their numbers.
    pub order: u64,
    /// Where the session's own reading came upon the message; `None`: somebody else gave it to the session.
    pub place: Option<Sequence>,
    /// How far it has come.
    pub state: OutgoingState,
}

/// How far a delivery has come (§4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingState {
    /// PUBLISH was sent.
    Published {
        /// Where its message stands; `None`: `message` is it.
        sequence: Option<Sequence>,
        /// The record of a message that does not stand in the journal, or is about to leave it; else empty.
        message: Bytes,
        /// Quality of service of the delivery.
        qos: QoS,
        /// Its retain flag.
        retain: bool,
        /// Its subscription identifiers.
        subscription_ids: SubscriptionIds,
        /// Filter and name of the shared group that chose this session.
        shared: Option<(String, String)>,
    },
    /// PUBREL was sent.
    Released,
}

impl OutgoingEntry {
    /// A QoS 1 message that a shared group may give to another member instead.
    pub fn is_lease(&self) -> bool {
        matches!(
            &self.state,
            OutgoingState::Published {
                sequence: Some(_),
                shared: Some(_),
                qos: QoS::AtLeastOnce,
                ..
            }
        )
    }

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = Encoder::with_capacity(32);
        to.u8(VERSION);
        to.u64(self.order);
        to.u64(self.place.map_or(0, |place| place.0));
        match &self.state {
            OutgoingState::Released => to.u8(0),
            OutgoingState::Published {
                sequence,
                message,
                qos,
                retain,
                subscription_ids,
                shared,
            } => {
                to.u8(1);
                to.u64(sequence.map_or(0, |sequence| sequence.0));
                to.bytes(message);
                to.u8(*qos as u8);
                to.u8(u8::from(*retain));
                to.u32(u32::try_from(subscription_ids.len()).expect("fewer than subscriptions"));
                subscription_ids.iter().for_each(|id| to.u32(*id));
                to.u8(u8::from(shared.is_some()));
                if let Some((filter, group)) = shared {
                    to.text(filter);
                    to.text(group);
                }
            }
        }
        to.finish()
    }

    /// From bytes.
    pub fn decode(value: &[u8]) -> Result<OutgoingEntry, FormatError> {
        let mut from = Decoder::new(value);
        check_version(&mut from)?;
        let order = from.u64()?;
        let place = Some(Sequence(from.u64()?)).filter(|place| place.0 > 0);
        let state = if from.flag()? {
            OutgoingState::Published {
                sequence: Some(Sequence(from.u64()?)).filter(|sequence| sequence.0 > 0),
                message: Bytes::copy_from_slice(from.bytes()?),
                qos: decode_qos(from.u8()?)?,
                retain: from.flag()?,
                subscription_ids: {
                    let mut ids = SmallVec::new();
                    for _ in 0..from.u32()? {
                        ids.push(from.u32()?);
                    }
                    ids
                },
                shared: if from.flag()? {
                    Some((from.text()?.to_owned(), from.text()?.to_owned()))
                } else {
                    None
                },
            }
        } else {
            OutgoingState::Released
        };
        from.end()?;
        Ok(OutgoingEntry { order, place, state })
    }
}

/// A shared group with persistent members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// The filter, absolute.
    pub filter: String,
    /// Its name.
    pub group: String,
    /// Everything before it is some member's or settled.
    pub next: Sequence,
}

impl GroupEntry {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = Encoder::with_capacity(self.filter.len() + self.group.len() + 24);
        to.u8(VERSION);
        to.text(&self.filter);
        to.text(&self.group);
        to.u64(self.next.0);
        to.finish()
    }

    /// From bytes.
    pub fn decode(value: &[u8]) -> Result<GroupEntry, FormatError> {
        let mut from = Decoder::new(value);
        check_version(&mut from)?;
        let entry = GroupEntry {
            filter: from.text()?.to_owned(),
            group: from.text()?.to_owned(),
            next: Sequence(from.u64()?),
        };
        from.end()?;
        Ok(entry)
    }
}

/// A message that waits for its time, under the topic that it will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayedEntry {
    /// Its record.
    pub record: Bytes,
}

impl DelayedEntry {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = Encoder::with_capacity(self.record.len() + 5);
        to.u8(VERSION);
        to.bytes(&self.record);
        to.finish()
    }

    /// From bytes.
    pub fn decode(value: &[u8]) -> Result<DelayedEntry, FormatError> {
        let mut from = Decoder::new(value);
        check_version(&mut from)?;
        let record = Bytes::copy_from_slice(from.bytes()?);
        from.end()?;
        Ok(DelayedEntry { record })
    }
}

//! Fields, read from the front of a message's body.

use super::{
    DecodeError, MsgId, ReturnCode, TopicId,
    error::{ENDS_EARLY, GOES_ON},
    fields::Flags,
};

/// What is not yet read of a message. Every method fails instead of reading past its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&value, rest) = self.rest.split_first().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(value)
    }

    pub(super) fn pair(&mut self) -> Result<[u8; 2], DecodeError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*value)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.pair().map(u16::from_be_bytes)
    }

    pub(super) fn flags(&mut self) -> Result<Flags, DecodeError> {
        self.u8().map(Flags)
    }

    pub(super) fn msg_id(&mut self) -> Result<MsgId, DecodeError> {
        self.u16().map(MsgId)
    }

    pub(super) fn topic_id(&mut self) -> Result<TopicId, DecodeError> {
        self.u16().map(TopicId)
    }

    pub(super) fn return_code(&mut self) -> Result<ReturnCode, DecodeError> {
        self.u8().map(ReturnCode::from)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left, for the last field of a message.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// `value`, if nothing is left.
    pub(super) fn end<T>(self, value: T) -> Result<T, DecodeError> {
        if self.rest.is_empty() {
            Ok(value)
        } else {
            Err(GOES_ON)
        }
    }
}

//! Writing and reading of numbers and texts.

use thiserror::Error;

/// Bytes from the store are not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not written by this version, or damaged")]
pub struct FormatError;

/// Appends values to bytes.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// Nothing yet, with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Encoder {
        Encoder(Vec::with_capacity(capacity))
    }

    /// What was written.
    pub fn finish(self) -> bytes::Bytes {
        self.0.into()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes without a length.
    pub fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// Bytes with four bytes of length. Nothing in the gateway is longer than that allows.
    pub fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("a packet is smaller than 256 MiB"));
        self.raw(value);
    }

    /// What `write` writes, with four bytes of length.
    pub fn nested(&mut self, write: impl FnOnce(&mut Encoder)) {
        let start = self.0.len();
        self.u32(0);
        write(self);
        let len = u32::try_from(self.0.len() - start - 4).expect("a packet is smaller than 256 MiB");
        self.0[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }

    /// A text like [`Encoder::bytes`].
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// A text that may be missing.
    pub fn option(&mut self, value: Option<&str>) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            self.text(value);
        }
    }
}

/// Takes values off the front of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Reads `bytes` from their start.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder(bytes)
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// `len` bytes.
    ///
    /// # Errors
    /// If there are fewer; so of every other method.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(FormatError)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(FormatError)?;
        self.0 = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// A byte that is 0 or 1.
    pub fn flag(&mut self) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FormatError),
        }
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self) -> Result<&'a [u8], FormatError> {
        let len = self.u32()?;
        self.raw(len as usize)
    }

    /// A text with its length before it.
    pub fn text(&mut self) -> Result<&'a str, FormatError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| FormatError)
    }

    /// A text that may be missing.
    pub fn option(&mut self) -> Result<Option<&'a str>, FormatError> {
        if self.flag()? {
            self.text().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Nothing must be left.
    pub fn end(&self) -> Result<(), FormatError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FormatError)
        }
    }
}

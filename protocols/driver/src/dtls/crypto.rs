//! Cipher suites, and keys from secrets. The algorithms themselves are those of libraries.

use aes::Aes128;
use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement,
    tls_prf::{P_SHA256, Secret},
};
use bytes::{Bytes, BytesMut};
use ccm::{
    Ccm, KeyInit,
    aead::{AeadInPlace, generic_array::GenericArray},
    consts::{U8, U12, U16},
};
use zeroize::Zeroizing;

use super::record::{ContentType, HEADER_BYTES, PLAINTEXT_BYTES_MAX, Record, VERSION, put_header};

/// A cipher suite of TLS 1.2. All of them use SHA-256 in the pseudo-random function.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) id: u16,
    pub(super) exchange: Exchange,
    pub(super) cipher: Cipher,
}

/// How the two sides come to a secret, and what proves who the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// RFC 4279 §2.
    Psk,
    /// RFC 8422, with a certificate for ECDSA or EdDSA.
    EcdheEcdsa,
    /// RFC 8422, with a certificate for RSA.
    EcdheRsa,
}

/// What protects the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    /// AES-128-GCM (RFC 5288).
    Gcm,
    /// AES-128-CCM (RFC 6655).
    Ccm,
    /// AES-128-CCM with a tag of 8 bytes (RFC 6655), which RFC 7252 §9.1.3 demands of CoAP.
    Ccm8,
}

/// What is spoken here. The client's order decides.
pub(super) static SUITES: [Suite; 7] = [
    Suite::new(0xc02b, Exchange::EcdheEcdsa, Cipher::Gcm),
    Suite::new(0xc0ac, Exchange::EcdheEcdsa, Cipher::Ccm),
    Suite::new(0xc0ae, Exchange::EcdheEcdsa, Cipher::Ccm8),
    Suite::new(0xc02f, Exchange::EcdheRsa, Cipher::Gcm),
    Suite::new(0x00a8, Exchange::Psk, Cipher::Gcm),
    Suite::new(0xc0a4, Exchange::Psk, Cipher::Ccm),
    Suite::new(0xc0a8, Exchange::Psk, Cipher::Ccm8),
];

impl Suite {
    const fn new(id: u16, exchange: Exchange, cipher: Cipher) -> Suite {
        Suite { id, exchange, cipher }
    }
}

/// The curve that is called `group` (RFC 8422 §5.1.1), if it is spoken here.
pub(super) fn curve(group: u16) -> Option<&'static agreement::Algorithm> {
    match group {
        23 => Some(&agreement::ECDH_P256),
        24 => Some(&agreement::ECDH_P384),
        29 => Some(&agreement::X25519),
        _ => None,
    }
}

/// The curve of a client that names none.
pub(super) const SECP256R1: u16 = 23;

/// The pseudo-random function (RFC 5246 §5). `None` only if the library fails.
fn prf(secret: &[u8], label: &[u8], seed: [&[u8]; 2], len: usize) -> Option<Secret> {
    Secret::new(&P_SHA256, secret)
        .ok()?
        .derive_with_seed_concatination(label, seed[0], seed[1], len)
        .ok()
}

/// Premaster secret of a plain pre-shared key (RFC 4279 §2).
pub(super) fn psk_premaster(key: &[u8]) -> Zeroizing<Vec<u8>> {
    let len = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let key = &key[..len.into()];
    let mut secret = Zeroizing::new(Vec::with_capacity(4 + 2 * key.len()));
    secret.extend_from_slice(&len.to_be_bytes());
    secret.resize(2 + key.len(), 0);
    secret.extend_from_slice(&len.to_be_bytes());
    secret.extend_from_slice(key);
    secret
}

/// The secret that everything else comes from.
pub(super) struct Master(Zeroizing<[u8; 48]>);

/// The two random values of the hellos.
#[derive(Clone, Copy, Debug)]
pub(super) struct Randoms {
    pub(super) client: [u8; 32],
    pub(super) server: [u8; 32],
}

impl Master {
    /// From the two hellos' random values (RFC 5246 §8.1), or from a hash of the handshake so far (RFC 7627 §4).
    pub(super) fn new(premaster: &[u8], randoms: &Randoms, session_hash: Option<&[u8]>) -> Option<Master> {
        let secret = match session_hash {
            Some(hash) => prf(premaster, b"extended master secret", [hash, b""], 48),
            None => prf(
                premaster,
                b"master secret",
                [&randoms.client, &randoms.server],
                48,
            ),
        };
        Some(Master(Zeroizing::new(secret?.try_into().ok()?)))
    }

    /// The keys for what comes in and for what goes out (RFC 5246 §6.3).
    pub(super) fn keys(&self, cipher: Cipher, randoms: &Randoms) -> Option<(Keys, Keys)> {
        let block = prf(
            &self.0[..],
            b"key expansion",
            [&randoms.server, &randoms.client],
            40,
        )?;
        let (keys, salts) = block.as_ref().split_at_checked(32)?;
        let read = Keys::new(cipher, &keys[..16], &salts[..4])?;
        Some((read, Keys::new(cipher, &keys[16..], &salts[4..])?))
    }

    /// What the Finished of one side says (RFC 5246 §7.4.9).
    pub(super) fn verify_data(&self, label: &[u8], transcript_hash: &[u8]) -> Option<[u8; 12]> {
        prf(&self.0[..], label, [transcript_hash, b""], 12)?
            .try_into()
            .ok()
    }
}

/// Protects the records of one direction.
pub(super) struct Keys {
    aead: Aead,
    salt: [u8; 4],
}

enum Aead {
    Gcm(Box<LessSafeKey>),
    Ccm(Box<Ccm<Aes128, U16, U12>>),
    Ccm8(Box<Ccm<Aes128, U8, U12>>),
}

/// The part of the nonce that stands in each record (RFC 5288 §3).
const EXPLICIT_NONCE_BYTES: usize = 8;

impl Keys {
    fn new(cipher: Cipher, key: &[u8], salt: &[u8]) -> Option<Keys> {
        let aead = match cipher {
            Cipher::Gcm => Aead::Gcm(Box::new(LessSafeKey::new(
                UnboundKey::new(&AES_128_GCM, key).ok()?,
            ))),
            Cipher::Ccm => Aead::Ccm(Box::new(Ccm::new_from_slice(key).ok()?)),
            Cipher::Ccm8 => Aead::Ccm8(Box::new(Ccm::new_from_slice(key).ok()?)),
        };
        let salt = salt.try_into().ok()?;
        Some(Keys { aead, salt })
    }

    fn tag_bytes(&self) -> usize {
        match self.aead {
            Aead::Gcm(_) | Aead::Ccm(_) => 16,
            Aead::Ccm8(_) => 8,
        }
    }

    fn nonce(&self, explicit: &[u8; EXPLICIT_NONCE_BYTES]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(explicit);
        nonce
    }

    /// Appends a record of epoch 1. A sequence number must be used but once. At most
    /// [`PLAINTEXT_BYTES_MAX`] bytes. `None`: the library fails, and `to` is to be
    /// thrown away.
    pub(super) fn seal(
        &self,
        to: &mut BytesMut,
        content: ContentType,
        sequence: u64,
        plaintext: &[u8],
    ) -> Option<()> {
        let len = EXPLICIT_NONCE_BYTES + plaintext.len() + self.tag_bytes();
        to.reserve(HEADER_BYTES + len);
        put_header(to, content, VERSION, (1, sequence), len);
        // Unique with a key, as RFC 5288 §3 proposes: epoch and sequence number.
        let explicit = (1 << 48 | sequence).to_be_bytes();
        to.extend_from_slice(&explicit);
        let nonce = self.nonce(&explicit);
        let aad = additional_data(content, sequence, plaintext.len());
        let start = to.len();
        to.extend_from_slice(plaintext);
        let buffer = &mut to[start..];
        match &self.aead {
            Aead::Gcm(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), buffer)
                    .ok()?;
                to.extend_from_slice(tag.as_ref());
            }
            Aead::Ccm(key) => {
                let nonce = GenericArray::from_slice(&nonce);
                let tag = key.encrypt_in_place_detached(nonce, &aad, buffer).ok()?;
                to.extend_from_slice(&tag);
            }
            Aead::Ccm8(key) => {
                let nonce = GenericArray::from_slice(&nonce);
                let tag = key.encrypt_in_place_detached(nonce, &aad, buffer).ok()?;
                to.extend_from_slice(&tag);
            }
        }
        Some(())
    }

    /// What a record of epoch 1 says, if it is genuine.
    pub(super) fn open(&self, record: &Record<'_>) -> Option<Bytes> {
        let (explicit, sealed) = record.body.split_first_chunk()?;
        let len = sealed.len().checked_sub(self.tag_bytes())?;
        if len > PLAINTEXT_BYTES_MAX {
            return None;
        }
        let (sealed, tag) = sealed.split_at(len);
        let nonce = self.nonce(explicit);
        let aad = additional_data(record.content, record.sequence, len);
        let plaintext = match &self.aead {
            Aead::Gcm(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let mut plaintext = vec![0; len];
                key.open_separate_gather(nonce, Aad::from(aad), sealed, tag, &mut plaintext)
                    .ok()?;
                plaintext
            }
            Aead::Ccm(key) => open_ccm(&**key, &nonce, &aad, sealed, tag)?,
            Aead::Ccm8(key) => open_ccm(&**key, &nonce, &aad, sealed, tag)?,
        };
        Some(plaintext.into())
    }
}

fn open_ccm<K: AeadInPlace>(
    key: &K,
    nonce: &[u8; 12],
    aad: &[u8],
    sealed: &[u8],
    tag: &[u8],
) -> Option<Vec<u8>> {
    let mut plaintext = sealed.to_vec();
    let (nonce, tag) = (GenericArray::from_slice(nonce), GenericArray::from_slice(tag));
    key.decrypt_in_place_detached(nonce, aad, &mut plaintext, tag)
        .ok()?;
    Some(plaintext)
}

/// RFC 5246 §6.2.3.3, with epoch and sequence number as RFC 6347 §4.1.2.1 has them.
fn additional_data(content: ContentType, sequence: u64, len: usize) -> [u8; 13] {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&(1 << 48 | sequence).to_be_bytes());
    data[8] = content as u8;
    data[9..11].copy_from_slice(&VERSION);
    let len = u16::try_from(len).expect("a record is shorter than 64 KiB");
    data[11..].copy_from_slice(&len.to_be_bytes());
    data
}

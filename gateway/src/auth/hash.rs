//! Password hashes: making them, reading them, and comparing passwords with them in constant time.

use std::{cell::RefCell, fmt, io};

use argon2::{
    Argon2, Block, PasswordHasher, PasswordVerifier,
    password_hash::phc::{Output, PasswordHash, Salt},
};
use pbkdf2::Pbkdf2;
use thiserror::Error;

/// How a new password is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HashAlgorithm {
    /// Argon2id (RFC 9106), 19 MiB, 2 passes: the default.
    #[default]
    Argon2id,
    /// bcrypt, cost 12. Passwords of at most 71 bytes.
    Bcrypt,
    /// PBKDF2 with HMAC-SHA-256 (RFC 8018), 600 000 rounds.
    Pbkdf2Sha256,
}

/// Why a hash cannot be made or used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HashError {
    /// A text that is no hash of a kind that is known.
    #[error(
        "not a password hash: expected $argon2id$.., $2b$.., $pbkdf2-sha256$.. or $pbkdf2-sha512$..; \
         passwords themselves are not accepted here"
    )]
    NotAHash,
    /// A hash of a known kind, but damaged.
    #[error("damaged password hash: {0}")]
    Damaged(String),
    /// A hash that takes so long to compare that a few clients could occupy the gateway.
    #[error("too costly password hash: {what} is {value}, at most {max} is accepted")]
    TooCostly {
        /// What costs: memory, passes, rounds.
        what: &'static str,
        /// As the hash has it.
        value: u32,
        /// What is accepted.
        max: u32,
    },
    /// The algorithm does not take such a password.
    #[error("the password is too long for bcrypt: at most 71 bytes; choose argon2id")]
    PasswordTooLong,
}

/// Highest memory of an Argon2 hash, KiB: 1 GiB.
const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes of an Argon2 hash.
const ARGON2_PASSES_MAX: u32 = 64;
/// Highest cost of a bcrypt hash: 2^16 rounds take some seconds.
const BCRYPT_COST_MAX: u32 = 16;
/// Cost of new bcrypt hashes.
const BCRYPT_COST: u32 = 12;
/// Most rounds of a PBKDF2 hash.
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;

/// Sixteen bytes from the system's random source, for [`hash_password`].
///
/// # Errors
///
/// The system has no randomness to give.
pub fn random_salt() -> io::Result<[u8; 16]> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(salt)
}

/// The hash of `password`, as it stands in a users file. Takes tens to hundreds of milliseconds.
///
/// # Errors
///
/// [`HashError::PasswordTooLong`] for bcrypt and more than 71 bytes.
pub fn hash_password(
    algorithm: HashAlgorithm,
    password: &[u8],
    salt: &[u8; 16],
) -> Result<String, HashError> {
    let phc = match algorithm {
        HashAlgorithm::Argon2id => Argon2::default().hash_password_with_salt(password, salt),
        HashAlgorithm::Pbkdf2Sha256 => Pbkdf2::default().hash_password_with_salt(password, salt),
        HashAlgorithm::Bcrypt => {
            return bcrypt::non_truncating_hash_with_salt(password, BCRYPT_COST, *salt)
                .map(|parts| parts.to_string())
                .map_err(|_| HashError::PasswordTooLong);
        }
    };
    phc.map(|hash| hash.to_string())
        .map_err(|error| HashError::Damaged(error.to_string()))
}

/// A password hash that has been found usable.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredHash {
    kind: Kind,
    text: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Argon2,
    Bcrypt,
    Pbkdf2,
}

impl StoredHash {
    /// Reads `$argon2id$…` and `$pbkdf2-sha256$…` (PHC strings), or `$2b$…` (bcrypt; also `$2a$` and `$2y$`).
    ///
    /// # Errors
    ///
    /// It is no such hash, is damaged, or costs too much to compare with.
    pub fn parse(text: &str) -> Result<StoredHash, HashError> {
        let kind = if text.starts_with("$argon2") {
            check_argon2(&phc(text)?)?;
            Kind::Argon2
        } else if text.starts_with("$pbkdf2-") {
            check_pbkdf2(&phc(text)?)?;
            Kind::Pbkdf2
        } else if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            let parts: bcrypt::HashParts = text.parse().map_err(damaged)?;
            at_most("the cost", parts.get_cost(), BCRYPT_COST_MAX)?;
            Kind::Bcrypt
        } else {
            return Err(HashError::NotAHash);
        };
        Ok(StoredHash {
            kind,
            text: text.into(),
        })
    }

    /// True if `password` has this hash. Compares in constant time. bcrypt looks at the first 72 bytes only.
    pub fn verify(&self, password: &[u8]) -> bool {
        match self.kind {
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Argon2 => phc(&self.text)
                .ok()
                .and_then(|hash| verify_argon2(&hash, password))
                .unwrap_or(false),
            Kind::Pbkdf2 => {
                phc(&self.text).is_ok_and(|hash| Pbkdf2::default().verify_password(password, &hash).is_ok())
            }
        }
    }

    /// Algorithm and parameters: hashes of the same class take the same time.
    pub(super) fn cost_class(&self) -> &str {
        match self.kind {
            Kind::Bcrypt => self.text.get(..6).unwrap_or_default(),
            Kind::Argon2 | Kind::Pbkdf2 => {
                let fields: usize = self
                    .text
                    .rsplitn(3, '$')
                    .take(2)
                    .map(|field| field.len() + 1)
                    .sum();
                &self.text[..self.text.len() - fields]
            }
        }
    }
}

impl fmt::Debug for StoredHash {
    /// Shows the algorithm only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoredHash").field(&self.kind).finish()
    }
}

fn phc(text: &str) -> Result<PasswordHash, HashError> {
    let hash = PasswordHash::new(text).map_err(damaged)?;
    if hash.hash.is_none()
        || hash
            .salt
            .as_ref()
            .is_none_or(|salt| salt.len() < Salt::MIN_LENGTH)
    {
        return Err(HashError::Damaged("salt or hash is missing".to_owned()));
    }
    Ok(hash)
}

fn check_argon2(hash: &PasswordHash) -> Result<(), HashError> {
    argon2::Algorithm::try_from(hash.algorithm.as_str()).map_err(|_| HashError::NotAHash)?;
    hash.version
        .map_or(Ok(argon2::Version::default()), argon2::Version::try_from)
        .map_err(damaged)?;
    let params = argon2::Params::try_from(hash).map_err(damaged)?;
    at_most("its memory in KiB", params.m_cost(), ARGON2_MEMORY_KIB_MAX)?;
    at_most("the number of its passes", params.t_cost(), ARGON2_PASSES_MAX)
}

/// Blocks of 1 KiB that a thread keeps for its next Argon2 hash: 32 MiB, as the usual hashes take less.
const ARGON2_BLOCKS_KEPT_MAX: usize = 32 << 10;

thread_local! {
    /// Allocated for each hash anew, pieces of that size leave ten times as much behind in the system's allocator.
    static ARGON2_MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// `None` if the hash cannot be worked out.
fn verify_argon2(hash: &PasswordHash, password: &[u8]) -> Option<bool> {
    let algorithm = argon2::Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = hash
        .version
        .map_or(Ok(argon2::Version::default()), argon2::Version::try_from)
        .ok()?;
    let params = argon2::Params::try_from(hash).ok()?;
    let (salt, expected) = (hash.salt.as_ref()?, hash.hash.as_ref()?);
    let mut output = vec![0; expected.len()];
    let blocks = params.block_count();
    let hasher = Argon2::new(algorithm, version, params);
    ARGON2_MEMORY
        .with_borrow_mut(|memory| {
            if memory.len() < blocks {
                // Not both at once.
                *memory = Vec::new();
                *memory = vec![Block::default(); blocks];
            }
            let memory_blocks = &mut memory[..blocks];
            let result = hasher.hash_password_into_with_memory(password, salt, &mut output, memory_blocks);
            if memory.len() > ARGON2_BLOCKS_KEPT_MAX {
                *memory = Vec::new();
            }
            result
        })
        .ok()?;
    // `Output` compares in constant time.
    Some(Output::new(&output).ok()? == *expected)
}

fn check_pbkdf2(hash: &PasswordHash) -> Result<(), HashError> {
    pbkdf2::Algorithm::new(hash.algorithm.as_str()).map_err(|_| HashError::NotAHash)?;
    if hash.version.is_some() {
        return Err(HashError::Damaged("it has a version".to_owned()));
    }
    let params = pbkdf2::Params::try_from(hash).map_err(damaged)?;
    at_most("the number of its rounds", params.rounds(), PBKDF2_ROUNDS_MAX)
}

fn at_most(what: &'static str, value: u32, max: u32) -> Result<(), HashError> {
    if value <= max {
        Ok(())
    } else {
        Err(HashError::TooCostly { what, value, max })
    }
}

fn damaged(error: impl fmt::Display) -> HashError {
    HashError::Damaged(error.to_string())
}

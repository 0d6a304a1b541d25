//! The built-in users: a file of names and password hashes. And the pre-shared keys of DTLS clients.

mod hash;
mod psk;
mod update;
mod users;

pub use hash::{HashAlgorithm, HashError, StoredHash, hash_password, random_salt};
pub use psk::{PskError, PskLineError, PskTable};
pub use update::{UpdateError, Upserted, remove_user, upsert_user};
pub use users::{LineError, User, UserAuthenticator, Users, UsersError};

#[cfg(test)]
mod tests;

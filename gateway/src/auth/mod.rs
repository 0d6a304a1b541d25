//! The built-in users: a file of names and password hashes.

mod hash;
mod update;
mod users;

pub use hash::{HashAlgorithm, HashError, StoredHash, hash_password, random_salt};
pub use update::{UpdateError, Upserted, remove_user, upsert_user};
pub use users::{LineError, User, UserAuthenticator, Users, UsersError};

#[cfg(test)]
mod tests;

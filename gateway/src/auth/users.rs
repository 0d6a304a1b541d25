//! The users file, and the authenticator that reads from it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hint::black_box,
    path::Path,
};

use broker_core::{
    ReasonCode, Timestamp,
    admission::{Authentication, Authenticator, Credentials, Grant},
};
use thiserror::Error;

use super::{HashError, StoredHash};
use crate::config::UserIdType;

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Hash of the password.
    pub hash: StoredHash,
    /// Authorization does not apply to the user.
    pub is_superuser: bool,
}

/// The users of a file, by user name or by client id.
///
/// One user per line, written by `tidegate passwd`:
///
/// ```text
/// # a comment; blank lines are skipped
/// alice:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH
/// admin:$2b$12$SALTANDHASH:superuser
/// ```
///
/// The hash begins behind the last `:$` of the line, so a user id may hold colons (a MAC address, say). A user id
/// must not be empty, begin with `#`, begin or end with blanks, or hold control characters. A user id stands once.
#[derive(Clone, Debug, Default)]
pub struct Users {
    users: HashMap<Box<str>, User>,
}

/// Why a users file cannot be used.
#[derive(Debug, Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}:{column}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1 in characters.
        column: usize,
        /// What is wrong, and what to do about it.
        problem: LineError,
    },
}

/// What is wrong with a line of a users file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// It has no hash.
    #[error(
        "expected USER:HASH or USER:HASH:superuser, found no password hash; \
         write the line with `tidegate passwd --file FILE USER`"
    )]
    NoHash,
    /// Its hash is not usable.
    #[error("{0}; set the password anew with `tidegate passwd --file FILE USER`")]
    Hash(#[from] HashError),
    /// Something else than `superuser` behind the hash.
    #[error("expected `superuser` or the end of the line, found {0:?}")]
    Flag(String),
    /// Its user id is not allowed.
    #[error(
        "the user id is empty, begins with `#`, begins or ends with a blank, or has a control character; rename it"
    )]
    UserId,
    /// Its user id stands in an earlier line, too.
    #[error("the user of line {0} again; remove one of the two lines")]
    Twice(usize),
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the first wrong line.
    pub fn read(path: &Path) -> Result<Users, UsersError> {
        let text = std::fs::read_to_string(path).map_err(|source| UsersError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Users::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a users file; `path` is for messages.
    ///
    /// # Errors
    ///
    /// The first wrong line.
    pub fn parse(text: &str, path: &str) -> Result<Users, UsersError> {
        let mut users = Users::default();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for (line, content) in (1..).zip(text.lines()) {
            let error = |(column, problem)| UsersError::Line {
                path: path.to_owned(),
                line,
                column,
                problem,
            };
            let Some((user_id, user)) = parse_line(content).map_err(error)? else {
                continue;
            };
            if let Some(earlier) = lines.insert(user_id, line) {
                return Err(error((1, LineError::Twice(earlier))));
            }
            users.users.insert(user_id.into(), user);
        }
        Ok(users)
    }

    /// The user with this id.
    pub fn get(&self, user_id: &str) -> Option<&User> {
        self.users.get(user_id)
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// A hash that takes as long to compare with as most of the file's.
    pub(super) fn decoy(&self) -> Option<StoredHash> {
        let mut classes: BTreeMap<&str, (usize, &StoredHash)> = BTreeMap::new();
        for hash in self.users.values().map(|user| &user.hash) {
            classes.entry(hash.cost_class()).or_insert((0, hash)).0 += 1;
        }
        classes
            .into_values()
            .max_by_key(|(count, _)| *count)
            .map(|(_, hash)| hash.clone())
    }
}

/// User id and user of a line; `None` for a comment or a blank line. An error comes with its column.
pub(super) fn parse_line(line: &str) -> Result<Option<(&str, User)>, (usize, LineError)> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((user_id, rest)) = line.rfind(":$").map(|at| (&line[..at], &line[at + 1..])) else {
        let column = line.find(':').map_or(line.len(), |at| at + 1);
        return Err((line[..column].chars().count() + 1, LineError::NoHash));
    };
    if !is_valid_user_id(user_id) {
        return Err((1, LineError::UserId));
    }
    let hash_column = user_id.chars().count() + 2;
    let (hash, flag) = match rest.split_once(':') {
        Some((hash, flag)) => (hash, Some(flag)),
        None => (rest, None),
    };
    if let Some(other) = flag.filter(|flag| *flag != "superuser") {
        let column = hash_column + hash.chars().count() + 1;
        return Err((column, LineError::Flag(other.to_owned())));
    }
    let user = User {
        hash: StoredHash::parse(hash).map_err(|error| (hash_column, error.into()))?,
        is_superuser: flag.is_some(),
    };
    Ok(Some((user_id, user)))
}

/// True if a users file can hold this user id.
pub(super) fn is_valid_user_id(user_id: &str) -> bool {
    !user_id.is_empty()
        && !user_id.starts_with('#')
        && user_id.trim() == user_id
        && !user_id.contains(char::is_control)
}

/// The authenticator `built_in_database`.
///
/// A known user with the right password is allowed, with a wrong one or none denied. A user that the file does not
/// know is ignored, as EMQX does: the next authenticator is asked, and in the end `allow_anonymous` decides.
/// Nobody can come in under the name of a known user, but with `allow_anonymous` anybody under another one.
pub struct UserAuthenticator {
    users: Users,
    by: UserIdType,
    /// Compared with instead of the hash that an unknown user does not have.
    decoy: Option<StoredHash>,
}

impl UserAuthenticator {
    /// Looks clients up in `users` by what `by` says.
    ///
    /// With `conceal_users`, an unknown user takes as long as most known ones, so that the time does not tell which
    /// users exist. Set it unless anonymous clients are allowed: there the answer tells anyway, and the work would
    /// be wasted on every client.
    pub fn new(users: Users, by: UserIdType, conceal_users: bool) -> UserAuthenticator {
        let decoy = if conceal_users { users.decoy() } else { None };
        UserAuthenticator { users, by, decoy }
    }
}

impl Authenticator for UserAuthenticator {
    fn name(&self) -> &str {
        "built_in_database"
    }

    fn authenticate(&self, _now: Timestamp, credentials: &Credentials<'_>) -> Authentication {
        let user_id = match self.by {
            UserIdType::Username => credentials.username,
            UserIdType::ClientId => Some(credentials.client_id.as_str()),
        };
        let Some(user_id) = user_id else {
            return Authentication::Ignore;
        };
        // Without a password the work is done all the same: its time must not tell anything either.
        let password = credentials.password.unwrap_or_default();
        match self.users.get(user_id) {
            Some(user) if user.hash.verify(password) && credentials.password.is_some() => {
                Authentication::Allow(Grant {
                    is_superuser: user.is_superuser,
                    ..Grant::default()
                })
            }
            Some(_) => Authentication::Deny(ReasonCode::BadUserNameOrPassword),
            None => {
                if let Some(decoy) = &self.decoy {
                    black_box(decoy.verify(password));
                }
                Authentication::Ignore
            }
        }
    }
}

impl fmt::Debug for UserAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAuthenticator")
            .field("users", &self.users.len())
            .field("by", &self.by)
            .field("conceal_users", &self.decoy.is_some())
            .finish()
    }
}

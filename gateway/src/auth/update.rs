//! Changes one line of a users file, and leaves the rest of it as it is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    HashError, StoredHash, UsersError,
    users::{Users, is_valid_user_id},
};

/// What [`upsert_user`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upserted {
    /// The user is new.
    Added,
    /// The user was there; its line has been replaced.
    Replaced,
}

/// Why a users file was not changed. It is then as it was.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// The file is not in order; a change might lose users.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The user id cannot stand in a users file.
    #[error(
        "{0:?} cannot be a user id: it must not be empty, begin with `#`, begin or end with a blank, or hold a \
         control character"
    )]
    UserId(String),
    /// The hash is not usable.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Another change is under way, or was interrupted.
    #[error("{0} exists: another change is under way, or was interrupted; if so, remove that file")]
    Busy(String),
    /// The file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Adds a user, or replaces its line; a missing file is created, readable by its owner only. Comments, order and
/// other users stay. The change is on disk as a whole or not at all, also if the machine stops in between.
///
/// # Errors
///
/// See [`UpdateError`]; the file is as it was.
pub fn upsert_user(
    path: &Path,
    user_id: &str,
    hash: &str,
    is_superuser: bool,
) -> Result<Upserted, UpdateError> {
    if !is_valid_user_id(user_id) {
        return Err(UpdateError::UserId(user_id.to_owned()));
    }
    StoredHash::parse(hash)?;
    let flag = if is_superuser { ":superuser" } else { "" };
    let line = format!("{user_id}:{hash}{flag}");
    let was_there = change(path, user_id, Some(&line))?;
    Ok(if was_there {
        Upserted::Replaced
    } else {
        Upserted::Added
    })
}

/// Removes a user; `false` if there was none.
///
/// # Errors
///
/// See [`UpdateError`]; the file is as it was.
pub fn remove_user(path: &Path, user_id: &str) -> Result<bool, UpdateError> {
    change(path, user_id, None)
}

/// Replaces the line of a user, appends it, or removes it (`None`). True if the user was there.
fn change(path: &Path, user_id: &str, line: Option<&str>) -> Result<bool, UpdateError> {
    // A link stays a link: what it points to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let replacement = Replacement::begin(&path)?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && line.is_some() => String::new(),
        Err(source) => {
            return Err(UpdateError::Users(UsersError::Read {
                path: path.display().to_string(),
                source,
            }));
        }
    };
    let was_there = Users::parse(&text, &path.display().to_string())?
        .get(user_id)
        .is_some();
    if !was_there && line.is_none() {
        return Ok(false);
    }
    replacement.finish(&edited(&text, user_id, line))?;
    Ok(was_there)
}

fn edited(text: &str, user_id: &str, line: Option<&str>) -> String {
    let mut edited = String::with_capacity(text.len() + 256);
    let mut pending = line;
    for old in text.lines() {
        let is_user = !old.starts_with('#') && old.rfind(":$").is_some_and(|at| &old[..at] == user_id);
        let kept = if is_user { pending.take() } else { Some(old) };
        if let Some(kept) = kept {
            edited.push_str(kept);
            edited.push('\n');
        }
    }
    if let Some(new) = pending {
        edited.push_str(new);
        edited.push('\n');
    }
    edited
}

/// A new version of a file next to it. Its existence also keeps a second change from beginning.
struct Replacement<'a> {
    path: &'a Path,
    /// Removed when this is dropped, unless it has become the file.
    temporary: PathBuf,
    file: File,
    is_done: bool,
}

impl Replacement<'_> {
    fn begin(path: &Path) -> Result<Replacement<'_>, UpdateError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let temporary = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&temporary) {
            Ok(file) => Ok(Replacement {
                path,
                temporary,
                file,
                is_done: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(UpdateError::Busy(temporary.display().to_string()))
            }
            Err(source) => Err(UpdateError::Write {
                path: temporary.display().to_string(),
                source,
            }),
        }
    }

    fn finish(mut self, text: &str) -> Result<(), UpdateError> {
        self.write(text).map_err(|source| UpdateError::Write {
            path: self.path.display().to_string(),
            source,
        })
    }

    /// The bytes are on disk before the name is, and the name before this returns.
    fn write(&mut self, text: &str) -> io::Result<()> {
        if let Ok(old) = fs::metadata(self.path) {
            self.file.set_permissions(old.permissions())?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::{MetadataExt, fchown};
                let new = self.file.metadata()?;
                if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                    fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
                }
            }
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.temporary, self.path)?;
        self.is_done = true;
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            // If even this fails, the next change says what to remove.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

//! The data directory: whose it is, and who uses it.

use std::{
    fs::{self, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use crate::options::OpenError;

/// The format that this release writes.
pub(crate) const FORMAT: u32 = 1;
const TITLE: &str = "tidegate store, format ";
/// What file systems and operators leave in a directory that nobody uses.
const HARMLESS: [&str; 3] = ["LOCK", "VERSION.new", "lost+found"];

/// A data directory that no other process uses.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) store_id: u64,
    _lock: fs::File,
}

impl Directory {
    /// Takes the directory; a new one gets an identity.
    pub(crate) fn open(dir: &Path) -> Result<Directory, OpenError> {
        // What clients have said is nobody else's business.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| OpenError::io("make", dir, error))?;
        // Before anything is written: a wrong path must stay as it is.
        let known = read_version(dir)?;
        if known.is_none() && !is_unused(dir)? {
            return Err(OpenError::Foreign(dir.into()));
        }
        let lock = take_lock(dir)?;
        let store_id = match known {
            Some(id) => id,
            // Another process may have been faster.
            None => match read_version(dir)? {
                Some(id) => id,
                None => write_version(dir)?,
            },
        };
        Ok(Directory {
            store_id,
            _lock: lock,
        })
    }
}

fn take_lock(dir: &Path) -> Result<fs::File, OpenError> {
    let path = dir.join("LOCK");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(|error| OpenError::io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(dir.into())),
        Err(TryLockError::Error(error)) => Err(OpenError::io("lock", path, error)),
    }
}

fn is_unused(dir: &Path) -> Result<bool, OpenError> {
    let io = |error| OpenError::io("list", dir, error);
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The identity of the store; `None`: there is none.
fn read_version(dir: &Path) -> Result<Option<u64>, OpenError> {
    let path = dir.join("VERSION");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| OpenError::Version(path.clone()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("read", path, error)),
    };
    let damaged = || OpenError::Version(path.clone());
    let mut lines = text.lines();
    let format = lines
        .next()
        .and_then(|line| line.strip_prefix(TITLE))
        .ok_or_else(damaged)?;
    let found: u32 = format.parse().map_err(|_| damaged())?;
    if found > FORMAT {
        return Err(OpenError::Newer {
            dir: dir.into(),
            found,
            known: FORMAT,
        });
    }
    let id = lines.next().filter(|line| line.len() == 16);
    let id = id
        .and_then(|line| u64::from_str_radix(line, 16).ok())
        .ok_or_else(damaged)?;
    Ok(Some(id))
}

fn write_version(dir: &Path) -> Result<u64, OpenError> {
    let id = getrandom::u64().map_err(|error| OpenError::io("identify", dir, io::Error::other(error)))?;
    let path = dir.join("VERSION.new");
    let written = fs::File::create(&path).and_then(|mut file| {
        write!(file, "{TITLE}{FORMAT}\n{id:016x}\n")?;
        file.sync_all()?;
        fs::rename(&path, dir.join("VERSION"))?;
        fs::File::open(dir)?.sync_all()
    });
    written.map_err(|error| OpenError::io("write", path, error))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_has_one_identity_and_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = Directory::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "nobody else reads it");
        assert!(matches!(Directory::open(&path), Err(OpenError::Locked(_))));
        let id = first.store_id;
        drop(first);
        assert_eq!(Directory::open(&path).unwrap().store_id, id);
    }

    #[test]
    fn what_is_no_store_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        assert!(matches!(Directory::open(dir.path()), Err(OpenError::Foreign(_))));
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["letter.txt"]);
    }

    #[test]
    fn other_formats_and_damage_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("VERSION");
        fs::write(&version, "tidegate store, format 2\n0000000000000001\n").unwrap();
        let error = Directory::open(dir.path()).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Newer {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
        for damaged in [
            "",
            "tidegate store, format x\n0000000000000001\n",
            "tidegate store, format 1\n",
            "tidegate store, format 1\n1\n",
            "\u{fffd}",
        ] {
            fs::write(&version, damaged).unwrap();
            assert!(
                matches!(Directory::open(dir.path()), Err(OpenError::Version(_))),
                "{damaged}"
            );
        }
        fs::write(&version, [0xff]).unwrap();
        assert!(matches!(Directory::open(dir.path()), Err(OpenError::Version(_))));
    }
}

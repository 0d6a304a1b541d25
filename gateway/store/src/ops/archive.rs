//! A backup as one file: a tar of plain files.
//!
//! ```text
//! VERSION             as in the data directory
//! entries/<n>         entries by key: { length of the key u8 · key · revision u64 · length of the value u32 · value },
//!                     numbers with the higher byte first; about 4 MiB each, n from 0
//! log/<base>.log      segments of the log, the last one up to a commit
//! MANIFEST            what the archive has to contain, with checksums; the last member
//! ```
//!
//! Entries are stored by themselves, not as files of the tables, so that a release with another table format can read
//! them. `MANIFEST` is text:
//!
//! ```text
//! tidegate backup 1
//! position <first sequence of the log that the entries do not have>
//! next <all commits before it are in the log>
//! entries <number>
//! <name> <bytes> <XXH3-128 in 32 hexadecimal digits>        per member, in order
//! MANIFEST <XXH3-128 of the lines above>
//! ```

use std::{
    io::{self, Read, Write},
    thread,
    time::{Duration, Instant},
};

use broker_core::store::{Entry, Key, Revision, Sequence};
use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::tar;

pub(super) const VERSION: &str = "VERSION";
pub(super) const MANIFEST: &str = "MANIFEST";
pub(super) const ENTRIES: &str = "entries/";
pub(super) const LOG: &str = "log/";
const TITLE: &str = "tidegate backup 1";
/// Bytes of entries per member; one entry may be larger.
pub(super) const ENTRIES_BYTES: usize = 4 << 20;
/// The manifest of a store with a million segments is smaller.
const MANIFEST_BYTES_MAX: u64 = 128 << 20;
/// The longest pause at a time, so that the pace stays even.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A member as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) checksum: u128,
}

/// What an archive has to contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) position: Sequence,
    pub(super) next: Sequence,
    pub(super) entries: u64,
    pub(super) members: Vec<Member>,
}

impl Manifest {
    fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{TITLE}\nposition {}\nnext {}\nentries {}\n",
            self.position.0, self.next.0, self.entries
        );
        for Member {
            name,
            bytes,
            checksum,
        } in &self.members
        {
            writeln!(text, "{name} {bytes} {checksum:032x}").expect("a string takes everything");
        }
        let sum = xxh3_128(text.as_bytes());
        writeln!(text, "{MANIFEST} {sum:032x}").expect("a string takes everything");
        text
    }

    fn parse(text: &str) -> Option<Manifest> {
        let (text, last) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let sum = last.strip_prefix(MANIFEST)?.strip_prefix(' ')?;
        let lines = [text, "\n"].concat();
        if u128::from_str_radix(sum, 16).ok()? != xxh3_128(lines.as_bytes()) {
            return None;
        }
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut number =
            |name: &str| -> Option<u64> { lines.next()?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok() };
        let mut manifest = Manifest {
            position: Sequence(number("position")?),
            next: Sequence(number("next")?),
            entries: number("entries")?,
            members: Vec::new(),
        };
        for line in lines {
            let mut words = line.split(' ');
            manifest.members.push(Member {
                name: words.next()?.to_owned(),
                bytes: words.next()?.parse().ok()?,
                checksum: u128::from_str_radix(words.next()?, 16).ok()?,
            });
        }
        Some(manifest)
    }
}

/// Writes members one after the other, not faster than allowed.
pub(super) struct ArchiveWriter<W> {
    out: W,
    members: Vec<Member>,
    written: u64,
    bytes_per_second: Option<u64>,
    started: Instant,
}

impl<W: Write> ArchiveWriter<W> {
    pub(super) fn new(out: W, bytes_per_second: Option<u64>) -> ArchiveWriter<W> {
        ArchiveWriter {
            out,
            members: Vec::new(),
            written: 0,
            bytes_per_second,
            started: Instant::now(),
        }
    }

    /// Writes a member that is in memory.
    pub(super) fn member(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.stream(name, content.len() as u64, |_, write| write(content))
    }

    /// Writes a member of `bytes` bytes, which `fill` gives in pieces; each call of `fill` gets the number given so
    /// far, and gives at least one byte.
    pub(super) fn stream(
        &mut self,
        name: &str,
        bytes: u64,
        mut fill: impl FnMut(u64, &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<()> {
        tar::write_header(&mut self.out, name, bytes)?;
        let mut checksum = Xxh3Default::new();
        let mut given = 0;
        while given < bytes {
            let before = given;
            let out = &mut self.out;
            fill(before, &mut |piece| {
                checksum.update(piece);
                given += piece.len() as u64;
                out.write_all(piece)
            })?;
            self.written += given - before;
            self.keep_pace();
        }
        tar::pad(&mut self.out, bytes)?;
        self.members.push(Member {
            name: name.to_owned(),
            bytes,
            checksum: checksum.digest128(),
        });
        Ok(())
    }

    /// Pauses if more was written than the time allows.
    fn keep_pace(&mut self) {
        let Some(bytes_per_second) = self.bytes_per_second else {
            return;
        };
        loop {
            let due = Duration::from_secs_f64(self.written as f64 / bytes_per_second.max(1) as f64);
            let ahead = due.saturating_sub(self.started.elapsed());
            if ahead.is_zero() {
                return;
            }
            thread::sleep(ahead.min(PAUSE_MAX));
        }
    }

    /// Writes the manifest and ends the archive.
    pub(super) fn finish(
        mut self,
        position: Sequence,
        next: Sequence,
        entries: u64,
    ) -> io::Result<(W, Manifest)> {
        let manifest = Manifest {
            position,
            next,
            entries,
            members: std::mem::take(&mut self.members),
        };
        self.member(MANIFEST, manifest.to_text().as_bytes())?;
        tar::finish(&mut self.out)?;
        self.out.flush()?;
        Ok((self.out, manifest))
    }
}

/// Reads members one after the other; afterwards it is known whether they are what was written.
pub(super) struct ArchiveReader<R> {
    from: R,
    seen: Vec<Member>,
}

/// What stands next in an archive.
pub(super) enum Next {
    /// A member of this name was given to the sink.
    Member,
    /// The archive has ended, and everything before was as the manifest says.
    End(Manifest),
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl<R: Read> ArchiveReader<R> {
    pub(super) fn new(from: R) -> ArchiveReader<R> {
        ArchiveReader {
            from,
            seen: Vec::new(),
        }
    }

    /// Gives the next member to `sink`: first its name, then its bytes.
    pub(super) fn step(
        &mut self,
        sink: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>,
    ) -> io::Result<Next> {
        let Some((name, bytes)) = tar::read_header(&mut self.from)? else {
            return Err(invalid(format!("it ends without {MANIFEST}")));
        };
        if name == MANIFEST {
            return self.manifest(bytes);
        }
        let mut content = Summed {
            from: self.from.by_ref().take(bytes),
            checksum: Xxh3Default::new(),
            bytes: 0,
        };
        sink(&name, &mut content)?;
        if content.bytes != bytes {
            return Err(invalid(format!("{name} is cut off")));
        }
        let checksum = content.checksum.digest128();
        tar::skip_padding(&mut self.from, bytes)?;
        self.seen.push(Member {
            name,
            bytes,
            checksum,
        });
        Ok(Next::Member)
    }

    fn manifest(&mut self, bytes: u64) -> io::Result<Next> {
        let mut text = String::new();
        let read = self
            .from
            .by_ref()
            .take(bytes.min(MANIFEST_BYTES_MAX))
            .read_to_string(&mut text)?;
        let manifest = Manifest::parse(&text).filter(|_| read as u64 == bytes);
        let manifest = manifest.ok_or_else(|| invalid(format!("{MANIFEST} is damaged")))?;
        let first_wrong = manifest
            .members
            .iter()
            .zip(&self.seen)
            .find(|(listed, seen)| listed != seen);
        if let Some((listed, _)) = first_wrong {
            return Err(invalid(format!("{} is not as it was written", listed.name)));
        }
        if manifest.members.len() != self.seen.len() {
            return Err(invalid("members are missing"));
        }
        Ok(Next::End(manifest))
    }
}

/// Sums what is read through it.
struct Summed<R> {
    from: R,
    checksum: Xxh3Default,
    bytes: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.checksum.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Appends an entry.
pub(super) fn write_entry(entry: &Entry, into: &mut Vec<u8>) {
    let key = entry.key.as_str().as_bytes();
    // A key has at most 255 bytes, a value at most 512 MiB.
    into.push(key.len() as u8);
    into.extend_from_slice(key);
    into.extend_from_slice(&entry.revision.0.to_be_bytes());
    into.extend_from_slice(&(entry.value.len() as u32).to_be_bytes());
    into.extend_from_slice(&entry.value);
}

/// The first entry of `bytes`, and the rest; `None` if it is none.
pub(super) fn read_entry(bytes: &[u8]) -> Option<(Entry, &[u8])> {
    let (key_len, rest) = bytes.split_first()?;
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let (revision, rest) = rest.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_len) as usize)?;
    let entry = Entry {
        key: Key::new(std::str::from_utf8(key).ok()?)?,
        revision: Revision(u64::from_be_bytes(*revision)),
        value: Bytes::copy_from_slice(value),
    };
    Some((entry, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut archive = ArchiveWriter::new(Vec::new(), None);
        archive.member("one", &[1; 700]).unwrap();
        archive.member("two", b"").unwrap();
        let piece = [3; 100];
        let stream = archive.stream("three", 250, |at, write| {
            let rest = usize::try_from(250 - at).unwrap();
            write(&piece[..rest.min(100)])
        });
        stream.unwrap();
        archive.finish(Sequence(5), Sequence(7), 3).unwrap().0
    }

    type Content = Vec<(String, Vec<u8>)>;

    fn read(bytes: &[u8]) -> io::Result<(Content, Manifest)> {
        let mut reader = ArchiveReader::new(bytes);
        let mut members = Vec::new();
        loop {
            let step = reader.step(&mut |name, content| {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                members.push((name.to_owned(), bytes));
                Ok(())
            });
            match step? {
                Next::Member => {}
                Next::End(manifest) => return Ok((members, manifest)),
            }
        }
    }

    #[test]
    fn members_come_back_as_they_were_given() {
        let (members, manifest) = read(&archive()).unwrap();
        let expected = [
            ("one", vec![1; 700]),
            ("two", Vec::new()),
            ("three", vec![3; 250]),
        ];
        assert_eq!(members, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
        assert_eq!(
            (manifest.position, manifest.next, manifest.entries),
            (Sequence(5), Sequence(7), 3)
        );
    }

    #[test]
    fn no_changed_byte_passes_for_content() {
        let whole = archive();
        let content = read(&whole).unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x08;
            match read(&changed) {
                Ok(read) => assert_eq!(read, content, "byte {at}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 700 + 250, "{refused}");
        // The last blocks are the end of the manifest's, and the end.
        for len in 0..whole.len() - 3 * 512 {
            assert!(read(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    /// About 1 MB at 4 MB per second.
    #[test]
    fn the_pace_is_kept() {
        let started = Instant::now();
        let mut archive = ArchiveWriter::new(io::sink(), Some(4 << 20));
        for number in 0..8 {
            archive.member(&number.to_string(), &[0; 128 << 10]).unwrap();
        }
        assert!(started.elapsed() >= Duration::from_millis(250));
    }

    #[test]
    fn an_entry_that_is_cut_off_is_none() {
        let entry = Entry {
            key: Key::new("a.b").unwrap(),
            revision: Revision(9),
            value: Bytes::from_static(b"value"),
        };
        let mut bytes = Vec::new();
        write_entry(&entry, &mut bytes);
        write_entry(&entry, &mut bytes);
        let (first, rest) = read_entry(&bytes).unwrap();
        assert_eq!((first, rest.len()), (entry, bytes.len() / 2));
        for len in 0..bytes.len() / 2 {
            assert!(read_entry(&bytes[..len]).is_none(), "{len} bytes");
        }
    }
}

//! As much of the tar format (POSIX.1-1988, "ustar") as an archive of plain files needs, so that its content can be
//! listed and taken out with any tar.

use std::io::{self, Read, Write};

/// Everything in a tar file comes in blocks of this size.
const BLOCK: usize = 512;
/// The longest name.
const NAME_MAX: usize = 100;
/// The largest member: eleven octal digits.
const SIZE_MAX: u64 = 0o777_7777_7777;

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes the header of a member of `size` bytes, which have to follow, and then [`pad`].
pub(super) fn write_header(out: &mut impl Write, name: &str, size: u64) -> io::Result<()> {
    if name.len() > NAME_MAX || size > SIZE_MAX {
        return Err(invalid("too large for a tar file"));
    }
    let mut header = [0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    // Mode, user, group, size, time: octal digits and a zero byte. The sum counts as eight spaces while it is made.
    header[100..108].copy_from_slice(b"0000600\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum = sum(&header);
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.write_all(&header)
}

/// Fills the last block of a member of `size` bytes.
pub(super) fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    out.write_all(&[0; BLOCK][..padding(size)])
}

/// Ends the archive.
pub(super) fn finish(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Name and size of the next member; `None` at the end. The size is a claim: that many bytes may not follow.
pub(super) fn read_header(from: &mut impl Read) -> io::Result<Option<(String, u64)>> {
    let mut header = [0; BLOCK];
    from.read_exact(&mut header)?;
    if header == [0; BLOCK] {
        return Ok(None);
    }
    let claimed = octal(&header[148..156]).ok_or_else(|| invalid("no tar file"))?;
    header[148..156].copy_from_slice(b"        ");
    if claimed != u64::from(sum(&header)) || header[257..262] != *b"ustar" {
        return Err(invalid("no tar file, or a damaged one"));
    }
    if header[156] != b'0' {
        return Err(invalid("a member that is no plain file"));
    }
    let name = header[..NAME_MAX]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| invalid("a name that is no text"))?;
    let size = octal(&header[124..136]).ok_or_else(|| invalid("a size that is no number"))?;
    Ok(Some((name.to_owned(), size)))
}

/// Reads what [`pad`] has written.
pub(super) fn skip_padding(from: &mut impl Read, size: u64) -> io::Result<()> {
    from.read_exact(&mut [0; BLOCK][..padding(size)])
}

fn padding(size: u64) -> usize {
    // The remainder is less than a block.
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn sum(header: &[u8; BLOCK]) -> u32 {
    header.iter().map(|byte| u32::from(*byte)).sum()
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_end_matches(['\0', ' ']).trim_start_matches(' ');
    u64::from_str_radix(digits, 8)
        .ok()
        .filter(|size| *size <= SIZE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        for (name, size) in [("a", 0), ("log/b", 1), ("c", 512), ("d", 513)] {
            write_header(&mut bytes, name, size).unwrap();
            bytes.resize(bytes.len() + usize::try_from(size).unwrap(), 7);
            pad(&mut bytes, size).unwrap();
        }
        finish(&mut bytes).unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut from = &bytes[..];
        let mut names = Vec::new();
        while let Some((name, size)) = read_header(&mut from).unwrap() {
            let mut content = Vec::new();
            from.by_ref().take(size).read_to_end(&mut content).unwrap();
            assert!(content.iter().all(|byte| *byte == 7));
            skip_padding(&mut from, size).unwrap();
            names.push((name, size));
        }
        let expected = [("a", 0), ("log/b", 1), ("c", 512), ("d", 513)];
        assert_eq!(names, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn a_changed_header_is_refused() {
        let mut header = Vec::new();
        write_header(&mut header, "name", 5).unwrap();
        for at in 0..header.len() {
            let mut changed = header.clone();
            changed[at] ^= 1;
            let read = read_header(&mut &changed[..]);
            // The last byte of the sum's field is not a part of the number.
            assert!(read.is_err() || at == 155, "byte {at}: {read:?}");
        }
        assert!(read_header(&mut &header[..511]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(write_header(&mut Vec::new(), &"n".repeat(101), 0).is_err());
        assert!(write_header(&mut Vec::new(), "n", SIZE_MAX + 1).is_err());
    }
}

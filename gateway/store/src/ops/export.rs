//! Everything in a store as text.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::Path,
};

use broker_core::store::{Entry, Sequence, record_topic};

use super::{Done, ExportReport, OpsError, Tell, open_store, read_log};

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes all entries and all records of the store in `dir` as JSON Lines: one object per line, bytes in base64
/// (RFC 4648 §4).
///
/// ```json
/// {"entry":"<key>","revision":1,"value":"<base64>"}
/// {"record":1,"time":1700000000000,"indexed":true,"topic":"a/b","data":"<base64>"}
/// ```
///
/// Entries come first, by key; then records by sequence, with the time of their commit in milliseconds since the Unix
/// epoch. A record that does not begin with a topic has no `topic`.
///
/// # Errors
/// There is no store, it cannot be opened or read, or the output cannot be written.
pub fn export(dir: &Path, out: &mut dyn Write, tell: Tell<'_>) -> Result<ExportReport, OpsError> {
    let store = open_store(dir)?;
    store.engine.tables.persist()?;
    let mut lines = Lines {
        out,
        line: String::new(),
        report: ExportReport::default(),
    };
    let (entries, _) = store
        .engine
        .tables
        .snapshot()
        .map_err(broker_core::store::Fault::from)?;
    let total = store.engine.tables.size().items as u64;
    for entry in entries {
        let entry = entry.map_err(|error| OpsError::Damaged(error.to_string()))?;
        lines.entry(&entry).map_err(OpsError::Output)?;
        if lines.report.entries.is_multiple_of(10_000) {
            tell(Done {
                what: "writing the entries",
                done: lines.report.entries,
                total,
            });
        }
    }
    read_log(&store, tell, &mut |header, body| {
        for record in body.records() {
            lines
                .record(
                    record.sequence,
                    header.time.as_millis(),
                    record.indexed,
                    record.data,
                )
                .map_err(OpsError::Output)?;
        }
        Ok(())
    })?;
    lines.out.flush().map_err(OpsError::Output)?;
    Ok(lines.report)
}

struct Lines<'a> {
    out: &'a mut dyn Write,
    line: String,
    report: ExportReport,
}

impl Lines<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        // Keys have no character that JSON would escape.
        let head = format!(
            "{{\"entry\":\"{}\",\"revision\":{},\"value\":\"",
            entry.key.as_str(),
            entry.revision.0
        );
        self.line.push_str(&head);
        push_base64(&entry.value, &mut self.line);
        self.report.entries += 1;
        self.end()
    }

    fn record(&mut self, sequence: Sequence, time: u64, indexed: bool, data: &[u8]) -> io::Result<()> {
        let head = format!(
            "{{\"record\":{},\"time\":{time},\"indexed\":{indexed},",
            sequence.0
        );
        self.line.push_str(&head);
        if let Some(topic) = record_topic(data) {
            self.line.push_str("\"topic\":\"");
            push_escaped(topic, &mut self.line);
            self.line.push_str("\",");
        }
        self.line.push_str("\"data\":\"");
        push_base64(data, &mut self.line);
        self.report.records += 1;
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.line.push_str("\"}\n");
        self.out.write_all(self.line.as_bytes())?;
        self.report.bytes += self.line.len() as u64;
        self.line.clear();
        Ok(())
    }
}

/// As the inside of a JSON string (RFC 8259 §7).
fn push_escaped(text: &str, into: &mut String) {
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            control if u32::from(control) < 0x20 => {
                write!(into, "\\u{:04x}", u32::from(control)).expect("a string takes everything");
            }
            other => into.push(other),
        }
    }
}

fn push_base64(bytes: &[u8], into: &mut String) {
    for group in bytes.chunks(3) {
        let byte = |at| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= group.len() {
                let six = bits >> (18 - 6 * digit) & 63;
                into.push(char::from(BASE64[six as usize]));
            } else {
                into.push('=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 4648 §10.
    #[test]
    fn base64() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, expected) in vectors {
            let mut text = String::new();
            push_base64(bytes.as_bytes(), &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_json_does_not_take_is_escaped() {
        let mut text = String::new();
        push_escaped("a\"b\\c\u{1}ä\u{7f}", &mut text);
        assert_eq!(text, "a\\\"b\\\\c\\u0001ä\u{7f}");
    }
}

//! A writer of JSON objects (RFC 8259), as small as events need it.

use foldhash::fast::RandomState;
use indexmap::IndexMap;

/// One JSON object under construction.
pub(super) struct JsonObject(String);

impl JsonObject {
    /// An object without members.
    pub(super) fn new() -> JsonObject {
        JsonObject(String::from("{"))
    }

    /// Appends a text.
    pub(super) fn text(mut self, name: &str, value: &str) -> JsonObject {
        self.name(name);
        write_text(&mut self.0, value);
        self
    }

    /// Appends a text, or `null`.
    pub(super) fn text_or_null(self, name: &str, value: Option<&str>) -> JsonObject {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// Appends a whole number.
    pub(super) fn number(self, name: &str, value: u64) -> JsonObject {
        self.raw(name, &value.to_string())
    }

    /// Appends a truth value.
    pub(super) fn boolean(self, name: &str, value: bool) -> JsonObject {
        self.raw(name, if value { "true" } else { "false" })
    }

    /// Appends an object.
    pub(super) fn object(self, name: &str, value: JsonObject) -> JsonObject {
        self.raw(name, &value.finish())
    }

    /// Appends an object of texts; of members of the same name, the last value counts.
    pub(super) fn texts<'a>(
        self,
        name: &str,
        members: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> JsonObject {
        let unique: IndexMap<&str, &str, RandomState> = members.collect();
        let object = unique
            .into_iter()
            .fold(JsonObject::new(), |object, (key, value)| object.text(key, value));
        self.object(name, object)
    }

    /// The text of the object.
    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        write_text(&mut self.0, name);
        self.0.push(':');
    }

    fn raw(mut self, name: &str, value: &str) -> JsonObject {
        self.name(name);
        self.0.push_str(value);
        self
    }
}

/// Escapes what RFC 8259 §7 demands, and nothing else.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(HEX[c as usize >> 4]));
                out.push(char::from(HEX[c as usize & 15]));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_separated() {
        let object = JsonObject::new()
            .text("a\"b", "c\\d\n\r\t\u{1}\u{1f}ü\u{7f}")
            .text_or_null("none", None)
            .number("n", u64::MAX)
            .boolean("t", true)
            .object("empty", JsonObject::new())
            .texts("m", [("k", "1"), ("j", "2"), ("k", "3")].into_iter());
        assert_eq!(
            object.finish(),
            "{\"a\\\"b\":\"c\\\\d\\n\\r\\t\\u0001\\u001fü\u{7f}\",\"none\":null,\"n\":18446744073709551615,\
             \"t\":true,\"empty\":{},\"m\":{\"k\":\"3\",\"j\":\"2\"}}"
        );
    }
}

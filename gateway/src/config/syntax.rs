//! The syntax of configuration files: one `KEY = VALUE` or `include FILE` per line.
//!
//! A `#` starts a comment at the start of a line or after a blank; elsewhere it belongs to the value, so that topic
//! filters such as `a/#` need no quotes. A value in double quotes keeps everything; `\"` and `\\` are its escapes.

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// `KEY = VALUE`.
    Assignment {
        /// The key.
        key: String,
        /// The value, without its quotes.
        value: String,
        /// Character at which the key starts, from 1.
        key_column: usize,
        /// Character at which the value starts, from 1.
        value_column: usize,
    },
    /// `include FILE`.
    Include {
        /// The file or pattern.
        file: String,
        /// Character at which it starts, from 1.
        column: usize,
    },
}

/// What is wrong with a line, and the character at which it is, from 1.
pub(super) type Fault = (usize, String);

/// Reads one line, without its end. `None`: it is blank or a comment.
pub(super) fn parse_line(line: &str) -> Result<Option<Line>, Fault> {
    let start = line.len() - line.trim_start().len();
    let text = &line[start..];
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    if let Some(rest) = text.strip_prefix("include")
        && rest.starts_with(char::is_whitespace)
        && !rest.trim_start().starts_with('=')
    {
        let (file, at) = parse_value(line, line.len() - rest.len())?;
        let column = column(line, at);
        if file.is_empty() {
            return Err((column, "`include` lacks the name of a file".to_owned()));
        }
        return Ok(Some(Line::Include { file, column }));
    }
    let Some((key, _)) = text.split_once('=') else {
        let hint = if text.contains(['{', '}']) {
            "; there are no blocks in braces, every line holds a whole key such as `listeners.tcp.default.bind = 1883`"
        } else {
            ""
        };
        return Err((
            column(line, start),
            format!("expected `KEY = VALUE` or `include FILE`{hint}"),
        ));
    };
    let (value, at) = parse_value(line, start + key.len() + 1)?;
    let key = key.trim_end();
    if key.is_empty() {
        return Err((column(line, start), "there is no key before `=`".to_owned()));
    }
    Ok(Some(Line::Assignment {
        key: key.to_owned(),
        value,
        key_column: column(line, start),
        value_column: column(line, at),
    }))
}

/// Reads a value that has no comment after it, as it comes from the environment or an argument.
pub(super) fn parse_bare(text: &str) -> Result<String, String> {
    let text = text.trim();
    if !text.starts_with('"') {
        return Ok(text.to_owned());
    }
    match parse_quoted(text, 0) {
        Ok((value, end)) if end == text.len() => Ok(value),
        Ok(_) => Err("there is text after the closing quote".to_owned()),
        Err((_, problem)) => Err(problem),
    }
}

/// Writes `value` so that [`parse_line`] reads the same again.
pub(crate) fn quote(value: &str) -> String {
    let is_plain =
        !value.is_empty() && !value.contains('#') && !value.starts_with('"') && value.trim() == value;
    if is_plain {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The value that starts at or after byte `from` of `line`, and the byte at which it does.
fn parse_value(line: &str, from: usize) -> Result<(String, usize), Fault> {
    let rest = &line[from..];
    let at = from + rest.len() - rest.trim_start().len();
    if line[at..].starts_with('"') {
        let (value, end) = parse_quoted(line, at)?;
        let tail = line[end..].trim_start();
        if tail.is_empty() || tail.starts_with('#') {
            return Ok((value, at));
        }
        let place = column(line, line.len() - tail.len());
        return Err((place, "there is text after the closing quote".to_owned()));
    }
    let text = &line[at..];
    let mut end = text.len();
    let mut after_blank = true;
    for (index, c) in text.char_indices() {
        if c == '#' && after_blank {
            end = index;
            break;
        }
        after_blank = c.is_whitespace();
    }
    Ok((text[..end].trim_end().to_owned(), at))
}

/// The quoted text that opens at byte `open` of `line`, and the byte after its closing quote.
fn parse_quoted(line: &str, open: usize) -> Result<(String, usize), Fault> {
    let mut value = String::new();
    let mut chars = line[open..].char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((value, open + index + 1)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => {
                    let problem = "in quotes a backslash is written `\\\\` and a quote `\\\"`";
                    return Err((column(line, open + index), problem.to_owned()));
                }
            },
            c => value.push(c),
        }
    }
    Err((column(line, open), "the closing quote is missing".to_owned()))
}

fn column(line: &str, byte: usize) -> usize {
    line[..byte].chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(
        key: &str,
        value: &str,
        key_column: usize,
        value_column: usize,
    ) -> Result<Option<Line>, Fault> {
        let (key, value) = (key.to_owned(), value.to_owned());
        Ok(Some(Line::Assignment {
            key,
            value,
            key_column,
            value_column,
        }))
    }

    #[test]
    fn lines() {
        for blank in ["", "   ", "# a", "  #a = b", "\t"] {
            assert_eq!(parse_line(blank), Ok(None), "{blank:?}");
        }
        for (line, key, value, key_column, value_column) in [
            ("a=b", "a", "b", 1, 3),
            ("  a.b  =  c d  ", "a.b", "c d", 3, 11),
            ("a = b # c", "a", "b", 1, 5),
            ("a = b# c", "a", "b# c", 1, 5),
            ("a = x/#", "a", "x/#", 1, 5),
            ("a = #", "a", "", 1, 5),
            ("a =", "a", "", 1, 4),
            ("a = b=c", "a", "b=c", 1, 5),
            (r#"a = " # \"x\\ " # c"#, "a", r#" # "x\ "#, 1, 5),
            (r#"a = """#, "a", "", 1, 5),
            (r#"a = b"c"#, "a", r#"b"c"#, 1, 5),
            ("ä = ö", "ä", "ö", 1, 5),
            ("include = x", "include", "x", 1, 11),
        ] {
            assert_eq!(
                parse_line(line),
                assignment(key, value, key_column, value_column),
                "{line}"
            );
        }
        assert_eq!(
            parse_line("include  \"a b.conf\" # c"),
            Ok(Some(Line::Include {
                file: "a b.conf".to_owned(),
                column: 10
            }))
        );
    }

    #[test]
    fn faults() {
        for (line, column, problem) in [
            ("a", 1, "expected `KEY = VALUE` or `include FILE`"),
            ("  = b", 3, "there is no key before `=`"),
            ("a = \"b", 5, "the closing quote is missing"),
            ("a = \"b\" c", 9, "there is text after the closing quote"),
            (
                "a = \"\\d\"",
                6,
                "in quotes a backslash is written `\\\\` and a quote `\\\"`",
            ),
            ("include ", 9, "`include` lacks the name of a file"),
            ("includes", 1, "expected `KEY = VALUE` or `include FILE`"),
        ] {
            assert_eq!(parse_line(line), Err((column, problem.to_owned())), "{line}");
        }
        assert!(
            parse_line("mqtt {")
                .unwrap_err()
                .1
                .contains("no blocks in braces")
        );
    }

    #[test]
    fn what_is_quoted_is_read_again() {
        for value in [
            "", "a", " a", "a ", "a # b", "x/#", "\"", "a\"b", "\\", "\"\\\"", "a\\d",
        ] {
            let line = format!("k = {} # comment", quote(value));
            assert_eq!(parse_line(&line), assignment("k", value, 1, 5), "{line}");
        }
    }
}

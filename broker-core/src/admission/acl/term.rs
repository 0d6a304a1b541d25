//! The Erlang terms of which `acl.conf` consists: atoms, strings, binaries, whole numbers, lists and tuples.

use super::AclError;

/// A place in the text, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    pub(super) fn error(self, message: impl Into<String>) -> AclError {
        AclError {
            line: self.line,
            column: self.column,
            message: message.into(),
        }
    }
}

/// A term and where it starts.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Atom(String),
    /// A string or a binary: rules do not tell them apart.
    Text(String),
    Integer(u32),
    List(Vec<Term>),
    Tuple(Vec<Term>),
}

impl Term {
    /// The error that says what should stand here instead.
    pub(super) fn expected(&self, what: &str) -> AclError {
        let found = match &self.value {
            Value::Atom(name) => format!("`{name}`"),
            Value::Text(text) => format!("the string {text:?}"),
            Value::Integer(number) => format!("the number {number}"),
            Value::List(_) => "a list".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
        };
        self.at.error(format!("expected {what}, found {found}"))
    }
}

/// Deepest nesting of lists and tuples; real rules need 5. Bounds the recursion.
const DEPTH_MAX: usize = 32;

/// Reads one term after another, each followed by a full stop.
pub(super) struct Reader<'a> {
    rest: &'a str,
    at: Position,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Reader<'a> {
        Reader {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            at: Position { line: 1, column: 1 },
        }
    }

    /// The next term; `None` at the end of the text.
    pub(super) fn next_term(&mut self) -> Result<Option<Term>, AclError> {
        self.skip_blank();
        if self.rest.is_empty() {
            return Ok(None);
        }
        let term = self.term(0)?;
        self.skip_blank();
        if !self.take('.') {
            return Err(self.expected("`.` at the end of the rule"));
        }
        Ok(Some(term))
    }

    fn term(&mut self, depth: usize) -> Result<Term, AclError> {
        self.skip_blank();
        let at = self.at;
        if depth > DEPTH_MAX {
            return Err(at.error(format!("nested more than {DEPTH_MAX} deep")));
        }
        let value = match self.rest.chars().next() {
            Some('{') => Value::Tuple(self.sequence('}', depth)?),
            Some('[') => Value::List(self.sequence(']', depth)?),
            Some('"') => Value::Text(self.quoted('"')?),
            Some('\'') => Value::Atom(self.quoted('\'')?),
            Some('<') => Value::Text(self.binary()?),
            Some(c) if c.is_ascii_digit() => Value::Integer(self.integer()?),
            Some(c) if c.is_lowercase() => Value::Atom(self.word()),
            Some(c) if c.is_uppercase() || c == '_' => {
                let word = self.word();
                return Err(at.error(format!(
                    "expected a term, found the variable `{word}`; write \"{word}\" if it is a name"
                )));
            }
            _ => return Err(self.expected("a term")),
        };
        Ok(Term { at, value })
    }

    /// The elements of a list or tuple, from its opening bracket to `close`.
    fn sequence(&mut self, close: char, depth: usize) -> Result<Vec<Term>, AclError> {
        self.advance();
        let mut elements = Vec::new();
        self.skip_blank();
        if self.take(close) {
            return Ok(elements);
        }
        loop {
            elements.push(self.term(depth + 1)?);
            self.skip_blank();
            if self.take(close) {
                return Ok(elements);
            }
            if !self.take(',') {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// `<<"text">>` or `<<"text"/utf8>>`.
    fn binary(&mut self) -> Result<String, AclError> {
        let malformed = "a binary such as <<\"text\">>";
        if !(self.take('<') && self.take('<')) {
            return Err(self.expected(malformed));
        }
        self.skip_blank();
        let text = match self.rest.chars().next() {
            Some('"') => self.quoted('"')?,
            _ => return Err(self.expected(malformed)),
        };
        if self.rest.starts_with("/utf8") {
            (0.."/utf8".len()).for_each(|_| self.advance());
        }
        self.skip_blank();
        if self.take('>') && self.take('>') {
            Ok(text)
        } else {
            Err(self.expected("`>>`"))
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, AclError> {
        let start = self.at;
        self.advance();
        let mut text = String::new();
        loop {
            match self.rest.chars().next() {
                None => {
                    return Err(
                        start.error(format!("expected a closing `{quote}`, found the end of the file"))
                    );
                }
                Some('\\') => text.push(self.escape()?),
                Some(c) => {
                    self.advance();
                    if c == quote {
                        return Ok(text);
                    }
                    text.push(c);
                }
            }
        }
    }

    /// An escape sequence of Erlang. Those that Erlang reads as something surprising (`\d` is DEL, `\w` is `w`)
    /// are refused: whoever writes them means a regular expression.
    fn escape(&mut self) -> Result<char, AclError> {
        let at = self.at;
        self.advance();
        let Some(c) = self.rest.chars().next() else {
            return Err(self.expected("an escaped character"));
        };
        if c.is_digit(8) {
            return self.code(at, 8, 3);
        }
        self.advance();
        Ok(match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            's' => ' ',
            'e' => '\u{1b}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' if self.take('{') => {
                let code = self.code(at, 16, 6)?;
                if !self.take('}') {
                    return Err(self.expected("`}`"));
                }
                code
            }
            'x' => self.code(at, 16, 2)?,
            c if c.is_alphanumeric() => {
                return Err(at.error(format!(
                    "expected an escape sequence, found `\\{c}`; write `\\\\{c}` for a backslash and `{c}`"
                )));
            }
            c => c,
        })
    }

    /// Up to `digits_max` digits that name a character.
    fn code(&mut self, at: Position, radix: u32, digits_max: usize) -> Result<char, AclError> {
        let digits: Vec<u32> = self
            .rest
            .chars()
            .map_while(|c| c.to_digit(radix))
            .take(digits_max)
            .collect();
        digits.iter().for_each(|_| self.advance());
        if digits.is_empty() {
            return Err(self.expected("digits"));
        }
        let code = digits.iter().fold(0, |code, digit| code * radix + digit);
        char::from_u32(code).ok_or_else(|| at.error("this escape sequence names no character"))
    }

    fn integer(&mut self) -> Result<u32, AclError> {
        let at = self.at;
        let digits = self.word();
        digits
            .parse()
            .map_err(|_| at.error(format!("expected a number, found `{digits}`")))
    }

    fn word(&mut self) -> String {
        let word: String = self
            .rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '@'))
            .collect();
        word.chars().for_each(|_| self.advance());
        word
    }

    fn skip_blank(&mut self) {
        let mut in_comment = false;
        while let Some(c) = self.rest.chars().next() {
            in_comment = c != '\n' && (in_comment || c == '%');
            if !in_comment && !c.is_whitespace() {
                return;
            }
            self.advance();
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest.starts_with(wanted);
        if found {
            self.advance();
        }
        found
    }

    fn advance(&mut self) {
        let mut chars = self.rest.chars();
        match chars.next() {
            Some('\n') => {
                self.at.line += 1;
                self.at.column = 1;
            }
            Some(_) => self.at.column += 1,
            None => {}
        }
        self.rest = chars.as_str();
    }

    fn expected(&self, what: &str) -> AclError {
        let found = match self.rest.chars().next() {
            Some('\n') => "the end of the line".to_owned(),
            Some(c) if c.is_control() => format!("U+{:04X}", u32::from(c)),
            Some(c) => format!("`{c}`"),
            None => "the end of the file".to_owned(),
        };
        self.at.error(format!("expected {what}, found {found}"))
    }
}

//! Values of keys: their kinds, how they are written, and what each kind permits.

use std::time::Duration;

use super::units::{
    not_a, parse_digits, parse_duration, parse_hundredths, parse_size, render_duration, render_hundredths,
    render_size,
};

/// A value as a key's text gave it, before it becomes a field of [`super::Settings`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// `true`, `false`.
    Flag(bool),
    /// A count, bytes, or hundredths.
    Number(u64),
    /// A duration.
    Time(Duration),
    /// Text, a path, a choice or an address.
    Text(String),
    /// Items in their order.
    List(Vec<String>),
    /// The keyword of a kind that has one: no limit, never, automatic.
    Keyword,
}

/// A word that stands in the place of a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyword {
    /// The word.
    pub(super) word: &'static str,
    /// 0 means the same, as in EMQX.
    pub(super) zero: bool,
}

/// Verifies a text; the error completes the sentence "VALUE …".
pub(super) type Check = fn(&str) -> Result<(), String>;

/// What a key's value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// A word besides the numbers.
        keyword: Option<Keyword>,
    },
    /// Bytes, with a unit.
    Size {
        /// Least value, bytes.
        min: u64,
        /// Greatest value, bytes.
        max: u64,
        /// A word besides the sizes.
        keyword: Option<Keyword>,
    },
    /// A duration, with a unit.
    Duration {
        /// Least value, milliseconds.
        min: u64,
        /// Greatest value, milliseconds.
        max: u64,
        /// The value is a multiple of this, milliseconds.
        step: u64,
        /// A word besides the durations.
        keyword: Option<Keyword>,
    },
    /// A decimal with at most two places, held as hundredths.
    Multiplier {
        /// Least value, hundredths.
        min: u64,
        /// Greatest value, hundredths.
        max: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text that `check` accepts.
    Text {
        /// What it may be, in words.
        allowed: &'static str,
        /// Whether a text is.
        check: Check,
    },
    /// Items separated by commas, each of which `check` accepts.
    List {
        /// What an item may be, in words.
        allowed: &'static str,
        /// Whether a text is.
        check: Check,
    },
}

impl Kind {
    /// Reads `text`. The error says what is wrong with it, not what would be right: see [`Kind::allowed`].
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        if text.chars().any(char::is_control) {
            return Err(format!("{text:?} contains a control character"));
        }
        if let Some(keyword) = self.keyword()
            && (text.eq_ignore_ascii_case(keyword.word) || (keyword.zero && text == "0"))
        {
            return Ok(Value::Keyword);
        }
        match *self {
            Kind::Boolean => parse_flag(text).map(Value::Flag),
            Kind::Integer { min, max, .. } => {
                let number = parse_digits(text).ok_or_else(|| not_a("whole number", text))?;
                in_range(number, min, max, text).map(Value::Number)
            }
            Kind::Size { min, max, .. } => {
                let bytes = parse_size(text)?;
                in_range(bytes, min, max, text).map(Value::Number)
            }
            Kind::Duration { min, max, step, .. } => {
                let millis = in_range(parse_duration(text)?, min, max, text)?;
                if millis % step != 0 {
                    return Err(format!("`{text}` is not a multiple of {}", render_duration(step)));
                }
                Ok(Value::Time(Duration::from_millis(millis)))
            }
            Kind::Multiplier { min, max } => {
                let hundredths = parse_hundredths(text)?;
                in_range(hundredths, min, max, text).map(Value::Number)
            }
            Kind::Choice(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
                Some(word) => Ok(Value::Text((*word).to_owned())),
                None if text.is_empty() => Err("there is no value".to_owned()),
                None => Err(format!("`{text}` is not one of the choices")),
            },
            Kind::Text { check, .. } => {
                check(text).map_err(|problem| format!("`{text}` {problem}"))?;
                Ok(Value::Text(text.to_owned()))
            }
            Kind::List { check, .. } => {
                let items: Vec<_> = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .collect();
                for item in &items {
                    check(item).map_err(|problem| format!("`{item}` {problem}"))?;
                }
                Ok(Value::List(items.into_iter().map(str::to_owned).collect()))
            }
        }
    }

    /// Writes `value` so that [`Kind::parse`] reads the same value again.
    pub(super) fn render(&self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Keyword) => self.keyword().map_or("", |keyword| keyword.word).to_owned(),
            (_, Value::Flag(flag)) => flag.to_string(),
            (Kind::Size { .. }, Value::Number(bytes)) => render_size(*bytes),
            (Kind::Multiplier { .. }, Value::Number(hundredths)) => render_hundredths(*hundredths),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Time(time)) => render_duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            (_, Value::Text(text)) => text.clone(),
            (_, Value::List(items)) => items.join(", "),
        }
    }

    /// What the value may be, with unit and range.
    pub(super) fn allowed(&self) -> String {
        let range = match self {
            Kind::Boolean => "true or false".to_owned(),
            Kind::Integer { min, max, .. } => {
                format!("a whole number, {}", render_range(*min, *max, &u64::to_string))
            }
            Kind::Size { min, max, .. } => {
                let range = render_range(*min, *max, &|&bytes| render_size(bytes));
                format!("a size in B, KB, MB or GB, {range}")
            }
            Kind::Duration { min, max, step, .. } => {
                let units = if *step == 1 {
                    "ms, s, m, h or d"
                } else {
                    "s, m, h or d"
                };
                let range = render_range(*min, *max, &|&millis| render_duration(millis));
                format!("a duration in {units}, {range}")
            }
            Kind::Multiplier { min, max } => {
                let range = render_range(*min, *max, &|&hundredths| render_hundredths(hundredths));
                format!("a decimal number, {range}")
            }
            Kind::Choice(words) => words.join(", "),
            Kind::Text { allowed, .. } => (*allowed).to_owned(),
            Kind::List { allowed, .. } => format!("a list, separated by commas, of {allowed}"),
        };
        match self.keyword() {
            Some(keyword) => format!("{range}, or {}", keyword.word),
            None => range,
        }
    }

    fn keyword(&self) -> Option<Keyword> {
        match self {
            Kind::Integer { keyword, .. } | Kind::Size { keyword, .. } | Kind::Duration { keyword, .. } => {
                *keyword
            }
            _ => None,
        }
    }
}

fn in_range(number: u64, min: u64, max: u64, text: &str) -> Result<u64, String> {
    if number < min {
        return Err(format!("`{text}` is too small"));
    }
    if number > max {
        return Err(format!("`{text}` is too large"));
    }
    Ok(number)
}

/// `u64::MAX` is no bound of anything that a person would write.
fn render_range(min: u64, max: u64, render: &dyn Fn(&u64) -> String) -> String {
    if max == u64::MAX {
        return format!("at least {}", render(&min));
    }
    format!("{} to {}", render(&min), render(&max))
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(not_a("truth value", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Kind = Kind::Size {
        min: 64,
        max: 256 << 20,
        keyword: None,
    };
    const TIME: Kind = Kind::Duration {
        min: 0,
        max: u64::MAX,
        step: 1,
        keyword: Some(Keyword {
            word: "infinity",
            zero: false,
        }),
    };

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64B", 64),
            ("64KB", 65_536),
            ("1MB", 1 << 20),
            ("1 mb", 1 << 20),
            ("1025kb", 1_049_600),
        ] {
            assert_eq!(SIZE.parse(text), Ok(Value::Number(bytes)), "{text}");
        }
        for (text, problem) in [
            ("", "there is no value"),
            ("1048576", "`1048576` has no unit"),
            ("1XB", "`1XB`: `XB` is not a unit of size"),
            ("-1MB", "`-1MB` is not a size"),
            ("1.5MB", "`1.5MB`: `.5MB` is not a unit of size"),
            ("63B", "`63B` is too small"),
            ("257MB", "`257MB` is too large"),
            ("18446744073709551615GB", "`18446744073709551615GB` is too large"),
            ("18446744073709551616B", "`18446744073709551616B` is not a size"),
        ] {
            assert_eq!(SIZE.parse(text), Err(problem.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("2 h", 7_200_000),
            ("0s", 0),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                TIME.parse(text),
                Ok(Value::Time(Duration::from_millis(millis))),
                "{text}"
            );
        }
        assert_eq!(TIME.parse("Infinity"), Ok(Value::Keyword));
        for (text, problem) in [
            ("15", "`15` has no unit"),
            ("15s5", "`15s5` has no unit"),
            ("s", "`s` is not a duration"),
            ("1y", "`1y`: `y` is not a unit of time"),
            ("15sec", "`15sec`: `sec` is not a unit of time"),
            ("999999999999999999d", "`999999999999999999d` is too large"),
        ] {
            assert_eq!(TIME.parse(text), Err(problem.to_owned()), "{text}");
        }
    }

    #[test]
    fn multipliers() {
        let kind = Kind::Multiplier {
            min: 100,
            max: 10_000,
        };
        for (text, hundredths, canonical) in [("1.5", 150, "1.5"), ("2", 200, "2.0"), ("1.25", 125, "1.25")] {
            assert_eq!(kind.parse(text), Ok(Value::Number(hundredths)));
            assert_eq!(kind.render(&Value::Number(hundredths)), canonical);
        }
        for text in [
            "",
            ".5",
            "1.",
            "1.555",
            "0.99",
            "1,5",
            "1e3",
            "184467440737095517",
        ] {
            assert!(kind.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for millis in [0, 1, 999, 1000, 61_000, 60_000, 3_600_000, 86_400_000, 90_061_001] {
            let value = Value::Time(Duration::from_millis(millis));
            assert_eq!(TIME.parse(&TIME.render(&value)), Ok(value));
        }
        for bytes in [64, 1023, 1024, 1025, 1 << 20, (1 << 20) + 1, 256 << 20] {
            let value = Value::Number(bytes);
            assert_eq!(SIZE.parse(&SIZE.render(&value)), Ok(value));
        }
    }

    #[test]
    fn what_is_allowed_is_said() {
        assert_eq!(SIZE.allowed(), "a size in B, KB, MB or GB, 64B to 256MB");
        assert_eq!(
            TIME.allowed(),
            "a duration in ms, s, m, h or d, at least 0s, or infinity"
        );
    }
}

//! Numbers and their units: sizes, durations, decimals. Errors name the text that is wrong.

const SIZE_UNITS: [(&str, u64); 4] = [("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)];
/// Milliseconds per unit.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

pub(super) fn not_a(what: &str, text: &str) -> String {
    if text.is_empty() {
        return "there is no value".to_owned();
    }
    format!("`{text}` is not a {what}")
}

/// Digits only: `u64::from_str` would take a plus sign too.
pub(super) fn parse_digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Splits `text` after its leading digits. `None` if there is none, or if they overflow.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((parse_digits(digits)?, rest.trim_start()))
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text).ok_or_else(|| not_a("size", text))?;
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit"));
    }
    let (_, scale) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or_else(|| format!("`{text}`: `{unit}` is not a unit of size"))?;
    number
        .checked_mul(*scale)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// Milliseconds in `text`: numbers with units, one after the other, as in `1h30m`.
pub(super) fn parse_duration(text: &str) -> Result<u64, String> {
    let mut total = 0u64;
    let mut rest = text;
    loop {
        let (number, tail) = split_number(rest).ok_or_else(|| not_a("duration", text))?;
        let end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        if unit.is_empty() {
            return Err(format!("`{text}` has no unit"));
        }
        let (_, scale) = TIME_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(|| format!("`{text}`: `{unit}` is not a unit of time"))?;
        total = number
            .checked_mul(*scale)
            .and_then(|millis| total.checked_add(millis))
            .ok_or_else(|| format!("`{text}` is too large"))?;
        rest = tail.trim_start();
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

pub(super) fn parse_hundredths(text: &str) -> Result<u64, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = parse_digits(whole).ok_or_else(|| not_a("decimal number", text))?;
    let digits = fraction.len();
    let fraction = parse_digits(fraction).ok_or_else(|| not_a("decimal number", text))?;
    let fraction = match digits {
        1 => fraction * 10,
        2 => fraction,
        _ => return Err(format!("`{text}` has more than two decimal places")),
    };
    whole
        .checked_mul(100)
        .and_then(|hundredths| hundredths.checked_add(fraction))
        .ok_or_else(|| format!("`{text}` is too large"))
}

pub(super) fn render_hundredths(hundredths: u64) -> String {
    let mut text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    if text.ends_with('0') {
        text.pop();
    }
    text
}

pub(super) fn render_size(bytes: u64) -> String {
    render_unit(bytes, &SIZE_UNITS)
}

/// Seconds are not written as minutes unless that is exact.
pub(super) fn render_duration(millis: u64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    render_unit(millis, &TIME_UNITS)
}

fn render_unit(amount: u64, units: &[(&str, u64)]) -> String {
    let (name, scale) = units
        .iter()
        .find(|(_, scale)| amount >= *scale && amount.is_multiple_of(*scale))
        .or(units.last())
        .map_or(("", 1), |(name, scale)| (*name, *scale));
    format!("{}{name}", amount / scale)
}

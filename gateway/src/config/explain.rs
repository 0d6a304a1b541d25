//! A configuration as text: one key explained, or all of it in the syntax of files.

use std::fmt::Write as _;

use super::{
    load::Loaded,
    schema::{self, Target},
    syntax,
};

/// Width of explanations.
const COLUMNS: usize = 80;

/// Explains `key`: its value, default, range, origin and meaning. A key with placeholders is explained by its
/// default object; the start of several keys lists them, and those that may be written more than once.
///
/// # Errors
///
/// `key` is unknown: the message, with the nearest key.
pub fn explain(loaded: &Loaded, key: &str) -> Result<String, String> {
    let key = key.trim();
    let kind = if key.starts_with("gateway.") {
        "dtls"
    } else {
        "tcp"
    };
    let with_names = key
        .replace("<type>", kind)
        .replace("<name>", "default")
        .replace("<n>", "1")
        .replace("<id>", "1")
        .replace("<clientid>", "CLIENTID");
    let unknown = match schema::find(key).or_else(|unknown| schema::find(&with_names).map_err(|_| unknown)) {
        Ok(target) => return Ok(explain_target(loaded, &target)),
        Err(unknown) => unknown,
    };
    let start = format!("{}.", key.trim_end_matches('.'));
    let mut listing = String::new();
    for target in schema::targets(&loaded.settings) {
        if target.key().starts_with(&start) {
            let _ = writeln!(listing, "{}", assignment(loaded, &target));
        }
    }
    for spec in schema::specs() {
        let is_numbered = spec.pattern.contains("<n>") || spec.pattern.contains("<id>");
        if is_numbered && spec.pattern.starts_with(&start) {
            let _ = writeln!(listing, "# {}: {}", spec.pattern, spec.kind.allowed());
        }
    }
    if listing.is_empty() {
        Err(unknown)
    } else {
        Ok(listing)
    }
}

/// The whole configuration in the syntax of files, each value with its origin.
pub fn dump(loaded: &Loaded) -> String {
    let lines: Vec<_> = schema::targets(&loaded.settings)
        .iter()
        .map(|target| {
            // A name of a file may hold anything, a comment only what does not end it.
            let origin = loaded
                .origin(&target.key())
                .to_string()
                .replace(char::is_control, "?");
            (assignment(loaded, target), origin)
        })
        .collect();
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .filter(|width| *width < COLUMNS)
        .max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for (line, origin) in lines {
        let _ = writeln!(text, "{line:width$}  # {origin}");
    }
    text
}

fn assignment(loaded: &Loaded, target: &Target) -> String {
    let value = target.text(&loaded.settings).unwrap_or_default();
    format!("{} = {}", target.key(), syntax::quote(&value))
}

fn explain_target(loaded: &Loaded, target: &Target) -> String {
    let key = target.key();
    let default = target.default_text();
    let mut text = match target.text(&loaded.settings) {
        Some(value) => format!("{key} = {}\n", syntax::quote(&value)),
        None => format!("{key} (not configured)\n"),
    };
    let default = default.map_or("none, it must be given".to_owned(), |default| {
        syntax::quote(&default)
    });
    let variable = if key.to_ascii_lowercase() == key && !key.contains("__") {
        format!("TIDEGATE_{}", key.to_ascii_uppercase().replace('.', "__"))
    } else {
        "none can spell it".to_owned()
    };
    let _ = write!(
        text,
        "  default    {default}\n  allowed    {}\n  set by     {}\n  variable   {variable}\n\n",
        target.spec.kind.allowed(),
        loaded.origin(&key),
    );
    let mut width = 0;
    for word in target.spec.doc.split(' ') {
        let length = word.chars().count();
        if width + 1 + length > COLUMNS && width > 0 {
            text.push('\n');
            width = 0;
        }
        if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
    }
    text.push('\n');
    text
}

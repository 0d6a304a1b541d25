//! What a topic filter says about a topic when topics come in byte order: besides yes and no, how far the next
//! match can be at the least.
//!
//! Byte order is not the order of levels: ` ` to `.` sort before `/`, so `a b/c` lies between `a` and `a/c`.
//! Everything here therefore argues with prefixes of bytes. Two topics with a common prefix have only topics with
//! this prefix between them. So once a `+` has taken its level *and the `/` behind it*, its value is settled for
//! every topic up to a target that shares them; without the `/` it is not.

/// The byte after `/`: `prefix + "0"` is the first text behind all that start with `prefix + "/"`.
const AFTER_SLASH: u8 = b'/' + 1;

/// The byte after `$`: behind all topics that start with `$`.
const AFTER_DOLLAR: u8 = b'$' + 1;

/// A topic filter, prepared for a scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern<'a> {
    /// The filter without its `/#`; `None` for `#` alone.
    base: Option<&'a [u8]>,
    /// It ended with `/#`.
    open: bool,
    /// The first level is a wildcard, so topics that start with `$` do not match [MQTT-4.7.2-1].
    wild_start: bool,
}

/// What to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It matches.
    Match,
    /// It does not, but its successor may.
    Next,
    /// It does not, and neither does any topic before the target.
    Seek,
    /// Neither it nor any later topic matches.
    End,
}

impl<'a> Pattern<'a> {
    pub(super) fn new(filter: &'a str) -> Pattern<'a> {
        let base = if filter == "#" {
            None
        } else {
            Some(filter.strip_suffix("/#").unwrap_or(filter).as_bytes())
        };
        Pattern {
            base,
            open: filter.ends_with("/#"),
            wild_start: filter.starts_with(['+', '#']),
        }
    }

    /// Every match starts with these bytes.
    pub(super) fn prefix(&self) -> &'a [u8] {
        self.base.map_or(&[], |base| split_at_plus(base).0)
    }

    /// Judges a topic. Leaves the target of [`Verdict::Seek`], which lies behind the topic, in `target`.
    pub(super) fn judge(&self, topic: &[u8], target: &mut Vec<u8>) -> Verdict {
        target.clear();
        if self.wild_start && topic.starts_with(b"$") {
            target.push(AFTER_DOLLAR);
            return Verdict::Seek;
        }
        let Some(mut rest) = self.base else {
            return Verdict::Match;
        };
        let mut pos = 0;
        // Where the value of the last `+` ended.
        let mut plus_end = None;
        loop {
            let (literal, after_plus) = split_at_plus(rest);
            if !topic[pos..].starts_with(literal) {
                return missed(topic, pos, literal, plus_end, target);
            }
            pos += literal.len();
            let Some(after_plus) = after_plus else {
                return self.judge_end(topic, pos, plus_end, target);
            };
            let level = topic[pos..].iter().position(|&byte| byte == b'/');
            pos = level.map_or(topic.len(), |len| pos + len);
            plus_end = Some(pos);
            rest = after_plus;
        }
    }

    /// The base has matched the topic up to `pos`.
    fn judge_end(&self, topic: &[u8], pos: usize, plus_end: Option<usize>, target: &mut Vec<u8>) -> Verdict {
        match topic.get(pos) {
            None => Verdict::Match,
            Some(b'/') if self.open => Verdict::Match,
            // The level only starts like that of the filter (`ab` or `a b` for `a/#`): what goes on with `/` may follow.
            Some(&byte) if self.open && byte < b'/' => {
                target.extend_from_slice(&topic[..pos]);
                target.push(b'/');
                Verdict::Seek
            }
            Some(_) => exhausted(topic, plus_end, target),
        }
    }
}

/// The topic does not go on with the literal that stands at `pos`.
fn missed(
    topic: &[u8],
    pos: usize,
    literal: &[u8],
    plus_end: Option<usize>,
    target: &mut Vec<u8>,
) -> Verdict {
    let rest = &topic[pos..];
    if rest.is_empty() && plus_end.is_some() {
        // It ends with the value of a `+`. A longer value may sort before this one with its `/`.
        return Verdict::Next;
    }
    if rest < literal {
        target.extend_from_slice(&topic[..pos]);
        target.extend_from_slice(literal);
        return Verdict::Seek;
    }
    exhausted(topic, plus_end, target)
}

/// With these values of the wildcards everything that can match lies before the topic: the last `+` needs another.
fn exhausted(topic: &[u8], plus_end: Option<usize>, target: &mut Vec<u8>) -> Verdict {
    let Some(end) = plus_end else {
        return Verdict::End;
    };
    target.extend_from_slice(&topic[..end]);
    target.push(AFTER_SLASH);
    Verdict::Seek
}

/// The bytes before the first `+`, and those after it if there is one.
fn split_at_plus(base: &[u8]) -> (&[u8], Option<&[u8]>) {
    match base.iter().position(|&byte| byte == b'+') {
        Some(at) => (&base[..at], Some(&base[at + 1..])),
        None => (base, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(filter: &str, topic: &str) -> (Verdict, String) {
        let mut target = Vec::new();
        let verdict = Pattern::new(filter).judge(topic.as_bytes(), &mut target);
        (verdict, String::from_utf8(target).unwrap())
    }

    #[test]
    fn a_target_is_as_far_as_can_be_told() {
        for (filter, topic, target) in [
            ("+/x", "$SYS/x", "%"),
            ("+/x", "a/b", "a/x"),
            ("+/x", "a/y", "a0"),
            ("+/x", "a/x/y", "a0"),
            ("+", "a/x", "a0"),
            ("a/+/b/#", "a/1/a", "a/1/b"),
            ("a/+/b/#", "a/1/b c", "a/1/b/"),
            ("a/+/b/#", "a/1/b1", "a/10"),
            ("a/+/b/#", "a/1/c", "a/10"),
            ("a/#", "a b", "a/"),
            ("b/+", "a", "b/"),
            ("+/a/+/b", "1/a/2/c/d", "1/a/20"),
        ] {
            assert_eq!(
                judge(filter, topic),
                (Verdict::Seek, target.to_owned()),
                "{filter} {topic}"
            );
        }
    }

    #[test]
    fn the_end_is_seen() {
        for (filter, topic) in [("a/#", "a0"), ("a/+", "b"), ("a/b", "a/b/c"), ("a/+/b", "a0")] {
            assert_eq!(
                judge(filter, topic),
                (Verdict::End, String::new()),
                "{filter} {topic}"
            );
        }
    }

    #[test]
    fn a_level_that_may_go_on_is_not_skipped() {
        assert_eq!(judge("+/x", "a").0, Verdict::Next, "`a b/x` comes before `a/x`");
    }
}

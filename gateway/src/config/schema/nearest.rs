//! The key that a misspelt one was meant to be.

use super::{DatagramKind, ListenerKind, specs};

/// Longer keys are not compared: the cost is quadratic, and no key comes near.
const KEY_BYTES_MAX: usize = 200;

/// The known key nearest to `key`, if one is near: at most a third of its characters wrong, else one that ends in
/// the same name.
pub(super) fn nearest(key: &str) -> Option<String> {
    if key.len() > KEY_BYTES_MAX {
        return None;
    }
    let parts: Vec<_> = key.split('.').collect();
    let known = || specs().flat_map(|spec| candidates(spec.pattern, &parts));
    let limit = (key.chars().count() / 3).max(1);
    let by_distance = known()
        .map(|candidate| (distance(key, &candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, candidate)| candidate);
    let leaf = parts.last()?;
    by_distance.or_else(|| known().find(|candidate| candidate.rsplit('.').next() == Some(leaf)))
}

/// `pattern` with the names that the operator chose, and with every type of listener.
fn candidates(pattern: &str, parts: &[&str]) -> Vec<String> {
    let is_gateway = pattern.starts_with("gateway.");
    let part = |place: usize| parts.get(place).copied();
    let name = part(if is_gateway { 4 } else { 2 }).filter(|name| super::checks::object_name(name).is_ok());
    let number = part(1).filter(|number| super::object::place("", number).is_ok());
    let id = parts.last().copied();
    let id = id.filter(|id| super::object::predefined_id("", id).is_ok());
    let client = parts.get(3..parts.len().saturating_sub(2)).unwrap_or_default();
    let client = Some(client.join(".")).filter(|client| super::object::decode_client(client).is_some());
    let named = pattern
        .replace("<name>", name.unwrap_or("default"))
        .replace("<n>", number.unwrap_or("1"))
        .replace("<id>", id.unwrap_or("1"))
        .replace("<clientid>", client.as_deref().unwrap_or("CLIENTID"));
    if !named.contains("<type>") {
        return vec![named];
    }
    let kinds: &[&str] = if is_gateway {
        &DatagramKind::ALL.map(DatagramKind::name)
    } else {
        &ListenerKind::ALL.map(ListenerKind::name)
    };
    let all = kinds.iter().map(|kind| named.replace("<type>", kind));
    all.filter(|key| super::Object::of(key).is_ok_and(|object| knows(pattern, object)))
        .collect()
}

fn knows(pattern: &str, object: Option<super::Object>) -> bool {
    let spec = specs().find(|spec| spec.pattern == pattern);
    spec.zip(object)
        .is_some_and(|(spec, object)| spec.key_of(&object).is_some())
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from `a` to `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("bind", "bind", 0),
            ("bind", "bnid", 1),
            ("bind", "bin", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn misspelt_keys() {
        for (key, expected) in [
            ("mqtt.max_packet_sise", Some("mqtt.max_packet_size")),
            ("mqtt.max_paket_size", Some("mqtt.max_packet_size")),
            ("max_packet_size", Some("mqtt.max_packet_size")),
            ("zone.external.max_mqueue_len", Some("mqtt.max_mqueue_len")),
            ("listener.tcp.external.bind", Some("listeners.tcp.external.bind")),
            (
                "listeners.ssl.main.ssl_options.certfiel",
                Some("listeners.ssl.main.ssl_options.certfile"),
            ),
            (
                "listeners.tcp.a.max_conections",
                Some("listeners.tcp.a.max_connections"),
            ),
            ("rewrite.7.source", Some("rewrite.7.re")),
            ("rewrite.7.source_topics", Some("rewrite.7.source_topic")),
            ("gateway.mqttsn.gatewayid", Some("gateway.mqttsn.gateway_id")),
            ("gateway.mqttsn.predefine.7", Some("gateway.mqttsn.predefined.7")),
            (
                "gateway.mqttsn.client.a.b.predefined.7",
                Some("gateway.mqttsn.clients.a.b.predefined.7"),
            ),
            (
                "gateway.mqttsn.listeners.udp.b.bnid",
                Some("gateway.mqttsn.listeners.udp.b.bind"),
            ),
            (
                "gateway.mqttsn.listeners.dtls.b.dtls_options.pskfile",
                Some("gateway.mqttsn.listeners.dtls.b.dtls_options.psk_file"),
            ),
            ("dashboard.listeners.http", None),
            ("", None),
        ] {
            assert_eq!(nearest(key).as_deref(), expected, "{key}");
        }
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }
}

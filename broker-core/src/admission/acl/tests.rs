use std::{net::IpAddr, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{CertificateInfo, ConnectionInfo, QoS};

const SHIPPED: &str = include_str!("../../../../etc/acl.conf");

/// `id,user,host`; an empty part is missing.
fn client(text: &str) -> ClientInfo {
    let parts: Vec<&str> = text.split(',').collect();
    let mut client = ClientInfo::internal(parts[0], false);
    client.username = Some(parts[1]).filter(|name| !name.is_empty()).map(Arc::from);
    client.peer = parts[2].parse().ok().map(|host: IpAddr| (host, 4000).into());
    client
}

/// `pub`, `pub1`, `pub2r`: publish with QoS, retained; `sub`, `sub1`: subscribe.
fn action(text: &str) -> Action {
    let level = text
        .bytes()
        .find(u8::is_ascii_digit)
        .map_or(0, |digit| digit - b'0');
    let qos = QoS::new(level).unwrap();
    if text.starts_with("pub") {
        Action::Publish {
            qos,
            retain: text.ends_with('r'),
        }
    } else {
        Action::Subscribe { qos }
    }
}

#[track_caller]
fn check(rules: &str, cases: &[(&str, &str, &str, Verdict)]) {
    let rules = AclRules::parse(rules).unwrap();
    for (who, what, topic, expected) in cases {
        assert_eq!(
            rules.authorize(&client(who), action(what), topic),
            *expected,
            "{who} {what} {topic}"
        );
    }
}

use Verdict::{Allow, Deny, Ignore};

#[test]
fn the_first_rule_that_applies_decides() {
    check(
        r#"
        %% both generations
        {allow, {user, "alice"}, publish, ["a/#", <<"b/+">>]}.
        {deny, {username, <<"alice"/utf8>>}, all, ["a/#"]}.
        {allow, {client, "dev-1"}, pubsub, ["c"]}.  % trailing
        {deny, {clientid, {re, "^dev-\\d+$"}}, all, ["c"]}.
        {allow, {ipaddr, "10.0.0.0/8"}, subscribe, ["net/#"]}.
        {allow, {ipaddrs, ["192.0.2.1", "2001:db8::/32"]}, subscribe, ["net/#"]}.
        "#,
        &[
            ("x,alice,", "pub", "a/1", Allow),
            ("x,alice,", "sub", "a/1", Deny),
            ("x,alice,", "pub", "b/1", Allow),
            ("x,alice,", "pub", "b/1/2", Ignore),
            ("x,bob,", "pub", "a/1", Ignore),
            ("x,,", "pub", "a/1", Ignore),
            ("dev-1,,", "sub", "c", Allow),
            ("dev-2,,", "pub", "c", Deny),
            ("dev-x,,", "pub", "c", Ignore),
            ("x,,10.255.0.1", "sub", "net/a", Allow),
            ("x,,::ffff:10.255.0.1", "sub", "net/a", Allow),
            ("x,,11.0.0.1", "sub", "net/a", Ignore),
            ("x,,192.0.2.1", "sub", "net", Allow),
            ("x,,192.0.2.2", "sub", "net", Ignore),
            ("x,,2001:db8:ffff::1", "sub", "net", Allow),
            ("x,,2001:db9::1", "sub", "net", Ignore),
            ("x,,", "sub", "net", Ignore),
            ("x,,10.0.0.1", "pub", "net/a", Ignore),
        ],
    );
}

#[test]
fn conditions_combine() {
    check(
        r#"
        {allow, {'and', [{user, "a"}, {'or', [{client, "1"}, {ipaddr, "127.0.0.1"}]}]}, publish, ["t"]}.
        {deny, {and, [all, {user, {re, "^a"}}]}}.
        {allow, {user, all}, publish, ["t"]}.
        "#,
        &[
            ("1,a,", "pub", "t", Allow),
            ("2,a,127.0.0.1", "pub", "t", Allow),
            ("2,a,", "pub", "t", Deny),
            ("2,ab,", "pub", "t", Deny),
            ("2,b,", "pub", "t", Allow),
        ],
    );
}

#[test]
fn attributes_zones_and_listeners() {
    let rules = AclRules::parse(
        r#"
        {allow, {client_attr, "site", "north"}, all, ["n/${client_attrs.site}"]}.
        {allow, {client_attr, <<"tier">>, {re, "gold|silver"}}, all, ["tier"]}.
        {allow, {zone, lab}, all, ["zone/${zone}"]}.
        {allow, {listener, {re, "^ssl:"}}, all, ["tls/${cert_common_name}"]}.
        {allow, {listener, "tcp:default"}, all, ["tcp/${peerhost}"]}.
        "#,
    )
    .unwrap();
    let mut client = client("x,u,192.0.2.9");
    let connection = ConnectionInfo {
        protocol: "mqtt",
        proto_name: "MQTT",
        proto_ver: 5,
        listener: "tcp:default".into(),
        zone: "lab".into(),
    };
    client.connection = Arc::new(connection.clone());
    let says = |client: &ClientInfo, topic| rules.authorize(client, action("pub"), topic);
    assert_eq!(says(&client, "n/north"), Ignore);
    client.attributes = vec![("site".into(), "north".into()), ("tier".into(), "gold".into())];
    assert_eq!(says(&client, "n/north"), Allow);
    assert_eq!(says(&client, "tier"), Allow);
    assert_eq!(says(&client, "zone/lab"), Allow);
    assert_eq!(says(&client, "tcp/192.0.2.9"), Allow);
    assert_eq!(says(&client, "tls/device"), Ignore);
    client.connection = Arc::new(ConnectionInfo {
        listener: "ssl:default".into(),
        ..connection
    });
    assert_eq!(says(&client, "tls/device"), Ignore);
    client.certificate = Some(Arc::new(CertificateInfo {
        common_name: Some("device".to_owned()),
        subject: "CN=device".to_owned(),
    }));
    assert_eq!(says(&client, "tls/device"), Allow);
    assert_eq!(says(&client, "tcp/192.0.2.9"), Ignore);
}

#[test]
fn actions_have_options() {
    check(
        r#"
        {allow, all, {publish, [{qos, 1}]}, ["one"]}.
        {allow, all, {publish, [{qos, [0, 2]}, {retain, false}]}, ["two"]}.
        {allow, all, {all, [{retain, true}]}, ["kept"]}.
        {allow, all, {subscribe, [{qos, 0}]}, ["s"]}.
        {allow, all, {publish, [{retain, all}]}, ["any"]}.
        {allow, all, {subscribe, []}, ["plain"]}.
        "#,
        &[
            ("x,,", "pub1", "one", Allow),
            ("x,,", "pub1r", "one", Allow),
            ("x,,", "pub0", "one", Ignore),
            ("x,,", "sub1", "one", Ignore),
            ("x,,", "pub0", "two", Allow),
            ("x,,", "pub2", "two", Allow),
            ("x,,", "pub2r", "two", Ignore),
            ("x,,", "pub1", "two", Ignore),
            ("x,,", "pub0r", "kept", Allow),
            ("x,,", "pub0", "kept", Ignore),
            ("x,,", "sub2", "kept", Allow),
            ("x,,", "sub0", "s", Allow),
            ("x,,", "sub1", "s", Ignore),
            ("x,,", "pub2r", "any", Allow),
            ("x,,", "sub2", "plain", Allow),
        ],
    );
}

#[test]
fn placeholders_never_widen_a_rule() {
    check(
        r#"
        {allow, all, all, ["c/%c/#", "u/${username}/data", "x-${clientid}-%u-y", "100%", "$five"]}.
        "#,
        &[
            ("d1,bob,", "pub", "c/d1/a/b", Allow),
            ("d1,bob,", "pub", "c/d2/a/b", Ignore),
            ("d1,bob,", "pub", "u/bob/data", Allow),
            ("d1,bob,", "pub", "x-d1-bob-y", Allow),
            ("d1,bob,", "pub", "x-d1-bob-z", Ignore),
            ("d1,,", "pub", "u//data", Ignore),
            ("d1,,", "pub", "u/undefined/data", Ignore),
            ("+,+,", "sub", "c/+/#", Ignore),
            ("+,+,", "sub", "u/+/data", Ignore),
            ("#,#,", "sub", "c/#", Ignore),
            ("a/b,,", "sub", "c/a/b/#", Ignore),
            ("d1,,", "pub", "100%", Allow),
            ("d1,,", "pub", "$five", Allow),
        ],
    );
}

#[test]
fn a_subscription_is_covered_level_by_level() {
    check(
        r##"
        {deny, {user, "denied"}, subscribe, ["a/+", {eq, "#"}, "eq b/#"]}.
        {allow, all, subscribe, ["a/+", "t/#", {eq, "lit/#"}]}.
        "##,
        &[
            ("x,,", "sub", "a/b", Allow),
            ("x,,", "sub", "a/+", Allow),
            // Deeper than the rule goes.
            ("x,,", "sub", "a/#", Ignore),
            ("x,,", "sub", "+/b", Ignore),
            ("x,,", "sub", "t/#", Allow),
            ("x,,", "sub", "t/+/x/#", Allow),
            ("x,,", "sub", "t", Allow),
            ("x,,", "sub", "+/#", Ignore),
            ("x,,", "sub", "lit/#", Allow),
            ("x,,", "sub", "lit/a", Ignore),
            ("x,denied,", "sub", "a/#", Deny),
            ("x,denied,", "sub", "#", Deny),
            ("x,denied,", "sub", "b/#", Deny),
            ("x,denied,", "sub", "b/c", Ignore),
            ("x,denied,", "sub", "t/#", Allow),
        ],
    );
}

#[test]
fn topics_left_out_mean_all_of_them_and_a_wildcard_spares_the_dollar() {
    check(
        "{deny, all}.",
        &[("x,,", "pub", "$SYS/a", Deny), ("x,,", "sub", "#", Deny)],
    );
    check(
        "{deny, all, subscribe}.",
        &[("x,,", "pub", "a", Ignore), ("x,,", "sub", "$SYS/#", Deny)],
    );
    check("{deny, all, all, all}.", &[("x,,", "pub", "$SYS/a", Deny)]);
    check(
        "{deny, all, all, [\"#\"]}.",
        &[("x,,", "pub", "$SYS/a", Ignore), ("x,,", "pub", "a", Deny)],
    );
    check(
        "{deny, all, all, [\"+/a\"]}.",
        &[("x,,", "pub", "$SYS/a", Ignore), ("x,,", "pub", "b/a", Deny)],
    );
}

#[test]
fn strings_have_the_escapes_of_erlang() {
    check(
        r#"{allow, {user, "a\"b\\c\x41\x{fc}\101\s\."}, all, ["t"]}. {allow, {user, 'q\'a'}, all, ["q"]}."#,
        &[
            ("x,a\"b\\cAüA .,", "pub", "t", Allow),
            ("x,q'a,", "pub", "q", Allow),
        ],
    );
}

#[test]
fn the_shipped_file_protects_the_system_topics() {
    let cases = [
        ("x,dashboard,", "sub", "$SYS/#", Allow),
        ("x,,127.0.0.1", "sub", "$SYS/brokers", Deny),
        ("x,,", "sub", "#", Deny),
        ("x,,", "sub", "+/#", Deny),
        ("x,,", "sub", "a/#", Allow),
        ("x,,", "pub", "a", Allow),
    ];
    check(SHIPPED, &cases);
    let hardened = AclRules::parse(SHIPPED)
        .unwrap()
        .with_security_profile(SecurityProfile::Hardened);
    assert_eq!(hardened.authorize(&client("x,,"), action("pub"), "a"), Ignore);
    assert_eq!(hardened.authorize(&client("x,,"), action("sub"), "#"), Deny);
}

/// Text, and the start of `line:column message`.
const MISTAKES: &[(&str, &str)] = &[
    (
        "{allow, all}",
        "1:13 expected `.` at the end of the rule, found the end of the file",
    ),
    (
        "%% c\n{allow, all}.\n  {permit, all}.",
        "3:4 expected `allow` or `deny`, found `permit`",
    ),
    ("allow.", "1:1 expected a rule such as"),
    ("{allow}.", "1:1 expected a rule of 2 to 4 elements"),
    (
        "{allow, all, all, [\"a\"], x}.",
        "1:1 expected a rule of 2 to 4 elements",
    ),
    ("{allow, everybody}.", "1:9 expected `all`, {user, ..}"),
    ("{allow, {users, \"a\"}}.", "1:9 expected `all`, {user, ..}"),
    (
        "{allow, {user, 7}}.",
        "1:16 expected a string or {re, \"EXPRESSION\"}, found the number 7",
    ),
    (
        "{allow, {user, {re, \"(\"}}}.",
        "1:21 expected a regular expression, found \"(\": unclosed group",
    ),
    (
        "{allow, {user, {er, \"a\"}}}.",
        "1:16 expected {re, \"EXPRESSION\"}",
    ),
    (
        "{allow, {ipaddr, \"10.0.0.0/33\"}}.",
        "1:18 expected a network such as",
    ),
    (
        "{allow, {ipaddr, \"localhost\"}}.",
        "1:18 expected a network such as",
    ),
    (
        "{allow, {ipaddrs, [\"::1\", \"x\"]}}.",
        "1:27 expected a network such as",
    ),
    (
        "{allow, {ipaddrs, []}}.",
        "1:19 expected a list of networks with at least one element",
    ),
    (
        "{allow, {'and', []}}.",
        "1:17 expected a list of conditions with at least one element",
    ),
    (
        "{allow, {security_profile, lax}}.",
        "1:28 expected `legacy` or `hardened`, found `lax`",
    ),
    (
        "{allow, all, write}.",
        "1:14 expected `publish`, `subscribe`, `all`",
    ),
    (
        "{allow, all, {publish, [{qos, 3}]}}.",
        "1:31 expected 0, 1 or 2, found the number 3",
    ),
    (
        "{allow, all, {publish, [{qos, [0, x]}]}}.",
        "1:35 expected 0, 1 or 2, found `x`",
    ),
    (
        "{allow, all, {publish, [{retain, yes}]}}.",
        "1:34 expected `true`, `false` or `all`",
    ),
    (
        "{allow, all, {subscribe, [{retain, true}]}}.",
        "1:27 expected {qos, ..}",
    ),
    (
        "{allow, all, {publish, [{dup, 1}]}}.",
        "1:25 expected {qos, 0..2}",
    ),
    (
        "{allow, all, all, \"a\"}.",
        "1:19 expected `all` or a list of topic filters, found the string \"a\"",
    ),
    (
        "{allow, all, all, [\"a\", \"b/#/c\"]}.",
        "1:25 topic filter \"b/#/c\": not a topic filter",
    ),
    (
        "{allow, all, all, [\"${clientId}\"]}.",
        "1:20 topic filter \"${clientId}\": unknown placeholder",
    ),
    (
        "{allow, all, all, [\"${clientid\"]}.",
        "1:20 topic filter \"${clientid\": unknown placeholder",
    ),
    (
        "{allow, all, all, [{eq, a}]}.",
        "1:20 expected {eq, \"TOPIC\"}, found a tuple",
    ),
    (
        "{allow, all, all, [7]}.",
        "1:20 expected a topic filter or {eq, \"TOPIC\"}",
    ),
    (
        "{allow, all, all, [\"a\" \"b\"]}.",
        "1:24 expected `,` or `]`, found `\"`",
    ),
    (
        "{allow, all, all, [\"a\"}.",
        "1:23 expected `,` or `]`, found `}`",
    ),
    ("{allow, All}.", "1:9 expected a term, found the variable `All`"),
    (
        "{allow, {user, \"a}}.",
        "1:16 expected a closing `\"`, found the end of the file",
    ),
    (
        "{allow, {user, <<a>>}}.",
        "1:18 expected a binary such as <<\"text\">>, found `a`",
    ),
    ("{allow, {user, <<\"a\">}}.", "1:22 expected `>>`, found `}`"),
    (
        "{allow, {user, {re, \"\\d\"}}}.",
        "1:22 expected an escape sequence, found `\\d`; write `\\\\d`",
    ),
    (
        "{allow, {user, \"\\x{110000}\"}}.",
        "1:17 this escape sequence names no character",
    ),
    (
        "{allow, 99999999999}.",
        "1:9 expected a number, found `99999999999`",
    ),
    ("{allow,\n;}.", "2:1 expected a term, found `;`"),
];

#[test]
fn mistakes_are_located_and_explained() {
    for (text, expected) in MISTAKES {
        let error = AclRules::parse(text).unwrap_err();
        let actual = format!("{}:{} {}", error.line, error.column, error.message);
        assert!(actual.starts_with(expected), "{text}\n  {actual}\n  {expected}");
    }
    let deep = format!("{{allow, {}", "[".repeat(100_000));
    assert!(AclRules::parse(&deep).unwrap_err().message.contains("deep"));
    let huge = "{allow, {user, {re, \"((a{999}){999}){999}\"}}}.";
    assert!(AclRules::parse(huge).unwrap_err().message.contains("size limit"));
}

#[test]
fn an_empty_file_has_nothing_to_say() {
    for text in ["", "\u{feff}", "%% nothing\n\n", "  \n\t"] {
        assert!(AclRules::parse(text).unwrap().rules().is_empty());
    }
}

/// A valid file, damaged at some places.
fn damaged() -> impl Strategy<Value = String> {
    let seed = concat!(
        "{allow, {'and', [{user, {re, \"^a\\\\d\"}}, {ipaddrs, [\"::1/64\"]}]}, {publish, [{qos, [0,1]}, {retain, true}]}, ",
        "[\"a/%c/${client_attrs.x}\", {eq, <<\"ü/#\"/utf8>>}]}. % c\n{deny, all}.\n",
    );
    let fragment = prop_oneof![
        any::<char>().prop_map(String::from),
        proptest::sample::select(vec![
            "{", "}", "[", "]", "\"", "<<", ">>", ".", ",", "\\", "${", "%", "\\x{", "re", "9"
        ])
        .prop_map(String::from),
    ];
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0..4usize, fragment), 1..6);
    edits.prop_map(move |edits| {
        let mut chars: Vec<char> = seed.chars().collect();
        for (at, removed, inserted) in edits {
            let from = at.index(chars.len());
            let to = (from + removed).min(chars.len());
            chars.splice(from..to, inserted.chars());
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_read_or_refused_within_its_lines(text in damaged()) {
        match AclRules::parse(&text) {
            Ok(rules) => {
                for topic in ["a/c/x", "$SYS", "#"] {
                    rules.authorize(&client("c,a1,::1"), action("sub"), topic);
                    rules.authorize(&client("c,a1,::1"), action("pub"), topic);
                }
            }
            Err(error) => {
                prop_assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1);
                prop_assert!(error.column >= 1 && !error.message.is_empty());
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = AclRules::parse(&text);
    }
}

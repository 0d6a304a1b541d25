"""Subscriptions, retained messages, properties on their way, topic aliases, and the filters with a meaning."""

from __future__ import annotations

import time
import unittest
from collections import Counter

from harness import case, wire
from harness.wire import V5, V31, V311, VERSIONS

NO_LOCAL, RETAIN_AS_PUBLISHED = 0x04, 0x08


def retain_handling(value: int) -> int:
    return value << 4


class Matching(case.BrokerCase):
    MATCHES = [
        ("{0}/a", "{0}/a", True),
        ("{0}/a", "{0}/A", False),
        ("{0}/a", "{0}/a/", False),
        ("{0}/+", "{0}/a", True),
        ("{0}/+", "{0}/", True),
        ("{0}/+", "{0}", False),
        ("{0}/+", "{0}/a/b", False),
        ("{0}/#", "{0}", True),
        ("{0}/#", "{0}/", True),
        ("{0}/#", "{0}/a/b/c", True),
        ("{0}/a/#", "{0}/a", True),
        ("{0}/+/#", "{0}", False),
        ("{0}/+/#", "{0}/a", True),
        ("{0}/+/b/+", "{0}/a/b/c", True),
        ("{0}/+/b/+", "{0}/a/x/c", False),
        ("{0}//b", "{0}//b", True),
        ("{0}/+/b", "{0}//b", True),
        ("+/{0}", "/{0}", True),
        ("/{0}", "{0}", False),
        ("/+/{0}", "/x/{0}", True),
        ("{0}/a b", "{0}/a b", True),
        ("{0}/äß漢🦀", "{0}/äß漢🦀", True),
        ("{0}/\ufeffx", "{0}/\ufeffx", True),
        ("{0}/\ufeffx", "{0}/x", False),
    ]

    def test_filters(self) -> None:
        for version in VERSIONS:
            publisher, link = self.client(version), self.client(version)
            for pattern, name, matches in self.MATCHES:
                with self.subTest(version=version, filter=pattern, topic=name):
                    level = case.unique("m")
                    link.subscribe((pattern.format(level), 0))
                    end = case.unique("end")
                    link.subscribe((end, 0))
                    publisher.publish(name.format(level), b"hit")
                    publisher.publish(end, b"end")
                    if matches:
                        found = link.take()
                        self.assertEqual((found.payload, found.topic), (b"hit", name.format(level)))
                    self.assertEqual(link.take().payload, b"end")

    def test_wildcards_do_not_match_dollar_topics(self) -> None:
        # [MQTT-4.7.2-1]
        for version in VERSIONS:
            link = self.client(version)
            level = case.unique("d")
            link.subscribe(("#", 0), ("+/" + level, 0), ("+/#", 0))
            other = self.client(version)
            other.subscribe(("$" + level + "/#", 0))
            publisher = self.client(version)
            publisher.publish(f"${level}/{level}", b"dollar", 1)
            publisher.publish(level, b"plain", 1)
            self.assertEqual(other.take().payload, b"dollar")
            found = link.take()
            while found.topic != level:
                self.assertFalse(found.topic.startswith("$"), str(found))
                found = link.take()

    def test_longest_topic(self) -> None:
        for version in VERSIONS:
            for topic in ("t" * 65_535, "ü" * 32_767 + "u"):
                with self.subTest(version=version, bytes=len(topic.encode())):
                    link = self.client(version)
                    self.assertEqual(link.subscribe((topic, 1)).codes, [1])
                    self.client(version).publish(topic, b"long", 1)
                    found = link.take()
                    self.assertEqual((found.topic, found.payload), (topic, b"long"))

    def test_suback_codes(self) -> None:
        for version in VERSIONS:
            link = self.client(version)
            topic = case.unique("t")
            self.assertEqual(link.subscribe((topic, 2), (topic + "/a", 1), (topic + "/#", 0)).codes, [2, 1, 0])
            link.send(wire.unsubscribe(version, [topic, topic + "/never"], 500))
            found = link.expect(wire.UNSUBACK)
            self.assertEqual((found.pid, found.codes), (500, [0, 0x11] if version == V5 else []))

    def test_unsubscribe_stops_delivery(self) -> None:
        for version in VERSIONS:
            link, publisher = self.client(version), self.client(V5)
            topic = case.unique("t")
            link.subscribe((topic, 1), (topic + "/end", 1))
            publisher.publish(topic, b"1", 1)
            self.assertEqual(link.take().payload, b"1")
            link.send(wire.unsubscribe(version, [topic], 500))
            link.expect(wire.UNSUBACK)
            publisher.publish(topic, b"2", 1)
            publisher.publish(topic + "/end", b"3", 1)
            self.assertEqual(link.take().payload, b"3")

    def test_subscribing_again_replaces(self) -> None:
        # [MQTT-3.8.4-3]
        for version in VERSIONS:
            link = self.client(version)
            topic = case.unique("t")
            link.subscribe((topic, 2))
            link.subscribe((topic, 0))
            self.client(V5).publish(topic, b"", 2)
            self.assertEqual(link.take().qos, 0)
            self.assertEqual(link.settle(), [])

    def test_overlapping_filters(self) -> None:
        # One copy at the highest QoS, or one per filter: [MQTT-3.3.5-1] of 3.1.1, §3.3.4 of 5.
        for version in VERSIONS:
            link = self.client(version)
            topic = case.unique("t")
            link.subscribe((topic, 0), (topic + "/#", 1))
            self.client(V5).publish(topic, b"", 2)
            first = link.take()
            if first.qos == 0:
                self.assertEqual(link.take().qos, 1)
            self.assertIn([found.qos for found in link.settle()], ([], [0]))

    def test_no_subscribers_is_told(self) -> None:
        link = self.client(V5)
        self.assertIn(link.publish(case.unique("nobody"), b"", 1), (0, 0x10))
        self.assertIn(link.publish(case.unique("nobody"), b"", 2), (0, 0x10))


class Options(case.BrokerCase):
    def test_no_local(self) -> None:
        link, other = self.client(V5), self.client(V5)
        topic = case.unique("t")
        link.subscribe((topic, 1 | NO_LOCAL))
        link.publish(topic, b"own", 1)
        other.publish(topic, b"other", 1)
        self.assertEqual(link.take().payload, b"other")

    def test_retain_as_published(self) -> None:
        topic = case.unique("t")
        as_published, plain, old = self.client(V5), self.client(V5), self.client(V311)
        as_published.subscribe((topic, RETAIN_AS_PUBLISHED))
        plain.subscribe((topic, 0))
        old.subscribe((topic, 0))
        publisher = self.client(V5)
        publisher.publish(topic, b"r", 1, retain=True)
        publisher.publish(topic, b"n", 1)
        self.assertEqual([as_published.take().retain, as_published.take().retain], [True, False])
        self.assertEqual([plain.take().retain, plain.take().retain], [False, False])
        self.assertEqual([old.take().retain, old.take().retain], [False, False])
        publisher.publish(topic, b"", 1, retain=True)

    def test_retain_handling(self) -> None:
        topic = case.unique("t")
        self.client(V311).publish(topic, b"kept", 1, retain=True)
        link, fresh = self.client(V5), self.client(V5)
        # 0: always, 1: for a new subscription only, 2: never.
        for subscriber, handling, awaited in (
            (link, 2, False), (link, 1, False), (link, 0, True), (link, 0, True), (link, 1, False), (fresh, 1, True),
        ):  # fmt: skip
            with self.subTest(handling=handling, awaited=awaited):
                subscriber.subscribe((topic, retain_handling(handling)))
                if awaited:
                    found = subscriber.take()
                    self.assertEqual((found.payload, found.retain), (b"kept", True))
                self.assertEqual(subscriber.settle(), [])
        self.client(V5).publish(topic, b"", 1, retain=True)

    def test_retained_messages(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = case.unique("t")
                publisher = self.client(version)
                for qos in range(3):
                    publisher.publish(f"{topic}/{qos}", b"old", qos, retain=True)
                    publisher.publish(f"{topic}/{qos}", b"new", qos, retain=True)
                    publisher.publish(f"{topic}/{qos}", b"not retained", qos)
                link = self.client(version)
                link.subscribe((topic + "/+", 2))
                got = sorted((found.topic, found.payload, found.qos) for found in (link.take() for _ in range(3)))
                self.assertEqual(got, [(f"{topic}/{qos}", b"new", qos) for qos in range(3)])
                for qos in range(3):
                    publisher.publish(f"{topic}/{qos}", b"", qos, retain=True)
                late = self.client(version)
                late.subscribe((topic + "/#", 2))
                self.assertEqual(late.settle(), [])
                cleared = [link.take() for _ in range(3)]
                self.assertEqual([(found.payload, found.retain) for found in cleared], [(b"", False)] * 3)

    def test_subscription_identifiers(self) -> None:
        link = self.client(V5)
        topic = case.unique("t")
        for ident, name in ((1, topic), (268_435_455, topic + "/#"), (7, "+")):
            link.subscribe((name, 1), props=[(wire.SUBSCRIPTION_ID, ident)])
        self.client(V5).publish(topic, b"", 1)
        found = link.take()
        self.assertEqual(sorted(found.all(wire.SUBSCRIPTION_ID)), [1, 7, 268_435_455])
        self.assertEqual(link.settle(), [])
        # Subscribing again without an id removes it.
        link.subscribe((topic, 1))
        self.client(V5).publish(topic, b"", 1)
        self.assertEqual(sorted(link.take().all(wire.SUBSCRIPTION_ID)), [7, 268_435_455])

    def test_subscription_identifier_on_retained(self) -> None:
        topic = case.unique("t")
        self.client(V5).publish(topic, b"r", 1, retain=True)
        link = self.client(V5)
        link.subscribe((topic, 1), props=[(wire.SUBSCRIPTION_ID, 9)])
        self.assertEqual(link.take().all(wire.SUBSCRIPTION_ID), [9])
        self.client(V5).publish(topic, b"", 1, retain=True)


class Properties(case.BrokerCase):
    def test_everything_is_forwarded_in_order(self) -> None:
        link = self.client(V5)
        topic = case.unique("t")
        link.subscribe((topic, 2))
        users = [(wire.USER_PROPERTY, (f"k{number % 3}", f"v{number}")) for number in range(20)]
        others: list[wire.Property] = [
            (wire.PAYLOAD_FORMAT, 1),
            (wire.CONTENT_TYPE, "text/ü"),
            (wire.RESPONSE_TOPIC, "answer/here"),
            (wire.CORRELATION, b"\0\xff" * 50),
        ]
        for qos in range(3):
            self.client(V5).publish(topic, b"text", qos, props=[*others, *users])
            found = link.take()
            self.assertEqual(found.all(wire.USER_PROPERTY), [value for _, value in users], "[MQTT-3.3.2-18]")
            for ident, value in others:
                self.assertEqual(found.all(ident), [value])

    def test_old_clients_get_the_payload(self) -> None:
        for version in (V31, V311):
            link = self.client(version)
            topic = case.unique("t")
            link.subscribe((topic, 1))
            self.client(V5).publish(topic, b"x", 1, props=[(wire.USER_PROPERTY, ("a", "b")), (wire.CONTENT_TYPE, "t")])
            self.assertEqual(link.take().payload, b"x")

    def test_payload_format_is_validated(self) -> None:
        link = self.client(V5)
        code = link.publish(case.unique("t"), b"\xff\xfe", 1, props=[(wire.PAYLOAD_FORMAT, 1)])
        self.assertEqual(code, 0x99)
        self.assertEqual(link.publish(case.unique("t"), b"\xff", 1, props=[(wire.PAYLOAD_FORMAT, 0)]) & 0x80, 0)

    def test_request_response_information(self) -> None:
        link = self.link(V5)
        self.assertIsNone(link.connect(case.unique()).get(wire.RESPONSE_INFO), "[MQTT-3.1.2-28]")

    def test_no_problem_information(self) -> None:
        # [MQTT-3.1.2-29]: reason strings and user properties only in PUBLISH, CONNACK and DISCONNECT.
        link = self.link(V5)
        link.connect(case.unique(), props=[(wire.REQUEST_PROBLEM, 0)])
        link.send(wire.subscribe(V5, [("$share//x", 0), ("a/#/b", 0)], 2))
        found = link.receive()
        if found.kind == wire.SUBACK:
            self.assertEqual(found.props, [])
        link = self.link(V5)
        link.connect(case.unique(), props=[(wire.REQUEST_PROBLEM, 0)])
        link.send(wire.ack(wire.PUBREL, 9))
        self.assertEqual(link.expect(wire.PUBCOMP).props, [])

    def test_capabilities(self) -> None:
        # What is not said has its default: available, QoS 2, no limit.
        found = self.link(V5).connect(case.unique())
        self.assertEqual(found.get(wire.RETAIN_AVAILABLE, 1), 1)
        self.assertEqual(found.get(wire.WILDCARD_AVAILABLE, 1), 1)
        self.assertEqual(found.get(wire.SUBSCRIPTION_ID_AVAILABLE, 1), 1)
        self.assertEqual(found.get(wire.SHARED_AVAILABLE, 1), 1)
        self.assertIsNone(found.get(wire.MAXIMUM_QOS), "2 must not be said (§3.2.2.3.4)")
        self.assertNotEqual(found.get(wire.RECEIVE_MAXIMUM), 0)


class Aliases(case.BrokerCase):
    settings = {"mqtt.max_topic_alias": "5"}

    def test_from_the_client(self) -> None:
        link, reader = self.link(V5), self.client(V5)
        self.assertEqual(link.connect(case.unique()).get(wire.TOPIC_ALIAS_MAXIMUM), 5)
        one, two = case.unique("t"), case.unique("t")
        reader.subscribe((one, 1), (two, 1))
        steps = [(one, 1, one), ("", 1, one), (two, 5, two), ("", 5, two), ("", 1, one), (two, 1, two), ("", 1, two)]
        for topic, alias, awaited in steps:
            link.publish(topic, b"", 1, props=[(wire.TOPIC_ALIAS, alias)])
            found = reader.take()
            self.assertEqual((found.topic, found.get(wire.TOPIC_ALIAS)), (awaited, None))

    def test_beyond_the_maximum(self) -> None:
        link = self.client(V5)
        link.send(wire.publish(V5, "t", props=[(wire.TOPIC_ALIAS, 6)]))
        self.assertEqual([(found.kind, found.code) for found in link.until_closed()], [(wire.DISCONNECT, 0x94)])

    def test_ends_with_the_connection(self) -> None:
        name = case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=[(wire.SESSION_EXPIRY, 60)])
        link.publish("t", b"", 1, props=[(wire.TOPIC_ALIAS, 1)])
        link.leave()
        link = self.link(V5)
        link.connect(name, clean=False, props=[(wire.SESSION_EXPIRY, 60)])
        link.send(wire.publish(V5, "", b"", 1, 1, props=[(wire.TOPIC_ALIAS, 1)]))
        sent = link.until_closed()
        self.assertEqual([found.kind for found in sent], [wire.DISCONNECT])
        self.assertIn(sent[0].code, (0x94, 0x82))

    def test_to_the_client(self) -> None:
        link = self.link(V5)
        link.connect(case.unique(), props=[(wire.TOPIC_ALIAS_MAXIMUM, 2)])
        topics = [case.unique("t") for _ in range(4)]
        link.subscribe(*[(topic, 1) for topic in topics])
        publisher = self.client(V5)
        known: dict[int, str] = {}
        used = 0
        for turn in range(5):
            for topic in topics:
                publisher.publish(topic, b"", turn % 2)
                found = link.take()
                alias = found.get(wire.TOPIC_ALIAS)
                if alias is not None:
                    self.assertTrue(1 <= alias <= 2, "[MQTT-3.1.2-26]")
                    if found.topic:
                        known[alias] = found.topic
                    else:
                        used += 1
                self.assertEqual(found.topic or known[alias], topic)
        self.assertGreater(used, 0, "the client offered aliases and none was used")

    def test_none_to_a_client_that_allows_none(self) -> None:
        link = self.client(V5)
        topic = case.unique("t")
        link.subscribe((topic, 0))
        for _ in range(5):
            self.client(V5).publish(topic, b"", 1)
            found = link.take()
            self.assertEqual((found.topic, found.get(wire.TOPIC_ALIAS)), (topic, None))


class Shared(case.BrokerCase):
    def members(self, name: str, count: int, version: int = V5, qos: int = 1) -> list[wire.Link]:
        out = []
        for _ in range(count):
            link = self.client(version)
            link.subscribe((name, qos))
            out.append(link)
        return out

    def drain(self, link: wire.Link) -> list[bytes]:
        out = []
        for found in link.settle():
            self.assertEqual(found.kind, wire.PUBLISH)
            out.append(found.payload)
            if found.qos == 1:
                link.send(wire.ack(wire.PUBACK, found.pid))
        return out

    def each_once(self, name: str, topic: str, version: int) -> None:
        members = self.members(name, 3, version)
        plain = self.client(V5)
        plain.subscribe((topic, 1))
        publisher = self.client(V5)
        awaited = [b"%d" % number for number in range(30)]
        for payload in awaited:
            publisher.publish(topic, payload, 1)
            self.assertEqual(plain.take().payload, payload)
        got: list[list[bytes]] = [[] for _ in members]
        deadline = time.monotonic() + 5
        while sum(map(len, got)) < 30 and time.monotonic() < deadline:
            for index, link in enumerate(members):
                got[index] += self.drain(link)
        self.assertEqual(Counter(payload for part in got for payload in part), Counter(awaited))
        for part in got:
            self.assertEqual([int(payload) for payload in part], sorted(int(payload) for payload in part))

    def test_share_delivers_each_message_once(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = case.unique("t")
                self.each_once(f"$share/g/{topic}", topic, version)

    def test_queue_delivers_each_message_once(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = case.unique("t")
                self.each_once(f"$queue/{topic}", topic, version)

    def test_groups_are_independent_and_wildcards_work(self) -> None:
        topic = case.unique("t")
        one, two = self.members(f"$share/one/{topic}/#", 1) + self.members(f"$share/two/{topic}/+", 1)
        self.client(V5).publish(f"{topic}/x", b"both", 1)
        self.assertEqual((one.take().payload, two.take().payload), (b"both", b"both"))

    def test_no_retained_messages(self) -> None:
        # §4.8.2, retain handling: a shared subscription gets no retained messages.
        topic = case.unique("t")
        self.client(V5).publish(topic, b"r", 1, retain=True)
        link = self.client(V5)
        link.subscribe((f"$share/g/{topic}", 1))
        self.assertEqual(link.settle(), [])
        self.client(V5).publish(topic, b"", 1, retain=True)

    def test_unacknowledged_goes_to_another_member(self) -> None:
        topic = case.unique("t")
        first, second = self.members(f"$share/g/{topic}", 2)
        publisher = self.client(V5)
        for number in range(4):
            publisher.publish(topic, bytes([number]), 1)
        publisher.settle()
        # Nobody has acknowledged anything; one member goes for good.
        held = [found.payload for found in second.settle()]
        first.drop()
        got = set(held)
        while len(got) < 4:
            got.add(second.receive().payload)
        self.assertEqual(got, {bytes([number]) for number in range(4)})

    def test_online_members_first(self) -> None:
        topic, name = case.unique("t"), case.unique()
        away = self.link(V5)
        away.connect(name, clean=False, props=[(wire.SESSION_EXPIRY, 60)])
        away.subscribe((f"$share/g/{topic}", 1))
        away.leave()
        online = self.client(V5)
        online.subscribe((f"$share/g/{topic}", 1))
        publisher = self.client(V5)
        for number in range(6):
            publisher.publish(topic, bytes([number]), 1)
            self.assertEqual(online.take().payload, bytes([number]))

    def test_unsubscribe_leaves_the_group(self) -> None:
        topic = case.unique("t")
        first, second = self.members(f"$share/g/{topic}", 2)
        first.send(wire.unsubscribe(V5, [f"$share/g/{topic}"], 77))
        self.assertEqual(first.expect(wire.UNSUBACK).codes, [0])
        publisher = self.client(V5)
        for number in range(4):
            publisher.publish(topic, bytes([number]), 1)
            self.assertEqual(second.take().payload, bytes([number]))


class Meaning(case.BrokerCase):
    """Filters and topics that this broker gives a meaning, as EMQX does."""

    def test_delayed(self) -> None:
        topic = case.unique("t")
        link, publisher = self.client(V5), self.client(V311)
        link.subscribe((topic, 1))
        publisher.publish(f"$delayed/1/{topic}", b"later", 1)
        started = time.monotonic()
        publisher.publish(topic, b"now", 1)
        self.assertEqual(link.take().payload, b"now")
        found = link.take()
        self.assertEqual((found.payload, found.topic), (b"later", topic))
        self.assertTrue(0.9 < time.monotonic() - started < 3)

    def test_exclusive(self) -> None:
        topic = case.unique("t")
        first, second = self.client(V5), self.client(V5)
        self.assertEqual(first.subscribe((f"$exclusive/{topic}", 1)).codes, [1])
        # EMQX answers Quota exceeded.
        self.assertEqual(second.subscribe((f"$exclusive/{topic}", 1)).codes, [0x97])
        self.client(V5).publish(topic, b"x", 1)
        found = first.take()
        self.assertEqual((found.payload, found.topic), (b"x", topic))
        first.leave()
        self.assertEqual(second.subscribe((f"$exclusive/{topic}", 1)).codes, [1])

    def test_exclusive_for_old_clients(self) -> None:
        topic = case.unique("t")
        self.assertEqual(self.client(V311).subscribe((f"$exclusive/{topic}", 0)).codes, [0])
        self.assertEqual(self.client(V311).subscribe((f"$exclusive/{topic}", 0)).codes, [0x80])

    def test_local(self) -> None:
        topic = case.unique("t")
        link = self.client(V5)
        link.subscribe((f"$local/{topic}", 1))
        self.client(V5).publish(topic, b"x", 1)
        self.assertEqual(link.take().topic, topic)


class Denied(case.BrokerCase):
    acl = '{deny, all, subscribe, ["no/#"]}.\n{deny, all, publish, ["no/#"]}.\n{allow, all}.\n'
    with_bystander = True

    def test_subscribe(self) -> None:
        for version in VERSIONS:
            link = self.client(version)
            found = link.subscribe(("no/x", 0), ("yes", 1))
            self.assertEqual(found.codes[1], 1)
            self.assertEqual(found.codes[0], 0x87 if version == V5 else 0x80)

    def test_publish(self) -> None:
        link = self.client(V5)
        self.assertEqual(link.publish("no/x", b"", 1), 0x87)
        self.assertEqual(link.publish("no/x", b"", 2), 0x87)
        link.publish("no/x", b"", 0)
        self.assertEqual(link.settle(), [])
        # 3.1.1 has no negative answer: acknowledged, not delivered.
        old = self.client(V311)
        old.publish("no/x", b"", 1)
        self.assertEqual(old.settle(), [])


class DeniedWithoutReason(case.BrokerCase):
    settings = {"authorization.deny_code": "unspecified_error"}
    acl = Denied.acl

    def test_code(self) -> None:
        link = self.client(V5)
        # §3.9.3: a server that does not wish to reveal the reason.
        self.assertEqual(link.subscribe(("no/x", 0)).codes, [0x80])
        self.assertEqual(link.publish("no/x", b"", 1), 0x80)


class DeniedAndClosed(case.BrokerCase):
    settings = {"authorization.deny_action": "disconnect"}
    acl = Denied.acl

    def test_publish(self) -> None:
        for version in VERSIONS:
            for qos in range(3):
                link = self.client(version)
                link.send(wire.publish(version, "no/x", b"", qos))
                self.assertEqual([found.code for found in link.until_closed()], [0x87] if version == V5 else [])


class Mounted(case.BrokerCase):
    settings = {"listeners.tcp.mounted.bind": "127.0.0.1:0", "listeners.tcp.mounted.mountpoint": "site/${clientid}/"}

    def test_mountpoint(self) -> None:
        name = case.unique()
        inside = self.link(V5, "tcp:mounted")
        inside.connect(name)
        inside.subscribe(("t", 1))
        outside = self.client(V5)
        outside.subscribe((f"site/{name}/t", 1))
        outside.publish(f"site/{name}/t", b"x", 0)
        self.assertEqual((inside.take().topic, outside.take().topic), ("t", f"site/{name}/t"))


if __name__ == "__main__":
    unittest.main()

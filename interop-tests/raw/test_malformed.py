"""Packets that no client may send: the reason code that MQTT 5 names, the end of the connection in 3.1 and 3.1.1, and
no effect on anybody else."""

from __future__ import annotations

import random
import struct
import unittest

from harness import case, wire
from harness.wire import V5, V31, V311, VERSIONS, Will

MALFORMED, PROTOCOL = 0x81, 0x82
TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID, ALIAS_INVALID, TOO_LARGE = 0x8F, 0x90, 0x94, 0x95
# The specification demands a close "because of malformed or protocol error" and leaves which of them to the server.
EITHER = {MALFORMED, PROTOCOL}
NAME = {*EITHER, TOPIC_NAME_INVALID}
FILTER = {*EITHER, TOPIC_FILTER_INVALID}

Table = list[tuple[str, bytes, set[int]]]


def raw_subscribe(rest: bytes, pid: int = 9, flags: int = 2) -> bytes:
    return wire.packet(wire.SUBSCRIBE, flags, struct.pack(">H", pid) + rest)


def any_version_table(version: int) -> Table:
    """Faults that every version has; the set holds the codes for MQTT 5."""
    empty = b"\0" if version == V5 else b""
    publish = wire.publish(version, "a", b"x", 1, 7)
    return [
        ("reserved packet type", b"\x00\x00", {MALFORMED}),
        ("PUBLISH with QoS 3", wire.packet(wire.PUBLISH, 6, publish[2:]), {MALFORMED}),
        ("PUBLISH with DUP and QoS 0", wire.publish(version, "a", dup=True), EITHER),
        ("PUBLISH with packet id 0", wire.publish(version, "a", b"", 1, 0), EITHER),
        ("PUBLISH without room for its topic", wire.packet(wire.PUBLISH, 0, b"\0\x09ab"), {MALFORMED}),
        ("PUBLISH without body", wire.packet(wire.PUBLISH, 0, b""), {MALFORMED}),
        ("PUBLISH without room for its packet id", wire.packet(wire.PUBLISH, 2, wire.text("a") + b"\0"), {MALFORMED}),
        ("PUBLISH to a wildcard +", wire.publish(version, "a/+"), NAME),
        ("PUBLISH to a wildcard #", wire.publish(version, "#"), NAME),
        ("PUBLISH to an empty topic", wire.publish(version, ""), NAME),
        ("PUBLISH topic with a null character", wire.publish(version, "a\0b"), NAME),
        ("PUBLISH topic with a lone continuation byte", wire.publish(version, b"a\x80"), {MALFORMED}),
        ("PUBLISH topic with a surrogate", wire.publish(version, b"a\xed\xa0\x80"), {MALFORMED}),
        ("PUBLISH topic in overlong form", wire.publish(version, b"a\xc0\xaf"), {MALFORMED}),
        ("PUBLISH topic cut inside a character", wire.publish(version, b"a\xe2\x82"), {MALFORMED}),
        ("PUBLISH topic beyond U+10FFFF", wire.publish(version, b"a\xf4\x90\x80\x80"), {MALFORMED}),
        ("SUBSCRIBE with flags 0", raw_subscribe(empty + wire.text("a") + b"\0", flags=0), {MALFORMED}),
        ("SUBSCRIBE with packet id 0", wire.subscribe(version, [("a", 0)], 0), EITHER),
        ("SUBSCRIBE without filter", wire.subscribe(version, []), {PROTOCOL}),
        ("SUBSCRIBE with QoS 3", wire.subscribe(version, [("a", 3)]), {PROTOCOL}),
        ("SUBSCRIBE with reserved option bits", wire.subscribe(version, [("a", 0xC1)]), {MALFORMED}),
        ("SUBSCRIBE without the options of a filter", raw_subscribe(empty + wire.text("a")), {MALFORMED}),
        ("SUBSCRIBE of invalid UTF-8", wire.subscribe(version, [(b"a\xff", 0)]), {MALFORMED}),
        ("UNSUBSCRIBE with flags 0", wire.packet(wire.UNSUBSCRIBE, 0, b"\0\1" + empty + wire.text("a")), {MALFORMED}),
        ("UNSUBSCRIBE without filter", wire.unsubscribe(version, []), {PROTOCOL}),
        ("UNSUBSCRIBE with packet id 0", wire.unsubscribe(version, ["a"], 0), EITHER),
        ("UNSUBSCRIBE cut short", wire.packet(wire.UNSUBSCRIBE, 2, b"\0\1" + empty + b"\0\5ab"), {MALFORMED}),
        ("PUBACK of one byte", wire.packet(wire.PUBACK, 0, b"\0"), {MALFORMED}),
        ("PUBACK with flags", wire.packet(wire.PUBACK, 1, b"\0\1"), {MALFORMED}),
        ("PUBREC of one byte", wire.packet(wire.PUBREC, 0, b"\0"), {MALFORMED}),
        ("PUBREC with flags", wire.packet(wire.PUBREC, 2, b"\0\1"), {MALFORMED}),
        ("PUBREL with flags 0", wire.packet(wire.PUBREL, 0, b"\0\1"), {MALFORMED}),
        ("PUBREL of one byte", wire.packet(wire.PUBREL, 2, b"\0"), {MALFORMED}),
        ("PUBCOMP with flags", wire.packet(wire.PUBCOMP, 8, b"\0\1"), {MALFORMED}),
        ("PUBACK with packet id 0", wire.ack(wire.PUBACK, 0), EITHER),
        ("PINGREQ with a body", wire.packet(wire.PINGREQ, 0, b"x"), {MALFORMED}),
        ("PINGREQ with flags", wire.packet(wire.PINGREQ, 1, b""), {MALFORMED}),
        ("DISCONNECT with flags", wire.packet(wire.DISCONNECT, 1, b""), {MALFORMED}),
        ("CONNACK from a client", wire.packet(wire.CONNACK, 0, b"\0\0" + empty), EITHER),
        ("SUBACK from a client", wire.packet(wire.SUBACK, 0, b"\0\1" + empty + b"\0"), EITHER),
        ("UNSUBACK from a client", wire.packet(wire.UNSUBACK, 0, b"\0\1" + empty), EITHER),
        ("PINGRESP from a client", wire.packet(wire.PINGRESP, 0, b""), EITHER),
        ("a second CONNECT", wire.connect(version, "again"), {PROTOCOL}),
        ("remaining length of five bytes", b"\x30\xff\xff\xff\xff\x01", {MALFORMED}),
    ]


def version_5_table() -> Table:
    """Faults of properties, reason codes and options, which only MQTT 5 has."""

    def publish(*props: wire.Property, topic: str = "a", qos: int = 0) -> bytes:
        return wire.publish(V5, topic, b"", qos, 7, props=list(props))

    def subscribe(options: int, *props: wire.Property, name: str = "a") -> bytes:
        return wire.subscribe(V5, [(name, options)], 9, list(props))

    def with_raw(raw: bytes) -> bytes:
        return wire.packet(wire.PUBLISH, 0, wire.text("a") + wire.varint(len(raw)) + raw)

    repeated = [
        ("payload format", (wire.PAYLOAD_FORMAT, 1)),
        ("message expiry", (wire.MESSAGE_EXPIRY, 5)),
        ("content type", (wire.CONTENT_TYPE, "t")),
        ("response topic", (wire.RESPONSE_TOPIC, "r")),
        ("correlation data", (wire.CORRELATION, b"c")),
        ("topic alias", (wire.TOPIC_ALIAS, 1)),
    ]
    foreign = [
        ("session expiry", (wire.SESSION_EXPIRY, 1)),
        ("server keep alive", (wire.SERVER_KEEP_ALIVE, 1)),
        ("reason string", (wire.REASON_STRING, "r")),
        ("will delay", (wire.WILL_DELAY, 1)),
    ]
    return [
        *[(f"PUBLISH with {name} twice", publish(item, item), {PROTOCOL}) for name, item in repeated],
        *[(f"PUBLISH with {name}", publish(item), EITHER) for name, item in foreign],
        ("PUBLISH with an unknown property", with_raw(b"\x7f\x00"), {MALFORMED}),
        ("PUBLISH with a property id of two bytes", with_raw(b"\xff\x01\x00"), {MALFORMED}),
        ("PUBLISH with a property cut short", with_raw(b"\x02\x00\x00"), {MALFORMED}),
        ("PUBLISH whose properties exceed it", wire.packet(wire.PUBLISH, 0, wire.text("a") + b"\x20"), {MALFORMED}),
        ("PUBLISH without property length", wire.packet(wire.PUBLISH, 0, wire.text("a")), {MALFORMED}),
        ("PUBLISH with payload format 2", publish((wire.PAYLOAD_FORMAT, 2)), EITHER),
        ("PUBLISH with topic alias 0", publish((wire.TOPIC_ALIAS, 0)), {ALIAS_INVALID}),
        ("PUBLISH with an alias never set", publish((wire.TOPIC_ALIAS, 3), topic=""), {ALIAS_INVALID, PROTOCOL}),
        ("PUBLISH with a subscription id", publish((wire.SUBSCRIPTION_ID, 1)), EITHER),
        ("PUBLISH with a wildcard response topic", publish((wire.RESPONSE_TOPIC, "r/#")), NAME),
        ("PUBLISH with a null in a user property", publish((wire.USER_PROPERTY, ("k", "\0"))), {MALFORMED}),
        ("PUBLISH with bad UTF-8 in a content type", publish((wire.CONTENT_TYPE, b"\xc3")), {MALFORMED}),
        ("remaining length in a longer form", b"\xc0\x80\x00", {MALFORMED}),
        ("SUBSCRIBE with retain handling 3", subscribe(0x30), {PROTOCOL}),
        ("SUBSCRIBE with subscription id 0", subscribe(0, (wire.SUBSCRIPTION_ID, 0)), {PROTOCOL}),
        ("SUBSCRIBE with two ids", subscribe(0, (wire.SUBSCRIPTION_ID, 1), (wire.SUBSCRIPTION_ID, 2)), {PROTOCOL}),
        ("SUBSCRIBE with a foreign property", subscribe(0, (wire.TOPIC_ALIAS, 1)), EITHER),
        ("shared SUBSCRIBE with no local", subscribe(0x04, name="$share/g/a"), {PROTOCOL}),
        ("UNSUBSCRIBE with a foreign property", wire.unsubscribe(V5, ["a"], 9, [(wire.SUBSCRIPTION_ID, 1)]), EITHER),
        ("PUBACK with an unknown reason code", wire.ack(wire.PUBACK, 1, 0x7F), EITHER),
        ("PUBREL with a code of SUBACK", wire.ack(wire.PUBREL, 1, 0x01), EITHER),
        ("PUBACK with two reason strings", wire.ack(wire.PUBACK, 1, 0, [(wire.REASON_STRING, "r")] * 2), {PROTOCOL}),
        ("PUBACK with bytes behind its properties", wire.packet(wire.PUBACK, 0, b"\0\1\0\0xx"), {MALFORMED}),
        ("DISCONNECT with a code of the server", wire.disconnect(0x8E), EITHER),
        ("DISCONNECT with an unknown code", wire.disconnect(0x7E), EITHER),
        ("DISCONNECT raising an expiry of 0", wire.disconnect(0, [(wire.SESSION_EXPIRY, 10)]), {PROTOCOL}),
        ("AUTH without a method in CONNECT", wire.auth(0x18, [(wire.AUTH_METHOD, "m")]), {PROTOCOL, 0x8C}),
        ("AUTH with flags", wire.packet(wire.AUTH, 1, b"\x18\0"), {MALFORMED}),
        ("AUTH with an unknown code", wire.auth(0x55), EITHER),
    ]


class AfterConnect(case.BrokerCase):
    """A connected client breaks the rules."""

    def test_faults_end_the_connection_with_the_code_of_the_specification(self) -> None:
        for name, data, codes in [*any_version_table(V5), *version_5_table()]:
            with self.subTest(name):
                link = self.client(V5)
                link.send_hostile(data)
                sent = link.until_closed()
                self.assertEqual([found.kind for found in sent], [wire.DISCONNECT], [str(found) for found in sent])
                self.assertIn(sent[0].code, codes, f"{sent[0].code:#x}")

    def test_faults_close_a_3_1_1_connection(self) -> None:
        self._closes(V311)

    def test_faults_close_a_3_1_connection(self) -> None:
        self._closes(V31)

    def _closes(self, version: int) -> None:
        auth = ("AUTH, which is reserved", wire.packet(wire.AUTH, 0, b""), set[int]())
        for name, data, _ in [*any_version_table(version), auth]:
            if version == V31 and ("flags" in name or "PINGREQ with a body" in name or "reserved option" in name):
                # 3.1 gives DUP and QoS of PUBREL, SUBSCRIBE and UNSUBSCRIBE a meaning and reserves nothing.
                continue
            with self.subTest(name):
                link = self.client(version)
                link.send_hostile(data)
                self.assertEqual([str(found) for found in link.until_closed()], [])

    def test_a_fault_fires_the_will(self) -> None:
        # A connection that the server closes for a fault has not been disconnected by DISCONNECT: §3.1.2.5.
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = case.unique("will")
                watcher = self.client(V5)
                watcher.subscribe((topic, 0))
                link = self.link(version)
                link.connect(case.unique(), will=Will(topic, b"fault"))
                link.send_hostile(wire.packet(wire.PUBLISH, 6, b"\0\1a\0\1"))
                self.assertEqual(watcher.take().payload, b"fault")

    def test_invalid_filters_are_refused(self) -> None:
        filters = ["", "a/#/b", "a#", "a+", "+a/b", "a/b+", "#/a", "$share/g", "$share//a", "$share/g/", "$share/g+/a"]
        filters += ["$share/#/a", "a\0b"]
        for version in VERSIONS:
            for name in filters:
                with self.subTest(version=version, filter=name):
                    link = self.client(version)
                    link.send(wire.subscribe(version, [(name, 0)], 3))
                    try:
                        found = link.receive()
                    except wire.Closed:
                        self.assertNotEqual(version, V5, "closed without DISCONNECT")
                        continue
                    if found.kind == wire.SUBACK:
                        allowed = {0x80, TOPIC_FILTER_INVALID} if version == V5 else {0x80}
                        self.assertTrue(set(found.codes) <= allowed, str(found))
                    else:
                        self.assertEqual((version, found.kind), (V5, wire.DISCONNECT), str(found))
                        self.assertIn(found.code, FILTER)

    def test_ten_thousand_levels(self) -> None:
        topic = "/".join("a" * 10_000)
        for version in VERSIONS:
            for pid, data in (
                (4, wire.publish(version, topic, b"", 1, 4)),
                (5, wire.subscribe(version, [(topic, 1)], 5)),
            ):
                with self.subTest(version=version, pid=pid):
                    link = self.client(version)
                    link.send_hostile(data)
                    try:
                        found = link.receive()
                    except wire.Closed:
                        self.assertNotEqual(version, V5, "closed without DISCONNECT")
                        continue
                    if found.kind == wire.DISCONNECT:
                        self.assertEqual(version, V5)
                        self.assertIn(found.code, {*NAME, *FILTER})
                    elif found.kind == wire.PUBACK:
                        # 3.x cannot refuse a message: acknowledged and not delivered is one of its two ways.
                        self.assertIn(found.code, {TOPIC_NAME_INVALID, 0x83, 0x97} if version == V5 else {0})
                    else:
                        self.assertEqual(found.kind, wire.SUBACK)
                        self.assertTrue(found.codes[0] >= 0x80, str(found))


class Connecting(case.BrokerCase):
    """CONNECT itself is at fault, or something else comes first."""

    def refused(self, version: int, data: bytes, codes: set[int]) -> None:
        """CONNACK with one of the codes, or nothing; then the end of the connection."""
        link = self.link(version)
        link.send_hostile(data)
        sent = link.until_closed()
        self.assertLessEqual(len(sent), 1, [str(found) for found in sent])
        for found in sent:
            self.assertEqual(found.kind, wire.CONNACK, str(found))
            self.assertIn(found.code, codes, f"{found.code:#x}")
            self.assertFalse(found.session_present, "[MQTT-3.2.2-6]")

    def test_faults_of_every_version(self) -> None:
        for version in VERSIONS:
            will = Will("w")
            none = {1, 2, 3, 4, 5} if version != V5 else EITHER
            identifier = {2} if version != V5 else {*EITHER, 0x85}
            body = wire.connect(version, "id")[2:]
            level_at = 6 if version != V31 else 8
            table = [
                ("wrong protocol name", wire.connect(version, "c", name="MQTX"), {1, 0x84, *none}),
                ("name in lower case", wire.connect(version, "c", name="mqtt"), {1, 0x84, *none}),
                (
                    "name of the other version",
                    wire.connect(version, "c", name=["MQTT", "MQIsdp"][version != V31]),
                    {1, 0x84, *none},
                ),
                ("level 6", wire.connect(version, "c", level=6), {1, 0x84}),
                ("level 0", wire.connect(version, "c", level=0), {1, 0x84}),
                ("will QoS 3", wire.connect(version, "c", will=will, flags=0x1E), none),
                ("invalid UTF-8 in the client id", wire.connect(version, b"\xff\xfe"), identifier),
                ("null in the client id", wire.connect(version, "a\0b"), identifier),
                ("invalid UTF-8 in the user name", wire.connect(version, "c", username=b"\xff"), none | {0x86}),
                ("will with a wildcard", wire.connect(version, "c", will=Will("w/#")), none | {TOPIC_NAME_INVALID}),
                ("will with an empty topic", wire.connect(version, "c", will=Will("")), none | {TOPIC_NAME_INVALID}),
                (
                    "will topic of invalid UTF-8",
                    wire.connect(version, "c", will=Will(b"\xc0")),
                    none | {TOPIC_NAME_INVALID},
                ),
                ("cut before the keep alive", wire.packet(wire.CONNECT, 0, body[: level_at + 2]), none),
                ("cut inside the client id", wire.packet(wire.CONNECT, 0, body[:-1]), none),
                ("empty body", wire.packet(wire.CONNECT, 0, b""), none),
                ("bytes behind the payload", wire.connect(version, "c", tail=b"zz"), none),
                ("flags that promise a will", wire.connect(version, "c", flags=0x06), none),
            ]
            if version != V31:
                # 3.1 reserves no bits, and lets a user name and password be absent that the flags promise (3.1 §3.1).
                table += [
                    ("flags that promise a password", wire.connect(version, "c", flags=0xC2), none),
                    ("reserved connect flag", wire.connect(version, "c", flags=0x03), none),
                    ("fixed header flags", wire.packet(wire.CONNECT, 1, body), none),
                    ("will QoS without a will", wire.connect(version, "c", flags=0x0A), none),
                    ("will retain without a will", wire.connect(version, "c", flags=0x22), none),
                ]
            if version == V311:
                table.append(("password without a user name", wire.connect(version, "c", password=b"p"), none))
            for name, data, codes in table:
                with self.subTest(name, version=version):
                    self.refused(version, data, codes)

    def test_faults_of_version_5(self) -> None:
        def with_props(*props: wire.Property) -> bytes:
            return wire.connect(V5, "c", props=list(props))

        def with_will(*props: wire.Property) -> bytes:
            return wire.connect(V5, "c", will=Will("w", properties=list(props)))

        raw = wire.text("MQTT") + b"\x05\x02\0\0"
        once = [
            (wire.SESSION_EXPIRY, 1),
            (wire.RECEIVE_MAXIMUM, 5),
            (wire.MAXIMUM_PACKET, 1000),
            (wire.TOPIC_ALIAS_MAXIMUM, 1),
            (wire.REQUEST_RESPONSE, 1),
            (wire.REQUEST_PROBLEM, 1),
            (wire.AUTH_METHOD, "m"),
        ]
        once_in_will = [
            (wire.WILL_DELAY, 1),
            (wire.PAYLOAD_FORMAT, 1),
            (wire.MESSAGE_EXPIRY, 1),
            (wire.CONTENT_TYPE, "t"),
        ]
        once_in_will += [(wire.RESPONSE_TOPIC, "r"), (wire.CORRELATION, b"c")]
        table = [
            *[(f"property {item[0]:#x} twice", with_props(item, item), {PROTOCOL}) for item in once],
            *[(f"will property {item[0]:#x} twice", with_will(item, item), {PROTOCOL}) for item in once_in_will],
            ("receive maximum 0", with_props((wire.RECEIVE_MAXIMUM, 0)), {PROTOCOL}),
            ("maximum packet size 0", with_props((wire.MAXIMUM_PACKET, 0)), {PROTOCOL}),
            ("request problem information 2", with_props((wire.REQUEST_PROBLEM, 2)), {PROTOCOL}),
            ("request response information 2", with_props((wire.REQUEST_RESPONSE, 2)), {PROTOCOL}),
            ("authentication data without a method", with_props((wire.AUTH_DATA, b"d")), {PROTOCOL}),
            ("a property of PUBLISH", with_props((wire.TOPIC_ALIAS, 1)), EITHER),
            ("will delay outside the will", with_props((wire.WILL_DELAY, 1)), EITHER),
            ("a property of CONNECT in the will", with_will((wire.SESSION_EXPIRY, 1)), EITHER),
            ("an unknown property", wire.packet(wire.CONNECT, 0, raw + b"\x02\x7f\x00" + wire.text("c")), {MALFORMED}),
            ("properties that exceed the packet", wire.packet(wire.CONNECT, 0, raw + b"\x40"), {MALFORMED}),
            ("will response topic with a wildcard", with_will((wire.RESPONSE_TOPIC, "+")), NAME),
        ]
        for name, data, codes in table:
            with self.subTest(name):
                self.refused(V5, data, codes)

    def test_unknown_authentication_method(self) -> None:
        # §4.12: a server that does not support the method answers 0x8C or 0x87.
        link = self.link(V5)
        link.send(wire.connect(V5, case.unique(), props=[(wire.AUTH_METHOD, "NONE-SUCH"), (wire.AUTH_DATA, b"x")]))
        found = link.expect(wire.CONNACK)
        self.assertEqual(found.code, 0x8C, str(found))
        link.expect_closed()

    def test_empty_client_id(self) -> None:
        # [MQTT-3.1.3-8] of 3.1.1; 3.1 asks for 1 to 23 characters.
        self.refused(V311, wire.connect(V311, "", clean=False), {2})
        link = self.link(V311)
        link.send(wire.connect(V311, "", clean=False))
        self.assertEqual(link.expect(wire.CONNACK).code, 2)
        self.refused(V31, wire.connect(V31, "", clean=False), {2})
        self.link(V311).connect("", clean=True)

    def test_anything_before_connect_is_closed(self) -> None:
        for version in VERSIONS:
            first = [
                wire.publish(version, "a"),
                wire.publish(version, "a", b"", 1, 1),
                wire.publish(version, "a", b"", 2, 1),
                wire.subscribe(version, [("a", 0)]),
                wire.unsubscribe(version, ["a"]),
                *[wire.ack(kind, 1) for kind in (wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP)],
                wire.PINGREQ_BYTES,
                wire.disconnect(),
                wire.auth(0x18, [(wire.AUTH_METHOD, "m")]),
                wire.packet(wire.CONNACK, 0, b"\0\0\0"),
                wire.packet(wire.SUBACK, 0, b"\0\1\0\0"),
                wire.packet(wire.PINGRESP, 0, b""),
                b"\x00\x00",
            ]
            for data in first:
                with self.subTest(version=version, kind=wire.NAMES[data[0] >> 4]):
                    link = self.link(version)
                    # The CONNECT behind it must not be answered either.
                    link.send_hostile(data + wire.connect(version, case.unique()))
                    sent = link.until_closed()
                    self.assertNotIn(
                        wire.CONNACK, [found.kind for found in sent if found.code == 0], [str(f) for f in sent]
                    )
                    self.assertTrue(all(found.kind in (wire.DISCONNECT, wire.CONNACK) for found in sent))


class Streams(case.BrokerCase):
    """Packets in unusual pieces."""

    def conversation(self, version: int, topic: str, client: str) -> list[bytes]:
        will = Will("will/x", b"w", 1, True)
        return [
            wire.connect(version, client, True, 60, will, "user", b"pass"),
            wire.subscribe(version, [(topic, 2), (topic + "/+", 1)], 1),
            wire.publish(version, topic, b"zero"),
            wire.publish(version, topic, b"one", 1, 2),
            wire.publish(version, topic, b"two", 2, 3),
            wire.ack(wire.PUBREL, 3),
            wire.unsubscribe(version, [topic], 4),
            wire.PINGREQ_BYTES,
        ]

    def collect(self, link: wire.Link) -> list[wire.Packet]:
        """The seven answers and the three messages, in the order of their arrival."""
        return [link.receive() for _ in range(10)]

    def check(self, seen: list[wire.Packet]) -> None:
        kinds = [found.kind for found in seen if found.kind != wire.PUBLISH]
        answers = [wire.CONNACK, wire.SUBACK, wire.PUBACK, wire.PUBREC, wire.PUBCOMP, wire.UNSUBACK, wire.PINGRESP]
        self.assertEqual(kinds, answers, [str(found) for found in seen])
        self.assertEqual([f.payload for f in seen if f.kind == wire.PUBLISH], [b"zero", b"one", b"two"])

    def test_one_byte_at_a_time(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                link = self.link(version)
                for byte in b"".join(self.conversation(version, case.unique("t"), case.unique())):
                    link.send(bytes([byte]))
                self.check(self.collect(link))

    def test_everything_in_one_segment(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                link = self.link(version)
                link.send(*self.conversation(version, case.unique("t"), case.unique()))
                self.check(self.collect(link))

    def test_truncated_at_every_byte(self) -> None:
        # The end of the stream inside a packet is an end of the connection and nothing more: no answer to a part.
        for version in VERSIONS:
            packets = self.conversation(version, case.unique("t"), case.unique())
            for index, data in enumerate(packets):
                for cut in range(1, len(data)):
                    link = wire.Link(self.broker.address(), version)
                    if index:
                        link.connect(case.unique())
                    link.send(data[:cut])
                    link.socket.shutdown(1)
                    sent = link.until_closed()
                    link.drop()
                    self.assertEqual([str(f) for f in sent if f.kind != wire.DISCONNECT], [], (version, index, cut))

    def test_random_bytes(self) -> None:
        seed = 20_260_101
        chance = random.Random(seed)
        for turn in range(300):
            link = wire.Link(self.broker.address(), V5)
            if turn % 2:
                link.connect(case.unique())
            link.send_hostile(chance.randbytes(chance.randrange(1, 400)))
            try:
                link.socket.shutdown(1)
            except OSError:
                pass
            try:
                link.until_closed()
            except wire.TimedOut:
                self.fail(f"the connection stays open; seed {seed}, turn {turn}")
            link.drop()

    def test_flipped_bits(self) -> None:
        # A valid conversation with one byte changed: any outcome but a hang, a crash, or harm to the bystander.
        seed = 7
        chance = random.Random(seed)
        for turn in range(300):
            version = chance.choice(VERSIONS)
            data = bytearray(b"".join(self.conversation(version, case.unique("t"), case.unique())))
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            link = wire.Link(self.broker.address(), version)
            link.send_hostile(bytes(data))
            try:
                link.socket.shutdown(1)
                link.until_closed()
            except (OSError, wire.Malformed, UnicodeDecodeError):
                pass
            except wire.TimedOut:
                self.fail(f"the connection stays open; seed {seed}, turn {turn}")
            link.drop()


if __name__ == "__main__":
    unittest.main()

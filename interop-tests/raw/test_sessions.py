"""Sessions, acknowledgement, wills and expiry: conversations that no client library shows in full."""

from __future__ import annotations

import time
import unittest

from harness import case, wire
from harness.wire import V5, V31, V311, VERSIONS, Will

EVER = [(wire.SESSION_EXPIRY, 300)]


def persistent(version: int) -> dict[str, object]:
    """CONNECT options of a session that outlives its connection."""
    return {"clean": False, "props": EVER if version == V5 else None}


class Delivery(case.BrokerCase):
    """Packet ids, acknowledgement, resume."""

    def test_packet_ids_start_at_1_and_count_up(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = case.unique("t")
                link = self.client(version)
                link.subscribe((topic, 2))
                publisher = self.client(V5)
                for number in range(1, 40):
                    publisher.publish(topic, b"", 1 + number % 2)
                    self.assertEqual(link.take().pid, number)

    def test_packet_ids_are_not_reused_while_unacknowledged(self) -> None:
        topic = case.unique("t")
        link = self.client(V5)
        link.subscribe((topic, 1))
        publisher = self.client(V5)
        for _ in range(3):
            publisher.publish(topic, b"", 1)
        first, second, third = (link.expect(wire.PUBLISH) for _ in range(3))
        link.send(wire.ack(wire.PUBACK, second.pid))
        publisher.publish(topic, b"", 1)
        self.assertNotIn(link.expect(wire.PUBLISH).pid, (first.pid, third.pid))

    def test_resume_resends_in_order_with_dup(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic, name = case.unique("t"), case.unique()
                link = self.link(version)
                link.connect(name, **persistent(version))
                link.subscribe((topic, 2))
                publisher = self.client(V5)
                for number in range(6):
                    publisher.publish(topic, bytes([number]), 1 + number % 2)
                sent = [link.expect(wire.PUBLISH) for _ in range(6)]
                self.assertEqual([found.pid for found in sent], [1, 2, 3, 4, 5, 6])
                self.assertFalse(any(found.dup for found in sent))
                # 1 (QoS 1) is done; 2 (QoS 2) stops at PUBREC, so its PUBREL is what has to be sent again.
                link.send(wire.ack(wire.PUBACK, 1))
                link.send(wire.ack(wire.PUBREC, 2))
                self.assertEqual(link.expect(wire.PUBREL).pid, 2)
                link.drop()
                publisher.publish(topic, b"later", 1)

                again = self.link(version)
                found = again.connect(name, **persistent(version))
                self.assertTrue(found.session_present or version == V31, "3.1 has no session present flag")
                resent = [again.receive() for _ in range(6)]
                self.assertEqual([(f.kind, f.pid) for f in resent[:5]], [
                    (wire.PUBREL, 2), (wire.PUBLISH, 3), (wire.PUBLISH, 4), (wire.PUBLISH, 5), (wire.PUBLISH, 6),
                ], [str(f) for f in resent])  # fmt: skip
                self.assertTrue(all(f.dup for f in resent[1:5]), "[MQTT-3.3.1-1]")
                self.assertEqual([f.payload for f in resent[1:5]], [b"\2", b"\3", b"\4", b"\5"])
                self.assertEqual((resent[5].payload, resent[5].pid, resent[5].dup), (b"later", 7, False))
                again.send(wire.ack(wire.PUBCOMP, 2))
                for message in resent[1:]:
                    if message.kind == wire.PUBLISH:
                        again.acknowledge(message)
                self.assertEqual(again.settle(), [])

    def test_pubrel_is_resent_until_pubcomp(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic, name = case.unique("t"), case.unique()
                link = self.link(version)
                link.connect(name, **persistent(version))
                link.subscribe((topic, 2))
                self.client(V5).publish(topic, b"x", 1)
                # The subscriber's QoS is at most the publisher's.
                self.assertEqual(link.take().qos, 1)
                self.client(V5).publish(topic, b"x", 2)
                pid = link.expect(wire.PUBLISH).pid
                link.send(wire.ack(wire.PUBREC, pid))
                link.expect(wire.PUBREL)
                for _ in range(2):
                    link.drop()
                    link = self.link(version)
                    link.connect(name, **persistent(version))
                    self.assertEqual(link.expect(wire.PUBREL).pid, pid)
                link.send(wire.ack(wire.PUBCOMP, pid))
                self.assertEqual(link.settle(), [])
                link.drop()
                link = self.link(version)
                link.connect(name, **persistent(version))
                self.assertEqual(link.settle(), [])

    def test_inbound_qos_2_is_delivered_once(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic, name = case.unique("t"), case.unique()
                reader = self.client(V5)
                reader.subscribe((topic, 0))
                link = self.link(version)
                link.connect(name, **persistent(version))
                for dup in (False, True, True):
                    link.send(wire.publish(version, topic, b"once", 2, 5, dup=dup))
                    self.assertEqual(link.expect(wire.PUBREC).pid, 5)
                link.drop()
                link = self.link(version)
                link.connect(name, **persistent(version))
                link.send(wire.publish(version, topic, b"once", 2, 5, dup=True))
                self.assertEqual(link.expect(wire.PUBREC).pid, 5)
                for _ in range(2):
                    link.send(wire.ack(wire.PUBREL, 5))
                    self.assertEqual(link.expect(wire.PUBCOMP).pid, 5)
                # The id is free: the same id is a new message now.
                link.send(wire.publish(version, topic, b"new", 2, 5))
                link.expect(wire.PUBREC)
                link.send(wire.ack(wire.PUBREL, 5))
                link.expect(wire.PUBCOMP)
                self.assertEqual([reader.take().payload, reader.take().payload], [b"once", b"new"])
                self.assertEqual(reader.settle(), [])

    def test_unknown_ids_in_acknowledgements(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                link = self.client(version)
                link.send(wire.ack(wire.PUBREL, 77))
                found = link.expect(wire.PUBCOMP)
                self.assertEqual((found.pid, found.code), (77, 0x92 if version == V5 else 0))
                if version == V5:
                    link.send(wire.ack(wire.PUBREC, 78))
                    found = link.expect(wire.PUBREL)
                    self.assertEqual((found.pid, found.code), (78, 0x92))

    def test_pubrec_with_an_error_ends_the_exchange(self) -> None:
        topic = case.unique("t")
        link = self.client(V5)
        link.subscribe((topic, 2))
        publisher = self.client(V5)
        publisher.publish(topic, b"a", 2)
        pid = link.expect(wire.PUBLISH).pid
        link.send(wire.ack(wire.PUBREC, pid, 0x97))
        self.assertEqual(link.settle(), [], "[MQTT-4.3.3-4]: no PUBREL behind an error")

    def test_client_receive_maximum_is_a_window(self) -> None:
        for qos in (1, 2):
            with self.subTest(qos=qos):
                topic = case.unique("t")
                link = self.link(V5)
                link.connect(case.unique(), props=[(wire.RECEIVE_MAXIMUM, 2)])
                link.subscribe((topic, qos))
                publisher = self.client(V5)
                for number in range(5):
                    publisher.publish(topic, bytes([number]), qos)
                window = [link.expect(wire.PUBLISH), link.expect(wire.PUBLISH)]
                self.assertEqual(link.settle(), [], "[MQTT-3.3.4-9]")
                seen = [found.payload for found in window]
                while len(seen) < 5:
                    link.acknowledge(window.pop(0))
                    window.append(link.expect(wire.PUBLISH))
                    seen.append(window[-1].payload)
                    self.assertEqual(link.settle(), [], "[MQTT-3.3.4-9]")
                self.assertEqual(seen, [bytes([number]) for number in range(5)])

    def test_order_of_one_publisher_holds_through_the_queue(self) -> None:
        topic, name = case.unique("t"), case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=[*EVER, (wire.RECEIVE_MAXIMUM, 3)])
        link.subscribe((topic, 2))
        link.leave()
        publisher = self.client(V5)
        for number in range(50):
            publisher.publish(topic, bytes([number]), 1 + number % 2)
        link = self.link(V5)
        link.connect(name, clean=False, props=[*EVER, (wire.RECEIVE_MAXIMUM, 3)])
        got = []
        pending: list[wire.Packet] = []
        while len(got) < 50:
            found = pending.pop(0) if pending else link.receive()
            if found.kind == wire.PUBLISH:
                got.append(found.payload[0])
                link.send(wire.ack(wire.PUBACK if found.qos == 1 else wire.PUBREC, found.pid))
            elif found.kind == wire.PUBREL:
                link.send(wire.ack(wire.PUBCOMP, found.pid))
        self.assertEqual(got, list(range(50)))

    def test_subscriber_gets_the_lower_qos(self) -> None:
        for granted in range(3):
            topic = case.unique("t")
            link = self.client(V311)
            self.assertEqual(link.subscribe((topic, granted)).codes, [granted])
            publisher = self.client(V31)
            for published in range(3):
                publisher.publish(topic, b"", published)
                self.assertEqual(link.take().qos, min(granted, published))


class Lifetime(case.BrokerCase):
    """Session present, expiry, takeover."""

    def test_session_present(self) -> None:
        # Clean session of 3.1.1 says that nothing is kept; clean start of MQTT 5 only that nothing is taken over.
        steps = {V311: [(False, False), (False, True), (True, False), (False, False)]}
        steps[V5] = [*steps[V311][:3], (False, True)]
        for version, sequence in steps.items():
            with self.subTest(version=version):
                name = case.unique()
                for clean, awaited in sequence:
                    link = self.link(version)
                    found = link.connect(name, clean=clean, props=EVER if version == V5 else None)
                    self.assertEqual(found.session_present, awaited)
                    link.leave()

    def test_clean_start_discards(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic, name = case.unique("t"), case.unique()
                link = self.link(version)
                link.connect(name, **persistent(version))
                link.subscribe((topic, 1))
                link.leave()
                self.client(V5).publish(topic, b"lost", 1)
                fresh = self.link(version)
                self.assertFalse(fresh.connect(name, clean=True).session_present)
                self.client(V5).publish(topic, b"unseen", 1)
                self.assertEqual(fresh.settle(), [])

    def test_expiry_zero_or_absent_ends_with_the_connection(self) -> None:
        name = case.unique()
        for props in (None, [(wire.SESSION_EXPIRY, 0)]):
            link = self.link(V5)
            self.assertFalse(link.connect(name, clean=False, props=props).session_present)
            link.leave()

    def test_expiry_counts_from_the_end_of_the_connection(self) -> None:
        name = case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=[(wire.SESSION_EXPIRY, 1)])
        time.sleep(1.5)  # longer than the expiry, while connected
        link.leave()
        link = self.link(V5)
        self.assertTrue(link.connect(name, clean=False, props=[(wire.SESSION_EXPIRY, 1)]).session_present)
        link.drop()
        time.sleep(2.5)  # the expiry is the subject
        link = self.link(V5)
        self.assertFalse(link.connect(name, clean=False).session_present)

    def test_disconnect_changes_the_expiry(self) -> None:
        name = case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=[(wire.SESSION_EXPIRY, 1)])
        link.leave(0, [(wire.SESSION_EXPIRY, 60)])
        time.sleep(2)  # beyond the first expiry
        link = self.link(V5)
        self.assertTrue(link.connect(name, clean=False, props=EVER).session_present)
        link.leave(0, [(wire.SESSION_EXPIRY, 0)])
        link = self.link(V5)
        self.assertFalse(link.connect(name, clean=False).session_present)

    def test_takeover(self) -> None:
        for old in VERSIONS:
            for new in VERSIONS:
                with self.subTest(old=old, new=new):
                    topic, name = case.unique("t"), case.unique()
                    first = self.link(old)
                    first.connect(name, **persistent(old))
                    first.subscribe((topic, 1))
                    second = self.link(new)
                    found = second.connect(name, **persistent(new))
                    self.assertTrue(found.session_present or new == V31)
                    sent = first.until_closed()
                    # [MQTT-3.1.4-3]
                    self.assertEqual([(f.kind, f.code) for f in sent], [(wire.DISCONNECT, 0x8E)] if old == V5 else [])
                    self.client(V5).publish(topic, b"mine", 1)
                    self.assertEqual(second.take().payload, b"mine")

    def test_takeover_storm(self) -> None:
        name = case.unique()
        links = []
        for _ in range(60):
            link = self.link(V5)
            link.send(wire.connect(V5, name, False, props=EVER))
            links.append(link)
        alive = 0
        for link in links:
            try:
                while True:
                    found = link.receive(1.5)
                    self.assertTrue(found.kind == wire.CONNACK or found.code == 0x8E, str(found))
            except wire.Closed:
                continue
            except wire.TimedOut:
                alive += 1
        self.assertEqual(alive, 1)

    def test_assigned_client_id(self) -> None:
        link, other = self.link(V5), self.link(V5)
        name, second = (found.connect("").get(wire.ASSIGNED_ID) for found in (link, other))
        self.assertTrue(name and second and name != second)
        # The id is usable: whoever connects with it takes over.
        self.link(V5).connect(name)
        self.assertEqual([found.code for found in link.until_closed()], [0x8E])
        self.assertIsNone(self.link(V5).connect(case.unique()).get(wire.ASSIGNED_ID))

    def test_offline_queue_and_version_change(self) -> None:
        # A session belongs to the client id, whatever version comes back.
        for old, new in ((V311, V5), (V5, V311), (V31, V5)):
            with self.subTest(old=old, new=new):
                topic, name = case.unique("t"), case.unique()
                link = self.link(old)
                link.connect(name, **persistent(old))
                link.subscribe((topic, 1))
                link.leave()
                publisher = self.client(V5)
                publisher.publish(topic, b"kept", 1, props=[(wire.USER_PROPERTY, ("k", "v"))])
                link = self.link(new)
                link.connect(name, **persistent(new))
                found = link.take()
                self.assertEqual(found.payload, b"kept")
                if new == V5:
                    self.assertEqual(found.all(wire.USER_PROPERTY), [("k", "v")])


class Wills(case.BrokerCase):
    """When a will is published and when not. Delays are 1 second; their time is the subject."""

    def setUp(self) -> None:
        super().setUp()
        self.topic = case.unique("will")
        self.watcher = self.client(V5)
        self.watcher.subscribe((self.topic, 2))

    def will(self, payload: bytes = b"gone", delay: int = 0, **options: object) -> Will:
        props: list[wire.Property] = [(wire.WILL_DELAY, delay)] if delay else []
        return Will(self.topic, payload, properties=props, **options)  # type: ignore[arg-type]

    def marker(self) -> None:
        """What the watcher sees next has to be this and not a will."""
        self.client(V5).publish(self.topic, b"marker", 1)
        self.assertEqual(self.watcher.take().payload, b"marker")

    def test_lost_connection_fires(self) -> None:
        for version in VERSIONS:
            for qos in range(3):
                with self.subTest(version=version, qos=qos):
                    link = self.link(version)
                    link.connect(case.unique(), will=self.will(b"w%d" % qos, qos=qos))
                    link.drop()
                    found = self.watcher.take()
                    self.assertEqual((found.payload, found.qos), (b"w%d" % qos, qos))

    def test_disconnect_cancels(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                link = self.link(version)
                link.connect(case.unique(), will=self.will())
                link.leave()
                self.marker()

    def test_disconnect_with_will(self) -> None:
        link = self.link(V5)
        link.connect(case.unique(), will=self.will())
        link.leave(0x04)
        self.assertEqual(self.watcher.take().payload, b"gone")

    def test_properties_and_retain(self) -> None:
        link = self.link(V5)
        sent: list[wire.Property] = [
            (wire.PAYLOAD_FORMAT, 1),
            (wire.MESSAGE_EXPIRY, 100),
            (wire.CONTENT_TYPE, "text/plain"),
            (wire.RESPONSE_TOPIC, "r"),
            (wire.CORRELATION, b"c"),
            (wire.USER_PROPERTY, ("a", "1")),
            (wire.USER_PROPERTY, ("a", "2")),
        ]
        link.connect(case.unique(), will=Will(self.topic, b"p", 1, True, sent))
        link.drop()
        self.assertEqual(sorted(map(str, self.watcher.take().props)), sorted(map(str, sent)))
        late = self.client(V311)
        late.subscribe((self.topic, 0))
        found = late.take()
        self.assertEqual((found.payload, found.retain), (b"p", True))
        self.client(V5).publish(self.topic, b"", 1, retain=True)

    def test_delay_fires(self) -> None:
        link = self.link(V5)
        link.connect(case.unique(), clean=False, props=EVER, will=self.will(delay=1))
        link.drop()
        started = time.monotonic()
        self.marker()
        self.assertEqual(self.watcher.take().payload, b"gone")
        self.assertTrue(0.9 < time.monotonic() - started < 3)

    def test_delay_is_cancelled_by_the_return(self) -> None:
        # [MQTT-3.1.3-9]
        name = case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=EVER, will=self.will(delay=1))
        link.drop()
        self.link(V5).connect(name, clean=False, props=EVER)
        time.sleep(1.8)  # beyond the delay
        self.marker()

    def test_end_of_the_session_fires_a_delayed_will(self) -> None:
        # [MQTT-3.1.2-8] and §3.1.3.2.2: at the delay or at the end of the session, whichever is first.
        name = case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=EVER, will=self.will(b"at once", delay=100))
        link.drop()
        self.link(V5).connect(name, clean=True)
        self.assertEqual(self.watcher.take().payload, b"at once")
        link = self.link(V5)
        link.connect(case.unique(), props=[(wire.SESSION_EXPIRY, 0)], will=self.will(b"no session", delay=100))
        link.drop()
        self.assertEqual(self.watcher.take().payload, b"no session")
        link = self.link(V5)
        link.connect(case.unique(), props=[(wire.SESSION_EXPIRY, 1)], will=self.will(b"expired", delay=100))
        link.drop()
        self.assertEqual(self.watcher.take().payload, b"expired")

    def test_takeover_fires_a_will_without_delay(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                name = case.unique()
                link = self.link(version)
                link.connect(name, will=self.will(b"taken"), **persistent(version))
                self.link(version).connect(name, **persistent(version))
                self.assertEqual(self.watcher.take().payload, b"taken")

    def test_takeover_cancels_a_delayed_will(self) -> None:
        name = case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=EVER, will=self.will(delay=1))
        self.link(V5).connect(name, clean=False, props=EVER)
        link.until_closed()
        time.sleep(1.8)  # beyond the delay
        self.marker()


class Expiry(case.BrokerCase):
    """Message expiry; seconds are its unit, so they are waited for."""

    def test_remaining_time_and_end(self) -> None:
        topic, name = case.unique("t"), case.unique()
        link = self.link(V5)
        link.connect(name, clean=False, props=EVER)
        link.subscribe((topic, 1))
        link.leave()
        publisher = self.client(V5)
        publisher.publish(topic, b"short", 1, props=[(wire.MESSAGE_EXPIRY, 1)])
        publisher.publish(topic, b"long", 1, props=[(wire.MESSAGE_EXPIRY, 60)])
        publisher.publish(topic, b"ever", 1)
        time.sleep(2.2)  # beyond the short one
        link = self.link(V5)
        link.connect(name, clean=False, props=EVER)
        found = link.take()
        self.assertEqual(found.payload, b"long")
        self.assertTrue(50 <= found.get(wire.MESSAGE_EXPIRY) <= 58, found)
        found = link.take()
        self.assertEqual((found.payload, found.get(wire.MESSAGE_EXPIRY)), (b"ever", None))

    def test_forwarded_at_once_keeps_its_value(self) -> None:
        topic = case.unique("t")
        link = self.client(V5)
        link.subscribe((topic, 0))
        self.client(V5).publish(topic, b"", 1, props=[(wire.MESSAGE_EXPIRY, 60)])
        self.assertIn(link.take().get(wire.MESSAGE_EXPIRY), (59, 60))

    def test_retained_expire(self) -> None:
        topic = case.unique("t")
        publisher = self.client(V5)
        publisher.publish(f"{topic}/short", b"short", 1, retain=True, props=[(wire.MESSAGE_EXPIRY, 1)])
        publisher.publish(f"{topic}/long", b"long", 1, retain=True, props=[(wire.MESSAGE_EXPIRY, 60)])
        time.sleep(2.2)  # beyond the short one
        link = self.client(V5)
        link.subscribe((f"{topic}/#", 0))
        found = link.take()
        self.assertEqual(found.payload, b"long")
        self.assertTrue(50 <= found.get(wire.MESSAGE_EXPIRY) <= 58, found)
        self.assertEqual(link.settle(), [])


if __name__ == "__main__":
    unittest.main()

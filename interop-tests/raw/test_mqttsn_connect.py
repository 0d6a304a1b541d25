"""MQTT-SN: CONNECT with and without Will, sessions, keep alive, the Will's life, and the ends of a connection."""

from __future__ import annotations

import time

import mqttsn_case
from mqttsn_case import SnCase

from harness import mqttsn, wire
from harness.case import unique
from harness.sensor import Sensor, Will
from harness.wire import V5, V311


class Connect(SnCase):
    def test_will_is_asked_for_in_order(self) -> None:
        link = self.endpoint()
        link.send(mqttsn.connect(unique(), will=True))
        link.expect(mqttsn.WILLTOPICREQ)
        link.send(mqttsn.willtopic("will/a", 1))
        link.expect(mqttsn.WILLMSGREQ)
        link.send(mqttsn.willmsg(b"gone"))
        self.assertEqual(link.expect(mqttsn.CONNACK).code, mqttsn.ACCEPTED)

    def test_empty_willtopic_means_no_will(self) -> None:
        topic = unique("will/")
        watcher, link = self.watch(topic), self.endpoint()
        link.send(mqttsn.connect(unique(), will=True, duration=1))
        link.expect(mqttsn.WILLTOPICREQ)
        link.send(mqttsn.willtopic(None))
        found = link.receive()
        if found.kind == mqttsn.WILLMSGREQ:
            link.send(mqttsn.willmsg(b""))
            found = link.receive()
        self.assertEqual((found.kind, found.code), (mqttsn.CONNACK, mqttsn.ACCEPTED))
        self.assertEqual(link.receive(10).kind, mqttsn.DISCONNECT)
        self.nothing_more(watcher, topic)

    def test_will_topic_with_wildcard_or_nothing_valid_is_refused(self) -> None:
        for topic in ("will/+", "will/#", b"will/\xff", "will/\0"):
            with self.subTest(topic=topic):
                link = self.endpoint()
                link.send(mqttsn.connect(unique(), will=True))
                link.expect(mqttsn.WILLTOPICREQ)
                link.send(mqttsn.willtopic(topic))
                found = link.receive()
                if found.kind == mqttsn.WILLMSGREQ:
                    link.send(mqttsn.willmsg(b"gone"))
                    found = link.receive()
                self.assertNotEqual((found.kind, found.code), (mqttsn.CONNACK, mqttsn.ACCEPTED), found)

    def test_protocol_id(self) -> None:
        for protocol in (0, 2, 3, 255):
            with self.subTest(protocol=protocol):
                link = self.endpoint()
                link.send(mqttsn.connect(unique(), protocol=protocol))
                self.assertEqual(link.expect(mqttsn.CONNACK).code, mqttsn.NOT_SUPPORTED)
                self.await_end_of(link)

    def test_empty_client_id_is_assigned(self) -> None:
        # Two at once: each gets one of its own, so neither ends the other.
        first, second = self.stranger(""), self.stranger("")
        for sensor in (first, second):
            sensor.connect()
        topic = unique("assigned/")
        first.subscribe(topic, 1)
        second.publish(second.register(topic), b"hello", 1)
        self.assertEqual(first.take().payload, b"hello")
        second.ping()

    def test_bad_client_ids_are_refused(self) -> None:
        for client_id in (b"a\xff", b"a\0b", b"\xed\xa0\x80"):
            with self.subTest(client_id=client_id):
                link = self.endpoint()
                link.send(mqttsn.connect(client_id))
                found = link.receive()
                self.assertNotEqual((found.kind, found.code), (mqttsn.CONNACK, mqttsn.ACCEPTED), found)

    def test_connect_on_a_living_connection(self) -> None:
        topic = unique("again/")
        for clean in (False, True):
            with self.subTest(clean=clean):
                sensor = self.sensor(clean=False)
                sensor.subscribe(topic, 1)
                sensor.connect(clean=clean)
                publisher = self.client(V5)
                publisher.publish(topic, b"again", 1)
                if clean:
                    self.assertEqual(sensor.settle((mqttsn.PUBLISH, mqttsn.REGISTER)), [])
                else:
                    self.assertEqual(sensor.take().payload, b"again")
                sensor.leave()

    def test_connect_twice_is_no_loss(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        client_id = unique()
        sensor = self.sensor(client_id, will=Will(topic))
        sensor.send(*[mqttsn.connect(client_id, clean=False)] * 3)
        # A copy of what is being answered may be left alone.
        sensor.expect(mqttsn.CONNACK)
        sensor.ping()
        self.nothing_more(watcher, topic)

    def test_another_client_id_from_the_same_address(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        sensor = self.sensor(will=Will(topic, b"replaced"))
        sensor.client_id = unique()
        sensor.connect()
        sensor.ping()
        # The first client is gone without DISCONNECT.
        self.seen(watcher, b"replaced")


class CleanSessionAndWill(SnCase):
    """The table of §6.3: CleanSession governs the Will too."""

    def lose(self, clean: bool, will: Will | None, prepared: bool) -> tuple[list[bytes], bool]:
        """Connects with an old session and Will, then so; returns the Wills seen when it is lost, and whether the old
        subscription lives."""
        old, topic = unique("old/"), unique("sub/")
        watcher = self.watch(old, "new/#")
        sensor = self.stranger()
        if prepared:
            sensor.connect(clean=True, will=Will(old, b"old"), duration=30)
            # A session that lasts: the next CONNECT without CleanSession goes on with it.
            sensor.connect(clean=False, duration=30)
            sensor.subscribe(topic, 1)
        sensor.connect(clean=clean, will=will, duration=1)
        end = unique("end/")
        sensor.subscribe(end, 1)
        publisher = self.client(V5)
        publisher.publish(topic, b"kept", 1)
        publisher.publish(end, b"end", 1)
        kept = sensor.take().payload == b"kept" and sensor.take().payload == b"end"
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)
        self.client(V5).publish(old, b"end", 1)
        out = []
        while (found := watcher.take().payload) != b"end":
            out.append(found)
        return out, kept

    def test_clean_with_will(self) -> None:
        self.assertEqual(self.lose(True, Will(unique("new/"), b"new"), True), ([b"new"], False))

    def test_clean_without_will(self) -> None:
        self.assertEqual(self.lose(True, None, True), ([], False))

    def test_not_clean_with_will(self) -> None:
        self.assertEqual(self.lose(False, Will(unique("new/"), b"new"), True), ([b"new"], True))

    def test_not_clean_without_will_keeps_the_old_one(self) -> None:
        self.assertEqual(self.lose(False, None, True), ([b"old"], True))

    def test_not_clean_without_anything_before(self) -> None:
        self.assertEqual(self.lose(False, None, False), ([], False))

    def test_old_will_after_disconnect(self) -> None:
        topic = unique("old/")
        watcher = self.watch(topic)
        sensor = self.sensor(clean=False, will=Will(topic, b"old"))
        sensor.leave()
        sensor.connect(clean=False, duration=1)
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)
        self.seen(watcher, b"old")

    def test_session_outlives_disconnect(self) -> None:
        topic = unique("away/")
        sensor = self.sensor(clean=False)
        sensor.subscribe(topic, 2)
        sensor.leave()
        publisher = self.client(V5)
        for qos in (1, 2):
            publisher.publish(topic, b"%d" % qos, qos)
        sensor.connect(clean=False)
        self.assertEqual([sensor.take().payload for _ in range(2)], [b"1", b"2"])
        sensor.leave()
        sensor.connect(clean=True)
        publisher.publish(topic, b"3", 1)
        self.assertEqual(sensor.settle((mqttsn.PUBLISH, mqttsn.REGISTER)), [])


class KeepAlive(SnCase):
    def test_silence_is_the_end(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        sensor = self.sensor(will=Will(topic, b"lost", 1, True), duration=1)
        began = time.monotonic()
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)
        self.assertGreater(time.monotonic() - began, 1.0)
        self.assertLess(time.monotonic() - began, 3.0)
        found = watcher.take()
        self.assertEqual((found.payload, found.qos), (b"lost", 1))
        late = self.client(V311)
        late.subscribe((topic, 1))
        self.assertTrue(late.take().retain)
        self.await_end_of(sensor)

    def test_any_message_keeps_it(self) -> None:
        sensor = self.sensor(duration=1)
        topic_id = sensor.register(unique("keep/"))
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            for beat in (sensor.ping, lambda: sensor.publish(topic_id, b"", 1), lambda: sensor.publish(topic_id, b"")):
                beat()
                time.sleep(0.4)
        sensor.ping()

    def test_duration_of_zero_never_ends(self) -> None:
        sensor = self.sensor(duration=0)
        self.assertRaises(mqttsn.TimedOut, sensor.receive, 2.5)
        sensor.ping()


class WillUpdates(SnCase):
    def lose(self, sensor: Sensor) -> None:
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)

    def update(self, sensor: Sensor, message: bytes, answer: int) -> int:
        return sensor.request(message, answer).code

    def topic(self, sensor: Sensor, topic: str | None, qos: int = 0, retain: bool = False) -> int:
        return self.update(sensor, mqttsn.willtopic(topic, qos, retain, mqttsn.WILLTOPICUPD), mqttsn.WILLTOPICRESP)

    def test_topic_and_message_change(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        sensor = self.sensor(will=Will("elsewhere", b"old"), duration=1)
        self.assertEqual(self.topic(sensor, topic, 2), mqttsn.ACCEPTED)
        answer = self.update(sensor, mqttsn.willmsg(b"new", mqttsn.WILLMSGUPD), mqttsn.WILLMSGRESP)
        self.assertEqual(answer, mqttsn.ACCEPTED)
        self.lose(sensor)
        found = watcher.take()
        self.assertEqual((found.payload, found.qos), (b"new", 2))

    def test_topic_alone_keeps_the_message(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        sensor = self.sensor(will=Will("elsewhere", b"message"), duration=1)
        self.assertEqual(self.topic(sensor, topic), mqttsn.ACCEPTED)
        self.lose(sensor)
        self.seen(watcher, b"message")

    def test_empty_topic_deletes(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        sensor = self.sensor(will=Will(topic), duration=1)
        self.assertEqual(self.topic(sensor, None), mqttsn.ACCEPTED)
        self.lose(sensor)
        self.nothing_more(watcher, topic)

    def test_bad_topics_change_nothing(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        sensor = self.sensor(will=Will(topic, b"kept"), duration=2)
        for bad in ("a/+", "#", "a/\0"):
            self.assertNotEqual(self.topic(sensor, bad), mqttsn.ACCEPTED, bad)
        self.lose(sensor)
        self.seen(watcher, b"kept")

    def test_disconnect_publishes_nothing(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        self.sensor(will=Will(topic)).leave()
        self.nothing_more(watcher, topic)

    def test_lasting_will_after_update(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        sensor = self.sensor(clean=False, will=Will("elsewhere", b"kept"))
        self.assertEqual(self.topic(sensor, topic), mqttsn.ACCEPTED)
        sensor.connect(clean=False, duration=1)
        self.lose(sensor)
        self.seen(watcher, b"kept")


class Takeover(SnCase):
    def test_by_the_same_client_from_a_new_address(self) -> None:
        topic = unique("will/")
        watcher = self.watch(topic)
        old = self.sensor(clean=False, will=Will(topic, b"taken"))
        old.subscribe("takeover/sn", 1)
        new = self.stranger(str(old.client_id))
        new.connect(clean=False)
        old.await_kind(mqttsn.DISCONNECT)
        self.seen(watcher, b"taken")
        self.client(V5).publish("takeover/sn", b"x", 1)
        self.assertEqual(new.take().payload, b"x")
        self.await_end_of(old)
        new.ping()

    def test_between_mqtt_and_sn(self) -> None:
        topic, client_id = unique("both/"), unique()
        sensor = self.sensor(client_id, clean=False)
        sensor.subscribe(topic, 1)
        link = self.link(V5)
        found = link.connect(client_id, clean=False, props=[(wire.SESSION_EXPIRY, 60)])
        self.assertTrue(found.session_present)
        sensor.await_kind(mqttsn.DISCONNECT)
        publisher = self.client(V5)
        publisher.publish(topic, b"for mqtt", 1)
        self.assertEqual(link.take().payload, b"for mqtt")
        # Its PUBACK has been read when this is answered.
        link.ping()
        sensor.connect(clean=False)
        link.until_closed()
        publisher.publish(topic, b"for sn", 1)
        self.assertEqual(sensor.take().payload, b"for sn")


class Ends(SnCase):
    with_bystander = False

    def test_shutdown_tells_every_sensor(self) -> None:
        sensors = [self.sensor() for _ in range(5)]
        asleep = self.sensor()
        asleep.sleep(60)
        self.assertEqual(self.broker.terminate(), 0)
        for sensor in sensors:
            sensor.expect(mqttsn.DISCONNECT)
        type(self).broker = mqttsn_case.brokers.start(self.settings)
        self.addClassCleanup(self.broker.close)

    def test_messages_of_strangers(self) -> None:
        # But for DISCONNECT with a duration: an answer to that says that the sleep has begun.
        table = [
            mqttsn.register("a"), mqttsn.publish(5, b"x", 1, 1), mqttsn.publish(5, b"x", 2, 1),
            mqttsn.subscribe("a/b"), mqttsn.unsubscribe("a/b"), mqttsn.pingreq(), mqttsn.disconnect(),
        ]  # fmt: skip
        for message in table:
            with self.subTest(message=message.hex()):
                link = self.endpoint()
                link.send(message)
                link.expect(mqttsn.DISCONNECT)

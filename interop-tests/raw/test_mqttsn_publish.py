"""MQTT-SN: publications at each QoS in both directions, duplicates, retransmission, refusal, and QoS -1."""

from __future__ import annotations

from mqttsn_case import RETRY_SECONDS, SnCase, settings

from harness import mqttsn, wire
from harness.case import unique
from harness.mqttsn import DUP
from harness.sensor import Will
from harness.wire import V5, VERSIONS

ACL = '{deny, all, publish, ["predefined/denied", "no"]}.\n{allow, all}.\n'
COMMON = '{deny, {clientid, "NegQoS-Client"}, publish, ["predefined/two"]}.\n'


class FromTheSensor(SnCase):
    acl = ACL

    def test_each_version_of_mqtt_sees_it(self) -> None:
        name, sensor = unique("up/"), self.sensor()
        topic_id = sensor.register(name)
        for version in VERSIONS:
            link = self.client(version)
            link.subscribe((name, 2))
            for qos in range(3):
                self.assertEqual(sensor.publish(topic_id, b"%d" % qos, qos), mqttsn.ACCEPTED)
                found = link.take()
                self.assertEqual((found.payload, found.qos, found.retain), (b"%d" % qos, qos, False))

    def test_qos_2_is_once(self) -> None:
        name, sensor = unique("once/"), self.sensor()
        watcher, topic_id = self.watch(name), sensor.register(name)
        first = mqttsn.publish(topic_id, b"once", 2, 5)
        again = mqttsn.publish(topic_id, b"once", 2, 5, dup=True)
        for message in (first, again, again):
            sensor.send(message)
            self.assertEqual(sensor.expect(mqttsn.PUBREC).msg_id, 5)
        for _ in range(3):
            sensor.send(mqttsn.ack(mqttsn.PUBREL, 5))
            self.assertEqual(sensor.expect(mqttsn.PUBCOMP).msg_id, 5)
        self.seen(watcher, b"once")
        # The identifier is free again.
        sensor.send(mqttsn.publish(topic_id, b"twice", 2, 5))
        sensor.expect(mqttsn.PUBREC)
        sensor.send(mqttsn.ack(mqttsn.PUBREL, 5))
        sensor.expect(mqttsn.PUBCOMP)
        self.seen(watcher, b"twice")
        self.nothing_more(watcher, name)

    def test_qos_2_is_once_across_a_new_connection(self) -> None:
        name, sensor = unique("once/"), self.sensor(clean=False)
        watcher, topic_id = self.watch(name), sensor.register(name)
        sensor.send(mqttsn.publish(topic_id, b"once", 2, 5))
        sensor.expect(mqttsn.PUBREC)
        sensor.connect(clean=False)
        sensor.send(mqttsn.publish(topic_id, b"once", 2, 5, dup=True))
        sensor.expect(mqttsn.PUBREC)
        sensor.send(mqttsn.ack(mqttsn.PUBREL, 5))
        sensor.expect(mqttsn.PUBCOMP)
        self.seen(watcher, b"once")
        self.nothing_more(watcher, name)

    def test_pubrel_of_nothing(self) -> None:
        sensor = self.sensor()
        sensor.send(mqttsn.ack(mqttsn.PUBREL, 4321))
        self.assertEqual(sensor.expect(mqttsn.PUBCOMP).msg_id, 4321)

    def test_acknowledgements_of_nothing(self) -> None:
        sensor = self.sensor()
        sensor.send(
            mqttsn.puback(3, 9), mqttsn.puback(3, 9, mqttsn.INVALID_TOPIC_ID), mqttsn.regack(3, 9),
            mqttsn.ack(mqttsn.PUBREC, 9), mqttsn.ack(mqttsn.PUBCOMP, 9),
        )  # fmt: skip
        kinds = (mqttsn.DISCONNECT, mqttsn.PUBLISH, mqttsn.REGISTER)
        self.assertEqual(sensor.settle(kinds), [])

    def test_denied_topics(self) -> None:
        sensor, watcher = self.sensor(), self.watch("predefined/#", "no")
        for qos in (1, 2):
            code = sensor.publish(3, b"x", qos, topic_type=mqttsn.PREDEFINED)
            self.assertNotEqual(code, mqttsn.ACCEPTED)
            self.assertNotEqual(sensor.publish("no", b"x", qos), mqttsn.ACCEPTED)
        sensor.publish("no", b"x", 0)
        sensor.ping()
        self.nothing_more(watcher, "predefined/one")

    def test_large_messages(self) -> None:
        name, sensor = unique("large/"), self.sensor()
        watcher, topic_id = self.watch(name), sensor.register(name)
        for size in (0, 1, 247, 248, 249, 250, 255, 256, 1_000, 1_400):
            payload = bytes(range(256)) * 6
            for qos in (0, 1, 2):
                sensor.publish(topic_id, payload[:size], qos)
                self.assertEqual(watcher.take().payload, payload[:size])

    def test_three_octets_of_length_for_little(self) -> None:
        name, sensor = unique("long/"), self.sensor()
        watcher, topic_id = self.watch(name), sensor.register(name)
        body = mqttsn.publish(topic_id, b"short", 1, 3)[2:]
        sensor.send(mqttsn.frame(mqttsn.PUBLISH, body, long=True))
        self.assertEqual(sensor.expect(mqttsn.PUBACK).msg_id, 3)
        self.seen(watcher, b"short")

    def test_many_at_once(self) -> None:
        # The specification allows one at a time (§6.6); a gateway that takes more must not lose or reorder any.
        name, sensor = unique("many/"), self.sensor()
        watcher, topic_id = self.watch(name), sensor.register(name)
        sensor.send(*(mqttsn.publish(topic_id, b"%d" % number, 1, number) for number in range(1, 51)))
        codes = {found.msg_id: found.code for found in (sensor.expect(mqttsn.PUBACK) for _ in range(50))}
        accepted = [b"%d" % number for number in range(1, 51) if codes[number] == mqttsn.ACCEPTED]
        self.assertEqual(set(codes.values()) - {mqttsn.ACCEPTED, mqttsn.CONGESTION}, set())
        self.seen(watcher, *accepted)


class ToTheSensor(SnCase):
    def test_from_each_version_of_mqtt(self) -> None:
        name, sensor = unique("down/"), self.sensor()
        sensor.subscribe(name, 2)
        for version in VERSIONS:
            link = self.client(version)
            for qos in range(3):
                link.publish(name, b"%d" % qos, qos)
                found = sensor.take()
                self.assertEqual((found.payload, found.qos, found.retain, found.dup), (b"%d" % qos, qos, False, False))

    def test_retransmission_of_each_message(self) -> None:
        name, sensor = unique("again/"), self.sensor()
        topic_id = sensor.subscribe(f"{name}/+", 2).topic_id
        self.assertEqual(topic_id, 0)
        self.client(V5).publish(f"{name}/x", b"again", 2)
        wait = RETRY_SECONDS * 2.5
        first = sensor.expect(mqttsn.REGISTER)
        again = sensor.expect(mqttsn.REGISTER, wait)
        self.assertEqual((again.topic_id, again.msg_id), (first.topic_id, first.msg_id))
        sensor.send(mqttsn.regack(first.topic_id, first.msg_id))
        found = sensor.expect(mqttsn.PUBLISH)
        self.assertFalse(found.dup)
        again = sensor.expect(mqttsn.PUBLISH, wait)
        self.assertTrue(again.dup)
        self.assertEqual((again.msg_id, again.payload), (found.msg_id, b"again"))
        sensor.send(mqttsn.ack(mqttsn.PUBREC, found.msg_id))
        sensor.expect(mqttsn.PUBREL)
        sensor.expect(mqttsn.PUBREL, wait)
        sensor.send(mqttsn.ack(mqttsn.PUBCOMP, found.msg_id))
        # A late duplicate changes nothing.
        sensor.send(mqttsn.ack(mqttsn.PUBREC, found.msg_id), mqttsn.ack(mqttsn.PUBCOMP, found.msg_id))
        self.assertEqual(sensor.settle((mqttsn.PUBLISH, mqttsn.DISCONNECT)), [])

    def test_a_sensor_that_never_answers_is_lost(self) -> None:
        name, will = unique("mute/"), unique("will/")
        watcher = self.watch(will)
        sensor = self.sensor(will=Will(will, b"mute"), duration=0)
        sensor.subscribe(name, 1)
        self.client(V5).publish(name, b"x", 1)
        count = 0
        while (found := sensor.receive(RETRY_SECONDS * 6)).kind == mqttsn.PUBLISH:
            self.assertEqual(bool(found.bits & DUP), count > 0)
            count += 1
        # N_RETRY is 3 to 5 (§7.2), beside the first transmission.
        self.assertIn(count, range(3, 7))
        self.assertEqual(found.kind, mqttsn.DISCONNECT)
        self.seen(watcher, b"mute")

    def test_a_message_too_large_for_a_datagram(self) -> None:
        name, sensor = unique("large/"), self.sensor()
        sensor.subscribe(name, 1)
        publisher = self.client(V5)
        publisher.publish(name, b"x" * 70_000, 1)
        publisher.publish(name, b"fits", 1)
        self.assertEqual(sensor.take().payload, b"fits")

    def test_order_and_one_at_a_time(self) -> None:
        name, sensor = unique("order/"), self.sensor()
        topic_id = sensor.subscribe(name, 1).topic_id
        publisher = self.client(V5)
        for number in range(20):
            publisher.publish(name, b"%d" % number, 1)
        for number in range(20):
            found = sensor.expect(mqttsn.PUBLISH)
            self.assertEqual(found.payload, b"%d" % number)
            self.assertEqual(sensor.settle((mqttsn.PUBLISH,)), [], "a second one is outstanding")
            sensor.send(mqttsn.puback(topic_id, found.msg_id))


class WithoutConnection(SnCase):
    """QoS -1 (§6.8)."""

    acl = COMMON + ACL

    def test_predefined_and_short(self) -> None:
        watcher, link = self.watch("predefined/#", "xy", "no"), self.endpoint()
        link.send(mqttsn.publish(1, b"predefined", -1, topic_type=mqttsn.PREDEFINED))
        self.seen(watcher, b"predefined")
        link.send(mqttsn.publish("xy", b"short", -1))
        self.seen(watcher, b"short")
        link.send(mqttsn.publish("xy", b"", -1, 77))
        self.seen(watcher, b"")

    def test_from_a_connected_sensor(self) -> None:
        watcher, sensor = self.watch("xy"), self.sensor()
        sensor.publish("xy", b"mine", -1)
        self.seen(watcher, b"mine")
        sensor.ping()

    def test_neither_normal_nor_unknown_nor_denied(self) -> None:
        watcher, link = self.watch("predefined/#", "xy", "no"), self.endpoint()
        table = [
            mqttsn.publish(1, b"normal", -1), mqttsn.publish(999, b"unknown", -1, topic_type=mqttsn.PREDEFINED),
            mqttsn.publish(1, b"reserved", -1, topic_type=mqttsn.RESERVED_TYPE),
            mqttsn.publish("a+", b"wildcard", -1), mqttsn.publish(b"\xff\xff", b"utf8", -1),
            mqttsn.publish(2, b"denied to the common client", -1, topic_type=mqttsn.PREDEFINED),
            mqttsn.publish(3, b"denied", -1, topic_type=mqttsn.PREDEFINED), mqttsn.publish("no", b"denied", -1),
        ]  # fmt: skip
        link.send(*table)
        link.send(mqttsn.publish("xy", b"end", -1))
        self.seen(watcher, b"end")

    def test_retain(self) -> None:
        watcher, link = self.watch("re"), self.endpoint()
        link.send(mqttsn.publish("re", b"kept", -1, retain=True))
        self.seen(watcher, b"kept")
        late = self.client(V5)
        late.subscribe(("re", 0))
        self.assertEqual(late.take().payload, b"kept")

    def test_no_answer_to_anybody(self) -> None:
        link = self.endpoint()
        link.send(*(mqttsn.publish("xy", b"x", -1) for _ in range(10)), mqttsn.searchgw())
        self.assertEqual(link.receive(10).kind, mqttsn.GWINFO)

    def test_many_senders(self) -> None:
        watcher = self.watch("ms", qos=0)
        links = [self.endpoint() for _ in range(100)]
        for number, link in enumerate(links):
            link.send(mqttsn.publish("ms", b"%d" % number, -1))
        self.assertEqual({watcher.take().payload for _ in links}, {b"%d" % number for number in range(100)})


class SwitchedOff(SnCase):
    settings = settings(enable_qos3="false")

    def test_nothing_arrives(self) -> None:
        watcher, link = self.watch("predefined/#", "xy"), self.endpoint()
        link.send(mqttsn.publish(1, b"off", -1, topic_type=mqttsn.PREDEFINED), mqttsn.publish("xy", b"off", -1))
        sensor = self.sensor()
        sensor.publish("xy", b"off", -1)
        sensor.ping()
        # The answer shows that what was sent before it has been read.
        link.send(mqttsn.searchgw())
        link.expect(mqttsn.GWINFO)
        self.nothing_more(watcher, "xy")


class Mountpoint(SnCase):
    settings = settings(mountpoint="field/")

    def test_topics_of_sensors_are_below_it(self) -> None:
        watcher, sensor = self.watch("field/#"), self.sensor(will=Will("will", b"w"), duration=2)
        name = unique("m/")
        sensor.publish(sensor.register(name), b"up", 1)
        found = watcher.take()
        self.assertEqual((found.topic, found.payload), (f"field/{name}", b"up"))
        sensor.subscribe(f"{name}/+", 1)
        publisher = self.client(V5)
        publisher.publish(f"{name}/x", b"not below", 1)
        publisher.publish(f"field/{name}/x", b"below", 1)
        found2 = sensor.take()
        self.assertEqual((found2.topic, found2.payload), (f"{name}/x", b"below"))
        self.assertEqual(watcher.take().payload, b"below")
        self.endpoint().send(mqttsn.publish("xy", b"minus", -1))
        self.assertEqual(watcher.take().topic, "field/xy")
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)
        found = watcher.take()
        self.assertEqual((found.topic, found.kind), ("field/will", wire.PUBLISH))

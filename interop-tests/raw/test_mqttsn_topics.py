"""MQTT-SN: topic ids of all three kinds, REGISTER both ways, and what the gateway says to ids that are none."""

from __future__ import annotations

from mqttsn_case import PREDEFINED, SnCase, settings

from harness import mqttsn, wire
from harness.case import unique
from harness.mqttsn import INVALID_TOPIC_ID, NOT_SUPPORTED
from harness.wire import V5


class Register(SnCase):
    def test_the_same_name_has_the_same_id(self) -> None:
        sensor = self.sensor()
        name = unique("topic/")
        first, other = sensor.register(name), sensor.register(unique("topic/"))
        self.assertNotEqual(first, other)
        self.assertEqual(sensor.register(name), first)
        self.assertEqual(sensor.subscribe(name, 1).topic_id, first)
        self.assertNotIn(first, (0, 0xFFFF))
        self.assertNotIn(first, PREDEFINED)

    def test_no_id_for_what_is_no_topic_name(self) -> None:
        sensor = self.sensor()
        for name in ("a/+", "#", "a/#", "", b"a\xff", b"a\0"):
            with self.subTest(name=name):
                sensor.send(mqttsn.register(name, 77))
                found = sensor.receive()
                if found.kind == mqttsn.DISCONNECT:
                    # Malformed: the connection may end (MQTT-3.3.2-1 says so of such names).
                    sensor.connect()
                    continue
                self.assertEqual((found.kind, found.msg_id), (mqttsn.REGACK, 77))
                self.assertNotEqual(found.code, mqttsn.ACCEPTED)
        sensor.ping()

    def test_ids_survive_what_the_session_survives(self) -> None:
        name, watcher = unique("kept/"), self.watch("kept/#")
        sensor = self.sensor(clean=False)
        topic_id = sensor.register(name)
        for end in (lambda: None, sensor.leave):
            end()
            sensor.connect(clean=False)
            self.assertEqual(sensor.publish(topic_id, b"still", 1), mqttsn.ACCEPTED)
            self.seen(watcher, b"still")
        sensor.connect(clean=True)
        self.assertEqual(sensor.publish(topic_id, b"unknown", 1), INVALID_TOPIC_ID)
        self.nothing_more(watcher, name)

    def test_ids_of_one_client_are_not_those_of_another(self) -> None:
        first, second = self.sensor(), self.sensor()
        watcher = self.watch("own/#")
        names = [unique("own/"), unique("own/")]
        ids = [first.register(names[0]), second.register(names[1])]
        first.publish(ids[0], b"a", 1)
        second.publish(ids[1], b"b", 1)
        self.assertEqual([watcher.take().topic for _ in names], names)

    def test_a_message_to_an_unknown_id(self) -> None:
        sensor = self.sensor()
        for qos in (1, 2):
            sensor.send(mqttsn.publish(0x4321, b"x", qos, 9))
            found = sensor.expect(mqttsn.PUBACK)
            self.assertEqual((found.topic_id, found.msg_id, found.code), (0x4321, 9, INVALID_TOPIC_ID))
        for number in (0, 0xFFFF):
            self.assertEqual(sensor.publish(number, b"x", 1), INVALID_TOPIC_ID)
        sensor.ping()


class ToTheSensor(SnCase):
    def test_register_comes_before_the_publication(self) -> None:
        sensor = self.sensor()
        prefix = unique("wild/")
        self.assertEqual(sensor.subscribe(f"{prefix}/+", 1).topic_id, 0)
        self.client(V5).publish(f"{prefix}/a", b"first", 1)
        found = sensor.expect(mqttsn.REGISTER)
        self.assertEqual(found.name, f"{prefix}/a")
        sensor.send(mqttsn.regack(found.topic_id, found.msg_id))
        message = sensor.expect(mqttsn.PUBLISH)
        self.assertEqual((message.topic_id, message.topic_type), (found.topic_id, mqttsn.NORMAL))
        sensor.send(mqttsn.puback(message.topic_id, message.msg_id))
        # Once is enough.
        self.client(V5).publish(f"{prefix}/a", b"second", 1)
        self.assertEqual(sensor.expect(mqttsn.PUBLISH).payload, b"second")

    def test_the_id_of_the_gateway_serves_the_sensor(self) -> None:
        sensor, prefix = self.sensor(), unique("serve/")
        sensor.subscribe(f"{prefix}/#", 1)
        self.client(V5).publish(f"{prefix}/x", b"1", 1)
        sensor.take()
        topic_id = next(number for number, name in sensor.names.items() if name == f"{prefix}/x")
        self.assertEqual(sensor.register(f"{prefix}/x"), topic_id)
        self.assertEqual(sensor.publish(topic_id, b"2", 1), mqttsn.ACCEPTED)
        self.assertEqual(sensor.take().payload, b"2")

    def test_no_register_for_what_the_sensor_knows(self) -> None:
        sensor, name = self.sensor(), unique("known/")
        topic_id = sensor.subscribe(name, 1).topic_id
        self.client(V5).publish(name, b"x", 1)
        self.assertEqual(sensor.expect(mqttsn.PUBLISH).topic_id, topic_id)

    def test_a_refused_register(self) -> None:
        for code in (INVALID_TOPIC_ID, NOT_SUPPORTED):
            with self.subTest(code=code):
                sensor, prefix = self.sensor(), unique("refused/")
                sensor.subscribe(f"{prefix}/#", 1)
                self.client(V5).publish(f"{prefix}/a", b"unwanted", 1)
                found = sensor.expect(mqttsn.REGISTER)
                sensor.send(mqttsn.regack(found.topic_id, found.msg_id, code))
                # It is not sent, and what is behind it is not held up.
                self.client(V5).publish(f"{prefix}/b", b"wanted", 1)
                self.assertEqual(sensor.take().payload, b"wanted")

    def test_an_id_that_the_sensor_forgot_is_registered_again(self) -> None:
        sensor, name = self.sensor(), unique("forgot/")
        topic_id = sensor.subscribe(name, 1).topic_id
        self.client(V5).publish(name, b"again", 1)
        found = sensor.expect(mqttsn.PUBLISH)
        sensor.send(mqttsn.puback(topic_id, found.msg_id, INVALID_TOPIC_ID))
        again = sensor.expect(mqttsn.REGISTER)
        self.assertEqual(again.name, name)
        sensor.send(mqttsn.regack(again.topic_id, again.msg_id))
        self.assertEqual(sensor.expect(mqttsn.PUBLISH).payload, b"again")


class WithoutRegister(SnCase):
    settings = {**settings(), "gateway.mqttsn.clients.special.predefined.900": "predefined/special"}

    def test_predefined_both_ways(self) -> None:
        watcher, sensor = self.watch("predefined/#"), self.sensor()
        for number, name in list(PREDEFINED.items())[:2]:
            for qos in range(3):
                sensor.publish(number, name.encode(), qos, topic_type=mqttsn.PREDEFINED)
                self.assertEqual(watcher.take().topic, name)
            found = sensor.subscribe(number, 2)
            self.assertIn(found.topic_id, (0, number))
            self.client(V5).publish(name, b"down", 2)
            watcher.take()
            message = sensor.await_kind(mqttsn.PUBLISH)
            self.assertEqual((message.topic_type, message.topic_id), (mqttsn.PREDEFINED, number))
            sensor.send(mqttsn.ack(mqttsn.PUBREC, message.msg_id))
            sensor.await_kind(mqttsn.PUBREL)
            sensor.send(mqttsn.ack(mqttsn.PUBCOMP, message.msg_id))
            sensor.unsubscribe(number)

    def test_unknown_predefined_ids(self) -> None:
        sensor = self.sensor()
        for qos in (1, 2):
            self.assertEqual(sensor.publish(999, b"x", qos, topic_type=mqttsn.PREDEFINED), INVALID_TOPIC_ID)
        self.assertEqual(sensor.subscribe(999, code=INVALID_TOPIC_ID).topic_id, 0)
        sensor.unsubscribe(999)
        sensor.ping()

    def test_a_registered_id_is_no_predefined_one(self) -> None:
        sensor = self.sensor()
        self.assertEqual(sensor.publish(900, b"x", 1), INVALID_TOPIC_ID)
        topic_id = sensor.register(unique("r/"))
        self.assertEqual(sensor.publish(topic_id, b"x", 1, topic_type=mqttsn.PREDEFINED), INVALID_TOPIC_ID)

    def test_short_names_both_ways(self) -> None:
        watcher, sensor = self.watch("ab"), self.sensor()
        for qos in range(3):
            sensor.publish("ab", b"%d" % qos, qos)
            self.seen(watcher, b"%d" % qos)
        found = sensor.subscribe("ab", 1)
        self.assertEqual(found.topic_id, 0)
        self.client(V5).publish("ab", b"down", 1)
        message = sensor.await_kind(mqttsn.PUBLISH)
        self.assertEqual((message.topic_type, message.short), (mqttsn.SHORT, "ab"))
        sensor.send(mqttsn.puback(message.topic_id, message.msg_id))
        sensor.unsubscribe("ab")
        self.client(V5).publish("ab", b"unseen", 1)
        self.assertEqual(sensor.settle((mqttsn.PUBLISH,)), [])

    def test_a_name_of_two_octets_to_a_wildcard_needs_no_register(self) -> None:
        sensor = self.sensor()
        sensor.subscribe("+", 1)
        self.client(V5).publish("é", b"two octets", 1)
        found = sensor.expect(mqttsn.PUBLISH)
        self.assertEqual((found.topic_type, found.short), (mqttsn.SHORT, "é"))
        sensor.send(mqttsn.puback(found.topic_id, found.msg_id))

    def test_a_wildcard_is_no_short_name_to_publish_to(self) -> None:
        sensor = self.sensor()
        for name in ("a+", "#a", "/#", "++", b"\xff\xfe", b"\0a"):
            with self.subTest(name=name):
                sensor.send(mqttsn.publish(name, b"x", 1, 5))
                found = sensor.receive()
                if found.kind == mqttsn.DISCONNECT:
                    sensor.connect()
                else:
                    self.assertNotEqual((found.kind, found.code), (mqttsn.PUBACK, mqttsn.ACCEPTED))

    def test_short_names_one_octet_long_are_subscribed_by_name(self) -> None:
        sensor = self.sensor()
        sensor.subscribe("#", 0)
        self.client(V5).publish("x", b"one octet", 0)
        sensor.until(lambda: any(found.payload == b"one octet" for found in sensor.arrived))


class Subscribe(SnCase):
    acl = '{deny, all, subscribe, ["denied/#"]}.\n{allow, all}.\n'

    def test_bad_filters_are_refused(self) -> None:
        sensor = self.sensor()
        for name in ("a/#/b", "a+/b", "#a/b", "", b"aaa\xff", b"aaa\0"):
            with self.subTest(name=name):
                sensor.send(mqttsn.subscribe(name, 1, 6, mqttsn.NORMAL))
                found = sensor.receive()
                if found.kind == mqttsn.DISCONNECT:
                    sensor.connect()
                    continue
                self.assertEqual((found.kind, found.msg_id), (mqttsn.SUBACK, 6))
                self.assertNotEqual(found.code, mqttsn.ACCEPTED)

    def test_denied_filters_are_refused(self) -> None:
        sensor = self.sensor()
        sensor.send(mqttsn.subscribe("denied/x", 1, 6))
        self.assertNotEqual(sensor.expect(mqttsn.SUBACK).code, mqttsn.ACCEPTED)
        sensor.send(mqttsn.subscribe("denied/+", 1, 7))
        self.assertNotEqual(sensor.expect(mqttsn.SUBACK).code, mqttsn.ACCEPTED)

    def test_granted_qos(self) -> None:
        publisher = self.client(V5)
        for granted in range(3):
            sensor, name = self.sensor(), unique("granted/")
            self.assertEqual(sensor.subscribe(name, granted).qos, granted)
            for qos in range(3):
                publisher.publish(name, b"%d" % qos, qos)
                self.assertEqual(sensor.take().qos, min(qos, granted))

    def test_unsubscribe_ends_it(self) -> None:
        sensor, prefix = self.sensor(), unique("end/")
        sensor.subscribe(f"{prefix}/#", 1)
        sensor.subscribe(f"{prefix}/a", 1)
        sensor.unsubscribe(f"{prefix}/#")
        publisher = self.client(V5)
        publisher.publish(f"{prefix}/b", b"unseen", 1)
        publisher.publish(f"{prefix}/a", b"seen", 1)
        self.assertEqual(sensor.take().payload, b"seen")
        sensor.unsubscribe(f"{prefix}/a")
        sensor.unsubscribe("never/subscribed")
        publisher.publish(f"{prefix}/a", b"unseen", 1)
        self.assertEqual(sensor.settle((mqttsn.PUBLISH,)), [])

    def test_retained_messages_come(self) -> None:
        prefix = unique("retained/")
        publisher = self.client(V5)
        publisher.publish(f"{prefix}/a", b"kept", 1, retain=True)
        for name in (f"{prefix}/a", f"{prefix}/+"):
            sensor = self.sensor()
            sensor.subscribe(name, 1)
            found = sensor.take()
            self.assertEqual((found.payload, found.retain, found.topic), (b"kept", True, f"{prefix}/a"))

    def test_shared_subscriptions(self) -> None:
        name = unique("shared/")
        sensors = [self.sensor(), self.sensor()]
        for sensor in sensors:
            sensor.send(mqttsn.subscribe(f"$share/g/{name}", 1, 9))
            found = sensor.expect(mqttsn.SUBACK)
            if found.code != mqttsn.ACCEPTED:
                self.skipTest("shared subscriptions are refused")
        publisher = self.client(V5)
        for number in range(10):
            publisher.publish(name, b"%d" % number, 1)
        got: list[bytes] = []
        while len(got) < 10:
            for sensor in sensors:
                for found in sensor.settle():
                    sensor._handle(found)
                got += [found.payload for found in sensor.arrived]
                sensor.arrived.clear()
        self.assertEqual(sorted(got), sorted(b"%d" % number for number in range(10)))


class Unlike(SnCase):
    """What an MQTT client sees of it."""

    def test_mqtt_sees_the_whole_name(self) -> None:
        watcher, sensor = self.watch("whole/#"), self.sensor()
        name = "whole/" + "/".join(unique("level") for _ in range(20))
        topic_id = sensor.register(name)
        for qos in range(3):
            for retain in (False, True):
                sensor.publish(topic_id, b"payload", qos, retain)
                found = watcher.take()
                self.assertEqual((found.topic, found.payload, found.qos), (name, b"payload", qos))
        late = self.client(V5)
        late.subscribe((name, 1))
        self.assertTrue(late.take().retain)
        sensor.publish(topic_id, b"", 1, True)
        self.assertEqual(watcher.take().payload, b"")
        again = self.client(V5)
        again.subscribe((name, 1))
        again.ping()
        self.assertEqual(wire.PUBLISH, found.kind)

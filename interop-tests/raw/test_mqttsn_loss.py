"""MQTT-SN over a network that loses, doubles and delays: each single message of each procedure, in both directions."""

from __future__ import annotations

from collections.abc import Callable

from mqttsn_case import SnCase

from harness import lossy, mqttsn
from harness.case import unique
from harness.lossy import DOWN, UP
from harness.sensor import Sensor, Will
from harness.wire import V5

ACTIONS = ("lose", "double", "swap")


class Loss(SnCase):
    """A procedure runs once per message of it and per fault; then the sensor must have what it asked for, once."""

    def every(self, table: list[tuple[str, int, int]], procedure: Callable[[Sensor, lossy.Fault], None]) -> None:
        """`table`: direction, type, and which of that type."""
        relay = self.relay()
        for direction, kind, nth in table:
            for action in ACTIONS:
                with self.subTest(direction=direction, kind=mqttsn.NAMES[kind], nth=nth, action=action):
                    relay.faults.clear()
                    relay.log.clear()
                    sensor = self.stranger(address=relay.address, retry=0.4, retries=8)
                    fault = relay.fault(direction, action, kind, nth)
                    procedure(sensor, fault)
                    self.assertTrue(fault.happened, "the message was never sent")
                    sensor.leave()

    def test_connect_with_will(self) -> None:
        def procedure(sensor: Sensor, _fault: lossy.Fault) -> None:
            topic = unique("will/")
            watcher = self.watch(topic)
            sensor.connect(will=Will(topic, b"lost", 1), duration=60)
            sensor.ping()
            # Ended by another of its name: the Will is the one that was told, and comes once.
            other = self.sensor(str(sensor.client_id))
            self.seen(watcher, b"lost")
            self.nothing_more(watcher, topic)
            watcher.leave()
            other.leave()

        self.every(
            [
                (UP, mqttsn.CONNECT, 0), (DOWN, mqttsn.WILLTOPICREQ, 0), (UP, mqttsn.WILLTOPIC, 0),
                (DOWN, mqttsn.WILLMSGREQ, 0), (UP, mqttsn.WILLMSG, 0), (DOWN, mqttsn.CONNACK, 0),
            ],
            procedure,
        )  # fmt: skip

    def test_register_and_publish(self) -> None:
        for qos, kinds in (
            (1, [(UP, mqttsn.PUBLISH, 0), (DOWN, mqttsn.PUBACK, 0)]),
            (2, [(UP, mqttsn.PUBLISH, 0), (DOWN, mqttsn.PUBREC, 0), (UP, mqttsn.PUBREL, 0), (DOWN, mqttsn.PUBCOMP, 0)]),
        ):

            def procedure(sensor: Sensor, _fault: lossy.Fault, qos: int = qos) -> None:
                topic = unique("up/")
                watcher = self.watch(topic)
                sensor.connect()
                topic_id = sensor.register(topic)
                for payload in (b"1", b"2"):
                    self.assertEqual(sensor.publish(topic_id, payload, qos), mqttsn.ACCEPTED)
                got = []
                while b"2" not in got:
                    got.append(watcher.take().payload)
                if qos == 2:
                    self.assertEqual(got, [b"1", b"2"])
                else:
                    self.assertEqual(sorted(set(got)), [b"1", b"2"])
                watcher.leave()

            self.every([(UP, mqttsn.REGISTER, 0), (DOWN, mqttsn.REGACK, 0), *kinds], procedure)

    def test_subscribe_and_unsubscribe(self) -> None:
        def procedure(sensor: Sensor, _fault: lossy.Fault) -> None:
            topic = unique("sub/")
            sensor.connect()
            sensor.subscribe(topic, 1)
            publisher = self.client(V5)
            publisher.publish(topic, b"seen", 1)
            self.assertEqual(sensor.take().payload, b"seen")
            sensor.unsubscribe(topic)
            publisher.publish(topic, b"unseen", 1)
            sensor.ping()
            self.assertNotIn(b"unseen", [found.payload for found in sensor.arrived])
            publisher.leave()

        self.every(
            [
                (UP, mqttsn.SUBSCRIBE, 0), (DOWN, mqttsn.SUBACK, 0), (UP, mqttsn.UNSUBSCRIBE, 0),
                (DOWN, mqttsn.UNSUBACK, 0), (UP, mqttsn.PINGREQ, 0), (DOWN, mqttsn.PINGRESP, 0),
            ],
            procedure,
        )  # fmt: skip

    def test_deliveries(self) -> None:
        for qos, kinds in (
            (1, [(DOWN, mqttsn.PUBLISH, 0), (UP, mqttsn.PUBACK, 0)]),
            (2, [(DOWN, mqttsn.PUBLISH, 0), (UP, mqttsn.PUBREC, 0), (DOWN, mqttsn.PUBREL, 0), (UP, mqttsn.PUBCOMP, 0)]),
        ):

            def procedure(sensor: Sensor, _fault: lossy.Fault, qos: int = qos) -> None:
                prefix = unique("down/")
                sensor.connect()
                sensor.subscribe(f"{prefix}/+", qos)
                publisher = self.client(V5)
                for number in range(3):
                    publisher.publish(f"{prefix}/{number}", b"%d" % number, qos)
                publisher.leave()
                sensor.until(lambda: {b"0", b"1", b"2"} <= {found.payload for found in sensor.arrived}, 10)
                # Whatever is still to be sent again is answered before the end is.
                sensor.ping()
                got = [found.payload for found in sensor.arrived]
                if qos == 2:
                    self.assertEqual(got, [b"0", b"1", b"2"])
                else:
                    self.assertEqual(sorted(set(got)), [b"0", b"1", b"2"])

            self.every([(DOWN, mqttsn.REGISTER, 0), (UP, mqttsn.REGACK, 0), *kinds], procedure)

    def test_sleep_and_wake(self) -> None:
        def procedure(sensor: Sensor, _fault: lossy.Fault) -> None:
            topic = unique("sleep/")
            sensor.connect(duration=60)
            sensor.subscribe(topic, 2)
            sensor.sleep(60)
            publisher = self.client(V5)
            publisher.publish(topic, b"1", 2)
            publisher.publish(topic, b"2", 2)
            publisher.leave()
            got = [found.payload for found in sensor.wake()]
            while b"2" not in got:
                got += [found.payload for found in sensor.wake()]
            self.assertEqual(got, [b"1", b"2"])
            self.assertEqual(sensor.wake(), [])

        self.every(
            [
                (UP, mqttsn.DISCONNECT, 0), (DOWN, mqttsn.DISCONNECT, 0), (UP, mqttsn.PINGREQ, 0),
                (DOWN, mqttsn.PUBLISH, 0), (UP, mqttsn.PUBREC, 0), (DOWN, mqttsn.PUBREL, 0), (UP, mqttsn.PUBCOMP, 0),
                (DOWN, mqttsn.PINGRESP, 0),
            ],
            procedure,
        )  # fmt: skip

    def test_will_updates_and_disconnect(self) -> None:
        def procedure(sensor: Sensor, _fault: lossy.Fault) -> None:
            topic = unique("will/")
            watcher = self.watch(topic)
            sensor.connect(will=Will("elsewhere"))
            sensor.request(mqttsn.willtopic(topic, 1, kind=mqttsn.WILLTOPICUPD), mqttsn.WILLTOPICRESP)
            sensor.request(mqttsn.willmsg(b"new", mqttsn.WILLMSGUPD), mqttsn.WILLMSGRESP)
            other = self.sensor(str(sensor.client_id))
            self.seen(watcher, b"new")
            watcher.leave()
            other.leave()

        self.every(
            [
                (UP, mqttsn.WILLTOPICUPD, 0), (DOWN, mqttsn.WILLTOPICRESP, 0), (UP, mqttsn.WILLMSGUPD, 0),
                (DOWN, mqttsn.WILLMSGRESP, 0),
            ],
            procedure,
        )  # fmt: skip

    def test_disconnect(self) -> None:
        def procedure(sensor: Sensor, _fault: lossy.Fault) -> None:
            topic = unique("will/")
            watcher = self.watch(topic)
            sensor.connect(will=Will(topic))
            sensor.leave()
            self.nothing_more(watcher, topic)
            watcher.leave()

        self.every([(UP, mqttsn.DISCONNECT, 0), (DOWN, mqttsn.DISCONNECT, 0)], procedure)


class Long(SnCase):
    """Every seventh datagram is lost, for a while."""

    def test_a_stream_in_both_directions(self) -> None:
        relay = self.relay()
        relay.faults += [
            lossy.Fault(direction, "lose", lambda _data: True, nth)
            for direction in (UP, DOWN)
            for nth in range(5, 700, 7)
        ]
        sensor = self.stranger(address=relay.address, retry=0.3, retries=10)
        sensor.connect()
        up, down = unique("up/"), unique("down/")
        watcher = self.watch(up)
        sensor.subscribe(f"{down}/+", 2)
        topic_id = sensor.register(up)
        publisher = self.client(V5)
        count = 30
        for number in range(count):
            publisher.publish(f"{down}/{number % 5}", b"%d" % number, 2)
            self.assertEqual(sensor.publish(topic_id, b"%d" % number, 2), mqttsn.ACCEPTED)
        self.seen(watcher, *(b"%d" % number for number in range(count)))
        sensor.until(lambda: len(sensor.arrived) >= count, 90)
        self.assertEqual([found.payload for found in sensor.arrived], [b"%d" % number for number in range(count)])

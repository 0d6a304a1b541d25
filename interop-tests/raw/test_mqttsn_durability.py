"""MQTT-SN: what outlives SIGKILL. A sleeping sensor never learns of it."""

from __future__ import annotations

import tempfile
import time
from typing import ClassVar

import mqttsn_case
from mqttsn_case import SnCase

from harness import broker as brokers
from harness import mqttsn, wire
from harness.case import unique
from harness.sensor import Will
from harness.wire import V5


class Killed(SnCase):
    """One data directory for all brokers of the class; sensors keep sending to the port of the first."""

    with_bystander = False
    directory: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory(prefix="tidegate-kill-")
        cls.addClassCleanup(cls.directory.cleanup)
        cls.settings = {
            **mqttsn_case.settings(),
            "node.data_dir": cls.directory.name,
            "gateway.mqttsn.listeners.udp.default.bind": f"127.0.0.1:{brokers.free_port()}",
        }
        super().setUpClass()

    def kill(self, settings: dict[str, str] | None = None, pause: float = 0) -> None:
        """SIGKILL, and a new process."""
        type(self).broker.close()
        time.sleep(pause)
        type(self).broker = brokers.start({**self.settings, **(settings or {})})
        self.addClassCleanup(self.broker.close)

    def publish(self, topic: str, *payloads: bytes, qos: int = 1) -> None:
        publisher = self.client(V5)
        for payload in payloads:
            publisher.publish(topic, payload, qos)

    def test_a_sleeper_never_learns_of_it(self) -> None:
        for clean in (True, False):
            with self.subTest(clean=clean):
                prefix = unique("sleep/")
                sensor = self.sensor(clean=clean)
                sensor.subscribe(f"{prefix}/#", 2)
                topic_id = sensor.register(unique("up/"))
                sensor.sleep(60)
                self.publish(f"{prefix}/a", b"1", b"2")
                self.kill()
                self.publish(f"{prefix}/b", b"3")
                self.assertEqual([found.payload for found in sensor.wake()], [b"1", b"2", b"3"])
                self.publish(f"{prefix}/a", b"4")
                self.kill()
                self.assertEqual([found.payload for found in sensor.wake()], [b"4"])
                # Its topic ids hold: it knows them from before.
                watcher = self.watch(sensor.names[topic_id])
                sensor.connect(clean=False)
                self.assertEqual(sensor.publish(topic_id, b"up", 1), mqttsn.ACCEPTED)
                self.seen(watcher, b"up")
                sensor.leave()

    def test_ids_of_the_gateway_hold(self) -> None:
        prefix = unique("ids/")
        sensor = self.sensor(clean=False)
        sensor.subscribe(f"{prefix}/+", 1)
        self.publish(f"{prefix}/x", b"1")
        sensor.take()
        known = dict(sensor.names)
        sensor.sleep(60)
        self.kill()
        self.publish(f"{prefix}/x", b"2")
        self.publish(f"{prefix}/y", b"3")
        self.assertEqual([found.payload for found in sensor.wake()], [b"2", b"3"])
        for number, name in known.items():
            self.assertEqual(sensor.names[number], name)

    def test_a_connected_sensor_has_to_connect_again(self) -> None:
        topic = unique("on/")
        sensor = self.sensor(clean=False)
        sensor.subscribe(topic, 1)
        topic_id = sensor.register(unique("up/"))
        self.kill()
        self.await_end_of(sensor)
        self.publish(topic, b"meanwhile")
        sensor.connect(clean=False)
        self.assertEqual(sensor.take().payload, b"meanwhile")
        self.assertEqual(sensor.publish(topic_id, b"up", 1), mqttsn.ACCEPTED)
        sensor.leave()

    def test_what_was_acknowledged_was_kept(self) -> None:
        sensor = self.sensor(clean=False)
        sleeper = self.sensor(clean=True)
        topic = unique("acked/")
        sleeper.subscribe(topic, 1)
        sleeper.sleep(60)
        topic_id = sensor.register(topic)
        for number in range(50):
            self.assertEqual(sensor.publish(topic_id, b"%d" % number, 1), mqttsn.ACCEPTED)
        self.kill()
        self.assertEqual([found.payload for found in sleeper.wake()], [b"%d" % number for number in range(50)])

    def test_qos_2_from_the_sensor_is_once(self) -> None:
        topic = unique("once/")
        reader = self.sensor(clean=False)
        reader.subscribe(topic, 2)
        reader.sleep(60)
        sensor = self.sensor(clean=False)
        topic_id = sensor.register(topic)
        sensor.send(mqttsn.publish(topic_id, b"once", 2, 9))
        sensor.expect(mqttsn.PUBREC)
        self.kill()
        sensor.connect(clean=False)
        sensor.send(mqttsn.publish(topic_id, b"once", 2, 9, dup=True))
        sensor.expect(mqttsn.PUBREC)
        sensor.send(mqttsn.ack(mqttsn.PUBREL, 9))
        sensor.expect(mqttsn.PUBCOMP)
        self.assertEqual([found.payload for found in reader.wake()], [b"once"])

    def test_killed_while_awake(self) -> None:
        topic = unique("awake/")
        sensor = self.sensor()
        sensor.subscribe(topic, 1)
        sensor.sleep(60)
        self.publish(topic, b"1", b"2")
        sensor.send(mqttsn.pingreq(sensor.client_id))
        sensor.expect(mqttsn.PUBLISH)
        self.kill()
        self.assertEqual([found.payload for found in sensor.wake()], [b"1", b"2"])

    def test_messages_without_client_id_after_it(self) -> None:
        """DISCONNECT does not say whose it is: until the sensor wakes, nobody knows."""
        topic = unique("dur/")
        sensor = self.sensor()
        sensor.subscribe(topic, 1)
        sensor.sleep(60)
        self.kill()
        sensor.send(mqttsn.disconnect(30), mqttsn.searchgw())
        sensor.await_kind(mqttsn.GWINFO)
        self.publish(topic, b"kept")
        self.assertEqual([found.payload for found in sensor.wake()], [b"kept"])
        sensor.sleep(30)
        self.publish(topic, b"more")
        self.assertEqual([found.payload for found in sensor.wake()], [b"more"])

    def test_oversleeping_counts_across_it(self) -> None:
        will = unique("will/")
        sensor = self.sensor(will=Will(will, b"overslept", 1, True))
        sensor.sleep(2)
        self.kill(pause=3.5)
        watcher = self.client(V5)
        watcher.send(wire.subscribe(V5, [(will, 1)], 1))
        while (found := watcher.receive(8)).kind != wire.PUBLISH:
            pass
        self.assertEqual(found.payload, b"overslept")
        sensor.send(mqttsn.pingreq(sensor.client_id))
        sensor.await_kind(mqttsn.DISCONNECT)

    def test_the_rule_of_who_may_wake_holds(self) -> None:
        strict = {"gateway.mqttsn.roaming": "never"}
        self.kill(strict)
        topic = unique("strict/")
        sensor = self.sensor()
        sensor.subscribe(topic, 1)
        sensor.sleep(60)
        self.publish(topic, b"kept")
        self.kill(strict)
        thief = self.stranger(str(sensor.client_id))
        thief.send(mqttsn.pingreq(sensor.client_id))
        thief.expect(mqttsn.DISCONNECT)
        self.assertEqual([found.payload for found in sensor.wake()], [b"kept"])
        self.kill()

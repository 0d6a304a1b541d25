"""MQTT-SN: many nodes behind the one address of a forwarder (§5.5)."""

from __future__ import annotations

import socket

from mqttsn_case import PREDEFINED, SnCase

from harness import mqttsn
from harness.case import unique
from harness.mqttsn import Endpoint
from harness.sensor import Sensor
from harness.wire import V5


class Forwarder:
    """One socket, and sensors that share it; each message goes to the sensor that its node id names."""

    def __init__(self, gateway: mqttsn.Address) -> None:
        self.plain = Endpoint(gateway)
        self.nodes: dict[bytes, Sensor] = {}

    def node(self, number: bytes, client_id: str) -> Sensor:
        found = _Behind(self, number, client_id)
        self.nodes[number] = found
        return found

    def pump(self, seconds: float) -> None:
        """Hands one datagram to whom it is for."""
        self.plain.socket.settimeout(max(seconds, 0.001))
        try:
            datagram = self.plain.socket.recv(1 << 16)
        except TimeoutError:
            raise mqttsn.TimedOut("no message before the deadline") from None
        found = mqttsn.decode(datagram)
        if found.node is None:
            self.plain.backlog.append(found)
        else:
            self.nodes[found.node].backlog.append(found)

    def close(self) -> None:
        self.plain.close()
        for node in self.nodes.values():
            node.socket.close()


class _Behind(Sensor):
    def __init__(self, forwarder: Forwarder, number: bytes, client_id: str) -> None:
        super().__init__(forwarder.plain.gateway, client_id, number, predefined=PREDEFINED)
        self.socket.close()
        self.forwarder = forwarder
        self.socket = forwarder.plain.socket

    def _receive(self, seconds: float) -> mqttsn.Message:
        while not self.backlog:
            self.forwarder.pump(seconds)
        return self.backlog.pop(0)


class Forwarded(SnCase):
    def forwarder(self) -> Forwarder:
        found = Forwarder(self.gateway)
        self.addCleanup(found.close)
        return found

    def test_many_nodes(self) -> None:
        forwarder, name = self.forwarder(), unique("fleet/")
        watcher = self.watch(f"{name}/#")
        sensors = [forwarder.node(bytes([number, 0xFE]), unique("node")) for number in range(100)]
        for number, sensor in enumerate(sensors):
            sensor.connect()
            sensor.subscribe(f"{name}/down/{number}", 1)
            sensor.publish(sensor.register(f"{name}/up/{number}"), b"%d" % number, 1)
            self.seen(watcher, b"%d" % number)
        publisher = self.client(V5)
        for number in range(100):
            publisher.publish(f"{name}/down/{number}", b"to %d" % number, 1)
        for number, sensor in enumerate(sensors):
            self.assertEqual(sensor.take().payload, b"to %d" % number)

    def test_the_forwarder_itself_may_be_a_sensor(self) -> None:
        forwarder = self.forwarder()
        behind = forwarder.node(b"\x01", unique("node"))
        behind.connect()
        own = forwarder.plain
        own.send(mqttsn.connect(unique()))
        while not own.backlog:
            forwarder.pump(5)
        self.assertEqual(own.backlog.pop(0).kind, mqttsn.CONNACK)
        behind.ping()
        behind.leave()
        own.send(mqttsn.pingreq())
        while not own.backlog:
            forwarder.pump(5)
        self.assertEqual(own.backlog.pop(0).kind, mqttsn.PINGRESP)

    def test_node_ids_of_any_length(self) -> None:
        forwarder = self.forwarder()
        for length in (1, 2, 8, 16):
            with self.subTest(length=length):
                sensor = forwarder.node(bytes(range(length)), unique("node"))
                sensor.connect()
                sensor.ping()

    def test_node_ids_that_differ_little_are_different(self) -> None:
        forwarder = self.forwarder()
        sensors = [forwarder.node(number, unique("node")) for number in (b"\0", b"\0\0", b"\0\0\0", b"a", b"a\0")]
        for sensor in sensors:
            sensor.connect()
        for sensor in sensors:
            sensor.ping()

    def test_search_publish_without_connection_and_sleep(self) -> None:
        forwarder = self.forwarder()
        sensor = forwarder.node(b"sleep", unique("node"))
        sensor.send(mqttsn.searchgw(1))
        sensor.expect(mqttsn.GWINFO)
        watcher, topic = self.watch("fw"), unique("fs/")
        sensor.send(mqttsn.publish("fw", b"minus one", -1))
        self.seen(watcher, b"minus one")
        sensor.connect()
        sensor.subscribe(topic, 1)
        sensor.sleep(60)
        publisher = self.client(V5)
        publisher.publish(topic, b"kept", 1)
        self.assertEqual([found.payload for found in sensor.wake()], [b"kept"])
        # The node roams to another forwarder.
        other = self.forwarder().node(b"sleep", str(sensor.client_id))
        other.names = sensor.names
        publisher.publish(topic, b"elsewhere", 1)
        self.assertEqual([found.payload for found in other.wake()], [b"elsewhere"])

    def test_a_lost_node_is_told_as_a_node(self) -> None:
        forwarder = self.forwarder()
        sensor, other = forwarder.node(b"\x01", unique("node")), forwarder.node(b"\x02", unique("node"))
        sensor.connect(duration=1)
        other.connect(duration=60)
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)
        other.ping()

    def test_bad_encapsulation(self) -> None:
        link = self.endpoint()
        inner = mqttsn.searchgw()
        table = [
            b"\x03\xfe\x00", b"\x03\xfe", b"\x02\xfe", b"\x02\xfe" + inner, b"\x00\xfe\x00" + inner,
            b"\xff\xfe\x00\x01" + inner, b"\x04\xfe\x00\x01", b"\x04\xfe\x00\x01" + inner[:1],
            b"\x04\xfe\x00\x01" + inner + b"x", b"\x04\xfe\x00\x01\x00", b"\x01\x00\x08\xfe\x00\x01" + inner,
            mqttsn.encapsulate(b"a", mqttsn.encapsulate(b"b", inner)),
            mqttsn.encapsulate(b"a", mqttsn.encapsulate(b"b", mqttsn.encapsulate(b"c", inner))),
        ]  # fmt: skip
        link.send(*table)
        link.send(inner)
        # The first answer is that to the last.
        self.assertIsNone(link.expect(mqttsn.GWINFO).node)

    def test_radius_comes_back(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
            stream.settimeout(5)
            stream.sendto(mqttsn.encapsulate(b"n", mqttsn.connect(unique()), 0), self.gateway)
            found = mqttsn.decode(stream.recv(100))
            self.assertEqual((found.kind, found.node), (mqttsn.CONNACK, b"n"))

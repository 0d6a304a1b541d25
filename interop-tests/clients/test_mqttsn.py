"""Sensors with third-party clients for MQTT-SN, applications with third-party clients for MQTT: each sees the other."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import unittest
from typing import Any, ClassVar

import adapters
import sn_adapters
from adapters import PahoPython, Subscriber, unique
from sn_adapters import CLIENTS, PREDEFINED, SnClient

from harness import broker as brokers
from harness import wire
from harness.sensor import Sensor

PYTHON = PahoPython()
SETTINGS = {
    "gateway.mqttsn.listeners.udp.default.bind": "127.0.0.1:0",
    **{f"gateway.mqttsn.predefined.{number}": name for number, name in PREDEFINED.items()},
}


@unittest.skipIf(brokers.KIND == "mosquitto", "it does not speak MQTT-SN")
class SnCase(unittest.TestCase):
    broker: ClassVar[brokers.Broker]

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = brokers.start(SETTINGS)
        cls.addClassCleanup(cls.broker.close)

    def setUp(self) -> None:
        adapters.require(PYTHON)
        self.prober = wire.Link(self.broker.address(), wire.V311)
        self.addCleanup(self.prober.drop)
        self.prober.connect(unique("probe"))

    def probe(self, topic: str, payload: str) -> None:
        self.prober.publish(topic, payload.encode(), 1)

    def watch(self, topic: str, qos: int = 2) -> adapters.PahoLink:
        found = PYTHON.connect(self.broker, "tcp", 5)
        self.addCleanup(found.close)
        found.subscribe(topic, qos)
        return found

    def subscribe(self, client: SnClient, topic: str | int, qos: int, **will: Any) -> Subscriber:
        found = client.subscribe(self.broker, topic, qos, **will)
        self.addCleanup(found.close)
        return found

    def settle(self, topic: str, *readers: Subscriber) -> None:
        adapters.settle(self.broker, topic, list(readers), self.probe)


def each_client(test: Any) -> Any:
    """One test per client; those that are not installed are skipped with the reason."""

    def made(client: SnClient) -> Any:
        def run(self: SnCase) -> None:
            sn_adapters.require(client)
            test(self, client)

        return run

    return {f"{test.__name__}_{client.name.replace('-', '_')}": made(client) for client in CLIENTS}


class Sensors(SnCase):
    """Generated: one test per procedure and client."""


def test_publish_at_each_qos(self: SnCase, client: SnClient) -> None:
    topic = unique("up/")
    watcher = self.watch(topic)
    for qos in client.publishes:
        payloads = [f"qos{qos}-{number}" for number in range(2)]
        client.publish(self.broker, topic, payloads, qos)
        for payload in payloads:
            found = watcher.message()
            self.assertEqual((found.payload.decode(), found.qos), (payload, qos))


def test_subscribe_at_each_qos(self: SnCase, client: SnClient) -> None:
    for granted in client.qos:
        topic = unique("down/")
        reader = self.subscribe(client, topic, granted)
        self.settle(topic, reader)
        publisher = PYTHON.connect(self.broker, "tcp", 4)
        for qos in range(3):
            publisher.publish(topic, f"qos{qos}".encode(), qos)
            self.assertEqual(reader.next(), f"qos{qos}")
        publisher.close()


def test_wildcards(self: SnCase, client: SnClient) -> None:
    prefix = unique("wild/")
    reader = self.subscribe(client, f"{prefix}/#", client.qos[-1])
    self.settle(f"{prefix}/probe", reader)
    for number in range(5):
        self.probe(f"{prefix}/{number}/x", f"n{number}")
        self.assertEqual(reader.next(), f"n{number}")


def test_short_topics(self: SnCase, client: SnClient) -> None:
    topic = f"{CLIENTS.index(client)}s"
    watcher, reader = self.watch(topic), self.subscribe(client, topic, client.qos[-1])
    self.settle(topic, reader)
    client.publish(self.broker, topic, ["short"], 1)
    self.assertEqual(reader.next(), "short")
    while (found := watcher.next()) in ("probe", "begin"):
        pass
    self.assertEqual(found, "short")


def test_predefined_topics(self: SnCase, client: SnClient) -> None:
    watcher, reader = self.watch("predefined/+"), self.subscribe(client, 1, client.qos[-1])
    self.settle(PREDEFINED[1], reader)
    for qos in (-1, 0, 1, 2):
        client.publish(self.broker, 1, [f"predefined{qos}"], qos)
        self.assertEqual(reader.next(), f"predefined{qos}")
        while (found := watcher.next()) in ("probe", "begin"):
            pass
        self.assertEqual(found, f"predefined{qos}")


def test_retained(self: SnCase, client: SnClient) -> None:
    topic = unique("retained/")
    client.publish(self.broker, topic, ["kept"], 1, retain=True)
    found = self.watch(topic).message()
    self.assertEqual((found.payload, found.retain), (b"kept", True))
    for reader in CLIENTS:
        if reader.missing() is None:
            with self.subTest(reader=reader.name):
                self.assertEqual(self.subscribe(reader, topic, reader.qos[-1]).next(), "kept")


def test_will(self: SnCase, client: SnClient) -> None:
    topic, will, client_id = unique("t/"), unique("will/"), unique("mortal-")
    watcher = self.watch(will)
    reader = self.subscribe(client, topic, client.qos[-1], will_topic=will, payload="gone", client_id=client_id)
    self.settle(topic, reader)
    reader.close()
    # Its place is taken by another, and that is its end.
    heir = Sensor(self.broker.mqttsn(), client_id)
    self.addCleanup(heir.close)
    heir.connect()
    found = watcher.message()
    self.assertEqual((found.payload, found.qos), (b"gone", 1))


def test_with_each_other(self: SnCase, client: SnClient) -> None:
    readers = [reader for reader in CLIENTS if reader.missing() is None]
    topic = unique("cross/")
    running = [self.subscribe(reader, topic, reader.qos[-1]) for reader in readers]
    self.settle(topic, *running)
    for qos in client.publishes:
        client.publish(self.broker, topic, [f"cross{qos}"], qos)
        for reader, found in zip(readers, running, strict=True):
            with self.subTest(reader=reader.name, qos=qos):
                self.assertEqual(found.next(), f"cross{qos}")


for _test in (
    test_publish_at_each_qos, test_subscribe_at_each_qos, test_wildcards, test_short_topics, test_predefined_topics,
    test_retained, test_will, test_with_each_other,
):  # fmt: skip
    for _name, _made in each_client(_test).items():
        setattr(Sensors, _name, _made)


class Sleeping(SnCase):
    """mqtt-sn-12 as a library goes to sleep and comes back with CONNECT; it cannot wake with PINGREQ."""

    def test_what_came_meanwhile_is_there(self) -> None:
        client = sn_adapters.CLIENTS[0]
        sn_adapters.require(client)
        from mqttsn12.client.MqttSnClient import MqttSnClient, MqttSnListener, MqttSnMessage

        got: list[bytes] = []

        class Listener(MqttSnListener):
            def message_arrived(self, msg: MqttSnMessage) -> None:
                got.append(msg.get_payload())

        topic, client_id = unique("sleep/"), unique("sleeper-")
        sensor = MqttSnClient()
        sensor.set_client_id(client_id)
        sensor.set_clean_session(False)
        sensor.open(*self.broker.mqttsn())
        self.addCleanup(sensor.close)

        # It waits for answers for ever, so a test that fails has to end it.
        def give_up() -> None:
            with contextlib.suppress(OSError):
                sensor.datagram_socket.shutdown(socket.SHUT_RDWR)

        watchdog = threading.Timer(20, give_up)
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        sensor.send_connect()
        sensor.send_subscribe(topic, 0, Listener())
        for rounds in range(1, 4):
            sensor.send_disconnect(60)
            self.probe(topic, f"kept{rounds}")
            sensor.send_connect()
            deadline = time.monotonic() + 10
            while len(got) < rounds:
                self.assertLess(time.monotonic(), deadline, got)
                sensor.polling()
        self.assertEqual(got, [b"kept1", b"kept2", b"kept3"])


class Secured(SnCase):
    """bisquitt speaks DTLS."""

    @classmethod
    def setUpClass(cls) -> None:
        made = brokers.certificates()
        base = "gateway.mqttsn.listeners.dtls.default"
        cls.broker = brokers.start(
            {
                **SETTINGS,
                f"{base}.bind": "127.0.0.1:0",
                f"{base}.dtls_options.certfile": made.path("server.pem"),
                f"{base}.dtls_options.keyfile": made.path("server-key.pem"),
                f"{base}.dtls_options.cacertfile": made.ca,
                f"{base}.dtls_options.verify": "verify_peer",
                f"{base}.dtls_options.fail_if_no_peer_cert": "true",
            }
        )
        cls.addClassCleanup(cls.broker.close)

    def test_both_directions(self) -> None:
        client = sn_adapters.BisquittDtls()
        sn_adapters.require(client)
        topic = unique("dtls/")
        watcher, reader = self.watch(topic), self.subscribe(client, topic, 2)
        self.settle(topic, reader, watcher)
        for qos in range(3):
            client.publish(self.broker, topic, [f"secret{qos}"], qos)
            self.assertEqual(reader.next(), f"secret{qos}")
            self.assertEqual(watcher.next(), f"secret{qos}")


if __name__ == "__main__":
    unittest.main()

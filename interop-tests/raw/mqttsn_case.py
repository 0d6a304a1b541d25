"""What the tests of MQTT-SN share: a broker with a UDP listener, sensors, MQTT clients that watch, counters."""

from __future__ import annotations

import contextlib
import time
import unittest
from typing import Any, ClassVar

from harness import broker as brokers
from harness import case, lossy, mqttsn, wire
from harness.case import unique
from harness.mqttsn import Endpoint
from harness.sensor import Sensor
from harness.wire import V5

NODE = "node@here"
SYS = f"$SYS/brokers/{NODE}"
GATEWAY_ID = 7
RETRY_SECONDS = 1
PREDEFINED = {1: "predefined/one", 2: "predefined/two", 3: "predefined/denied"}


def settings(**more: str) -> dict[str, str]:
    """Settings of a broker with one UDP listener on a free port; `more` with `__` for the dots of the keys."""
    out = {
        "node.name": NODE,
        "sys_topics.sys_msg_interval": "1s",
        "sys_topics.sys_heartbeat_interval": "1s",
        "gateway.mqttsn.gateway_id": str(GATEWAY_ID),
        "gateway.mqttsn.gwinfo_delay": "0s",
        "gateway.mqttsn.listeners.udp.default.bind": "127.0.0.1:0",
        "gateway.mqttsn.retry_interval": f"{RETRY_SECONDS}s",
        **{f"gateway.mqttsn.predefined.{number}": name for number, name in PREDEFINED.items()},
    }
    out.update({"gateway.mqttsn." + name.replace("__", "."): value for name, value in more.items()})
    return out


@unittest.skipIf(brokers.KIND == "mosquitto", "it does not speak MQTT-SN")
class SnCase(case.BrokerCase):
    """After each test a sensor that was there before has to get its own message back, like the bystanders of MQTT."""

    settings: ClassVar[dict[str, str]] = settings()

    def setUp(self) -> None:
        super().setUp()
        self.bystander: Sensor | None = None
        if self.with_bystander:
            self.bystander = self.sensor()
            self.bystander.subscribe(f"bystander/{self.bystander.client_id}", 1)

    def tearDown(self) -> None:
        super().tearDown()
        sensor = self.bystander
        if sensor is not None:
            topic, payload = f"bystander/{sensor.client_id}", unique("alive").encode()
            topic_id = next(number for number, name in sensor.names.items() if name == topic)
            self.assertEqual(sensor.publish(topic_id, payload, 1), mqttsn.ACCEPTED)
            self.assertEqual(sensor.take().payload, payload)

    @property
    def gateway(self) -> mqttsn.Address:
        return self.broker.mqttsn()

    def endpoint(self, node: bytes | None = None, host: str = "127.0.0.1") -> Endpoint:
        """A socket of which the gateway knows nothing."""
        found = Endpoint(self.gateway, node, host)
        self.addCleanup(found.close)
        return found

    def stranger(self, client_id: str | None = None, address: mqttsn.Address | None = None, **options: Any) -> Sensor:
        """A sensor without connection."""
        options.setdefault("predefined", PREDEFINED)
        found = Sensor(address or self.gateway, unique("sn") if client_id is None else client_id, **options)
        self.addCleanup(found.close)
        return found

    def sensor(self, client_id: str | None = None, address: mqttsn.Address | None = None, **options: Any) -> Sensor:
        """A connected sensor; the options are those of CONNECT."""
        found = self.stranger(client_id, address)
        found.connect(**options)
        return found

    def relay(self) -> lossy.Relay:
        found = lossy.Relay(self.gateway)
        self.addCleanup(found.close)
        return found

    def watch(self, *filters: str, qos: int = 2) -> wire.Link:
        """An MQTT client with these subscriptions."""
        link = self.client(V5)
        link.subscribe(*((name, qos) for name in filters))
        return link

    def seen(self, link: wire.Link, *payloads: bytes) -> None:
        """The next messages of an MQTT client."""
        self.assertEqual([link.take().payload for _ in payloads], list(payloads))

    def nothing_more(self, link: wire.Link, topic: str) -> None:
        """No message for this watcher is on its way: one that is sent behind comes next."""
        payload = unique("end").encode()
        self.client(V5).publish(topic, payload, 1)
        self.assertEqual(link.take().payload, payload)

    def metrics(self) -> dict[str, int]:
        """All counters as $SYS tells them next."""
        link = self.client(V5)
        link.send(wire.subscribe(V5, [(f"{SYS}/metrics/#", 0), (f"{SYS}/uptime", 0)], 1))
        found: dict[str, int] = {}
        beats = 0
        # The heartbeat comes behind the metrics of the same second; the first may belong to the second before.
        while beats < 2 or not found:
            message = link.receive()
            if message.kind == wire.PUBLISH and "/metrics/" in message.topic:
                found[message.topic.removeprefix(f"{SYS}/metrics/")] = int(message.payload)
            elif message.kind == wire.PUBLISH:
                beats += 1
        link.leave()
        return found

    def await_end_of(self, sensor: Endpoint, seconds: float = 2 * mqttsn.SECONDS) -> None:
        """The gateway does not know this sensor: it answers PINGREQ with DISCONNECT (§6.12), if not every time."""
        deadline = time.monotonic() + seconds
        while True:
            sensor.send(mqttsn.pingreq())
            with contextlib.suppress(mqttsn.TimedOut):
                if sensor.receive(1).kind == mqttsn.DISCONNECT:
                    return
            self.assertLess(time.monotonic(), deadline, "the gateway still knows the sensor, or is silent")

"""Each third-party client for MQTT-SN behind the same two calls as those for MQTT (see `adapters`)."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import sys
import unittest
from typing import Any

import adapters
from adapters import Process, Subscriber, run, unique

from harness import broker as brokers

WORK = os.environ.get("INTEROP_WORK", "")
BIN = pathlib.Path(sys.executable).parent
PREDEFINED = {1: "predefined/one", 2: "predefined/two"}


class SnClient:
    """A kind of client; `qos` is what it can subscribe with."""

    name = ""
    qos: tuple[int, ...] = (0, 1, 2)
    publishes: tuple[int, ...] = (0, 1, 2)

    def missing(self) -> str | None:
        raise NotImplementedError

    def publish(
        self, broker: brokers.Broker, topic: str | int, payloads: list[str], qos: int, retain: bool = False
    ) -> None:
        """`topic` may be a predefined id."""
        raise NotImplementedError

    def subscribe(self, broker: brokers.Broker, topic: str | int, qos: int, **will: Any) -> Subscriber:
        """A running subscription; `will` is will_topic, payload and client_id."""
        raise NotImplementedError


def require(client: SnClient) -> None:
    reason = client.missing()
    if reason:
        raise unittest.SkipTest(reason)


class MqttSn12(SnClient):
    """The PyPI package mqtt-sn-12, in Python: its command line tools."""

    name = "mqtt-sn-12"
    # It acknowledges no PUBLISH that it gets.
    qos = (0,)

    def missing(self) -> str | None:
        found = importlib.util.find_spec("mqttsn12")
        return None if found else "the Python package mqtt-sn-12 is not installed"

    def command(self, broker: brokers.Broker, tool: str, topic: str | int, client_id: str | None = None) -> list[str]:
        host, port = broker.mqttsn()
        which = ["-T", str(topic)] if isinstance(topic, int) else ["-t", topic]
        return [str(BIN / tool), "-h", host, "-p", str(port), "-i", client_id or unique("ratto-"), "-k", "10", *which]

    def publish(
        self, broker: brokers.Broker, topic: str | int, payloads: list[str], qos: int, retain: bool = False
    ) -> None:
        for payload in payloads:
            command = [*self.command(broker, "mqtt_sn_pub", topic), "-q", str(qos), "-m", payload]
            run([*command, *(["-r"] if retain else [])])

    def subscribe(self, broker: brokers.Broker, topic: str | int, qos: int, **will: Any) -> Process:
        command = [*self.command(broker, "mqtt_sn_sub", topic, will.get("client_id")), "-q", str(qos)]
        if will:
            command += ["--will-topic", will["will_topic"], "--will-payload", will["payload"], "--will-qos", "1"]
        return Process(command, {"PYTHONUNBUFFERED": "1"})


class Bisquitt(SnClient):
    """bisquitt-pub and bisquitt-sub of the Go module github.com/energomonitor/bisquitt."""

    name = "bisquitt"
    listener = "udp:default"

    def missing(self) -> str | None:
        path = pathlib.Path(WORK, "bin", "bisquitt-sub")
        return None if path.exists() else "bisquitt-pub and bisquitt-sub were not built"

    def command(self, broker: brokers.Broker, tool: str, topic: str | int, client_id: str | None = None) -> list[str]:
        host, port = broker.mqttsn(self.listener)
        name = PREDEFINED[topic] if isinstance(topic, int) else topic
        out = [f"{WORK}/bin/bisquitt-{tool}", "-h", host, "-p", str(port), "-i", client_id or unique("bisquitt-")]
        if isinstance(topic, int):
            out += ["--predefined-topic", f"{name};{topic}"]
        return [*out, "-t", name]

    def publish(
        self, broker: brokers.Broker, topic: str | int, payloads: list[str], qos: int, retain: bool = False
    ) -> None:
        for payload in payloads:
            command = [*self.command(broker, "pub", topic), "-q", str(3 if qos == -1 else qos), "-m", payload]
            run([*command, *(["-r"] if retain else [])])

    def subscribe(self, broker: brokers.Broker, topic: str | int, qos: int, **will: Any) -> Subscriber:
        command = [*self.command(broker, "sub", topic, will.get("client_id")), "-q", str(qos)]
        if will:
            command += ["--will-topic", will["will_topic"], "--will-message", will["payload"], "--will-qos", "1"]
        return _BisquittSub(command)


class BisquittDtls(Bisquitt):
    """The same over DTLS, where both check each other's certificate."""

    listener = "dtls:default"

    def command(self, broker: brokers.Broker, tool: str, topic: str | int, client_id: str | None = None) -> list[str]:
        made = brokers.certificates()
        own = ["--cert", made.path("client.pem"), "--key", made.path("client-key.pem")]
        return [*super().command(broker, tool, topic, client_id), "--dtls", "--cafile", made.ca, *own]


class _BisquittSub(Process):
    """Lines of topic, payload and flags; logs are mixed into them."""

    _line = re.compile(r"^[^\[ ]+: (?P<payload>.*) (?:\[(?:retained|qos \d|, )*\])?$")

    def next(self, seconds: float = adapters.SECONDS) -> str:
        while True:
            found = self._line.match(super().next(seconds))
            if found:
                return found["payload"]


CLIENTS: tuple[SnClient, ...] = (MqttSn12(), Bisquitt())

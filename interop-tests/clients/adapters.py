"""Each third-party client behind the same two calls: publish some payloads, and subscribe to a topic."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import queue
import shutil
import ssl
import subprocess
import threading
import time
import unittest
from typing import Any, Protocol

from harness import broker as brokers

try:
    import paho.mqtt.client as paho
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError:
    paho = None  # type: ignore[assignment]

V31, V311, V5 = 3, 4, 5
VERSIONS = (V31, V311, V5)
TRANSPORTS = ("tcp", "ssl", "ws", "wss")
SECONDS = 10.0
_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    return f"{prefix}{next(_numbers)}"


class Subscriber(Protocol):
    """A running subscription; the payloads come in order."""

    def next(self, seconds: float = SECONDS) -> str: ...

    def close(self) -> None: ...


class Process:
    """A subscriber that prints one payload per line."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.errors: list[str] = []
        self.lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        self.threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors.append), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def _read(self, stream: Any, sink: Any) -> None:
        for line in stream:
            sink(line.rstrip("\n"))

    def next(self, seconds: float = SECONDS) -> str:
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(
                f"{self.process.args[0]}: nothing in {seconds} s; status {self.process.poll()}; {self.errors[-3:]}"  # type: ignore[index]
            ) from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self.threads:
            thread.join(2)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def run(command: list[str], environment: dict[str, str] | None = None, seconds: float = 30) -> str:
    """A command that has to succeed; returns what it printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]} {done.stdout[-500:]}"
    return done.stdout


class Client:
    """A kind of client: what it can do, and how."""

    name = ""
    versions: tuple[int, ...] = VERSIONS
    transports: tuple[str, ...] = TRANSPORTS

    def missing(self) -> str | None:
        """Why this client cannot run here; `None` if it can."""
        raise NotImplementedError

    def publish(
        self,
        broker: brokers.Broker,
        transport: str,
        version: int,
        topic: str,
        payloads: list[str],
        qos: int,
        retain: bool = False,
    ) -> None:
        raise NotImplementedError

    def subscribe(self, broker: brokers.Broker, transport: str, version: int, topic: str, qos: int) -> Subscriber:
        raise NotImplementedError


def endpoint(broker: brokers.Broker, transport: str) -> tuple[str, int]:
    return broker.address(f"{transport}:default")


class PahoPython(Client):
    name = "Paho Python"

    def missing(self) -> str | None:
        return None if paho is not None else "the Python package paho-mqtt is not installed"

    def connect(
        self, broker: brokers.Broker, transport: str, version: int, client_id: str | None = None, **options: Any
    ) -> PahoLink:
        return PahoLink(broker, transport, version, client_id or unique("paho-py-"), **options)

    def publish(
        self,
        broker: brokers.Broker,
        transport: str,
        version: int,
        topic: str,
        payloads: list[str],
        qos: int,
        retain: bool = False,
    ) -> None:
        link = self.connect(broker, transport, version)
        for payload in payloads:
            link.publish(topic, payload.encode(), qos, retain)
        link.close()

    def subscribe(self, broker: brokers.Broker, transport: str, version: int, topic: str, qos: int) -> PahoLink:
        link = self.connect(broker, transport, version)
        link.subscribe(topic, qos)
        return link


class PahoLink:
    """A connected client of Paho Python."""

    def __init__(
        self,
        broker: brokers.Broker,
        transport: str,
        version: int,
        client_id: str,
        clean: bool = True,
        context: ssl.SSLContext | None = None,
        listener: str | None = None,
        will: tuple[str, bytes, int, bool] | None = None,
        expiry: int | None = None,
    ) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        self.version = version
        self.connected: queue.Queue[Any] = queue.Queue()
        self.subscribed: queue.Queue[Any] = queue.Queue()
        self.ended: queue.Queue[Any] = queue.Queue()
        extra = {} if version == V5 else {"clean_session": clean}
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id,
            protocol={V31: paho.MQTTv31, V311: paho.MQTTv311, V5: paho.MQTTv5}[version],
            transport="websockets" if transport in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
            **extra,
        )
        if transport in ("ws", "wss"):
            self.client.ws_set_options("/mqtt")
        if transport in ("ssl", "wss"):
            self.client.tls_set_context(context or ssl.create_default_context(cafile=brokers.certificates().ca))
        if will:
            self.client.will_set(*will)
        self.client.on_connect = lambda _c, _u, flags, code, props: self.connected.put((flags, code, props))
        self.client.on_disconnect = lambda *arguments: self.ended.put(arguments)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda _c, _u, _mid, codes, _props: self.subscribed.put(codes)
        host, port = broker.address(listener or f"{transport}:default")
        start: dict[str, Any] = {}
        if version == V5:
            start["clean_start"] = clean
            if expiry is not None:
                start["properties"] = Properties(PacketTypes.CONNECT)
                start["properties"].SessionExpiryInterval = expiry
        self.client.connect(host, port, 30, **start)
        self.client.loop_start()
        self.flags, code, self.properties = self.connected.get(timeout=SECONDS)
        assert not code.is_failure, f"refused: {code}"

    def subscribe(self, topic: str, qos: int) -> list[int]:
        self.client.subscribe(topic, qos)
        return [code.value for code in self.subscribed.get(timeout=SECONDS)]

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False, properties: Any = None) -> None:
        self.client.publish(topic, payload, qos, retain, properties).wait_for_publish(SECONDS)

    def message(self, seconds: float = SECONDS) -> Any:
        return self.messages.get(timeout=seconds)

    def next(self, seconds: float = SECONDS) -> str:
        try:
            return self.message(seconds).payload.decode()
        except queue.Empty:
            raise AssertionError(f"Paho Python: nothing in {seconds} s") from None

    def lose(self) -> None:
        """Ends the connection without DISCONNECT."""
        self.client.socket().close()
        self.client.loop_stop()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Mosquitto(Client):
    name = "mosquitto"
    transports = ("tcp", "ssl")
    _names = {V31: "mqttv31", V311: "mqttv311", V5: "mqttv5"}

    def missing(self) -> str | None:
        return None if shutil.which("mosquitto_sub") else "mosquitto_pub and mosquitto_sub are not installed"

    def arguments(self, broker: brokers.Broker, transport: str, version: int) -> list[str]:
        host, port = endpoint(broker, transport)
        out = ["-h", host, "-p", str(port), "-V", self._names[version], "-i", unique("mosq-")]
        return [*out, "--cafile", brokers.certificates().ca] if transport == "ssl" else out

    def publish(
        self,
        broker: brokers.Broker,
        transport: str,
        version: int,
        topic: str,
        payloads: list[str],
        qos: int,
        retain: bool = False,
    ) -> None:
        command = ["mosquitto_pub", *self.arguments(broker, transport, version), "-t", topic, "-q", str(qos), "-l"]
        done = subprocess.run(
            [*command, *(["-r"] if retain else [])], input="".join(f"{payload}\n" for payload in payloads),
            text=True, capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"mosquitto_pub ended with {done.returncode}: {done.stderr}"

    def subscribe(self, broker: brokers.Broker, transport: str, version: int, topic: str, qos: int) -> Process:
        options = ["-t", topic, "-q", str(qos), "-F", "%p"]
        return Process(["mosquitto_sub", *self.arguments(broker, transport, version), *options])


class PahoC(Client):
    name = "Paho C"
    _names = {V31: "31", V311: "311", V5: "5"}
    _schemes = {"tcp": "tcp", "ssl": "ssl", "ws": "ws", "wss": "wss"}

    def missing(self) -> str | None:
        return (
            None if shutil.which("paho_c_pub") else "the samples of Paho C (paho_c_pub, paho_c_sub) are not installed"
        )

    def arguments(self, broker: brokers.Broker, transport: str, version: int) -> list[str]:
        host, port = endpoint(broker, transport)
        path = "/mqtt" if transport in ("ws", "wss") else ""
        out = [
            "-c",
            f"{self._schemes[transport]}://{host}:{port}{path}",
            "-V",
            self._names[version],
            "-i",
            unique("paho-c-"),
        ]
        return [*out, "--cafile", brokers.certificates().ca] if transport in ("ssl", "wss") else out

    def publish(
        self,
        broker: brokers.Broker,
        transport: str,
        version: int,
        topic: str,
        payloads: list[str],
        qos: int,
        retain: bool = False,
    ) -> None:
        for payload in payloads:
            command = [
                "paho_c_pub",
                "-t",
                topic,
                *self.arguments(broker, transport, version),
                "-q",
                str(qos),
                "-m",
                payload,
            ]
            run([*command, *(["-r"] if retain else [])])

    def subscribe(self, broker: brokers.Broker, transport: str, version: int, topic: str, qos: int) -> Process:
        # The sample buffers its output unless it goes to a terminal.
        command = ["paho_c_sub", "-t", topic, *self.arguments(broker, transport, version), "-q", str(qos)]
        return Process(["stdbuf", "-oL", *command])


class MqttJs(Client):
    name = "MQTT.js"
    script = str(pathlib.Path(__file__).resolve().parent / "mqttjs" / "client.mjs")

    def missing(self) -> str | None:
        directory = os.environ.get("INTEROP_NODE_DIR", "")
        if not shutil.which("node"):
            return "node is not installed"
        if not pathlib.Path(directory, "node_modules", "mqtt").is_dir():
            return "the npm package mqtt is not installed"
        return None

    def task(self, broker: brokers.Broker, transport: str, version: int, **more: Any) -> str:
        host, port = endpoint(broker, transport)
        scheme = {"tcp": "mqtt", "ssl": "mqtts"}.get(transport, transport)
        url = f"{scheme}://{host}:{port}" + ("/mqtt" if transport in ("ws", "wss") else "")
        task = {"url": url, "version": version, "clientId": unique("mqttjs-"), **more}
        if transport in ("ssl", "wss"):
            task["ca"] = brokers.certificates().ca
        return json.dumps(task)

    def publish(
        self,
        broker: brokers.Broker,
        transport: str,
        version: int,
        topic: str,
        payloads: list[str],
        qos: int,
        retain: bool = False,
    ) -> None:
        task = self.task(broker, transport, version, topic=topic, payloads=payloads, qos=qos, retain=retain)
        run(["node", self.script, "pub", task])

    def subscribe(self, broker: brokers.Broker, transport: str, version: int, topic: str, qos: int) -> JsonLines:
        return JsonLines(["node", self.script, "sub", self.task(broker, transport, version, topic=topic, qos=qos)])


class JsonLines(Process):
    """The messages of MQTT.js."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(command)
        # A retained message may be shown before the line that tells of the subscription.
        self.early: list[dict[str, Any]] = []
        self.granted = json.loads(super().next())
        while "subscribed" not in self.granted:
            self.early.append(self.granted)
            self.granted = json.loads(super().next())

    def message(self, seconds: float = SECONDS) -> dict[str, Any]:
        return self.early.pop(0) if self.early else json.loads(super().next(seconds))

    def next(self, seconds: float = SECONDS) -> str:
        return self.message(seconds)["payload"]


CLIENTS: tuple[Client, ...] = (PahoPython(), Mosquitto(), PahoC(), MqttJs())


def require(client: Client) -> None:
    """Skips the test, with the reason, where this client is not installed."""
    reason = client.missing()
    if reason:
        raise unittest.SkipTest(reason)


def settle(broker: brokers.Broker, topic: str, subscribers: list[Subscriber], probe: Any) -> None:
    """Publishes markers until every subscriber has shown one, then an end marker that all of them read up to.

    The command line clients do not say when their subscription stands.
    """
    waiting = list(subscribers)
    deadline = time.monotonic() + 20
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} subscribers show nothing: {[vars(s) for s in waiting][:1]}"
        probe(topic, "probe")
        still = []
        for subscriber in waiting:
            try:
                assert subscriber.next(0.1) == "probe"
            except (AssertionError, queue.Empty):
                still.append(subscriber)
        waiting = still
    probe(topic, "begin")
    for subscriber in subscribers:
        while subscriber.next() != "begin":
            pass

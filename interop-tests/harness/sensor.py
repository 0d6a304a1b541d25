"""A sensor for the tests, from the specification of MQTT-SN 1.2 alone: it does what a client has to do by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import mqttsn
from .mqttsn import Endpoint


class Lost(Exception):
    """No answer after every retransmission (§6.13)."""


@dataclass
class Will:
    topic: str
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False


@dataclass
class Delivery:
    """A message as the sensor's application sees it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool = False


class Sensor(Endpoint):
    """A client as the specification wants it: retransmits, acknowledges, keeps the gateway's topic ids, and hands a
    QoS 2 message to its application once."""

    def __init__(
        self, gateway: mqttsn.Address, client_id: str | bytes, node: bytes | None = None, retry: float = 1.0,
        retries: int = 5, predefined: dict[int, str] | None = None, stream: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(gateway, node, stream=stream)
        self.client_id, self.retry, self.retries = client_id, retry, retries
        self.predefined = predefined or {}
        self.names: dict[int, str] = {}
        self.arrived: list[Delivery] = []
        self.ended = False
        self._unreleased: set[int] = set()

    def _handle(self, found: mqttsn.Message) -> bool:
        """What the gateway may say at any time; whether it was that."""
        if found.kind == mqttsn.REGISTER:
            self.names[found.topic_id] = found.name
            self.send(mqttsn.regack(found.topic_id, found.msg_id))
        elif found.kind == mqttsn.PUBLISH:
            self._publication(found)
        elif found.kind == mqttsn.PUBREL:
            self._unreleased.discard(found.msg_id)
            self.send(mqttsn.ack(mqttsn.PUBCOMP, found.msg_id))
        elif found.kind == mqttsn.PINGREQ:
            self.send(mqttsn.frame(mqttsn.PINGRESP))
        elif found.kind == mqttsn.DISCONNECT:
            self.ended = True
            return False
        else:
            return False
        return True

    def _publication(self, found: mqttsn.Message) -> None:
        names = {mqttsn.NORMAL: self.names, mqttsn.PREDEFINED: self.predefined}.get(found.topic_type)
        if names is not None and found.topic_id not in names:
            self.send(mqttsn.puback(found.topic_id, found.msg_id, mqttsn.INVALID_TOPIC_ID))
            return
        topic = found.short if names is None else names[found.topic_id]
        if found.qos == 2:
            self.send(mqttsn.ack(mqttsn.PUBREC, found.msg_id))
            if found.msg_id in self._unreleased:
                return
            self._unreleased.add(found.msg_id)
        elif found.qos == 1:
            self.send(mqttsn.puback(found.topic_id, found.msg_id))
        self.arrived.append(Delivery(topic, found.payload, found.qos, found.retain, found.dup))

    def await_kind(self, *kinds: int, msg_id: int | None = None, seconds: float = mqttsn.SECONDS) -> mqttsn.Message:
        """The next message of a kind (and identifier), while everything else is handled."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.receive(max(0.0, deadline - time.monotonic()))
            if found.kind in kinds and (msg_id is None or found.msg_id == msg_id):
                return found
            if not self._handle(found) and self.ended:
                raise Lost(f"DISCONNECT where {[mqttsn.NAMES[kind] for kind in kinds]} was awaited")

    def request(
        self, message: bytes, *kinds: int, msg_id: int | None = None, again: bytes | None = None
    ) -> mqttsn.Message:
        """Sends until an answer of a kind is there; `again` is what a retransmission looks like."""
        for attempt in range(self.retries + 1):
            self.send(again if attempt and again is not None else message)
            try:
                return self.await_kind(*kinds, msg_id=msg_id, seconds=self.retry)
            except mqttsn.TimedOut:
                continue
        raise Lost(f"no {[mqttsn.NAMES[kind] for kind in kinds]} for {message[:40].hex(' ')}")

    def connect(
        self, clean: bool = True, will: Will | None = None, duration: int = 60, code: int = mqttsn.ACCEPTED
    ) -> mqttsn.Message:
        """§6.2, with the answers to whatever the gateway asks for."""
        if clean:
            self.names.clear()
        self.ended = False
        kinds = (mqttsn.CONNACK, mqttsn.WILLTOPICREQ, mqttsn.WILLMSGREQ)
        found = self.request(mqttsn.connect(self.client_id, clean, will is not None, duration), *kinds)
        while found.kind != mqttsn.CONNACK:
            assert will is not None, f"asked for a Will that was not announced: {found}"
            if found.kind == mqttsn.WILLTOPICREQ:
                found = self.request(mqttsn.willtopic(will.topic, will.qos, will.retain), *kinds)
            else:
                found = self.request(mqttsn.willmsg(will.payload), *kinds)
        assert found.code == code, f"CONNACK {found.code}, awaited {code}"
        return found

    def register(self, topic: str) -> int:
        """§6.5; returns the topic id."""
        msg_id = self.next_id()
        found = self.request(mqttsn.register(topic, msg_id), mqttsn.REGACK, msg_id=msg_id)
        assert found.code == mqttsn.ACCEPTED and found.topic_id, f"{topic}: {found}"
        self.names[found.topic_id] = topic
        return found.topic_id

    def publish(
        self, topic: int | str, payload: bytes, qos: int = 0, retain: bool = False, topic_type: int | None = None
    ) -> int:
        """A whole publication (§6.6); returns the code of PUBACK."""
        if qos in (0, -1):
            self.send(mqttsn.publish(topic, payload, qos, 0, topic_type, retain))
            return mqttsn.ACCEPTED
        msg_id = self.next_id()
        first, again = (mqttsn.publish(topic, payload, qos, msg_id, topic_type, retain, dup) for dup in (False, True))
        found = self.request(first, mqttsn.PUBACK, mqttsn.PUBREC, msg_id=msg_id, again=again)
        if found.kind == mqttsn.PUBREC:
            assert qos == 2, found
            found = self.request(mqttsn.ack(mqttsn.PUBREL, msg_id), mqttsn.PUBCOMP, msg_id=msg_id)
        return found.code

    def subscribe(
        self, topic: int | str, qos: int = 0, topic_type: int | None = None, code: int = mqttsn.ACCEPTED
    ) -> mqttsn.Message:
        """§6.9; keeps the topic id that comes with it."""
        msg_id = self.next_id()
        first, again = (mqttsn.subscribe(topic, qos, msg_id, topic_type, dup) for dup in (False, True))
        found = self.request(first, mqttsn.SUBACK, msg_id=msg_id, again=again)
        assert found.code == code, f"SUBACK {found.code}, awaited {code}"
        if found.topic_id and isinstance(topic, str):
            self.names[found.topic_id] = topic
        return found

    def unsubscribe(self, topic: int | str, topic_type: int | None = None) -> None:
        msg_id = self.next_id()
        self.request(mqttsn.unsubscribe(topic, msg_id, topic_type), mqttsn.UNSUBACK, msg_id=msg_id)

    def ping(self) -> None:
        self.request(mqttsn.pingreq(), mqttsn.PINGRESP)

    def sleep(self, duration: int) -> None:
        """§6.14; the gateway's answer is a DISCONNECT without duration."""
        self.request(mqttsn.disconnect(duration), mqttsn.DISCONNECT)

    def wake(self) -> list[Delivery]:
        """PINGREQ with the client id; returns what the gateway had kept, up to PINGRESP."""
        known = len(self.arrived)
        found = self.request(mqttsn.pingreq(self.client_id), mqttsn.PINGRESP, mqttsn.DISCONNECT)
        if found.kind == mqttsn.DISCONNECT:
            # A late copy of the answer to mqttsn.DISCONNECT looks like a refusal.
            found = self.request(mqttsn.pingreq(self.client_id), mqttsn.PINGRESP, mqttsn.DISCONNECT)
        assert found.kind == mqttsn.PINGRESP, f"not awake: {found}"
        return self.arrived[known:]

    def leave(self) -> None:
        self.request(mqttsn.disconnect(), mqttsn.DISCONNECT)

    def take(self, seconds: float = mqttsn.SECONDS) -> Delivery:
        """The next message that was not taken yet."""
        self.until(lambda: bool(self.arrived), seconds)
        return self.arrived.pop(0)

    def until(self, condition: Callable[[], Any], seconds: float = mqttsn.SECONDS) -> None:
        """Handles what comes until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._handle(self.receive(max(0.0, deadline - time.monotonic())))

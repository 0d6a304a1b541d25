"""A UDP relay between clients and a gateway that loses, doubles or reorders chosen datagrams and keeps what it saw."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import mqttsn

UP, DOWN = "to the gateway", "from the gateway"
HOLD_SECONDS = 0.6
"""How long a datagram waits for the one that is to overtake it."""


@dataclass
class Fault:
    """What happens to the `nth` (from 0) datagram of that direction for which `chosen` holds."""

    direction: str
    action: str
    chosen: Callable[[bytes], bool]
    nth: int = 0
    seen: int = 0
    happened: bool = False


@dataclass
class _Client:
    address: tuple[str, int]
    upstream: socket.socket
    held: dict[str, tuple[float, bytes]] = field(default_factory=dict)


def kind_of(datagram: bytes) -> int:
    """The type of the message, inside of an encapsulation too."""
    if len(datagram) > 2 and datagram[0] != 1 and datagram[1] == mqttsn.ENCAPSULATED:
        datagram = datagram[datagram[0] :]
    at = 3 if datagram[:1] == b"\x01" else 1
    return datagram[at] if len(datagram) > at else -1


class Relay:
    """Runs in a thread of its own until `close`."""

    def __init__(self, gateway: tuple[str, int]) -> None:
        self.gateway = gateway
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.faults: list[Fault] = []
        self.log: list[tuple[str, bytes]] = []
        self._clients: dict[tuple[str, int], _Client] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.socket.getsockname()

    def fault(self, direction: str, action: str, kind: int | None = None, nth: int = 0) -> Fault:
        """`action` is lose, double or swap (with the next one, or late if there is none)."""
        assert action in ("lose", "double", "swap")
        found = Fault(direction, action, lambda data: kind is None or kind_of(data) == kind, nth)
        self.faults.append(found)
        return found

    def seen(self, direction: str, kind: int) -> list[bytes]:
        """The datagrams of a type that arrived here, also those that were lost."""
        return [data for way, data in list(self.log) if way == direction and kind_of(data) == kind]

    def close(self) -> None:
        self._closing = True
        self._thread.join(5)
        for client in self._clients.values():
            client.upstream.close()
        self.socket.close()

    def _run(self) -> None:
        while not self._closing:
            sockets = [self.socket, *(client.upstream for client in self._clients.values())]
            for ready in select.select(sockets, [], [], 0.05)[0]:
                try:
                    datagram, sender = ready.recvfrom(1 << 16)
                except OSError:
                    continue
                if ready is self.socket:
                    self._pass(UP, self._client(sender), datagram)
                else:
                    client = next(found for found in self._clients.values() if found.upstream is ready)
                    self._pass(DOWN, client, datagram)
            for client in self._clients.values():
                for direction, (until, datagram) in list(client.held.items()):
                    if time.monotonic() > until:
                        del client.held[direction]
                        self._forward(direction, client, datagram)

    def _client(self, sender: tuple[str, int]) -> _Client:
        if sender not in self._clients:
            upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            upstream.bind(("127.0.0.1", 0))
            self._clients[sender] = _Client(sender, upstream)
        return self._clients[sender]

    def _action(self, direction: str, datagram: bytes) -> str:
        action = ""
        for fault in self.faults:
            if fault.direction == direction and not fault.happened and fault.chosen(datagram):
                if fault.seen == fault.nth:
                    fault.happened, action = True, fault.action
                fault.seen += 1
        return action

    def _pass(self, direction: str, client: _Client, datagram: bytes) -> None:
        self.log.append((direction, datagram))
        action = self._action(direction, datagram)
        if action == "lose":
            return
        if action == "swap" and direction not in client.held:
            client.held[direction] = (time.monotonic() + HOLD_SECONDS, datagram)
            return
        self._forward(direction, client, datagram)
        if action == "double":
            self._forward(direction, client, datagram)
        if direction in client.held:
            self._forward(direction, client, client.held.pop(direction)[1])

    def _forward(self, direction: str, client: _Client, datagram: bytes) -> None:
        try:
            if direction == UP:
                client.upstream.sendto(datagram, self.gateway)
            else:
                self.socket.sendto(datagram, client.address)
        except OSError:
            pass

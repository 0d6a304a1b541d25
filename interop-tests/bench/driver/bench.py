"""What the scenarios have in common: rounds of runs, brokers in directories of their own, what waits for subscribers."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .brokers import Absent, Broker
from .load import Failed, load, log

# A run that takes longer is the only one of its broker.
SLOW_SECONDS = 90


@dataclass
class Bench:
    """What is run, how often, and how large."""

    directory: pathlib.Path
    kinds: list[str]
    runs: int
    # Seconds of a phase of load.
    seconds: float
    # 1 for a million of what there are a million of.
    scale: float
    record: Callable[[str, str, str, dict[str, float]], None]
    reasons: dict[str, str] = field(default_factory=dict)
    made: int = 0
    # Whether Tidegate could not do what it was asked to.
    failed: bool = False

    @contextlib.contextmanager
    def broker(self, kind: str, start: bool = True, **options: object) -> Iterator[Broker]:
        """A broker with an empty directory, which is removed in the end."""
        self.made += 1
        broker = Broker(kind, self.directory / f"{kind}-{self.made}", free_port())
        try:
            if start:
                broker.start(**options)
            yield broker
        finally:
            broker.remove()

    def rounds(self, scenario: str, case: str, run: Callable[[str], dict[str, float]], kinds: list[str] | None = None) -> dict:
        """Every broker `runs` times, one after the other. What fails is left out, and the reason kept;
        what is slow is not repeated."""
        found: dict[str, list[dict[str, float]]] = {}
        kinds = [kind for kind in (self.kinds if kinds is None else kinds) if kind not in self.reasons]
        for turn in range(self.runs):
            for kind in list(kinds):
                began = time.monotonic()
                try:
                    figures = run(kind)
                except Absent as error:
                    self._without(f"{scenario}, {case}, {kind}", error)
                    kinds.remove(kind)
                    continue
                except Failed as error:
                    self._without(f"{scenario}, {case}, {kind}, run {turn + 1}", error)
                    self.failed |= kind == "tidegate"
                else:
                    self.record(scenario, case, kind, figures)
                    brief = {name: round(value, 2) for name, value in figures.items() if "_per_" in name or name == "lost"}
                    log(f"{scenario} {case} {kind} {turn + 1}: {brief}")
                    found.setdefault(kind, []).append(figures)
                if time.monotonic() - began > SLOW_SECONDS:
                    kinds.remove(kind)
        return found

    def _without(self, what: str, error: Exception) -> None:
        self.reasons[what] = str(error)
        log(f"{what}: {error}")

    def number_of(self, millions: float) -> int:
        return max(1000, int(millions * self.scale * 1_000_000))

    def have(self, kinds: list[str]) -> list[str]:
        return [kind for kind in kinds if kind in self.kinds]


def free_port() -> int:
    """A port below those that the system gives to clients, with some free above it."""
    # Runs beside each other do not look at the same ones.
    first = 23_800 + os.getpid() % 150 * 20
    for port in range(first, first + 3000, 20):
        with contextlib.suppress(OSError):
            for near in range(4):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + near))
            return port
    raise Absent("no free port")


def subscribe(broker: Broker, sessions: int, filter_: str = "dur/#") -> None:
    if sessions:
        load("create", broker, sessions=sessions, filter=filter_)


def backlog(bench: Bench, broker: Broker, sessions: int, millions: float, size: int = 64) -> int:
    """Publishes what is to be drained; slow brokers get less. Returns the number of messages."""
    each_topic = sessions > 1
    subscribe(broker, sessions, "many/{s}" if each_topic else "many/#")
    count = bench.number_of(millions)
    options = {"topic": "many/{n}", "topics": 1000, "publishers": 20, "size": size, "count": count}
    return int(load("publish", broker, seconds=max(20 * bench.seconds, 20), **options)["messages"])

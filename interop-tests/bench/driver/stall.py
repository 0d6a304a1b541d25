"""A bystander's messages while something large goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from .bench import Bench, backlog
from .brokers import Broker
from .load import Failed, Load, begin, load, strace
from .tables import median, number, table


def _bystander(bench: Bench, broker: Broker) -> Load:
    """QoS 0, 1000 messages per second, one publisher and one subscriber."""
    options = {"qos": 0, "sub_qos": 0, "rate": 1000, "clean": True, "topic": "by", "filter": "by", "prefix": "bystander"}
    return begin("live", broker, count=1 << 40, seconds=bench.seconds, **options)


def _nothing(_: Bench, __: Broker) -> Callable[[], object]:
    return lambda: None


def _flood(bench: Bench, broker: Broker) -> Callable[[], object]:
    options = {"qos": 0, "sub_qos": 0, "clean": True, "topic": "flood", "filter": "flood", "count": 1 << 40}
    other = begin("live", broker, seconds=bench.seconds + 2, prefix="flood", patience_seconds=2, **options)
    return lambda: other.result


def _durable(bench: Bench, broker: Broker) -> Callable[[], object]:
    other = begin("publish", broker, publishers=20, topic="many/{n}", count=1 << 40, seconds=bench.seconds + 2)
    return other.result


def _draining(bench: Bench, broker: Broker) -> Callable[[], object]:
    waiting = backlog(bench, broker, 1, 1)
    return lambda: load("drain", broker, expect=waiting)


def _takeover(bench: Bench, broker: Broker) -> Callable[[], object]:
    options = {"filter": "wide/{s}/{n}", "each": bench.number_of(0.1)}
    load("create", broker, prefix="wide", sessions=1, **options)
    return lambda: load("create", broker, prefix="wide", sessions=1, clean=True, each=0)


def _wide_expires(bench: Bench, broker: Broker) -> Callable[[], object]:
    options = {"filter": "wide/{s}/{n}", "each": bench.number_of(0.1), "v5": True, "expiry": 1}
    return lambda: load("create", broker, prefix="wide", sessions=1, **options)


def _all_expire(bench: Bench, broker: Broker) -> Callable[[], object]:
    sessions = bench.number_of(1)
    # The process stands still until the last one is due, so that all are due at once.
    expiry = int(3 + sessions / 2500)
    began = time.monotonic()
    load("create", broker, sessions=sessions, filter="dev/{s}/cmd", v5=True, expiry=expiry, under_way=1000)
    ended = time.monotonic()
    if ended - began > expiry:
        raise Failed(f"{sessions} sessions took {ended - began:.0f} s to make, and expire after {expiry} s")
    os.kill(broker.pid, signal.SIGSTOP)
    time.sleep(expiry + 1)
    os.kill(broker.pid, signal.SIGCONT)
    return lambda: None


STALLS: list[tuple[str, Callable[[Bench, Broker], Callable[[], object]], str | None]] = [
    ("nothing else", _nothing, None),
    ("QoS 0 as fast as it goes", _flood, None),
    ("durable QoS 1 as fast as it goes", _durable, None),
    ("the same, every fsync takes 0.2 s more", _durable, "delay_exit=200000"),
    ("a backlog of 1 M is drained", _draining, None),
    ("a session of 100 k subscriptions is replaced", _takeover, None),
    ("a session of 100 k subscriptions is made, and expires", _wide_expires, None),
    ("1 M sessions expire at once", _all_expire, None),
]


def stall(bench: Bench) -> str:
    """A bystander's QoS 0 while something large goes on."""
    rows = []
    for name, prepare, inject in STALLS:

        def run(kind: str, prepare: Callable = prepare, inject: str | None = inject) -> dict[str, float]:
            with bench.broker(kind, start=False) as broker:
                broker.start(around=strace(broker.directory / "strace.txt", inject) if inject else None)
                act = prepare(bench, broker)
                bystander = _bystander(bench, broker)
                act()
                return bystander.result()

        kinds = bench.have(["tidegate"] if prepare in (_all_expire, _wide_expires) else ["tidegate", "mosquitto"])
        for kind, runs in bench.rounds("stall", name, run, kinds).items():
            figures = [number(median(runs, f"end_to_end_{part}_us")) for part in ("p50", "p99", "p999", "max")]
            rows.append([name, kind, *figures, number(median(runs, "setup_ms")), number(median(runs, "lost"))])
    return table(["meanwhile", "broker", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "to connect ms", "lost"], rows)

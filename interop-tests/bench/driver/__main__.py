"""The command line of the benchmarks; `run` beside it builds what is needed first."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time

from .bench import Bench, free_port
from .brokers import KINDS, WHAT, Absent, Broker
from .load import disk, log
from .scenarios import SCENARIOS

SMOKE = ["in", "drain", "start"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="interop-tests/bench/run", description="Benchmarks of durability.")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="only this scenario; may be repeated")
    parser.add_argument("--brokers", default=",".join(KINDS), help="those to compare (default: all that are installed)")
    parser.add_argument("--runs", type=int, default=3, help="of each figure the median of so many (default 3)")
    parser.add_argument("--seconds", type=float, default=4, help="of load per run (default 4)")
    parser.add_argument("--scale", type=float, default=1, help="of a million sessions and messages (default 1)")
    parser.add_argument("--smoke", action="store_true", help="whether it works at all, in seconds; no figures to use")
    parser.add_argument("--directory", help="where brokers keep their data (default: a temporary one)")
    parser.add_argument("--out", type=pathlib.Path, help="append every run to this file, one JSON object per line")
    return parser.parse_args()


def _try(bench: Bench) -> None:
    """Starts each broker once, and leaves out those that cannot be had."""
    for kind in list(bench.kinds):
        broker = Broker(kind, bench.directory / f"try-{kind}", free_port())
        try:
            broker.start()
        except Absent as error:
            bench.reasons[kind] = str(error)
            bench.kinds.remove(kind)
            log(f"without {kind}: {error}")
        finally:
            broker.remove()


def _machine(directory: pathlib.Path) -> str:
    raw = disk(directory, 2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}; appends of 4 KiB "
        f"with fdatasync: {raw['fdatasyncs_per_s']:.0f}/s, p50 {raw['fdatasync_p50_us']:.0f} µs, p99 {raw['fdatasync_p99_us']:.0f} µs"
    )


def main() -> int:
    arguments = _arguments()
    if arguments.smoke:
        arguments.runs, arguments.seconds, arguments.scale = 1, 0.3, 0.002
        arguments.brokers = "tidegate"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = pathlib.Path(tempfile.mkdtemp(prefix="durability-", dir=arguments.directory))
    unknown = set(arguments.brokers.split(",")) - set(KINDS)
    if unknown:
        print(f"unknown brokers: {', '.join(unknown)}; known: {', '.join(KINDS)}", file=sys.stderr)
        return 2

    def record(scenario: str, case: str, kind: str, figures: dict[str, float]) -> None:
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"scenario": scenario, "case": case, "broker": kind} | figures) + "\n")

    # So that brokers are ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(directory, arguments.brokers.split(","), arguments.runs, arguments.seconds, arguments.scale, record)
    try:
        _try(bench)
        print(f"{time.strftime('%Y-%m-%d')}: {_machine(directory)}\n")
        for kind in bench.kinds:
            print(f"* {kind}: {WHAT[kind]}")
        for name in arguments.only or (SMOKE if arguments.smoke else SCENARIOS):
            scenario = SCENARIOS[name]
            print(f"\n### {name}: {scenario.__doc__}\n\n{scenario(bench)}", flush=True)
        if bench.reasons:
            print("Without figures:\n")
            for what, reason in bench.reasons.items():
                print(f"* {what}: {reason}")
        return 1 if bench.failed or not bench.kinds else 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)


sys.exit(main())

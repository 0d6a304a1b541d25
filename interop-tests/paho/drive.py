"""Runs the Eclipse Paho interoperability suite (paho.mqtt.testing) against the broker under test.

The suite's own command line is not usable: `client_test.py` ignores `-h` and `-p`, and both files set the globals that
their tests read only under `__main__`. So this driver loads each file as a module, sets the globals, and runs every
test as a unittest. The suite stays where it is; nothing of it is part of this repository.

    python paho/drive.py --suite-dir DIR --results FILE [--file NAME] [--match TEXT]
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import pathlib
import sys
import time
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import broker as brokers  # noqa: E402
from harness.runner import Recorder, select  # noqa: E402

ACL = """\
%% What test_subscribe_failure asks for, and nothing else.
{deny, all, subscribe, ["test/nosubscribe"]}.
{allow, all}.
"""
SETTINGS = {
    # test_server_keep_alive asks with 120 s and awaits 60 s.
    "mqtt.server_keepalive": "60s",
    # test_subscribe_failure awaits 0x80, and the suite's parser takes a SUBACK with 0x87 for an error.
    "authorization.deny_code": "unspecified_error",
}

SKIPPED = {
    "test_flow_control2": "ends on no broker: it publishes 65,536 QoS 2 messages, which its own receiver releases "
    "one by one, and waits for a DISCONNECT without a deadline"
}

# How long SUBACK and UNSUBACK may take before a test goes on without them.
ANSWER_SECONDS = 3

FILES = ("client_test", "client_test5")
TOPICS = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
WILDCARDS = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")


def load(directory: pathlib.Path, name: str, address: tuple[str, int]) -> types.ModuleType:
    """The suite's file as a module, with the globals that its main part would have set."""
    spec = importlib.util.spec_from_file_location(f"paho_{name}", directory / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.host, module.port = address  # type: ignore[attr-defined]
    module.topics, module.wildtopics = TOPICS, WILDCARDS  # type: ignore[attr-defined]
    module.nosubscribe_topics = ("test/nosubscribe",)  # type: ignore[attr-defined]
    module.topic_prefix = "client_test5/"  # type: ignore[attr-defined]
    for request, answers in (("subscribe", "subscribeds"), ("unsubscribe", "unsubscribeds")):
        await_answer(module.mqtt_client.Client, request, answers)
    for test, reason in SKIPPED.items():
        if hasattr(module.Test, test):
            setattr(module.Test, test, unittest.skip(reason)(getattr(module.Test, test)))
    return module


def await_answer(client_class: type, name: str, answers: str) -> None:
    """Makes `name` of the suite's client return after its answer.

    test_request_response and test_unsubscribe look for the answer of the wrong client, or for none, and let another
    client publish: MQTT orders nothing between two connections before the answer.
    """
    send = getattr(client_class, name)

    def call(self, *arguments, **options):  # type: ignore[no-untyped-def]
        packet_id = send(self, *arguments, **options)
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            got = getattr(self.callback, answers, None)
            if got is None or any(packet_id == (one[0] if isinstance(one, tuple) else one) for one in list(got)):
                break
            time.sleep(0.001)
        return packet_id

    setattr(client_class, name, call)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite-dir", required=True, type=pathlib.Path)
    parser.add_argument("--results", required=True, type=pathlib.Path)
    parser.add_argument("--match")
    parser.add_argument("--file", action="append", choices=FILES, help="default: both")
    options = parser.parse_args()
    directory = options.suite_dir.resolve() / "interoperability"
    results = options.results.resolve()
    # The suite writes log files where it runs.
    work = pathlib.Path(os.environ.get("INTEROP_WORK", "/tmp")).resolve()
    os.chdir(work)
    sys.path.insert(0, str(directory))
    logging.getLogger().setLevel(logging.ERROR)
    failed = 0
    for name in options.file or FILES:
        broker = brokers.start(SETTINGS, acl=ACL)
        try:
            module = load(directory, name, broker.address())
            recorder = Recorder(f"paho {name}", results)
            select(unittest.defaultTestLoader.loadTestsFromModule(module), options.match).run(recorder)
            failed += recorder.failed
        finally:
            broker.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

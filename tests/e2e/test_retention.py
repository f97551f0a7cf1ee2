"""What a running universe lets go, and what it keeps."""

import uuid

import pytest

from bus import Bus, wait_until
from conftest import STORE
from universe import Universe, batos


@pytest.fixture
def forgetful(tmp_path):
    """A universe that keeps replies and overwritten data for a second."""
    universe = Universe(tmp_path, f"e2e-{uuid.uuid4().hex[:12]}", STORE)
    path = universe.manifests / "universe.yaml"
    path.write_text(path.read_text().replace("spec:\n", "spec:\n  retention: {history: 1s, replies: 1s}\n", 1))
    try:
        universe.start()
        yield universe
    finally:
        universe.discard()
        print(universe.log.read_text()[-8000:] if universe.log.exists() else "no log")


def test_old_data_and_replies_go_and_methods_stay(forgetful):
    bus = Bus(forgetful.architect, forgetful.name)
    options = ["--universe", forgetful.name, "--nats", forgetful.architect]
    bus.create_method("account", "deposit:", "deposit: n = ( balance: balance + (n * 2). ^balance )")
    assert bus.send("account", "deposit:", 5)["value"] == 10
    assert bus.send("account", "deposit:", 5)["value"] == 20

    def trimmed():
        history = batos("history", "account", *options)
        return "no longer kept" in history.stderr and history.stdout == ""

    wait_until(trimmed, "the end of old data")
    assert bus.send("account", "balance")["value"] == 20
    batos("undo", "account", "deposit:", *options)
    assert bus.send("account", "deposit:", 5)["value"] == 25, "the method that was overwritten is kept"

    once = ["send", "account", "deposit:", "1", "--id", "monday", *options]
    assert batos(*once).stdout == "26\n"
    wait_until(lambda: batos(*once).stdout == "27\n", "the end of the reply")
    bus.close()
    assert forgetful.stop() == 0
    where = ["--store", STORE] if STORE else ["--data", str(forgetful.data)]
    checked = batos("check", "--universe", forgetful.name, *where)
    assert checked.returncode == 0 and "all well" in checked.stdout, checked


def test_a_length_of_time_that_is_none_is_refused_with_its_line(forgetful):
    assert forgetful.stop() == 0
    path = forgetful.manifests / "universe.yaml"
    path.write_text(path.read_text().replace("history: 1s", "history: 1w"))
    ended = batos("up", "-f", str(forgetful.manifests), "--data", str(forgetful.data), "--nats-port", "0")
    assert ended.returncode != 0 and 'universe.yaml:6' in ended.stderr and '"1w" is no length of time' in ended.stderr, ended

"""What a running universe lets go, and what it keeps."""

import uuid

import pytest

from bus import Bus, Failed, wait_until
from conftest import STORE
from universe import Universe, batos


@pytest.fixture
def forgetful(tmp_path):
    """A universe that keeps replies, overwritten data and unreached objects for a second."""
    universe = Universe(tmp_path, f"e2e-{uuid.uuid4().hex[:12]}", STORE)
    path = universe.manifests / "universe.yaml"
    path.write_text(path.read_text().replace("spec:\n", "spec:\n  retention: {history: 1s, replies: 1s, unreached: 1s}\n", 1))
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


def test_objects_that_nothing_reaches_go_and_others_stay(forgetful):
    bus = Bus(forgetful.architect, forgetful.name)
    options = ["--universe", forgetful.name, "--nats", forgetful.architect]
    guests = "| a b | a := (| parent* = Object. friend <- nil |). b := (| parent* = Object. friend <- nil |)."
    keep = "account mirror addAssignable: #guest value: a; addAssignable: #other value: b"
    first, second = bus.eval(f"{guests} a friend: b. b friend: a. {keep}. ^{{a. b}}")
    ids = [first["$ref"], second["$ref"]]
    holders = bus.eval("account guest mirror holders collect: [ :each | {each == account. each == account other} ]")
    assert sorted(holders) == [[False, True], [True, False]]

    def there():
        return [id for id in ids if batos("get", id, *options).returncode == 0]

    bus.eval("account guest: nil")
    # What is looked for later is let go later: once it has gone, others have been looked at too.
    gone = bus.eval("^(| parent* = Object. mark = 1 |)")["$ref"]
    wait_until(lambda: batos("get", gone, *options).returncode != 0, "the end of an object that nothing refers to")
    assert there() == ids, "the other guest holds the first one"
    bus.eval("account other: nil")
    wait_until(lambda: there() == [], "the end of two objects that hold each other")
    with pytest.raises(Failed, match="no_such_object"):
        bus.send("account", "guest:", first)
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

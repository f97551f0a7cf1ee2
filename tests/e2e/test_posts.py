"""Messages that objects send to run in turns of their own: in order, once each, and timers that outlive the process."""

import uuid

import pytest

from bus import Failed, wait_until
from universe import running


@pytest.fixture
def make(bus):
    """Makes a named object from slots and methods."""

    def make(slots, *methods):
        name = f"obj-{uuid.uuid4().hex[:8]}"
        definition = {"parents": ["Object"], "slots": slots}
        bus.command(name, "apply", {"definition": definition, "uid": "", "generation": 0, "term": 0}, cls="adm")
        for method in methods:
            bus.create_method(name, method.split(" = ")[0] if ":" not in method else method.split(" ")[0], method)
        return name

    return make


def slot(bus, name, slot):
    return bus.state(name, repeat=True)["state"][slot]


def wait_for_slot(bus, name, what, value):
    wait_until(lambda: slot(bus, name, what) == value, f"{what} of {name} = {value}")


def test_an_async_send_runs_after_its_turn(bus, make):
    name = make([{"name": "seen", "value": 0}], "note: n = ( seen: n )", "begin: n = ( self async note: n. ^seen )")
    assert bus.send(name, "begin:", 5)["value"] == 0
    wait_for_slot(bus, name, "seen", 5)


def test_messages_of_a_pair_arrive_in_order(bus, make):
    log = make([{"name": "text", "value": ""}], "add: n = ( text: text , n printString , ' ' )")
    source = make([{"name": "log", "value": {"$ref": bus.state(log)["object"]}}], "run: n = ( log async add: n )")
    for n in range(30):
        bus.send(source, "run:", n)
    wait_for_slot(bus, log, "text", "".join(f"{n} " for n in range(30)))


def test_one_turn_can_send_many(bus, make):
    name = make(
        [{"name": "count", "value": 0}, {"name": "last", "value": 0}],
        "step: n = ( last + 1 = n ifFalse: [ ^self error: 'out of order' ]. last: n. count: count + 1 )",
        "burst: n = ( 1 to: n do: [ :i | self async step: i ]. ^n )",
    )
    bus.send(name, "burst:", 700)
    wait_for_slot(bus, name, "count", 700)
    with pytest.raises(Failed) as failed:
        bus.send(name, "burst:", 1001)
    assert failed.value.kind == "limit_exceeded" and "1000" in failed.value.message
    assert slot(bus, name, "count") == 700


def test_a_failed_message_is_told_as_an_event(bus, make):
    hear = bus.listen("failed")
    name = make([{"name": "x", "value": 0}], "bad = ( x: 1. ^1 / 0 )", "good = ( x: 2 )", "begin: n = ( self async bad. self async good )")
    bus.send(name, "begin:", 1)
    event = hear()
    assert event["selector"] == "bad" and event["error"]["kind"] == "method_failed", event
    assert event["object"] == event["sender"] == bus.state(name)["object"]
    wait_for_slot(bus, name, "x", 2)


def test_an_endless_chain_ends(bus, make):
    hear = bus.listen("failed")
    name = make([{"name": "n", "value": 0}], "again = ( n: n + 1. ^self async again )")
    bus.send(name, "again")
    event = hear()
    assert event["error"]["kind"] == "limit_exceeded" and "chain" in event["error"]["message"], event
    assert slot(bus, name, "n") == 64


def test_what_an_async_message_lacks_is_made(bus, account):
    before = slot(bus, "account", "balance")
    bus.command("account", "eval", {"source": "self async withdraw: 7"}, cls="adm")
    wait_for_slot(bus, "account", "balance", before - 7)


def test_a_cancelled_timer_never_fires(bus, make):
    name = make(
        [{"name": "fired", "value": 0}, {"name": "timer", "value": None}],
        "fire: n = ( fired: n )",
        "arm = ( timer: (self after: 300 send: #fire: with: 1). ^timer size )",
        "disarm = ( self cancelTimer: timer. self after: 600 send: #fire: with: 2. ^nil )",
    )
    assert bus.send(name, "arm")["value"] == 32
    bus.send(name, "disarm")
    wait_for_slot(bus, name, "fired", 2)
    assert [change["became"] for change in bus.command(name, "history", {"slot": "fired"})["value"]["changes"]][0] == 2
    assert len(bus.command(name, "history", {"slot": "fired"})["value"]["changes"]) == 2


def test_a_ticking_object_outlives_kill_9(universe, bus, make):
    name = make([{"name": "ticks", "value": 0}], "tick = ( ticks: ticks + 1. self after: 20 send: #tick. ^ticks )")
    bus.send(name, "tick")
    for _ in range(3):
        seen = slot(bus, name, "ticks")
        wait_until(lambda: slot(bus, name, "ticks") >= seen + 5, "more ticks")
        universe.kill()
        universe.start()
    seen = slot(bus, name, "ticks")
    wait_until(lambda: slot(bus, name, "ticks") >= seen + 100, "a chain longer than that of messages")


def test_kill_9_delivers_each_message_once(universe, bus, make, dice):
    """A counter is told `count` times, whatever dies in between, and in order."""
    sink = make(
        [{"name": "count", "value": 0}],
        "step: n = ( count + 1 = n ifFalse: [ ^self error: 'out of order' ]. count: n )",
    )
    source = make(
        [{"name": "sink", "value": {"$ref": bus.state(sink)["object"]}}, {"name": "sent", "value": 0}],
        "go: n = ( n timesRepeat: [ sent: sent + 1. sink async step: sent ]. ^sent )",
    )
    total = 0
    for _ in range(4):
        total += 150
        bus.send(source, "go:", 150, repeat=True)
        goal = total - 150 + dice.randrange(1, 150)
        wait_until(lambda: slot(bus, sink, "count") >= goal, "some are delivered")
        universe.kill()
        universe.start()
    wait_for_slot(bus, sink, "count", total)
    assert bus.events("failed") == []


def test_stopping_leaves_no_half_done_message(universe, bus, make):
    name = make([{"name": "n", "value": 0}], "step = ( n: n + 1 )", "burst = ( 200 timesRepeat: [ self async step ] )")
    bus.send(name, "burst")
    assert universe.stop() == 0
    universe.start()
    assert running(universe.process.pid)
    wait_for_slot(bus, name, "n", 200)

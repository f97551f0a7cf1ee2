"""What an object holds: whole, by pages, with its revisions; and what turns show on the Transcript."""

import json
import uuid

import pytest

from bus import Failed, wait_until
from universe import batos


def make(bus, name, slots):
    bus.command(name, "apply", {"definition": {"slots": slots}}, cls="adm")


def evaluate(bus, source):
    return bus.command("genesis", "eval", {"source": source}, cls="adm")


def pages(bus, target, after=None):
    """All pages of a state, or those after one."""
    found = []
    while True:
        page = bus.command(target, "get_full_state", {"after": after} if after else {})["value"]
        found.append(page)
        after = page.get("next")
        if after is None:
            return found


def assembled(found):
    whole = {"state": {}, "methods": {}, "elements": []}
    for page in found:
        whole["state"].update(page["state"])
        whole["methods"].update(page["methods"])
        whole["elements"] += page.get("elements", [])
    return whole


@pytest.fixture
def numbers(bus):
    """An array of 12,000 numbers and references, by its id."""
    make(bus, "holder", [{"name": "all", "value": None}])
    evaluate(bus, "holder all: ((1 to: 12000) collect: [ :i | i odd ifTrue: [ i ] ifFalse: [ account ] ]) asArray. nil")
    return bus.state("holder")["state"]["all"]["$ref"]


def test_of_a_large_collection_the_first_elements_are_told_and_the_size(bus, numbers):
    state = assembled(pages(bus, numbers))
    account = {"$ref": bus.state("account")["object"]}
    told = state["elements"]
    assert 16 <= len(told) < 12000
    assert told == [n if n % 2 else account for n in range(1, len(told) + 1)]
    assert bus.state(numbers)["size"] == 12000


def test_a_large_object_comes_by_pages_of_one_revision(bus):
    slots = {f"text{n}": str(n) * 9000 for n in range(10, 22)}
    make(bus, "wide", [])
    for name, text in slots.items():
        bus.send("wide", "setSlot:value:", name, text)
    for n in range(8):
        bus.create_method("wide", f"method{n}", f"method{n} = ( ^'{'m' * 20000}' )")
    first = bus.state("wide")
    # It changes between its pages: the rest is of the same revision all the same.
    bus.create_method("wide", "method7", "method7 = ( ^7 )")
    for name in slots:
        bus.send("wide", "setSlot:value:", name, "new")
    found = [first, *pages(bus, "wide", after=first["next"])]
    assert {page["rev"] for page in found} == {first["rev"]}
    assert all(len(json.dumps(page)) < 1 << 20 for page in found)
    whole = assembled(found)
    assert whole["state"] == slots
    assert {f"method{n}" for n in range(8)} <= whole["methods"].keys() and "mmm" in whole["methods"]["method7"]
    assert bus.state("wide")["state"]["text21"] == "new"


@pytest.mark.parametrize("mark", ["", "nonsense", "1-2", "1-2-x", "99-0-0"])
def test_a_mark_that_is_none_is_refused(bus, mark):
    with pytest.raises(Failed) as failed:
        bus.command("account", "get_full_state", {"after": mark})
    assert failed.value.kind in ("bad_request", "unavailable")


def test_an_event_of_a_large_object_tells_what_changed(bus):
    slots = [{"name": "text", "value": "x" * 100000}, {"name": "n", "value": 0}]
    make(bus, "heavy", slots)
    bus.send("heavy", "n:", 7)

    def told():
        return [event for event in bus.events("state") if event.get("name") == "heavy" and event["rev"] == 2]

    event = wait_until(told, "the event")[0]
    assert (event["state"], event["partial"], event["changed"]) == ({"n": 7}, True, ["n"])


def test_get_shows_when_a_slot_changed(universe, bus):
    here = ["--universe", universe.name, "--nats", universe.architect]
    bus.send("account", "deposit:", 5)
    bus.send("account", "deposit:", 5)
    state = bus.command("account", "get_full_state", {"revs": True})["value"]
    assert (state["revs"]["balance"], state["revs"]["deposit:"]) == (3, 1)
    got = batos("get", "account", *here)
    assert "balance <- 10  rev 3" in got.stdout and "\x1b" not in got.stdout, got
    yaml = batos("get", "account", "-o", "yaml", *here)
    assert yaml.returncode == 0 and "balance: 10" in yaml.stdout, yaml
    assert "name: account" in yaml.stdout


def test_get_puts_pages_together_and_tells_the_size_of_what_it_does_not_show(universe, bus, numbers):
    here = ["--universe", universe.name, "--nats", universe.architect]
    got = json.loads(batos("get", numbers, "-o", "json", *here).stdout)
    assert got["size"] == 12000 and len(got["elements"]) >= 16 and "next" not in got
    shown = batos("get", numbers, *here).stdout
    assert "… 12000 elements in all" in shown and shown.count("\n") < 120
    make(bus, "wide", [])
    for n in range(10, 30):
        bus.send("wide", "setSlot:value:", f"text{n}", str(n) * 6000)
    assert bus.state("wide").get("next") is None
    bus.create_method("wide", "long", f"long = ( ^'{'m' * 60000}' )")
    assert bus.state("wide")["next"]
    got = json.loads(batos("get", "wide", "-o", "json", *here).stdout)
    assert len(got["state"]) == 20 and "long" in got["methods"] and "next" not in got


def test_the_transcript_comes_with_the_reply_and_as_an_event(universe, bus):
    here = ["--universe", universe.name, "--nats", universe.architect]
    bus.create_method("account", "speak", "speak = ( Transcript show: 'one'; cr; print: balance. ^3 )")
    following = bus.listen("transcript")
    reply = bus.send("account", "speak")
    assert (reply["value"], reply["transcript"]) == (3, {"text": "one\n0"})
    event = following()
    assert (event["text"], event["object"]) == ("one\n0", bus.state("account")["object"])
    told = batos("send", "account", "speak", *here)
    assert (told.stdout, told.stderr) == ("3\n", "one\n0\n")
    told = batos("eval", "Transcript show: 'x'; cr. 3 / 0", *here)
    assert told.returncode != 0 and told.stderr.startswith("x\n") and "divided" in told.stderr, told
    assert "transcript" not in bus.send("account", "balance")


def test_a_transcript_is_bounded_and_says_so(bus):
    reply = evaluate(bus, "1 to: 3000 do: [ :i | Transcript show: '0123456789' ]")
    assert reply["transcript"] == {"text": ("0123456789" * 1639)[: 16384 // 10 * 10], "left_out": 30000 - 16380}


def test_a_repeat_gets_the_same_transcript_and_no_second_event(bus):
    bus.create_method("account", "speak", "speak = ( Transcript show: 'once'. ^1 )")
    id = uuid.uuid4().hex
    replies = [bus.send("account", "speak", id=id) for _ in range(2)]
    assert replies[0] == replies[1] and replies[0]["transcript"] == {"text": "once"}
    bus.send("account", "speak")
    wait_until(lambda: len(bus.events("transcript")) >= 2, "the events")
    assert len(bus.events("transcript")) == 2


def test_watch_shows_transcripts(universe, bus, tmp_path):
    import subprocess

    from universe import BATOS

    out = tmp_path / "watched"
    bus.create_method("account", "speak", "speak = ( Transcript show: 'hello'; cr; show: 'world' )")
    with out.open("w") as file:
        options = ["--universe", universe.name, "--nats", universe.url]
        watching = subprocess.Popen([BATOS, "watch", "account", *options], stdout=file, stderr=file)
    try:

        def seen():
            bus.send("account", "speak")
            return "account: hello\naccount: world\n" in out.read_text()

        wait_until(seen, "the lines")
    finally:
        watching.terminate()
        assert watching.wait(10) == 0

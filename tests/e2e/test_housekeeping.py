"""Looking at a universe and back in time, and taking it from one place to another."""

import json
import subprocess
import time

import pytest

from bus import Bus, Failed, pack, wait_until
from universe import BATOS, Universe, batos


@pytest.fixture
def command(universe):
    """A command of the Architect's on the running universe."""

    def run(*arguments, output=None):
        more = ["-o", output] if output else []
        ended = batos(*arguments, *more, "--universe", universe.name, "--nats", universe.architect)
        assert ended.returncode == 0, ended
        return json.loads(ended.stdout) if output == "json" else ended.stdout

    return run


def test_list_names_every_object(command, bus):
    names = {object["name"]: object["object"] for object in command("list", "--all", output="json")}
    assert {"account", "traits account", "genesis", "Object"} <= names.keys()
    assert names["account"] == bus.state("account")["object"]
    assert f"{names['account']}  account\n" in command("list")
    assert "genesis" not in command("list"), "the image is there in every universe"


def test_history_tells_what_changed_and_when_over_many_pages(command, bus):
    for amount in range(1, 151):
        bus.send("account", "deposit:", amount)
    changes = command("history", "account", "balance", "--limit", "1000", output="json")
    assert [change["rev"] for change in changes] == list(range(151, 0, -1))
    last = {"rev": 151, "by": "send deposit:", "slot": "balance", "was": 149 * 150 // 2, "became": 150 * 151 // 2}
    times = [change.pop("at", None) for change in changes]
    assert times[-1] is None and times[:-1] == sorted(times[:-1], reverse=True) and abs(times[0] - time.time()) < 60
    assert changes[0] == last
    assert "was" not in changes[-1] and changes[-1]["became"] == 0
    assert command("history", "account", "balance", "--limit", "1").strip() == "rev 151    balance: 11175 -> 11325  (send deposit:)"


def test_undo_takes_the_last_change_of_a_slot_back(command, bus):
    bus.send("account", "deposit:", 100)
    bus.send("account", "deposit:", 20)
    command("undo", "account", "balance")
    assert bus.send("account", "balance")["value"] == 100
    command("undo", "account", "balance")
    assert bus.send("account", "balance")["value"] == 120, "an undo is a change too"

    bus.create_method("account", "deposit:", "deposit: n = ( ^0 )")
    assert bus.send("account", "deposit:", 5)["value"] == 0
    command("undo", "account", "deposit:")
    assert bus.send("account", "deposit:", 5)["value"] == 125

    bus.create_method("account", "double", "double = ( ^balance * 2 )")
    command("undo", "account", "double")
    assert "double" not in bus.state("account")["methods"]
    with pytest.raises(Failed) as failed:
        bus.command("account", "undo", {"slot": "nothing"}, cls="adm")
    assert "nothing" in failed.value.message


def test_private_slots_stay_out_of_events_and_history(bus):
    fields = {"definition": {"slots": [{"name": "_pin", "value": 1234}, {"name": "shown", "value": 1}]}}
    bus.command("vault", "apply", fields, cls="adm")
    bus.send("vault", "_pin:", 4321)
    bus.send("vault", "shown:", 2)

    def told():
        return [event for event in bus.events("state") if event.get("name") == "vault"]

    wait_until(lambda: any(event["rev"] == 3 for event in told()), "the last event")
    assert "1234" not in str(told()) and "4321" not in str(told())
    assert "4321" not in str(bus.command("vault", "history"))


def test_watch_prints_events_as_they_come(universe, bus, tmp_path):
    out = tmp_path / "watched"
    with out.open("w") as file:
        options = ["--universe", universe.name, "--nats", universe.url]
        watching = subprocess.Popen([BATOS, "watch", "account", *options], stdout=file, stderr=file)
    try:

        def seen():
            bus.send("account", "deposit:", 1)
            return out.read_text()

        line = wait_until(seen, "an event").splitlines()[0]
        assert line.startswith("account.state rev ") and "balance <- " in line, line
    finally:
        watching.terminate()
        assert watching.wait(10) == 0


def test_an_image_of_a_running_universe_is_one_moment_and_can_be_restored(universe, bus, command, tmp_path):
    """Two accounts between which money moves while the image is written: the sum is right in any one moment."""
    image = tmp_path / "bank.image"
    for name in ("left", "right"):
        slots = [{"name": "balance", "value": 1000}]
        bus.command(name, "apply", {"definition": {"slots": slots}}, cls="adm")
    # Many objects, so that the image has many pages.
    slots = [{"name": "junk", "value": "x" * 2000}, {"name": "all", "value": None}]
    bus.command("heap", "apply", {"definition": {"slots": slots}}, cls="adm")
    code = "fill = ( | list | list := Array new: 300. 1 to: 300 do: [ :i | list at: i put: self clone ]. all: list )"
    bus.create_method("heap", "fill", code)
    bus.send("heap", "fill")
    bus.create_method("left", "give:", "give: n = ( balance: balance - n. right balance: right balance + n. ^balance )")

    stop = False

    async def move():
        while not stop:
            await bus.ask_until_answered("left", "send", pack({"command": "send", "selector": "give:", "arguments": [1]}))

    import asyncio

    moving = asyncio.run_coroutine_threadsafe(move(), bus.loop)
    told = command("export", str(image))
    stop = True
    moving.result(30)
    assert int(told.split()[0]) > 600

    other = Universe(tmp_path / "other", universe.name)
    other.data.mkdir(parents=True)
    restored = batos("import", str(image), "--data", str(other.data))
    assert restored.returncode == 0, restored
    checked = batos("check", "--universe", universe.name, "--data", str(other.data))
    assert checked.returncode == 0 and "all well" in checked.stdout, checked
    again = batos("import", str(image), "--data", str(other.data))
    assert again.returncode != 0 and "there already" in again.stderr
    try:
        other.start()
        elsewhere = Bus(other.architect, other.name)
        left, right = (elsewhere.state(name) for name in ("left", "right"))
        assert left["state"]["balance"] + right["state"]["balance"] == 2000
        assert elsewhere.send("left", "give:", 10)["value"] == left["state"]["balance"] - 10
        elsewhere.close()
    finally:
        other.discard()


def test_the_last_images_stay_and_a_named_import_is_done_once(command, tmp_path):
    images = tmp_path / "images"
    for name in ("1", "2", "3"):
        command("export", str(images / f"{name}.image"), "--keep", "2")
    assert sorted(file.name for file in images.iterdir()) == ["2.image", "3.image"]
    for request, ends, said in (("a", 0, "rows are restored"), ("a", 0, "restored before"), ("b", 1, "there already")):
        ended = batos("import", str(images / "3.image"), "--data", str(tmp_path / "new"), "--once", request)
        assert ended.returncode == ends and said in ended.stdout + ended.stderr, ended


def test_a_damaged_image_is_refused_and_nothing_is_written(command, tmp_path):
    image = tmp_path / "u.image"
    command("export", str(image))
    bytes = bytearray(image.read_bytes())
    bytes[len(bytes) // 2] ^= 1
    image.write_bytes(bytes)
    ended = batos("import", str(image), "--data", str(tmp_path / "new"))
    assert ended.returncode != 0 and "damaged" in ended.stderr, ended
    assert not (tmp_path / "new").exists()


def test_check_finds_a_running_universe_and_nothing_at_all(universe, tmp_path):
    if universe.store:
        pytest.skip("a shared store can be checked while it runs")
    ended = batos("check", "--universe", universe.name, "--data", str(universe.data))
    assert ended.returncode != 0 and "another process" in ended.stderr, ended
    assert universe.stop() == 0
    ended = batos("check", "--universe", universe.name, "--data", str(universe.data))
    assert ended.returncode == 0 and "all well" in ended.stdout, ended
    ended = batos("check", "--universe", "nowhere", "--data", str(universe.data))
    assert ended.returncode != 0 and "nowhere" in ended.stderr


def test_a_reply_that_is_too_large_is_a_typed_error_and_changes_nothing(bus):
    code = (
        "grow = ( | s | balance: 7. s := 'x'. [ s size < 2000000 ] whileTrue: [ s := s , s ]. ^s )"
    )
    bus.create_method("account", "grow", code)
    with pytest.raises(Failed) as failed:
        bus.send("account", "grow")
    assert failed.value.kind == "limit_exceeded"
    assert bus.state("account")["state"]["balance"] == 0

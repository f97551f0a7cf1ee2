"""A message that nobody understands makes the missing method."""

import asyncio
import os

import pytest

from bus import Failed, pack, unpack, wait_until

WITHDRAW = pack({"command": "send", "selector": "withdraw:", "arguments": [30]})


def steps(bus, selector="withdraw:"):
    return [event for event in bus.events("becoming") if event["selector"] == selector]


def assert_made_once(bus):
    """Each step was taken once, whatever happened between."""
    wait_until(lambda: any(event["step"] == "swapped" for event in steps(bus)), "the event `swapped`")
    taken = [event["step"] for event in steps(bus)]
    assert taken == ["asked", "drafted", "judged", "swapped"]
    assert steps(bus)[1]["model_calls"] == 1


@pytest.mark.remote
def test_the_missing_method_is_made_once_and_the_message_answered(bus, account):
    if "withdraw:" in bus.state("account")["methods"]:
        pytest.skip("this universe has made it before")
    bus.send("account", "deposit:", 100)
    reply = bus.send("account", "withdraw:", 30)
    assert reply["value"] == account + 70
    assert reply["made"]["selector"] == "withdraw:"
    assert reply["made"]["mind"].startswith("recorded")
    assert reply["made"]["model_calls"] == 1
    state = bus.state("account")
    assert state["state"]["balance"] == account + 70
    assert "withdraw:" in state["methods"]

    again = bus.send("account", "withdraw:", 30)
    assert again["value"] == account + 40
    assert "made" not in again
    assert_made_once(bus)


@pytest.mark.remote
@pytest.mark.parametrize("selector, arguments", [("levitate", []), ("pay:into:", [1, "shoe"])])
def test_a_message_that_no_recording_answers_is_refused_and_changes_nothing(bus, selector, arguments):
    before = bus.state("account")
    with pytest.raises(Failed) as failed:
        bus.send("account", selector, *arguments)
    assert failed.value.kind in ("not_understood", "refused")
    assert selector in failed.value.message
    assert bus.state("account") == before


def test_many_senders_of_a_missing_message_make_it_once(universe, bus):
    bus.send("account", "deposit:", 1000)

    async def all_senders():
        return await asyncio.gather(*(bus.ask_until_answered("account", "send", WITHDRAW) for _ in range(8)))

    replies = bus.run(all_senders())
    assert sorted(reply["value"] for reply in replies) == [1000 - 30 * n for n in range(8, 0, -1)]
    assert_made_once(bus)


def assert_completes_after_a_restart(bus, id):
    """The becoming goes on by itself; then the repeat of the message is answered, once."""
    wait_until(lambda: "withdraw:" in bus.state("account", repeat=True)["methods"], "the method made after a restart")
    reply = bus.run(bus.ask_until_answered("account", "send", WITHDRAW, id=id))
    assert (reply["status"], reply["value"]) == ("ok", 70)
    assert unpack(bus.raw("account", "send", WITHDRAW, id=id)) == reply
    assert bus.state("account")["state"]["balance"] == 70
    assert_made_once(bus)


@pytest.mark.parametrize("step", ["asked", "drafted", "judged", "swapped"])
def test_a_worker_that_dies_after_a_step_goes_on_there(universe, bus, step):
    bus.send("account", "deposit:", 100)
    assert universe.stop() == 0
    universe.start(BATOS_CRASH_AT=step)
    # The client has to be connected again: the message that ends the worker is sent once.
    bus.state("account", repeat=True)
    with pytest.raises(Exception, match="(?i)timeout|responders"):
        bus.run(bus.ask("account", "send", WITHDRAW, id="w", timeout=3))
    assert universe.wait_ended() != 0
    universe.start()
    assert_completes_after_a_restart(bus, "w")


@pytest.mark.parametrize("round", range(int(os.environ.get("BATOS_E2E_ROUNDS", "8"))))
def test_a_worker_that_is_killed_anywhere_in_a_becoming_goes_on(universe, bus, dice, round):
    bus.send("account", "deposit:", 100, repeat=True)
    moment = dice.uniform(0.0005, 0.04)
    try:
        bus.raw("account", "send", WITHDRAW, id="w", timeout=moment)
    except Exception as unanswered:
        assert "imeout" in repr(unanswered)
    universe.kill()
    universe.start()
    # When death came before the journal's first row there is nothing to go on with: the repeat begins it.
    bus.run(bus.ask_until_answered("account", "send", WITHDRAW, id="w"))
    assert_completes_after_a_restart(bus, "w")

"""One message is one turn is one transaction, and every request gets a typed reply."""

import asyncio
import json
import uuid

import pytest

from bus import Failed, pack, unpack

DEPOSIT = {"command": "send", "selector": "deposit:", "arguments": [100]}


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.remote
def test_a_message_changes_state_and_is_committed_when_the_reply_is_there(bus, account):
    reply = bus.send("account", "deposit:", 100)
    state = bus.state("account")
    assert reply["value"] == state["state"]["balance"] == account + 100
    assert reply["rev"] == state["rev"]
    assert "made" not in reply


@pytest.mark.remote
def test_a_repeat_of_an_id_gets_the_same_bytes_and_does_nothing(bus, account):
    id = uuid.uuid4().hex
    first = bus.raw("account", "send", pack(DEPOSIT), id=id)
    bus.send("account", "deposit:", 1)
    assert bus.raw("account", "send", pack(DEPOSIT), id=id) == first
    assert bus.state("account")["state"]["balance"] == account + 101


@pytest.mark.remote
def test_an_id_is_refused_with_another_payload_and_belongs_to_its_sender(bus, account):
    id = uuid.uuid4().hex
    bus.send("account", "deposit:", 1, id=id, sender="alice")
    with pytest.raises(Failed) as failed:
        bus.send("account", "deposit:", 2, id=id, sender="alice")
    assert failed.value.kind == "id_reused"
    bus.send("account", "deposit:", 4, id=id, sender="bob")
    assert bus.state("account")["state"]["balance"] == account + 5


@pytest.mark.remote
def test_a_commit_is_told_as_an_event(bus):
    following = bus.listen("state")
    reply = bus.send("account", "deposit:", 7)
    event = following()
    while event.get("name") != "account" or event["rev"] < reply["rev"]:
        event = following()
    assert event["rev"] == reply["rev"]
    assert event["prev_rev"] == reply["rev"] - 1
    assert event["changed"] == ["balance"]
    assert event["state"]["balance"] == reply["value"]


@pytest.mark.remote
def test_a_json_request_gets_a_json_reply(bus, account):
    reply = json.loads(bus.raw("account", "send", json.dumps(DEPOSIT).encode()))
    assert (reply["status"], reply["value"]) == ("ok", account + 100)


@pytest.mark.remote
def test_unknown_optional_fields_are_accepted(bus, account):
    assert unpack(bus.raw("account", "send", pack({**DEPOSIT, "colour": "blue"})))["status"] == "ok"


@pytest.mark.remote
@pytest.mark.parametrize(
    "verb, fields",
    [
        ("create_method", {"method_name": "answer", "method_code": "answer = ( ^42 )"}),
        ("apply", {"definition": {"slots": [{"name": "balance", "value": 1000000}]}}),
    ],
)
def test_what_only_operators_may_do_is_forbidden_to_senders(bus, verb, fields):
    before = bus.state("account")
    with pytest.raises(Failed) as failed:
        bus.command("account", verb, fields, cls="cmd")
    assert failed.value.kind == "forbidden"
    assert bus.state("account") == before


@pytest.mark.remote
@pytest.mark.parametrize(
    "payload, options",
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b"\xc1", {}, id="no MessagePack"),
        pytest.param(b'{"command": "send"', {}, id="JSON cut off"),
        pytest.param(pack(DEPOSIT)[:-1], {}, id="MessagePack cut off"),
        pytest.param(pack(DEPOSIT) + b"\0", {}, id="more than one value"),
        pytest.param(pack([1, 2]), {}, id="no map"),
        pytest.param(pack({"command": "fly"}), {}, id="unknown command"),
        pytest.param(pack({"command": "send"}), {}, id="no selector"),
        pytest.param(pack({**DEPOSIT, "arguments": "100"}), {}, id="arguments of a wrong type"),
        pytest.param(pack({**DEPOSIT, "arguments": [nested(200)]}), {}, id="nested too deep"),
        pytest.param(pack({"command": "get_full_state"}), {}, id="another verb than the subject's"),
        pytest.param(pack(DEPOSIT), {"id": "x" * 257}, id="id too long"),
    ],
)
def test_what_is_no_request_gets_a_typed_refusal(bus, account, payload, options):
    reply = unpack(bus.raw("account", "send", payload, **options))
    assert reply["status"] == "error"
    assert reply["error"]["kind"] == "bad_request", reply
    assert reply["error"]["message"]
    assert bus.state("account")["state"]["balance"] == account


@pytest.mark.remote
@pytest.mark.parametrize("target", ["nobody", "0" * 32])
def test_an_unknown_object_is_named_as_such(bus, target):
    with pytest.raises(Failed) as failed:
        bus.send(target, "deposit:", 1)
    assert failed.value.kind == "no_such_object"
    assert target in failed.value.message


@pytest.mark.remote
def test_an_endless_loop_ends_and_the_universe_goes_on(bus, account):
    spinner = f"spinner-{uuid.uuid4().hex[:8]}"
    bus.command(spinner, "apply", {"definition": {"slots": [{"name": "turns", "value": 0}]}}, cls="adm")
    bus.create_method(spinner, "spin", "spin = ( [ true ] whileTrue: [ turns: turns + 1 ]. ^1 )")
    with pytest.raises(Failed) as failed:
        bus.send(spinner, "spin")
    assert failed.value.kind == "limit_exceeded"
    assert bus.state(spinner)["state"]["turns"] == 0, "a turn that ended badly leaves nothing"
    assert bus.send("account", "deposit:", 1)["value"] == account + 1


@pytest.mark.remote
@pytest.mark.parametrize(
    "code, kind",
    [
        ("twice = ( ^balance * )", "syntax_error"),
        ("thrice = ( ^balance * 3 )", "bad_request"),
    ],
)
def test_a_method_that_is_none_is_refused(bus, code, kind):
    before = bus.state("account")
    with pytest.raises(Failed) as failed:
        bus.create_method("account", "twice", code)
    assert failed.value.kind == kind, failed.value
    assert bus.state("account") == before


@pytest.mark.remote
def test_concurrent_senders_lose_nothing(bus, account):
    async def sender(amount):
        for _ in range(20):
            payload = pack({"command": "send", "selector": "deposit:", "arguments": [amount]})
            assert (await bus.ask_until_answered("account", "send", payload))["status"] == "ok"

    async def all_senders():
        await asyncio.gather(*(sender(amount) for amount in range(1, 9)))

    bus.run(all_senders())
    assert bus.state("account")["state"]["balance"] == account + 20 * sum(range(1, 9))

"""Who may do what: by NATS' permissions on subjects, and by the authority of each turn."""

import stat

import nats.errors
import pytest

from bus import Bus, Failed, pack, wait_until
from universe import batos


@pytest.fixture
def anonymous(universe):
    bus = Bus(universe.url, universe.name)
    yield bus
    bus.close()


def test_whoever_does_not_log_in_may_send_and_hear_events(anonymous):
    following = anonymous.listen("state")
    assert anonymous.send("account", "deposit:", 100)["value"] == 100
    # What was committed before may still be on its way.
    while (event := following())["rev"] < 2 or event.get("name") != "account":
        pass
    assert event["state"]["balance"] == 100


@pytest.mark.parametrize(
    "verb, fields",
    [
        ("create_method", {"method_name": "answer", "method_code": "answer = ( ^42 )"}),
        ("apply", {"definition": {"slots": [{"name": "balance", "value": 1000000}]}}),
        ("eval", {"source": "account deposit: 1000000"}),
    ],
)
def test_the_server_keeps_senders_off_the_adm_subjects(anonymous, bus, verb, fields):
    before = bus.state("account")
    with pytest.raises(nats.errors.TimeoutError):
        anonymous.command("account", verb, fields, cls="adm", timeout=1)
    assert any("permissions violation" in error.lower() for error in anonymous.errors), anonymous.errors
    assert bus.state("account") == before


@pytest.mark.parametrize(
    "subject", ["_INBOX_architect.>", "_INBOX_system.>", "batos.v1.*.cmd.>", "batos.v1.*.adm.>", ">", "$JS.>"]
)
def test_senders_cannot_listen_to_what_is_not_theirs(anonymous, subject):
    anonymous.run(anonymous.nats.subscribe(subject))
    anonymous.run(anonymous.nats.flush())
    wait_until(lambda: any("permissions violation" in error.lower() for error in anonymous.errors), "the violation")


@pytest.mark.parametrize("subject", ["batos.v1.{}.evt.account.state", "$JS.API.STREAM.DELETE.batos-{}-events"])
def test_senders_cannot_speak_for_the_universe(anonymous, universe, subject):
    anonymous.run(anonymous.nats.publish(subject.format(universe.name), b"{}"))
    anonymous.run(anonymous.nats.flush())
    wait_until(lambda: any("permissions violation" in error.lower() for error in anonymous.errors), "the violation")


def test_credentials_are_private_and_stay_the_same(universe):
    secrets = [universe.data / name for name in ("architect.url", "credentials.json", "nats/nats.conf")]
    for path in secrets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    architect = universe.architect
    password = architect.split(":")[2].split("@")[0]
    assert universe.stop() == 0
    universe.start()
    assert universe.architect == architect
    assert password not in universe.log.read_text()
    assert password not in (universe.data / "up.json").read_text()


@pytest.mark.parametrize("object", ["Object", "genesis"])
def test_the_image_is_nobodys_to_change(universe, bus, object):
    before = bus.state(object)
    for attempt in (
        lambda: bus.send(object, "setSlot:value:", "shade", 3),
        lambda: bus.command(object, "eval", {"source": "setSlot: #shade value: 3"}, cls="adm"),
        lambda: bus.create_method(object, "shade", "shade = ( ^3 )"),
    ):
        with pytest.raises(Failed) as failed:
            attempt()
        assert failed.value.kind in ("forbidden", "bad_request")
        assert "belongs to the image" in failed.value.message
    assert bus.state(object) == before


def test_only_the_architect_changes_the_parents_of_another_object(bus):
    for name in ("child", "mover"):
        bus.command(name, "apply", {"definition": {"slots": [{"name": "size", "value": 1}]}}, cls="adm")
    move = "(Mirror on: child) addParent: #extra value: account"
    bus.create_method("mover", "move", f"move = ( {move} )")
    with pytest.raises(Failed) as failed:
        bus.send("mover", "move")
    assert (failed.value.kind, "child" in failed.value.message) == ("forbidden", True), failed.value
    assert "extra" not in bus.state("child")["parents"]
    bus.command("genesis", "eval", {"source": move}, cls="adm")
    assert bus.state("child")["parents"]["extra"] == bus.state("account")["object"]


def test_a_turn_that_may_not_write_leaves_nothing(bus):
    bus.create_method("account", "spoil", "spoil = ( self deposit: 5. genesis setSlot: #spoilt value: true )")
    with pytest.raises(Failed) as failed:
        bus.send("account", "spoil")
    assert failed.value.kind == "forbidden"
    assert bus.state("account")["state"]["balance"] == 0


def test_eval_answers_errors_with_their_place(bus):
    for source, kind, told in [
        ("3 +", "syntax_error", "line 1, column 4"),
        ("3 / 0", "method_failed", "divided by 0"),
        ("account deposit: 3. account balance", None, 3),
    ]:
        if kind is None:
            assert bus.command("genesis", "eval", {"source": source}, cls="adm")["value"] == told
            continue
        with pytest.raises(Failed) as failed:
            bus.command("genesis", "eval", {"source": source}, cls="adm")
        assert failed.value.kind == kind
        assert told in failed.value.message


def test_the_command_line_uses_the_credentials_of_its_folder(universe, tmp_path):
    (tmp_path / ".batos").symlink_to(universe.data)
    ended = batos("eval", "account deposit: 42", "--universe", universe.name, cwd=tmp_path)
    assert (ended.returncode, ended.stdout.strip()) == (0, "42"), ended
    ended = batos("eval", "account deposit: 42", "--universe", universe.name, "--nats", universe.url)
    assert ended.returncode != 0
    assert "architect" in ended.stderr.lower(), ended.stderr

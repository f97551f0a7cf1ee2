"""The commands that a person types, as they stand in the README too."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from bus import wait_until
from universe import BATOS, ROOT, Universe, batos

README = (ROOT / "README.md").read_text()


def test_send_and_get(universe, bus):
    here = {"BATOS_NATS": universe.url}
    sent = batos("send", "account", "deposit:", "100", "--universe", universe.name, **here)
    assert (sent.returncode, sent.stdout.strip()) == (0, "100"), sent
    sent = batos("send", "account", "deposit:", "11", "--universe", universe.name, "-o", "json", **here)
    assert json.loads(sent.stdout)["value"] == 111
    got = batos("get", "account", "--universe", universe.name, "-o", "json", **here)
    assert json.loads(got.stdout)["state"]["balance"] == 111
    got = batos("get", "account", "--universe", universe.name, **here)
    assert "balance" in got.stdout and "111" in got.stdout and "deposit:" in got.stdout


def test_a_message_id_makes_a_repeat_safe(universe):
    command = ["send", "account", "deposit:", "100", "--id", "x", "--universe", universe.name, "--nats", universe.url]
    assert [batos(*command).stdout.strip() for _ in range(2)] == ["100", "100"]


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["send", "nobody", "deposit:", "1"], "nobody"),
        (["send", "account", "levitate"], "levitate"),
        (["send", "account", "deposti:", "1"], "; it understands deposit:"),
        (["get", "nobody"], "nobody"),
    ],
)
def test_a_failure_is_told_and_is_the_exit_status(universe, arguments, told):
    ended = batos(*arguments, "--universe", universe.name, "--nats", universe.url)
    assert ended.returncode != 0
    assert told in ended.stderr


BAD_MANIFESTS = {
    "no YAML": ("spec:", "spec: ]"),
    "unknown field": ("spec:", "spec:\n  colour: blue"),
    "slots of a wrong type": ("spec:", "spec:\n  slots: 7\n  was:"),
    "a method that does not compile": ("balance + n", "balance + "),
    "unknown kind": ("kind: Prototype", "kind: Protoype"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_with_its_place(tmp_path, case):
    bad = Universe(tmp_path, "bad")
    path = bad.manifests / "account.yaml"
    good = path.read_text()
    broken = good.replace(*BAD_MANIFESTS[case], 1)
    assert broken != good
    path.write_text(broken)
    try:
        bad.spawn()
        assert bad.wait_ended() != 0
        assert re.search(r"account\.yaml:\d+", bad.log.read_text()), bad.log.read_text()
    finally:
        bad.discard()


def tour():
    """Commands of the README's tour with the output that it shows."""
    _, _, rest = README.partition("<!-- tour -->")
    text, end, _ = rest.partition("<!-- end of tour -->")
    assert end
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = command.partition("\n")
            yield line, output


def test_the_tour_of_the_readme_is_true(tmp_path):
    universe = Universe(tmp_path, "quickstart")
    path = f"{pathlib.Path(BATOS).resolve().parent}:{os.environ['PATH']}"
    try:
        universe.start()
        environment = {**os.environ, "PATH": path, "BATOS_NATS": universe.architect}
        environment["BATOS_KEY"] = str(universe.data / "architect.key")
        commands = list(tour())
        assert len(commands) >= 5
        for line, shown in commands:
            ended = subprocess.run(
                ["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
            )
            printed = ended.stdout + ended.stderr
            # `…` in the README stands for anything, such as ids.
            expected = ".*?".join(re.escape(part) for part in shown.strip().split("…"))
            assert re.fullmatch(expected, printed.strip(), re.DOTALL), f"$ {line}\n{printed}\ninstead of\n{shown}"
    finally:
        universe.discard()


def edit(path, old, new):
    """As an editor saves: a new file under the same name."""
    text = path.read_text()
    assert old in text
    fresh = path.with_suffix(".new")
    fresh.write_text(text.replace(old, new, 1))
    fresh.rename(path)


def test_edits_of_manifests_reach_the_running_universe(universe, bus):
    path = universe.manifests / "account.yaml"
    bus.send("account", "deposit:", 100)
    edit(path, "balance + n", "balance + n + 1")
    wait_until(lambda: "n + 1" in bus.state("account")["methods"]["deposit:"], "the edited method")
    assert bus.send("account", "deposit:", 10)["value"] == 111, "state lives on"

    good = bus.state("account")
    edit(path, "balance + n + 1", "balance + +")
    wait_until(lambda: re.search(r"account\.yaml:\d+.*refused|refused.*account\.yaml:\d+", universe.log.read_text()), "the refusal")
    assert bus.state("account") == good, "a bad edit changes nothing"
    edit(path, "balance + +", "balance + n + 2")
    wait_until(lambda: "n + 2" in bus.state("account")["methods"]["deposit:"], "the next good edit")


def test_what_the_universe_changed_itself_is_kept_and_told(universe, bus):
    path = universe.manifests / "account.yaml"
    bus.create_method("account", "deposit:", "deposit: n = ( balance: balance + n. ^'thanks' )")
    # An edit of something else.
    edit(path, "answers: 70", "answers: 70 # more words")
    edit(path, "value: 0", "value: 5")
    wait_until(lambda: "drift" in universe.log.read_text() and "deposit:" in universe.log.read_text(), "the drift")
    assert bus.send("account", "deposit:", 1)["value"] == "thanks"
    edit(path, "balance + n", "balance + n + 0")
    wait_until(lambda: "n + 0" in bus.state("account")["methods"]["deposit:"], "the manifest wins where it changed")

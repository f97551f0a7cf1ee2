"""A missing method is made by a model behind a URL: a played vLLM that answers by a script."""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from bus import Failed, pack, wait_until
from universe import batos

FAKE = os.environ.get("BATOS_FAKE_VLLM")
GOOD = "withdraw: n = ( balance: balance - n. ^balance )"
SLY = "withdraw: n = ( balance: 70. ^balance )"

pytestmark = pytest.mark.skipif(not FAKE, reason="BATOS_FAKE_VLLM names no binary")


class Model:
    """A fake-vllm of its own port."""

    def __init__(self, log):
        self.process = subprocess.Popen([FAKE, "base", "--host", "127.0.0.1", "--port", "0"], stdout=log.open("w"))
        port = wait_until(lambda: re.search(r" on 127\.0\.0\.1:(\d+)", log.read_text()), "fake-vllm")
        self.url = f"http://127.0.0.1:{port[1]}"

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))

    def answers(self, *steps):
        self.call("/fake/script", list(steps))

    def asked(self):
        return [request["body"] for request in self.call("/fake/requests")]


@pytest.fixture
def model(tmp_path):
    model = Model(tmp_path / "fake-vllm.log")
    yield model
    model.process.kill()
    model.process.wait()


@pytest.fixture
def universe(universe, model, request):
    """The quickstart's universe with a model instead of recordings, and what else a test wants of its mind."""
    assert universe.stop() == 0
    manifest = universe.manifests / "universe.yaml"
    before, _, _ = manifest.read_text().partition("  mind:")
    (universe.data / "key").write_text("sk-0123456789abcdef\n")
    mind = {"url": f"{model.url}/v1", "model": "base", "apiKeyFile": str(universe.data / "key"), "timeoutSeconds": 5}
    mind |= getattr(request, "param", {})
    manifest.write_text(f"{before}  mind: {json.dumps(mind)}\n")
    universe.start()
    return universe


def test_a_model_makes_the_method_and_repairs_its_draft(universe, bus, model):
    bus.send("account", "deposit:", 100)
    model.answers({"texts": [f"Here you are:\n```smalltalk\n{SLY}\n```"]}, {"texts": [GOOD]})
    reply = bus.send("account", "withdraw:", 30)
    assert reply["value"] == 70
    assert reply["made"]["mind"] == f"base at {model.url}/v1"
    assert reply["made"]["model_calls"] == 2
    assert bus.send("account", "withdraw:", 30)["value"] == 40

    first, second = model.asked()
    assert first["structured_outputs"]["grammar"].startswith('root ::= "withdraw:" s name')
    assert first["seed"] != second["seed"]
    told = second["messages"][1]["content"]
    assert SLY in told and "it answers 70, not 0" in told
    wait_until(lambda: any(event["step"] == "swapped" for event in bus.events("becoming")), "the event `swapped`")
    steps = [event["step"] for event in bus.events("becoming")]
    assert steps == ["asked", "drafted", "repair", "drafted", "judged", "swapped"]
    assert "sk-0123456789abcdef" not in universe.log.read_text()


def test_a_model_that_cannot_be_reached_is_unavailable_and_then_goes_on(universe, bus, model):
    bus.send("account", "deposit:", 100)
    model.answers({"fault": "status", "status": 401, "message": "no"})
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "unavailable"
    assert "401" in failed.value.message
    model.answers({"texts": [GOOD]})
    assert bus.send("account", "withdraw:", 30)["value"] == 70


def test_the_architect_rewrites_the_prompt(universe, bus, model):
    bus.send("account", "deposit:", 100)
    model.answers({"texts": [SLY]})
    source = "toolForge attempts: 1. toolForge request: 'Quickly, please.'. toolForge attempts"
    assert bus.command("account", "eval", {"source": source}, cls="adm")["value"] == 1
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "refused"
    [asked] = model.asked()
    assert asked["messages"][1]["content"].endswith("Quickly, please.")


RISKY = "withdraw: n = ( self setSlot: #last value: n. balance: balance - n. ^balance )"


def architect(universe):
    """Runs commands as the Architect, and the arguments that name the signing key."""

    def command(*arguments, fails=False):
        ended = batos(*arguments, "--universe", universe.name, "--nats", universe.architect, cwd=universe.data.parent)
        assert (ended.returncode != 0) == fails, ended
        return ended.stderr if fails else ended.stdout

    return command, ["--key", str(universe.data / "architect.key")]


def test_a_person_approves_what_is_risky(universe, bus, model):
    """The whole way on the command line: proposed, shown, approved with the Architect's key, explained, undone."""

    command, key = architect(universe)
    bus.send("account", "deposit:", 100)
    model.answers({"texts": [RISKY]})
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "needs_approval" and "setSlot:value:" in failed.value.message
    proposal = failed.value.message.split()[-1]
    shown = command("proposals")
    assert proposal in shown and f"+ {RISKY}" in shown and "because it changes slots" in shown

    # What waits outlives the process.
    universe.kill()
    universe.start()
    assert "approved with key" in command("approve", proposal, *key, "--reason", "seen")
    assert bus.send("account", "withdraw:", 30, repeat=True)["value"] == 70
    why = command("why", "account", "withdraw:")
    assert RISKY in why and "admitted by 2 examples" in why and "seen" in why
    assert "nothing waits" in command("proposals")
    replayed = json.loads(command("replay", "account", "withdraw:", "-o", "json"))
    assert replayed["step"] == "swapped" and replayed["becoming"] in why
    [trial] = replayed["trials"]
    assert RISKY in trial["answer"] and trial["again"] == trial["verdict"]
    assert "the same again" in command("replay", replayed["becoming"])
    assert "becoming" in command("replay", "0" * 32, fails=True)
    assert "approved" in command("deny", proposal, *key, fails=True)
    assert "no proposal" in command("approve", "0" * 32, *key, fails=True)
    command("undo", "account", "withdraw:")
    assert universe.stop() == 0
    # On TiKV the store is not a file: there is nothing to look at beside it.
    if not universe.store:
        checked = batos("check", "--universe", universe.name, "--data", str(universe.data))
        assert checked.returncode == 0, checked


RECENT = """(| recent <- nil.
    last = ( recent isNil ifTrue: [ 0 ] ifFalse: [ recent last ] ).
    deposit: n = ( recent isNil ifTrue: [ recent: OrderedCollection new ]. recent add: n. balance: balance + n. ^balance )
|)"""


def test_the_architect_asks_in_words(universe, bus, model):
    """Several slots in one swap; with examples and without a risk nobody else is asked."""
    command, key = architect(universe)
    model.answers({"texts": [f"So:\n```\n{RECENT}\n```"]})
    told = command("ask", "account", "keep the deposits", fails=True)
    assert "waits for a person" in told and "replaces a method" in told and "no example says" in told
    shown = command("proposals")
    assert "keep the deposits" in shown and "recent <- nil" in shown and "- deposit:" in shown
    assert "last" not in bus.state("account")["methods"]
    command("approve", told.split()[-1], *key)
    for n in (1, 2, 3):
        bus.send("account", "deposit:", n)
    assert bus.send("account", "last")["value"] == 3
    for selector in ("last", "deposit:"):
        assert "asked for: keep the deposits" in command("why", "account", selector)
    [asked] = model.asked()
    assert asked["structured_outputs"]["grammar"].startswith("root ::= object")

    model.answers({"texts": ["(| fee = ( 4 ) |)"]}, {"texts": ["(| fee = ( 3 ) |)"]})
    example = json.dumps({"send": {"selector": "fee"}, "answers": 3})
    assert command("ask", "account", "a fee of three", "--example", example).strip() == "fee"
    assert bus.send("account", "fee")["value"] == 3
    with pytest.raises(Failed) as failed:
        bus.command("account", "ask", {"text": "more"}, cls="cmd")
    assert failed.value.kind == "forbidden"
    assert "a directive has" in command("ask", "account", " ", fails=True)
    assert "nobody" in command("ask", "nobody", "more", fails=True)
    assert universe.stop() == 0
    if not universe.store:
        checked = batos("check", "--universe", universe.name, "--data", str(universe.data))
        assert checked.returncode == 0, checked


@pytest.mark.parametrize("universe", [{"repairAfter": 2, "recentMessages": 16}], indirect=True)
def test_a_method_that_fails_again_and_again_is_made_anew(universe, bus, model):
    command, key = architect(universe)
    source = "withdraw: n = ( 100 // n. balance: balance - n. ^balance )"
    bus.command("account", "create_method", {"method_name": "withdraw:", "method_code": source}, cls="adm")
    bus.send("account", "deposit:", 100)
    assert bus.send("account", "withdraw:", 30)["value"] == 70
    model.answers({"texts": ["withdraw: n = ( n > 29 ifTrue: [ ^0 ]. balance: balance - n. ^balance )"]}, {"texts": [GOOD]})
    for _ in range(2):
        with pytest.raises(Failed) as failed:
            bus.send("account", "withdraw:", 0)
        assert failed.value.kind == "method_failed"
    shown = wait_until(lambda: "replaces a method" in command("proposals") and command("proposals"), "a proposal")
    assert f"+ {GOOD}" in shown and f"- {source}" in shown
    [becoming] = json.loads(command("becomings", "-o", "json"))
    assert becoming["route"].startswith("ToolForge: Failing(MethodFailed)")
    command("approve", becoming["id"], *key)
    assert bus.send("account", "withdraw:", 0)["value"] == 70
    told = model.asked()[0]["messages"][1]["content"]
    assert "failed 2 times" in told and source in told


def test_who_is_asked_openly_is_not_there_yet(universe, bus, model):
    """What nothing deals with yet has an error of its own, and is recorded as wanted."""
    command, _ = architect(universe)
    for _ in range(2):
        with pytest.raises(Failed) as failed:
            bus.send("account", "whoAreYou")
        assert failed.value.kind == "not_available" and "CharacterologicalInquiry" in failed.value.message
    [wanted] = json.loads(command("becomings", "--all", "-o", "json"))
    assert wanted["step"] == "refused" and wanted["route"].startswith("CharacterologicalInquiry")
    assert model.asked() == []


def test_drafts_that_do_not_agree_wait_for_a_person(universe, bus, model):
    command, key = architect(universe)
    bus.send("account", "deposit:", 100)
    stingy = "withdraw: n = ( n > balance ifFalse: [ balance: balance - n ]. ^balance )"
    model.answers({"texts": [SLY, stingy, GOOD]})
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "needs_approval" and "only 1 of 3 drafts" in failed.value.message
    # One message on which they differ is told.
    shown = command("proposals")
    assert f"+ {stingy}" in shown and "another draft answers -" in shown
    command("deny", failed.value.becoming, *key, "--reason", "it keeps silent about what it does not do")

    # As many as are wanted do the same.
    (universe.manifests / "till.yaml").write_text(
        (universe.manifests / "account.yaml").read_text().replace("name: account", "name: till")
    )
    wait_until(lambda: "till" in [each["name"] for each in bus.command("_", "list")["value"]["objects"]], "the till")
    model.answers({"texts": [stingy, GOOD, GOOD]})
    assert bus.send("till", "withdraw:", 30)["value"] == -30
    why = command("why", "till", "withdraw:")
    assert "2 of 3 drafts do the same on" in why and GOOD in why


def test_an_intent_with_a_contract_as_the_readme_has_it(universe, bus, model):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    text = readme.partition("<!-- intent -->")[2].partition("<!-- end of intent -->")[0]
    text = text.replace("```yaml", "").replace("```", "").replace("universe: quickstart", f"universe: {universe.name}")
    (universe.manifests / "shelf.yaml").write_text(text)
    wait_until(lambda: "shelf" in [each["name"] for each in bus.command("_", "list")["value"]["objects"]], "the shelf")
    # The first two fit the example.
    hasty = "take: count = ( items: 3. ^3 )"
    shy = "take: count = ( count > 2 ifTrue: [ self error: 'no' ]. items: items - count. ^items )"
    right = "take: count = ( items: items - count. ^items )"
    model.answers({"texts": [hasty]}, {"texts": [shy]}, {"texts": [right]})
    assert bus.send("shelf", "take:", 1)["value"] == 2
    told = [request["messages"][1]["content"] for request in model.asked()]
    assert "it does not fail: count <= items" in told[0]
    assert "breaks its contract" in told[1] and "this is false: items = (before items" in told[1]
    assert "it fails although what it requires is true" in told[2]
    assert bus.send("shelf", "take:", 2)["value"] == 0 and len(model.asked()) == 3


def test_what_is_being_made_is_listed_and_cancelled(universe, bus, model):
    command, _ = architect(universe)
    bus.send("account", "deposit:", 100)
    model.answers({"fault": "status", "status": 401, "message": "no"})
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    becoming = failed.value.becoming
    assert failed.value.kind == "unavailable" and becoming in command("becomings")
    assert "we write it" in command("cancel", becoming, "--reason", "we write it ourselves")
    assert "nothing is being made" in command("becomings")
    [ended] = json.loads(command("becomings", "--all", "-o", "json"))
    assert (ended["id"], ended["step"], ended["name"]) == (becoming, "refused", "account")
    # The journal is an object that anyone may look at, a clone of toolForge.
    journal = bus.command(becoming, "get_full_state")["value"]
    assert journal["state"]["step"] == "refused" and "we write it" in journal["state"]["reason"]
    forge = bus.command(journal["parents"]["parent"], "get_full_state")["value"]
    assert forge["name"] == "toolForge" and "attempts" in forge["state"]
    assert "we write it ourselves" in command("get", becoming)
    # Like every refusal it is remembered: no model is asked.
    model.answers({"texts": [GOOD]})
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "refused" and "we write it ourselves" in failed.value.message
    assert len(model.asked()) == 1
    assert "becoming" in command("cancel", "0" * 32, fails=True)
    assert "Architect" in batos("becomings", "--universe", universe.name, "--nats", universe.url).stderr


def test_a_budget_bounds_what_is_made(universe, bus, model):
    assert universe.stop() == 0
    manifest = universe.manifests / "universe.yaml"
    budget = json.dumps({"becomingsPerHour": 1000, "becomingsPerHourAndSender": 1, "tokensPerDay": 1000000})
    manifest.write_text(manifest.read_text().replace("mind: {", f'mind: {{"budget": {budget}, '))
    universe.start()
    bus.send("account", "deposit:", 100, repeat=True)
    model.answers({"texts": [GOOD]})
    assert bus.send("account", "withdraw:", 30)["value"] == 70
    universe.kill()
    universe.start()
    # Twice, lest the hour ended between.
    for selector in ["lend:", "owe:"]:
        try:
            bus.send("account", selector, 1, repeat=True)
        except Failed as failure:
            kind, message = failure.kind, failure.message
    assert kind == "limit_exceeded" and "spec.mind.budget.becomingsPerHourAndSender" in message, message


def test_senders_may_not_approve(universe, bus, model):
    bus.send("account", "deposit:", 100)
    model.answers({"texts": [RISKY]})
    with pytest.raises(Failed):
        bus.send("account", "withdraw:", 30)
    for verb in ["proposals", "why", "approve"]:
        ended = batos(
            *([verb, "account", "withdraw:"] if verb == "why" else [verb, *(["0" * 32] if verb == "approve" else [])]),
            *(["--key", str(universe.data / "architect.key")] if verb == "approve" else []),
            "--universe",
            universe.name,
            "--nats",
            universe.url,
        )
        assert ended.returncode != 0 and "Architect" in ended.stderr, ended


def test_a_change_against_the_codex_halts_what_is_made(universe, bus, model):
    """On the command line: refused with the rule, shown, halted, approved against the rule, explained."""
    assert universe.stop() == 0
    manifest = universe.manifests / "universe.yaml"
    rules = [{"name": "as-it-is", "why": "objects keep their shape", "forbidSends": ["setSlot:value:"]}]
    manifest.write_text(manifest.read_text().replace("mind: {", f'mind: {{"codex": {json.dumps({"rules": rules})}, '))
    universe.start()
    command, key = architect(universe)
    bus.send("account", "deposit:", 100, repeat=True)
    model.answers({"texts": [RISKY]})
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "refused" and "as-it-is" in failed.value.message
    with pytest.raises(Failed) as failed:
        bus.send("account", "levitate")
    assert failed.value.kind == "needs_approval"
    assert bus.send("account", "deposit:", 5)["value"] == 105

    shown = command("proposals")
    assert "objects keep their shape" in shown and "makes nothing by itself" in shown
    proposal = shown.split()[0]
    command("approve", proposal, *key, "--reason", "this once")
    assert bus.send("account", "withdraw:", 5)["value"] == 100
    why = command("why", "account", "withdraw:")
    assert "held against the Codex" in why and "as-it-is" in why and "this once" in why


def test_a_codex_of_its_own_is_law_too(universe, bus, model):
    bus.send("account", "deposit:", 100)
    assert universe.stop() == 0
    law = universe.manifests / "law.yaml"
    text = """
apiVersion: batos.dev/v1alpha1
kind: Codex
metadata: {name: calm}
spec:
  universe: UNIVERSE
  principles: [Nothing is made in haste.]
  rules: [{name: closed, objects: [account], forbidMaking: true}]
"""
    law.write_text(text.replace("UNIVERSE", universe.name))
    universe.start()
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "refused" and "calm/closed" in failed.value.message
    assert model.asked() == []
    command, key = architect(universe)
    assert '"calm/closed"' in command("laws") and "version 1" in command("laws")

    # It goes only when the Architect says so.
    assert universe.stop() == 0
    law.write_text(text.replace("UNIVERSE", "another"))
    universe.start()
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert "calm/closed" in failed.value.message
    shown = command("proposals")
    assert "laws of codex" in shown and 'because the rule "calm/closed" goes' in shown
    assert "applied" in command("approve", shown.split()[0], *key, "--reason", "we are calm enough")
    assert "no laws" in command("laws")
    model.answers({"texts": [GOOD]})
    assert bus.send("account", "withdraw:", 30)["value"] == 70


def test_a_persona_objects_and_a_person_decides(universe, bus, model):
    assert universe.stop() == 0
    manifest = universe.manifests / "universe.yaml"
    personae = [{"name": "treasurer", "prompt": "You guard the money."}]
    manifest.write_text(manifest.read_text().replace("mind: {", f'mind: {{"personae": {json.dumps(personae)}, '))
    universe.start()
    command, key = architect(universe)
    bus.send("account", "deposit:", 100, repeat=True)
    model.answers({"texts": [GOOD]}, {"texts": ['{"objects": true, "why": "nothing stops it at zero"}']})
    with pytest.raises(Failed) as failed:
        bus.send("account", "withdraw:", 30)
    assert failed.value.kind == "needs_approval" and "treasurer objects: nothing stops it" in failed.value.message
    _, asked = model.asked()
    assert asked["messages"][0]["content"].endswith("You guard the money.") and asked["n"] == 1
    command("approve", failed.value.becoming, *key, "--reason", "it may owe")
    assert bus.send("account", "withdraw:", 300, repeat=True)["value"] == -200
    why = command("why", "account", "withdraw:")
    assert "persona treasurer" in why and "nothing stops it at zero" in why and "it may owe" in why


def test_a_model_says_an_outcome_each_time(universe, bus, model):
    """From a manifest: asked each time, held against its shape, and the same for a repeat of a message."""
    (universe.manifests / "clerk.yaml").write_text(f"""
apiVersion: batos.dev/v1alpha1
kind: Prototype
metadata: {{name: clerk}}
spec:
  universe: {universe.name}
  slots:
  - {{name: sorted, value: 0}}
  - name: "mood:"
    intent:
      mode: outcome
      text: How does the writer feel?
      arguments: [letter]
      answers: {{type: string, enum: [calm, angry]}}
  - name: "sort:"
    method: "sort: letter = ( sorted := sorted + 1. ^mood: letter )"
""")
    listed = lambda: [each["name"] for each in bus.command("_", "list")["value"]["objects"]]
    wait_until(lambda: "clerk" in listed(), "the clerk")
    model.answers({"texts": ["glad"]}, {"texts": ['"angry"']}, {"texts": ["calm"]})
    request = pack({"command": "send", "selector": "sort:", "arguments": ["Sirs!"]})
    first = bus.run(bus.ask_until_answered("clerk", "send", request, id="a"))
    assert first["value"] == "angry"
    universe.kill()
    universe.start()
    assert bus.run(bus.ask_until_answered("clerk", "send", request, id="a")) == first
    assert bus.send("clerk", "sort:", "Sirs!")["value"] == "calm"
    assert bus.state("clerk")["state"]["sorted"] == 2
    asked = model.asked()
    assert len(asked) == 3
    assert all("structured_outputs" not in body and 'letter: "Sirs!"' in body["messages"][1]["content"] for body in asked)
    assert "mood:" not in bus.state("clerk")["methods"]
    model.answers(*[{"texts": ["glad"]}] * 3)
    with pytest.raises(Failed) as failed:
        bus.send("clerk", "sort:", "Dear")
    assert failed.value.kind == "not_available" and "mood:" in failed.value.message
    assert bus.state("clerk")["state"]["sorted"] == 2
    wait_until(lambda: {event["model_calls"] for event in bus.events("outcome")} == {1, 2, 3}, "the outcomes' events")

#!/usr/bin/env python3
"""A universe whose mind is a facet: `batos up`, `batos weaver serve`, a real vLLM. Its model is random, so that nothing but
the grammar makes a method of what it says. A message that nobody wrote is sent; the becoming runs to its end, which is that
it is refused; its journal is shown. Then more methods are drawn through the gateway. Fails unless each that was not cut off
compiles.

mind.py, with BATOS_VLLM, BATOS_VLLM_MODELS (hack/vllm env), BATOS_BIN and BATOS_NATS_SERVER.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

from bus import Bus, Failed, wait_until
from test_weaver import Gateway
from universe import ROOT, Universe, batos

BROKEN = "does not compile"
# What no grammar of this kind can say.
BEYOND = ["two slots are called", "is declared twice"]
_, RULES = (ROOT / "operator" / "uvm" / "models.ebnf").read_text().split("\n", 1)
HEADERS = {
    "withdraw:": '"withdraw:" s name',
    "at:put:": '"at:" s name b "put:" s name',
    "+": '"+" b name',
    "area": '"area"',
}


def draw(gateway, model, header):
    """Random methods with this header that ended in time."""
    grammar = f'root ::= {header} s "=" s "(" body ")"\n{RULES}'
    ask = {"n": 8, "max_tokens": 300, "temperature": 1.5, "structured_outputs": {"grammar": grammar}}
    status, _, body = gateway.chat(model, **ask)
    assert status == 200, body
    return [choice["message"]["content"] for choice in body["choices"] if choice["finish_reason"] == "stop"]


def refusals(gateway, bus):
    """What was wrong with such methods, in the language's words."""
    for model in ["base", "smith"]:
        for selector, header in HEADERS.items():
            drawn = draw(gateway, model, header)
            assert drawn, f"{model} ended none of its methods"
            print(f"{len(drawn)} of 8 methods {selector!r} drawn from `{model}` ended; all are tried")
            for text in drawn:
                try:
                    bus.create_method("account", selector, text)
                except Failed as failed:
                    if not any(words in str(failed) for words in BEYOND):
                        yield f"{text!r}: {failed}"


def main():
    with tempfile.TemporaryDirectory(prefix="batos-mind-") as work:
        work = pathlib.Path(work)
        smith = {
            "name": "smith",
            "path": f"{os.environ['BATOS_VLLM_MODELS']}/adapters/smith",
            "digest": "5" * 16,
            "rank": 8,
        }
        gateway = Gateway(work, [os.environ["BATOS_VLLM"]], [smith], slots=1, hostSlots=2, seats=8)
        universe = Universe(work, "vllm")
        try:
            return run(gateway, universe)
        finally:
            universe.discard()
            gateway.stop()
            gateway.process.wait()


def run(gateway, universe):
    manifest = universe.manifests / "universe.yaml"
    before, _, _ = manifest.read_text().partition("  mind:")
    mind = {"url": f"{gateway.url}/v1", "model": "smith", "timeoutSeconds": 240}
    manifest.write_text(f"{before}  mind: {json.dumps(mind)}\n")
    universe.start()
    bus, began = Bus(universe.architect, universe.name), time.monotonic()
    try:
        made = bus.send("account", "withdraw:", 30, repeat=True)
        sys.exit(f"random weights wrote what the examples want: {made}")
    except Failed as failed:
        failure = failed
    print(f"`account withdraw: 30` after {time.monotonic() - began:.0f} s: {failure}")
    wait_until(lambda: bus.events("becoming")[-1]["step"] == "refused", "the becoming's last event")
    print("journal:", " ".join(event["step"] for event in bus.events("becoming")))
    command = ["replay", failure.becoming, "--universe", universe.name, "--nats", universe.architect, "-o", "json"]
    ended = batos(*command)
    assert ended.returncode == 0, ended
    trials = json.loads(ended.stdout)["trials"]
    for trial in trials:
        print(f"  {trial['answer']!r}\n    {trial['verdict']}")
    broken = [trial for trial in trials if BROKEN in trial["verdict"]]
    loads = gateway.metric('loads_total{facet="smith",outcome="ok"}')
    print(f"{len(trials)} drafts, {len(broken)} of them do not compile; {loads:.0f} adapter loaded")
    refused = list(refusals(gateway, bus))
    print(*(refused or ["each of them compiles"]), sep="\n")
    bus.close()
    return failure.kind != "refused" or broken or not trials or refused


if __name__ == "__main__":
    sys.exit(1 if main() else 0)

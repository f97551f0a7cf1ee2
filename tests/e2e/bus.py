"""A client of the wire protocol, written from the covenant and not from batos' own code."""

import asyncio
import json
import threading
import time
import urllib.parse
import uuid

import msgpack
import nats
import nats.errors

DEADLINE = 30.0  # seconds that anything awaited may take
REPEATABLE = (nats.errors.NoRespondersError, nats.errors.TimeoutError, nats.errors.ConnectionClosedError)


class Failed(Exception):
    """A typed error reply."""

    def __init__(self, error):
        super().__init__(f"{error['kind']}: {error['message']}")
        self.kind, self.message, self.becoming = error["kind"], error["message"], error.get("becoming")


def pack(value):
    return msgpack.packb(value)


def unpack(payload):
    return json.loads(payload) if payload[:1] == b"{" else msgpack.unpackb(payload)


def wait_until(condition, what, deadline=DEADLINE):
    """Polls until `condition` answers something true, and answers that."""
    end = time.monotonic() + deadline
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not within {deadline} s"
        threading.Event().wait(0.02)


class Bus:
    """One connection, for tests that are no coroutines. It reconnects for ever. Who logs in has inboxes of its own."""

    def __init__(self, url, universe, root="batos"):
        self.prefix, self.url = f"{root}.v1.{universe}", url
        self.stream = f"{root}-{universe}-events"
        self.errors = []
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.nats = self.run(self._connect())

    async def _connect(self):
        async def note(error):
            """Lost connections are part of these tests."""
            self.errors.append(str(error))

        login = urllib.parse.urlsplit(self.url).username
        return await nats.connect(
            self.url,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            connect_timeout=2,
            error_cb=note,
            inbox_prefix=f"_INBOX_{login}" if login else "_INBOX",
        )

    def run(self, coroutine, deadline=2 * DEADLINE):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(deadline)

    def close(self):
        self.run(self.nats.close())
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def ask(self, target, verb, payload, *, cls="cmd", id=None, sender=None, timeout=DEADLINE):
        """The reply's bytes to one request."""
        headers = {"Nats-Msg-Id": id, "Batos-Sender": sender}
        headers = {name: value for name, value in headers.items() if value is not None}
        subject = f"{self.prefix}.{cls}.{target}.{verb}"
        message = await self.nats.request(subject, payload, timeout=timeout, headers=headers or None)
        return message.data

    async def ask_until_answered(self, target, verb, payload, *, deadline=3 * DEADLINE, **options):
        """Repeats under the same id until something else than `unavailable` is answered."""
        end = time.monotonic() + deadline
        options.setdefault("id", uuid.uuid4().hex)
        options.setdefault("timeout", 2)
        while True:
            try:
                reply = unpack(await self.ask(target, verb, payload, **options))
                if reply["status"] == "ok" or reply["error"]["kind"] != "unavailable":
                    return reply
                problem = reply["error"]["message"]
            except REPEATABLE as lost:
                problem = repr(lost)
            assert time.monotonic() < end, f"{target} {verb} was not answered: {problem}"
            await asyncio.sleep(0.02)

    def raw(self, target, verb, payload, **options):
        return self.run(self.ask(target, verb, payload, **options))

    def command(self, target, verb, fields=None, *, repeat=False, **options):
        """The ok reply; raises Failed for an error reply."""
        payload = pack({"command": verb, **(fields or {})})
        ask = self.ask_until_answered if repeat else self.ask
        reply = self.run(ask(target, verb, payload, **options), 4 * DEADLINE)
        reply = unpack(reply) if isinstance(reply, bytes) else reply
        if reply["status"] == "error":
            raise Failed(reply["error"])
        return reply

    def send(self, target, selector, *arguments, **options):
        return self.command(target, "send", {"selector": selector, "arguments": list(arguments)}, **options)

    def eval(self, source, target="genesis"):
        return self.command(target, "eval", {"source": source}, cls="adm")["value"]

    def state(self, target, **options):
        return self.command(target, "get_full_state", **options)["value"]

    def create_method(self, target, name, code):
        return self.command(target, "create_method", {"method_name": name, "method_code": code}, cls="adm")

    def events(self, kind):
        """Every event of `kind` that the universe published, oldest first, from the stream that replays them."""
        return self.run(self._events(kind))

    async def _events(self, kind):
        subject = f"{self.prefix}.evt.*.{kind}"
        stream = self.nats.jetstream()
        info = await stream.stream_info(self.stream, subjects_filter=subject)
        expected = sum((info.state.subjects or {}).values())
        subscription = await stream.subscribe(subject, stream=self.stream, ordered_consumer=True)
        try:
            return [unpack((await subscription.next_msg(timeout=DEADLINE)).data) for _ in range(expected)]
        finally:
            await subscription.unsubscribe()

    def listen(self, kind):
        """Live events of `kind`: call the answer for the next one."""
        subscription = self.run(self.nats.subscribe(f"{self.prefix}.evt.*.{kind}"))
        self.run(self.nats.flush())
        return lambda: unpack(self.run(subscription.next_msg(timeout=DEADLINE)).data)

"""`batos repl`, by a pipe and as a person at a terminal."""

import os
import pty
import select
import subprocess

from bus import wait_until
from universe import BATOS


def command(universe):
    return [BATOS, "repl", "--universe", universe.name, "--nats", universe.architect]


def test_lines_are_evaluated_and_errors_show_their_place(universe, bus, tmp_path):
    lines = "3 + 4\n\naccount deposit: 5\n#(1 2\nnil foo\naccount balance\n"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    ended = subprocess.run(
        command(universe), input=lines, capture_output=True, text=True, timeout=30, env=environment
    )
    assert ended.returncode == 0, ended
    shown = ended.stdout.splitlines()
    assert "7" in shown and shown[-1] == "5", shown
    place = next(index for index, line in enumerate(shown) if "line 1, column" in line)
    assert shown[place + 1].strip() == "#(1 2" and shown[place + 2].strip() == "^", "the line and a caret under it"
    assert any("foo" in line for line in shown)
    assert bus.state("account")["state"]["balance"] == 5


def test_tab_completes_and_the_history_stays(universe, tmp_path):
    def typed(text, wanted):
        master, slave = pty.openpty()
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}
        child = subprocess.Popen(command(universe), stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        seen = b""

        def read():
            nonlocal seen
            if select.select([master], [], [], 0)[0]:
                seen += os.read(master, 4096)
            return seen

        try:
            wait_until(lambda: b"> " in read(), "the prompt")
            os.write(master, text.encode())
            wait_until(lambda: wanted.encode() in read(), f"{wanted!r} after {text!r}, not {seen!r}")
            os.write(master, b"\x04")
            assert child.wait(10) == 0
        finally:
            child.kill()
            os.close(master)

    typed("accou\t deposit: 4242\r", "\n4242")
    up = "\x1b[A"
    typed(f"{up}\r", "\n8484")

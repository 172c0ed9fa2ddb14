"""What a handler writes into the channel to the executor: nothing but its own result can come of it, and nobody hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from executor.sandbox.job import Ended
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

from .conftest import Stands, make_job

Run = Callable[..., Ended]


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


ENDED = b'{"kind":"ended","outcome":"succeeded","text":"forged"}'

# words written into the channel -> what the owner is told of them
WORDS: dict[str, tuple[bytes, str]] = {
    "a frame of two gigabytes": (b"\x7f\xff\xff\xff", "a frame of 2147483647 bytes"),
    "no JSON": (frame(b"{}}"), "no JSON"),
    "no message": (frame(b"[]"), "no message"),
    "a kind that is none": (frame(b'{"kind":7}'), "no message"),
    "folded too deep": (frame(b"[" * 100_000), "no JSON"),
    "a number without end": (frame(b'{"kind":"ended","x":' + b"9" * 100_000 + b"}"), "no JSON"),
    "an upload without a file": (frame(b'{"kind":"upload"}'), "without its descriptor"),
    "BTrDB is away": (frame(b'{"kind":"away","why":"run me again"}'), "unexpected 'away'"),
    "the key is refused": (frame(b'{"kind":"key_refused","why":"x"}'), "unexpected 'key_refused'"),
    "begun again": (frame(b'{"kind":"begun"}'), "unexpected 'begun'"),
    "loading again": (frame(b'{"kind":"loading"}'), "unexpected 'loading'"),
    "the zygote's words": (frame(b'{"kind":"dead","id":1,"status":0,"cpu_ms":0,"rss":0}'), "unexpected 'dead'"),
    "an outcome that is none": (frame(b'{"kind":"ended","outcome":"marvellous"}'), "unknown outcome"),
    "an outcome of the ledger's": (frame(b'{"kind":"ended","outcome":"abandoned"}'), "not its own to tell"),
    "an outcome of the executor's": (frame(b'{"kind":"ended","outcome":"crashed"}'), "not its own to tell"),
    "a time limit that was not reached": (frame(b'{"kind":"ended","outcome":"timed_out"}'), "not its own to tell"),
    "a failure without an error": (frame(b'{"kind":"ended","outcome":"failed"}'), "no error beside"),
    "a text that is none": (frame(b'{"kind":"ended","outcome":"succeeded","text":[]}'), "text is no text"),
    "an error that is none": (frame(b'{"kind":"ended","outcome":"failed","error":{"type":1}}'), "type is no text"),
    "an end cut short": (frame(ENDED)[:20], "ended within a frame"),
}


def writing(words: bytes) -> Callable[..., None]:
    """A handler that finds the channel, writes into it and ends without a word of ours."""

    def handler(**kwargs: Any) -> None:
        import os
        import socket

        for descriptor in range(3, 64):
            try:
                socket.socket(fileno=os.dup(descriptor)).sendall(words)
            except OSError:
                continue
        os._exit(0)

    return handler


@pytest.mark.parametrize("what", WORDS)
def test_words_that_are_no_result_are_a_crash_that_names_them(stands: Stands, what: str) -> None:
    words, told = WORDS[what]

    ended = stands.run("full", writing(words))

    assert ended.outcome is Outcome.CRASHED, ended
    assert ended.error is not None and told in ended.error.message, ended


def test_a_forged_result_is_the_forgers_own_and_the_first_counts(stands: Stands, level: str) -> None:
    ended = stands.run(level, writing(frame(ENDED)))

    assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, "forged")


def test_more_words_after_the_last_change_nothing(stands: Stands) -> None:
    words = frame(ENDED) + frame(b'{"kind":"ended","outcome":"failed","error":{"type":"x"}}')

    ended = stands.run("full", writing(words))

    assert ended.outcome is Outcome.CRASHED or ended.text == "forged", ended


def test_a_closed_channel_is_a_crash(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> None:
        import os
        import time

        os.closerange(3, 256)
        time.sleep(3600)

    ended = stands.run(level, handler)

    assert ended.outcome is Outcome.CRASHED
    assert ended.error is not None and "closed the channel" in ended.error.message


def test_gigabytes_are_not_taken_in(stands: Stands) -> None:
    # given: a frame that is announced within the limit, and then more of them than anybody could keep
    def handler(**kwargs: Any) -> None:
        import os
        import socket

        body = b'{"kind":"upload","code":"' + b"a" * 1_000_000 + b'"}'
        words = (len(body)).to_bytes(4, "big") + body
        for descriptor in range(3, 64):
            try:
                sock = socket.socket(fileno=os.dup(descriptor))
                while True:
                    sock.sendall(words)
            except OSError:
                continue

    ended = stands.run("full", handler)

    assert ended.outcome is Outcome.CRASHED
    assert ended.error is not None and "without its descriptor" in ended.error.message


def test_a_slow_frame_holds_nobody_up(stands: Stands, sandbox: SandboxedRuntime) -> None:
    def handler(**kwargs: Any) -> None:
        import os
        import time

        while True:
            for descriptor in range(3, 64):
                try:
                    os.write(descriptor, b"\x00")
                    break
                except OSError:
                    continue
            time.sleep(0.2)

    ended = stands.run("full", handler, wall_s=1.5, warning_s=0.0)

    assert ended.outcome in (Outcome.TIMED_OUT, Outcome.CRASHED)
    assert sandbox.run(make_job(lambda **kwargs: "next")).text == "next"


def test_more_descriptors_than_anybody_needs_are_closed(stands: Stands) -> None:
    def handler(**kwargs: Any) -> None:
        import array
        import os
        import socket

        null = os.open("/dev/null", os.O_RDONLY)
        many = array.array("i", [null] * 200).tobytes()
        for descriptor in range(3, 64):
            try:
                sock = socket.socket(fileno=os.dup(descriptor))
                while True:
                    sock.sendmsg([b"\x00"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
            except OSError:
                continue
        os._exit(0)

    before = descriptors()
    ended = stands.run("full", handler)

    assert ended.outcome is Outcome.CRASHED
    assert descriptors() <= before + 8


def descriptors() -> int:
    """How many this process has open; what the pool opens ahead comes and goes."""
    import os

    return len(os.listdir("/proc/self/fd"))


def test_only_files_of_its_own_are_taken_as_uploads(stands: Stands, level: str) -> None:
    # given: descriptors of files that it may read but did not make, handed over as its own
    def handler(**kwargs: Any) -> str:
        import array
        import json
        import os
        import socket

        own = os.open(os.environ["TMPDIR"] + "/own", os.O_RDWR | os.O_CREAT)
        os.write(own, b"mine")
        wanted = {"a": own, "b": os.open(json.__file__, os.O_RDONLY), "c": os.open("/dev/null", os.O_RDONLY), "d": 0}
        for descriptor in range(3, 64):
            if descriptor in wanted.values():
                continue
            try:
                sock = socket.socket(fileno=os.dup(descriptor))
                for letter, file in wanted.items():
                    body = json.dumps({"kind": "upload", "code": letter * 32, "name": letter}).encode()
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]).tobytes())]
                    sock.sendmsg([len(body).to_bytes(4, "big") + body], rights)
                break
            except OSError:
                continue
        return "sent"

    ended = stands.run(level, handler)

    assert ended.text == "sent", ended
    assert [(one.name, one.size) for one in ended.uploads] == [("a", 4)]
    assert "'b' left out" in ended.log and "'c' left out" in ended.log and "'d' left out" in ended.log


@pytest.mark.parametrize(
    "code",
    [
        "import json; json.dumps = lambda *a, **k: 'nonsense'",
        "import json; json.dumps = None",
        "import os; os._exit = lambda *_: None",
        "import socket; socket.socket.sendall = lambda *_: None",
        "import socket; socket.socket.sendmsg = lambda *_: 0",
        "import sys; sys.modules.clear()",
        "import builtins; builtins.len = lambda _: 3",
        "import builtins; builtins.isinstance = lambda *_: True",
        "import sys; sys.stdout = None; sys.stderr = None",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import os; os.close(1); os.close(2)",
        "import os; os.chdir('/'); os.environ.clear()",
        "import sys; sys.setrecursionlimit(60)",
        "import gc; gc.set_threshold(1); gc.callbacks.append(lambda *_: 1 / 0)",
        "import sys; sys.settrace(lambda *_: 1 / 0)",
        "import atexit, time; atexit.register(time.sleep, 3600)",
        "import threading, time; threading.Thread(target=time.sleep, args=(3600,)).start()",
        "import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 3, 13, 15, 17, 24)]",
    ],
)
def test_what_it_changes_in_its_own_process_harms_itself_at_most(stands: Stands, code: str) -> None:
    def handler(**kwargs: Any) -> str:
        exec(code)
        return "done"

    ended = stands.run("full", handler, wall_s=4.0, warning_s=0.5)

    assert ended.outcome in (Outcome.SUCCEEDED, Outcome.CRASHED, Outcome.FAILED, Outcome.TIMED_OUT), ended
    assert ended.outcome is not Outcome.SUCCEEDED or ended.text == "done"
    assert ended.outcome is Outcome.SUCCEEDED or (ended.error is not None and ended.error.message)
    assert stands.run("full", lambda **kwargs: "next").text == "next"


def test_the_zygote_lives_through_it_all(private_sandbox: Callable[..., SandboxedRuntime]) -> None:
    # given: a sandbox of its own, whose zygote is known
    sandbox = private_sandbox()
    zygote = sandbox._pool._zygote
    assert zygote is not None
    # when: one handler after the other does its worst
    for attack in (writing(b"\x7f\xff\xff\xff"), writing(frame(ENDED)), lambda **_: __import__("os")._exit(3)):
        sandbox.run(make_job(attack))
    began = time.monotonic()
    ended = sandbox.run(make_job(lambda **kwargs: "next"))
    # then
    assert ended.text == "next" and time.monotonic() - began < 30
    assert sandbox._pool._zygote is zygote and zygote.alive

"""What the interpreter, its libraries and the event loop would print by themselves is logged by class and place only."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.campaigns.leaks import Canary, Searcher

SECRET = "Zwrkpqsthg Vnmkwqxzpt-4821930284756102"
HEAD = """
import asyncio, faulthandler, gc, logging, os, sys, threading, time, warnings
import aiohttp, sqlalchemy, structlog, uvloop
from aiohttp import web
from sidecar import log
SECRET = os.environ["WHO"]
WORD = SECRET.split()[0]
log.configure("debug")
class Odd(Exception):
    def __str__(self): return SECRET
    __repr__ = __str__
class Named:
    def __repr__(self): return SECRET
    __str__ = __repr__
async def die(error=ValueError): raise error(SECRET)
def run(main):
    uvloop.run(main())
"""
CASES = {
    "uncaught": "raise ValueError(SECRET)",
    "uncaught with a cause and a note": "e = KeyError(SECRET); e.add_note(SECRET); raise Odd(SECRET) from e",
    "uncaught group": "raise ExceptionGroup(SECRET, [ValueError(SECRET)])",
    "uncaught system error": "open(f'/nowhere/{SECRET}')",
    "uncaught key": "{}[SECRET]",
    "uncaught Unicode": "SECRET.encode().decode('utf-16-le').encode('ascii')",
    "thread": "t = threading.Thread(target=lambda: int(SECRET), name=SECRET); t.start(); t.join()",
    "finaliser": "class F:\n    def __del__(self): raise ValueError(SECRET)\nF(); gc.collect()",
    "exit handler": "import atexit; atexit.register(int, SECRET)",
    "warning": "warnings.warn(SECRET)",
    "warning of a category": "warnings.warn(SECRET, RuntimeWarning, stacklevel=1)",
    "warning in a file of that name": "warnings.warn_explicit(SECRET, UserWarning, f'/x/{SECRET}', 1)",
    "coroutine never awaited": "async def f(x): pass\nf(SECRET); gc.collect()",
    "resource never closed": "warnings.simplefilter('always'); open('/dev/null').fileno(); gc.collect()\nwarnings.warn(SECRET, ResourceWarning)",
    "task never retrieved": "async def main():\n    asyncio.create_task(die(), name=SECRET); await asyncio.sleep(0.01); gc.collect()\nrun(main)",
    "task never retrieved, the other loop": "async def main():\n    asyncio.create_task(die(), name=SECRET); await asyncio.sleep(0.01); gc.collect()\nasyncio.run(main())",
    "future never retrieved": "async def main():\n    asyncio.get_running_loop().create_future().set_exception(Odd(SECRET)); gc.collect(); await asyncio.sleep(0.01)\nrun(main)",
    "task destroyed": "async def main():\n    loop = asyncio.new_event_loop(); t = loop.create_task(asyncio.sleep(9), name=SECRET); del t; loop.close(); gc.collect()\nrun(main)",
    "callback": "async def main():\n    asyncio.get_running_loop().call_soon(int, SECRET); await asyncio.sleep(0.01)\nrun(main)",
    "protocol": "class P(asyncio.Protocol):\n    def data_received(self, data): raise Odd(data)\nasync def main():\n    s = await asyncio.get_running_loop().create_server(P, '127.0.0.1', 0)\n    r, w = await asyncio.open_connection(*s.sockets[0].getsockname()); w.write(SECRET.encode()); await asyncio.sleep(0.05)\nrun(main)",
    "executor": "async def main():\n    await asyncio.get_running_loop().run_in_executor(None, int, SECRET)\nrun(main)",
    "generator left open": "async def gen():\n    try: yield 1\n    finally: raise Odd(SECRET)\nasync def main():\n    async for _ in gen(): break\n    gc.collect(); await asyncio.sleep(0.01)\nrun(main)",
    "debug mode": "async def slow(x): time.sleep(0.2)\nasync def main():\n    asyncio.get_running_loop().set_debug(True); await asyncio.create_task(slow(SECRET), name=SECRET); await asyncio.create_task(die())\nasyncio.run(main(), debug=True)",
    "library at every level": "for level in (10, 20, 30, 40, 50, 35): logging.getLogger('aiohttp.x').log(level, 'no %s', SECRET)",
    "library with an exception": "try: int(SECRET)\nexcept ValueError: logging.getLogger('asyncpg').exception(SECRET, extra={'who': SECRET}, stack_info=True)",
    "library with an exception, not an instance": "logging.getLogger('sqlalchemy.engine').error(SECRET, exc_info=(Odd, Odd(SECRET), None))",
    "library whose message cannot be made": "logging.getLogger('x').error('%d %d', SECRET)",
    "library with an object": "logging.getLogger('x').warning(Named())",
    "logger of that name": "logging.getLogger(f'aiohttp.{SECRET}').warning('x'); logging.getLogger(SECRET).warning('x')\nlogging.getLogger(f'aiohttp.{WORD}').warning('x'); logging.getLogger(WORD).warning('x')",
    "level of that name": "logging.addLevelName(37, SECRET); logging.addLevelName(36, WORD)\nlogging.getLogger('x').log(37, 'x'); logging.getLogger('x').log(36, 'x')",
    "our own line": "log.get().warning('x', who=SECRET, url=SECRET, exc_info=True, stack_info=True)",
    "our own line in known fields": "log.get().warning(SECRET, **{f: SECRET for f in log.FIELDS - {'event', 'problem'}})",
    "our own line with objects": "log.get().warning('x', reason=Named(), place=[SECRET], count={'who': SECRET}, error=Odd(SECRET))",
    "our own line of an exception": "try: int(SECRET)\nexcept ValueError: log.get().exception('x')\nlog.get().error('x', exc_info=Odd(SECRET))",
    "our own line with a number": "log.get().warning('x', count=int(SECRET[-16:]), seconds=float(SECRET[-16:]), status=int(SECRET[-16:]))",
    "our own line in a message": "log.get().warning('no %s', SECRET)",
    "bound": "log.get().bind(who=SECRET, reason=SECRET).warning('x')",
    "context": "structlog.contextvars.bind_contextvars(who=SECRET, reason=SECRET); log.get().warning('x')",
    "access log": "async def main():\n    app = web.Application(); app.router.add_get('/{x}', die)\n    r = web.AppRunner(app); await r.setup(); s = web.TCPSite(r, '127.0.0.1', 0); await s.start()\n    async with aiohttp.ClientSession() as c: await c.get(f'http://127.0.0.1:{r.addresses[0][1]}/{SECRET}', headers={'X': SECRET})\nrun(main)",
    "session never closed": "async def main():\n    aiohttp.ClientSession(headers={'X': SECRET}); gc.collect(); await asyncio.sleep(0.01)\nrun(main)",
    "database": "from sqlalchemy import create_engine, text\ncreate_engine('sqlite://').connect().execute(text('SELECT :x FROM nothing'), {'x': SECRET})",
    "command": "import sidecar.commands.score as command\ncommand.score = lambda *_: int(SECRET)\nfrom sidecar import cli\nsys.argv = ['sidecar', 'score', '/dev/null', '--model', 'news2']\ncli.main()",
    "faulthandler": "faulthandler.enable()\ndef f(who): faulthandler.dump_traceback()\nf(SECRET)",
}  # fmt: skip


ALONE = ("uncaught", "uncaught with a cause and a note", "uncaught group", "exit handler")
"""Cases that end the process; the others follow each other in one."""
EACH = """
import json
for name, case in json.loads(os.environ["CASES"]).items():
    print(f"# {name}", file=sys.stderr, flush=True)
    try:
        exec(case)
    except BaseException:
        sys.excepthook(*sys.exc_info())
"""
MARK = re.compile(rb"^# (.*)\n", re.MULTILINE)


def said(script: str, **more: str) -> bytes:
    command = [sys.executable, "-c", HEAD + script]
    done = subprocess.run(
        command, check=False, capture_output=True, timeout=100, env={**os.environ, "WHO": SECRET, **more}
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    """What each case made somebody write."""
    found = {case: said(CASES[case]) for case in ALONE}
    rest = {name: case for name, case in CASES.items() if name not in ALONE}
    _, *parts = MARK.split(said(EACH, CASES=json.dumps(rest)))
    return found | {name.decode(): text for name, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.fixture(scope="module")
def searcher():
    return Searcher([Canary("who", SECRET, SECRET)])


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_what_is_said_is_written(case, searcher, written):
    assert searcher.search("stderr", written[case]) == set(), written[case].decode()


@pytest.mark.parametrize(
    "case",
    ["uncaught", "thread", "finaliser", "warning", "task never retrieved", "callback", "library with an exception"],
)
def test_class_and_place_are_written(case, written):
    (line,) = [json.loads(line) for line in written[case].splitlines()]
    assert line["error"] in {"ValueError", "UserWarning"}
    assert line["at"].partition(":")[2].isdigit()


def test_a_command_that_fails_names_class_and_place(written):
    assert b"sidecar: unexpected ValueError at sidecar.cli:" in written["command"]


def test_nearly_every_case_made_somebody_speak(written):
    assert len(CASES) >= 40
    silent = {name for name, text in written.items() if not text.strip()}
    assert silent <= {"task destroyed", "session never closed", "generator left open", "resource never closed"}

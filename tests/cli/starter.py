"""A process that has imported what commands need, and forks for each that it is sent: a new process without 0.3 s of imports.

Run by conftest.py with the descriptor of a socket: a request is a line of JSON (arguments, environment, folder) with three
descriptors, the answer the status of the process as the system has it.
"""

import importlib
import json
import os
import socket
import sys
from contextlib import suppress

COMMANDS = (
    "app",
    "bench",
    "config",
    "config_machine",
    "config_migrate",
    "config_recommend",
    "doctor",
    "get",
    "stats_view",
)
# What these import when it is first needed.
LATE = ("daramjwee.origins.http", "daramjwee.observe.client", "daramjwee.buffers.insight.monitor", "crc32c", "hashlib",
        "typer._adapters", "typer.rich_utils", "rich.markdown", "rich.progress", "rich.live", "rich.traceback")  # fmt: skip
for module in (*(f"daramjwee.cli.{name}" for name in COMMANDS), *LATE):
    with suppress(ImportError):  # of another release of a library: whoever needs it says so
        importlib.import_module(module)


def become(request: dict[str, object], descriptors: list[int]) -> None:
    """What an interpreter has at its start."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["daramjwee", *request["arguments"]]
    for name, number, mode, errors in (
        ("stdin", 0, "r", "strict"),
        ("stdout", 1, "w", "strict"),
        ("stderr", 2, "w", "backslashreplace"),
    ):
        old = getattr(sys, name)
        made = open(  # noqa: SIM115 - it stays open, as these do
            number, mode, encoding=old.encoding, errors=errors, closefd=False, buffering=-1 if number < 2 else 1
        )
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def serve(end: socket.socket) -> bool:
    """Fork for each request. True in the child, which goes on as the command; False at the end."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(end, 1 << 20, 3)
        if not message:
            return False
        pid = os.fork()
        if not pid:
            end.close()
            become(json.loads(message), descriptors)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        end.sendall(f"{pid}\n".encode())
        end.sendall(f"{os.waitpid(pid, 0)[1]}\n".encode())


if serve(socket.socket(fileno=int(sys.argv[1]))):
    from daramjwee.cli.main import run

    run()

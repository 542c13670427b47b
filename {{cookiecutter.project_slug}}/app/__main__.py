"""`python -m app` serves; commands such as `python -m app export USER` look after data."""

import signal
import sys

if __name__ == "__main__":  # before the other imports, which take seconds
    for ended in (signal.SIGINT, signal.SIGTERM):
        # so that `finally` and `atexit` run; a command that is cut off says so
        signal.signal(ended, lambda *_: sys.exit("stopped before the end" if sys.argv[1:] else 0))
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # no nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))

import argparse
import asyncio
import gc
import logging
import os
import socket
from difflib import get_close_matches
from multiprocessing import parent_process
from tempfile import TemporaryFile
from threading import Thread
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import DotEnvSettingsSource
from uvicorn import supervisors

from .blobs import open_blobs
from .logs import set_up_logging, set_up_tracing
from .settings import Settings
from .store import StoreError, open_store

STALLED_SECONDS = 300  # how long a client may read nothing at all


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status; errors that the caller can fix end it with 2."""
    # jinja: if cookiecutter.storage_type == "memory"
    text = "Serves the app. No command reaches conversations in memory: delete them on the page."
    argparse.ArgumentParser("python -m app", description=text).parse_args(arguments)
    # jinja: else
    options = parse(arguments)
    # jinja: endif
    # jinja: if cookiecutter.storage_type == "sqlite"
    os.umask(0o077)  # keeps what is said from the machine's other users
    # jinja: endif
    try:
        settings = Settings()
    except ValidationError as error:
        _refuse(*map(_fault, error.errors(include_url=False)))
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f".env must be UTF-8 and readable by this user: {error}")
    set_up_logging(settings.log_level)
    _warn_of_misspelt()
    try:
        settings.signing_key()  # made here, or each worker would make its own
        if not settings.store_url or (settings.max_attachments and not settings.files_url):
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=settings.data_dir).close()  # otherwise the first upload would fail
    except OSError as error:
        _refuse(f"DATA_DIR={settings.data_dir}: {error}")
    if not settings.store_url:
        # jinja: if cookiecutter.storage_type in ["redis", "postgres"]
        import dev  # noqa: PLC0415 - not part of a production image

        engine = dev.Server(settings.data_dir / "{{ cookiecutter.storage_type }}")
        try:
            engine.start()
        except RuntimeError as error:  # one line: no wheel, or the folder is in use
            _refuse(str(error))
        os.environ["STORE_URL"] = engine.url
        # jinja: elif cookiecutter.storage_type == "sqlite"
        os.environ["STORE_URL"] = f"sqlite:///{settings.data_dir / 'chat.db'}"
        # jinja: else
        os.environ["STORE_URL"] = "memory://"
        # jinja: endif
        settings = Settings()  # workers read the environment, too
    try:
        # jinja: if cookiecutter.storage_type != "memory"
        if options.command:
            from . import data  # noqa: PLC0415 - the SDK takes seconds to import

            return data.main(options, settings)
        # jinja: endif
        return serve(settings)
    except StoreError as error:
        _refuse(str(error))


# jinja: if cookiecutter.storage_type != "memory"
def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command and its arguments; wrong ones end the program."""
    parser = argparse.ArgumentParser("python -m app", description="Without a command it serves.")
    commands = parser.add_subparsers(dest="command")
    export = commands.add_parser("export", help="write a user's data to standard output")
    who = export.add_mutually_exclusive_group(required=True)
    who.add_argument("user", nargs="?")
    who.add_argument("--all", action="store_true", help="every user's")
    load = commands.add_parser("import", help="read an export back")
    load.add_argument("file", help="the export; -: standard input")
    commands.add_parser("forget", help="delete everything a user has").add_argument("user")
    purge = commands.add_parser("purge", help="delete threads that have long been silent")
    purge.add_argument("--older-than", type=days, required=True, metavar="90d")
    commands.add_parser("sweep", help="remove uploads never sent, and bytes without a record")
    return parser.parse_args(arguments)


def days(text: str) -> float:
    """Return a number of days, such as `90d`, in seconds."""
    if not text.removesuffix("d").isdecimal():
        raise ValueError
    return float(text.removesuffix("d")) * 86_400


# jinja: endif
def serve(settings: Settings) -> int:
    """Serve until a signal comes; first raise StoreError if the store cannot be used."""

    async def open_once() -> None:
        """Refuse a wrong URL in one line, and upgrade the schema, before workers start."""
        async with open_store(settings):
            open_blobs(settings.files_url, settings.data_dir / "files")

    asyncio.run(open_once())
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    v6: Any = {"family": socket.AF_INET6, "dualstack_ipv6": True} if ":" in host else {}
    try:
        # connections wait here until the app is ready
        listener = socket.create_server((settings.host, settings.port), backlog=2048, **v6)
    except OSError as error:
        _refuse(f"{error.strerror}: set another HOST or PORT")
    # asyncio turns Nagle's algorithm off (40 ms an answer) only where a socket names its protocol
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":  # clients that stop reading hold memory and open files
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SECONDS * 1000)
    port = listener.getsockname()[1]
    os.environ["PORT"] = str(port)  # for the workers, too: file addresses contain the port
    print(f"http://{host}:{port}", flush=True)
    config = uvicorn.Config(
        "app.__main__:app",
        factory=True,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
        reload=settings.reload,
        reload_dirs=["app"] if settings.reload else None,
    )
    if settings.reload:  # requests wait in the listener meanwhile
        supervisors.ChangeReload(config, uvicorn.Server(config).run, [listener]).run()
        return 0
    # jinja: if cookiecutter.storage_type != "memory"
    if settings.workers > 1:
        # SIGHUP ends the app rather than restarting it
        supervisors.multiprocess.SIGNALS.pop(getattr(signal, "SIGHUP", 0), None)
        workers = _Workers(config, sockets=[listener])
        workers.run()
        ends = [each.exitcode for each in workers.processes]
        return int(uvicorn.config.STARTUP_FAILURE in ends)
    # jinja: endif
    uvicorn.Server(config).run(sockets=[listener])
    return 0


# jinja: if cookiecutter.storage_type != "memory"
class _Workers(supervisors.Multiprocess):
    """uvicorn's supervisor, which would keep new connections waiting until the last answer ends."""

    def terminate_all(self) -> None:
        self.sockets[0].close()
        super().terminate_all()


# jinja: endif
def app() -> FastAPI:
    """Return the app that a worker serves."""
    if supervisor := parent_process():
        Thread(target=_follow, args=[supervisor], daemon=True).start()
        if sys.platform != "win32":  # a closed terminal ends the supervisor, which ends the workers
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.disable()  # while the SDK is imported: that takes a sixth less time
    from .main import create_app  # noqa: PLC0415

    settings = Settings()
    set_up_logging(settings.log_level)
    chat = set_up_tracing(create_app(settings))
    gc.freeze()  # the SDK's 200,000 objects: each full collection would stop every answer for 0.1 s
    gc.enable()
    return chat


def _follow(supervisor: Any) -> None:
    """End when the supervisor does: one that was killed cannot end its workers."""
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _fault(fault: ErrorDetails) -> str:
    """Return a setting's name and what is wrong with its value; a secret's value is not shown."""
    text = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return text
    return f"{str(fault['loc'][0]).upper()}={fault['input']!s:.100}: {text}"


def _warn_of_misspelt() -> None:
    """Warn of names in `.env` that nearly match a setting: it would silently keep its default."""
    known = Settings.model_fields
    for name in DotEnvSettingsSource(Settings).env_vars.keys() - known.keys():
        for meant in get_close_matches(name, known, 1, 0.8):
            text = ".env: %s is not a setting; did you mean %s?"
            logging.getLogger("app").warning(text, name.upper(), meant.upper())


def _refuse(*lines: str) -> NoReturn:
    """Say what is wrong, one line each, and end the program."""
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

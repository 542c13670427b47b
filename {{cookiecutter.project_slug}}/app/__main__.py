"""`python -m app` serves; `python -m app export USER` and its like look after data."""

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from difflib import get_close_matches

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import DotEnvSettingsSource
from uvicorn.supervisors import Multiprocess

from .logs import set_up_logging, set_up_tracing
from .settings import Settings

DATA_COMMANDS = ("export", "forget", "import", "purge", "sweep")


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status: 2 for what the caller can mend."""
    parser = argparse.ArgumentParser("python -m app", description="Without a command it serves.")
    parser.add_argument("command", nargs="?", choices=DATA_COMMANDS, help="look after users' data")
    parser.parse_args(arguments[:1])
    # jinja: if cookiecutter.storage_type == "memory"
    if arguments:
        text = "a running app keeps its conversations to itself: delete on the page, or restart it"
        return _complain(f"{arguments[0]}: {text}")
    # jinja: endif
    # jinja: if cookiecutter.storage_type == "sqlite"
    os.umask(0o077)  # what is said is not for the machine's other users
    # jinja: endif
    settings = _settings()
    set_up_logging(settings.log_level)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that `finally` and `atexit` run
    if not settings.store_url:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            sys.exit(_complain(f"DATA_DIR={settings.data_dir}: {error.strerror}"))
        # jinja: if cookiecutter.storage_type in ["redis", "postgres"]
        import dev  # noqa: PLC0415 - it is no part of a production image

        engine = dev.Server(settings.data_dir / "{{ cookiecutter.storage_type }}")
        try:
            engine.start()
        except RuntimeError as error:  # one line: no wheel, or the folder is in use
            sys.exit(_complain(str(error)))
        os.environ["STORE_URL"] = engine.url
        # jinja: elif cookiecutter.storage_type == "sqlite"
        os.environ["STORE_URL"] = f"sqlite:///{settings.data_dir / 'chat.db'}"
        # jinja: else
        os.environ["STORE_URL"] = "memory://"
        # jinja: endif
        settings = Settings()  # workers read the environment, too
    from .blobs import FilesError  # noqa: PLC0415 - the SDK takes seconds to import
    from .store import StoreError  # noqa: PLC0415

    try:
        # jinja: if cookiecutter.storage_type != "memory"
        if arguments:
            from . import data  # noqa: PLC0415

            return data.main(arguments, settings)
        # jinja: endif
        return serve(settings)
    except (StoreError, FilesError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 0


def _settings() -> Settings:
    """Read the settings; what is wrong with them ends the program, a line each."""
    try:
        _warn_of_misspelt()
        return Settings()
    except ValidationError as error:
        sys.exit(_complain(*(_fault(fault) for fault in error.errors(include_url=False))))
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(_complain(f".env must be UTF-8 that this user may read: {error}"))


def serve(settings: Settings) -> int:
    """Listen until a signal comes; a store that cannot be used ends it before that."""
    from .attachments import Files  # noqa: PLC0415
    from .store import open_store  # noqa: PLC0415

    async def open_once() -> None:
        """Refuse a wrong URL in one line, and upgrade the schema, before workers start."""
        async with open_store(settings) as store:
            Files(settings, store)

    asyncio.run(open_once())
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off (40 ms an answer) only where the protocol is named
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)  # connections wait here until the app is ready
    except OSError as error:
        listener.close()
        where = f"{host}:{settings.port} ({error.strerror})"
        return _complain(f"cannot listen on {where}: set another HOST or PORT")
    port = listener.getsockname()[1]
    os.environ["PORT"] = str(port)  # for workers, too: a file's address holds the port
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
    )
    if settings.workers > 1:
        _Workers(config, sockets=[listener]).run()
    else:
        uvicorn.Server(config).run(sockets=[listener])
    return 0


class _Workers(Multiprocess):
    """uvicorn's supervisor, which would keep newcomers waiting until the last answer has ended."""

    def terminate_all(self) -> None:
        self.sockets[0].close()
        super().terminate_all()


def app() -> FastAPI:
    """Return the app that a worker serves."""
    from .main import create_app  # noqa: PLC0415

    settings = Settings()
    set_up_logging(settings.log_level)
    chat = set_up_tracing(create_app(settings))
    gc.collect()
    gc.freeze()  # the SDK's 200,000 objects: each full collection would stop every answer for 0.1 s
    return chat


def _warn_of_misspelt() -> None:
    """Name what in `.env` looks like a setting and is none; the rest is for other programs."""
    known = {*Settings.model_fields, "database_url", "redis_url"}
    for name in sorted({*DotEnvSettingsSource(Settings).env_vars} - known):
        for meant in get_close_matches(name, known, 1, 0.75):
            _complain(f".env: {name.upper()} is no setting; {meant.upper()} is one")


def _fault(fault: ErrorDetails) -> str:
    """Return a setting's name and what is wrong with its value; a secret's value is not shown."""
    text = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return text
    return f"{str(fault['loc'][0]).upper()}={fault['input']!s:.100}: {text}"


def _complain(*lines: str) -> int:
    """Say what is wrong, a line each; return the exit status for it."""
    print(*lines, sep="\n", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

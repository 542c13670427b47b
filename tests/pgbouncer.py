"""PgBouncer in transaction mode before a PostgreSQL; `pgbouncer.py COMMAND…` runs a command on it.

Run with the Python of a baked app, which has the driver and the server's wheel, in its folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_connection, create_server
from urllib.parse import urlsplit

sys.path.insert(0, "")
import dev

SETTINGS = """
[databases]
{database} = host={server.hostname} port={server.port} user={server.username} \
password={server.password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
logfile = {folder}/log
"""


@contextmanager
def bouncer() -> Iterator[str]:
    """Yield the URL of a pool whose every transaction may be on another connection."""
    with dev.engine() as url, tempfile.TemporaryDirectory() as name:
        server, folder = urlsplit(url), Path(name)
        database = server.path.removeprefix("/") or "postgres"
        with create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        text = SETTINGS.format(server=server, port=port, folder=folder, database=database)
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            text += "user = nobody\n"
            shutil.chown(folder, "nobody")
        (folder / "pgbouncer.ini").write_text(text)
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program
        process = subprocess.Popen([program, "--quiet", folder / "pgbouncer.ini"])
        try:
            end = time.monotonic() + 10
            while process.poll() is None and time.monotonic() < end:
                with suppress(OSError):
                    create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.05)
            assert process.poll() is None, "PgBouncer ended"
            yield f"postgresql://{server.username}@127.0.0.1:{port}/{database}"
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    with bouncer() as address:
        environment = {**os.environ, "TEST_STORE_URL": address}
        done = subprocess.run(sys.argv[1:], env=environment, check=False)
    sys.exit(done.returncode)

"""Files in S3, GCS and Azure: the three clients against emulators, over real HTTP.

moto stands in for S3, and for GCS, whose XML API is S3's; Azurite is Azure's own emulator. moto
accepts any signature: all it proves about credentials is that the clients find and send some.
"""

import base64
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from baked import BakedProject, bare_environment, free_port

pytestmark = [pytest.mark.product, pytest.mark.xdist_group("clouds")]
HERE = Path(__file__).parent / "clouds"
URLS = ["s3://files/of/chat", "gs://others/of/chat", "az://files/of/chat"]
KEY = base64.b64encode(b"azure's key").decode()


def variables(origin: str, azure_origin: str, folder: Path) -> dict[str, str]:
    """Return the environment that the README asks for, for all three."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    account = {"type": "service_account", "client_email": "a@b", "private_key_id": "1"}
    account |= {"private_key": pem.decode(), "gcs_base_url": origin}
    folder.joinpath("account.json").write_text(json.dumps(account))
    return {
        "AWS_ENDPOINT_URL": origin,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "GOOGLE_SERVICE_ACCOUNT": str(folder / "account.json"),
        "AZURE_STORAGE_ENDPOINT": f"{azure_origin}/account",
        "AZURE_ALLOW_HTTP": "true",
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "NO_PROXY": "127.0.0.1",
    }


def put(url: str, **headers: str) -> None:
    """Send an empty PUT: it makes a bucket."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    httpx2.put(url, headers=named, timeout=10, trust_env=False).raise_for_status()


def make_container(origin: str) -> None:
    """Make Azure's container, which needs Microsoft's own kind of signature."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    what = f"x-ms-date:{date}\nx-ms-version:{version}\n/account/account/files\nrestype:container"
    headers = "PUT\n\n\n\n\napplication/octet-stream" + "\n" * 7
    signed = hmac.digest(base64.b64decode(KEY), (headers + what).encode(), hashlib.sha256)
    put(
        f"{origin}/account/files?restype=container",
        Authorization=f"SharedKey account:{base64.b64encode(signed).decode()}",
        Content_Type="application/octet-stream",
        x_ms_date=date,
        x_ms_version=version,
    )


@contextmanager
def running(folder: Path, *command: str, **more: str) -> Iterator[str]:
    """Run an emulator on a port of its own (`{port}` in the command); yield its origin."""
    port = free_port()
    with folder.joinpath(f"{port}.log").open("w+") as log:
        with subprocess.Popen(
            [each.format(port=port) for each in command],
            cwd=folder,
            env=bare_environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                for _ in range(300):
                    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                        break
                    assert process.poll() is None, folder.joinpath(f"{port}.log").read_text()
                    time.sleep(0.1)
                else:
                    raise AssertionError(f"nothing listens on {port}")
                yield f"http://127.0.0.1:{port}"
            finally:
                process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the emulators."""
    return shutil.copytree(HERE, tmp_path_factory.mktemp("clouds"), dirs_exist_ok=True)


@pytest.fixture(scope="module")
def install(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Begin to install Azurite, which takes 15 seconds; other things go on meanwhile."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed on this machine")
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=folder, text=True, **out) as process:
        yield process
        process.kill()
    shutil.rmtree(folder / "node_modules", ignore_errors=True)


@pytest.fixture(scope="module")
def clouds(folder: Path, install: subprocess.Popen[str]) -> Iterator[Mapping[str, str]]:
    """Run the emulators with an empty bucket each; yield the variables of all three."""
    said, _ = install.communicate(timeout=120)
    assert install.returncode == 0, said
    azurite = (
        shutil.which("node") or "node",
        "node_modules/.bin/azurite-blob",
        "--inMemoryPersistence",
        "--silent",
    )
    moto = (sys.executable, "-m", "moto.server", "--port", "{port}")
    with (
        running(folder, *moto) as origin,
        running(
            folder, *azurite, "--blobPort", "{port}", AZURITE_ACCOUNTS=f"account:{KEY}"
        ) as azure,
    ):
        put(f"{origin}/files")
        put(f"{origin}/others")
        make_container(azure)
        yield variables(origin, azure, folder)


@pytest.fixture(scope="module")
def project(bake: Callable[..., BakedProject]) -> BakedProject:
    """Bake an app; it has obstore for its own tests."""
    project = bake(storage_type="memory", context_type="dict")
    project.check("uv", "sync", "--quiet")
    return project


def test_a_provider_that_never_answers_is_an_error_in_time(
    install: subprocess.Popen[str], project: BakedProject, tmp_path: Path
) -> None:
    """All operations, with all three: obstore by itself would wait for 3 minutes."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        origin = f"http://127.0.0.1:{silent.getsockname()[1]}"
        asked = variables(origin, origin, tmp_path)
        script = str(HERE / "silent.py")
        said = project.check(".venv/bin/python", script, *URLS, timeout=60, **asked)
    assert 9 < float(said.splitlines()[-1]) < 15


@pytest.mark.parametrize("url", URLS)
def test_files_live_in_a_bucket(clouds: Mapping[str, str], project: BakedProject, url: str) -> None:
    """Short ones, long ones in parts, listing, deletion."""
    project.check(".venv/bin/python", str(HERE / "life.py"), url, timeout=60, **clouds)


def test_an_upload_through_the_app_comes_back_from_the_bucket(
    clouds: Mapping[str, str], project: BakedProject
) -> None:
    """6 MB, which takes two parts; none of it is on the app's own disk."""
    data = b"hello " * 1_000_000
    with (
        project.serve(".venv/bin/python", "-m", "app", FILES_URL=URLS[0], **clouds) as session,
        httpx2.Client(base_url=session.url, timeout=20, trust_env=False) as user,
    ):
        attachment = user.post("/files", files={"file": ("a.txt", data, "text/plain")}).json()
        address = user.get(f"/files/{attachment['id']}/url").json()["url"]
        assert user.get(address).content == data
    assert not project.path.joinpath(".data", "files").exists()


def test_a_process_that_ends_right_after_a_file_is_not_aborted(
    clouds: Mapping[str, str], project: BakedProject
) -> None:
    """Twelve of them, as it is a race: without the pause at exit 8 of 30 were aborted."""
    for _ in range(12):
        project.check(".venv/bin/python", str(HERE / "end.py"), URLS[0], timeout=60, **clouds)

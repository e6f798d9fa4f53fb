"""Object storages of a test's own: a folder, and a bucket on a real S3 server behind a proxy that makes trouble."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import boto3
import pytest

from esper_site.settings import object_storage as settings_of
from tests.support.proxy import Proxy, proxy_to

CREDENTIALS: dict[str, Any] = {"access_key": "test", "secret_key": "test", "region_name": "us-east-1"}
# The server ends with the process that started it, however that ends: its input is closed then.
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def object_storage(settings: Any, tmp_path: Path) -> Path:
    """The folder of the default object storage, empty."""
    folder = tmp_path / "objects"
    folder.mkdir()
    settings.STORAGES = {**settings.STORAGES, "default": settings_of.folder(folder)}
    return folder


class StorageOfATest(Protocol):
    """What Django's "default" and "checkpoints" are in this test, and what a test can do to it behind their back."""

    kind: str

    def plant(self, name: str, data: bytes) -> None:
        """Put these bytes under the name, whatever was there."""

    def names(self) -> list[str]:
        """Everything that is there, sorted."""

    def gone(self) -> AbstractContextManager[None]:
        """In the block there is no folder, or no bucket."""


@dataclass
class Folder:
    path: Path
    kind: str = "folder"

    def plant(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())

    @contextmanager
    def gone(self) -> Iterator[None]:
        aside = self.path.rename(self.path.with_name("aside"))
        self.path.write_text("a file where the folder should be")
        try:
            yield
        finally:
            self.path.unlink()
            aside.rename(self.path)


@dataclass
class Bucket:
    bucket: Any
    """The bucket for the test's own use: not through the proxy."""
    proxy: Proxy
    settings: Any
    kind: str = "s3"

    def be_patient_for(self, seconds: float) -> None:
        """How long one of the two attempts waits."""
        endpoint = f"http://127.0.0.1:{self.proxy.port}"
        use(self.settings, s3(self.bucket.name, endpoint, connect_seconds=seconds, read_seconds=seconds))

    def plant(self, name: str, data: bytes) -> None:
        self.bucket.put_object(Key=name, Body=data)

    def names(self) -> list[str]:
        return sorted(entry.key for entry in self.bucket.objects.all())

    @contextmanager
    def gone(self) -> Iterator[None]:
        kept = self.settings.STORAGES
        use(self.settings, s3(f"gone-{uuid4()}", f"http://127.0.0.1:{self.proxy.port}"))
        try:
            yield
        finally:
            self.settings.STORAGES = kept


def s3(name: str, endpoint: str, **patience: float) -> dict[str, Any]:
    """The bucket as a deployment's settings make it."""
    return settings_of.bucket(name, endpoint=endpoint, **CREDENTIALS, **patience)


def use(settings: Any, storage: dict[str, Any]) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": storage, "checkpoints": storage}


@pytest.fixture
def folder_storage(settings: Any, tmp_path: Path) -> Folder:
    path = tmp_path / "objects"
    path.mkdir()
    use(settings, settings_of.folder(path))
    return Folder(path)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a real S3 server over HTTP, one for the session."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Any:
    """The tests' own way to the server."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    return session.resource("s3", endpoint_url=s3_server)


@pytest.fixture
def s3_storage(s3_server: str, s3_client: Any, settings: Any) -> Iterator[Bucket]:
    name = f"test-{uuid4()}"
    bucket = s3_client.create_bucket(Bucket=name)
    with proxy_to(s3_server) as proxy:
        use(settings, s3(name, proxy.url(s3_server)))
        yield Bucket(bucket, proxy, settings)
    bucket.objects.all().delete()
    bucket.delete()


@pytest.fixture(params=["folder", "s3"])
def either_storage(request: pytest.FixtureRequest) -> StorageOfATest:
    """The test runs twice: on a folder, and on a bucket."""
    storage: StorageOfATest = request.getfixturevalue(f"{request.param}_storage")
    return storage

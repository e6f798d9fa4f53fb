"""Sealing as it runs: a real worker takes beat's task, and the notes go to a real S3 server when one is configured."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from django.conf import LazySettings
from moto.server import ThreadedMotoServer

from apps.audit import services
from apps.audit.models import AuditCheckpoint, AuditCopy
from apps.audit.verification import verify
from apps.core.actors import SYSTEM
from apps.core.queue import enqueue
from esper_site.celery import app
from tests.support.audit import backdated, own_home, record, sealed
from tests.support.waiting import wait_until

home = own_home
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


def test_a_real_worker_seals_what_beat_asks_it_to(
    committed_db: str, worker: Callable[..., Any], tmp_path: Path
) -> None:
    schedule = app.conf.beat_schedule
    record()
    worker("default", ESPER_HOME=str(tmp_path))

    enqueue(schedule["seal-audit"]["task"])
    wait_until(AuditCheckpoint.objects.exists, seconds=30)
    wait_until(AuditCopy.objects.exists, seconds=30)

    assert (tmp_path / "audit" / "signing.key").stat().st_mode & 0o777 == 0o600


def test_every_task_that_beat_asks_for_exists() -> None:
    app.loader.import_default_modules()

    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A real S3 server over HTTP, on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class TestObjectStorage:
    @pytest.fixture(autouse=True)
    def bucket(self, committed_db: str, home: Path, endpoint: str, settings: LazySettings) -> Any:
        client = boto3.client("s3", endpoint_url=endpoint, **CREDENTIALS)
        client.create_bucket(Bucket="trail")
        options = {
            "bucket_name": "trail",
            "endpoint_url": endpoint,
            "access_key": "test",
            "secret_key": "test",
            "region_name": "us-east-1",
            "file_overwrite": False,
        }
        s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
        settings.STORAGES = {**settings.STORAGES, "default": s3}
        yield client
        for entry in client.list_objects_v2(Bucket="trail").get("Contents", []):
            client.delete_object(Bucket="trail", Key=entry["Key"])
        client.delete_bucket(Bucket="trail")

    def test_notes_lie_in_the_bucket_and_verify_from_there(self, bucket: Any) -> None:
        sealed(3)
        sealed(2)

        keys = [entry["Key"] for entry in bucket.list_objects_v2(Bucket="trail")["Contents"]]
        assert keys == [copy.name for copy in AuditCopy.objects.order_by("pk")]
        note = bucket.get_object(Bucket="trail", Key=keys[-1])["Body"].read().decode()
        assert note == AuditCheckpoint.objects.latest("size").note
        assert verify().is_right

    def test_a_changed_note_in_the_bucket_is_found(self, bucket: Any) -> None:
        sealed(3)
        (copy,) = AuditCopy.objects.all()
        bucket.put_object(Bucket="trail", Key=copy.name, Body=b"another note")

        assert [(finding.kind, finding.id) for finding in verify().findings] == [("copy", "3")]

    def test_a_bucket_that_is_gone_delays_copies_and_loses_nothing(self, bucket: Any) -> None:
        bucket.delete_bucket(Bucket="trail")
        sealed(3)
        assert not AuditCopy.objects.exists()
        bucket.create_bucket(Bucket="trail")

        assert services.copy_checkpoints() == 1

    def test_an_archived_month_lies_in_the_bucket(self, bucket: Any, servers: Any, committed_db: str) -> None:
        with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
            backdated(owner, "2026-01", 3)
        services.seal()

        archive = services.archive_partition(partition="audit_auditevent_2026_01", actor=SYSTEM, reason="old")

        assert bucket.head_object(Bucket="trail", Key=archive.name)["ContentLength"] == archive.bytes
        services.seal()
        assert verify().findings == []

"""The object storage as Django's STORAGES wants it: a folder, or a bucket of any S3."""

from pathlib import Path
from typing import Any


def folder(location: Path) -> dict[str, Any]:
    return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(location)}}


def bucket(
    name: str,
    *,
    endpoint: str = "",
    connect_seconds: float = 2.0,
    read_seconds: float = 5.0,
    attempts: int = 2,
    **options: Any,
) -> dict[str, Any]:
    """A bucket that does not take a connection, or stays silent, is given up after ``attempts`` times as many seconds
    (by boto's own defaults: five times a minute)."""
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": name,
            "endpoint_url": endpoint or None,
            "file_overwrite": False,
            "querystring_auth": True,
            "max_memory_size": 8 * 1024 * 1024,  # a larger object that is read lies on the disk meanwhile
            "client_config": Config(
                connect_timeout=connect_seconds,
                read_timeout=read_seconds,
                retries={"mode": "standard", "total_max_attempts": attempts},
            ),
            "transfer_config": TransferConfig(max_concurrency=4, num_download_attempts=attempts),
            **options,
        },
    }

"""What ``objects`` asks of an S3 bucket: single requests of the storage's client, which is one per thread.

django-storages would ask twice for what is read (is it there, then its bytes), keep all of it before the first byte is
given, and take a bucket that is gone for one without the object: a caller that trusts that gives up what it has.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import IO, Any, cast

from botocore.exceptions import ClientError
from django.core.files.storage import storages
from storages.utils import clean_name


@contextmanager
def opened(storage: Any, name: str, *, byte_range: tuple[int, int] | None = None) -> Iterator[IO[bytes]]:
    """The bytes as they arrive, all or ``[start, stop)``; a connection that ends early is a fault.

    Raises:
        FileNotFoundError: the bucket has no such object. EOFError: it ends before the range does. botocore's errors.
    """
    extra = {} if byte_range is None else {"Range": f"bytes={byte_range[0]}-{byte_range[1] - 1}"}
    try:
        answer = _client(storage).get_object(**_place(storage, name), **extra)
    except ClientError as error:
        if _code(error) == "NoSuchKey":
            raise FileNotFoundError(f"there is no object {name}") from error
        if _code(error) == "InvalidRange":
            raise EOFError from error
        raise
    with closing(answer["Body"]) as body:
        length = _length(answer, name)
        if byte_range is not None:
            _require_range(answer, length, *byte_range)
        yield cast("IO[bytes]", body)


def _require_range(answer: dict[str, Any], length: int, start: int, stop: int) -> None:
    """Raises EOFError: the object is shorter. OSError: these are other bytes than were asked for."""
    given = answer.get("ContentRange", "")
    if not given.startswith(f"bytes {start}-") or length > stop - start:
        raise OSError(f"bytes {start} to {stop} were asked for, and {given or 'the whole object'} was given")
    if length < stop - start:
        raise EOFError


def size(storage: Any, name: str) -> int:
    """Bytes of the object. Raises FileNotFoundError, OSError or botocore's errors."""
    try:
        answer = _client(storage).head_object(**_place(storage, name))
    except ClientError as error:
        # The answer to HEAD has no body that says whether the object or its bucket is not there.
        if _status(error) != 404:
            raise
        _client(storage).head_bucket(Bucket=storage.bucket_name)
        raise FileNotFoundError(f"there is no object {name}") from error
    return _length(answer, name)


def _length(answer: dict[str, Any], name: str) -> int:
    """Raises OSError: it is not said. A connection that ends in the headers looks like an empty object."""
    if "ContentLength" not in answer:
        raise OSError(f"the answer does not say how long {name} is")
    return int(answer["ContentLength"])


def delete(storage: Any, name: str) -> None:
    """Delete the object; one that is gone is a success, a bucket that is gone is not. Raises botocore's errors."""
    _client(storage).delete_object(**_place(storage, name))


def _client(storage: Any) -> Any:
    return storage.connection.meta.client


def _place(storage: Any, name: str) -> dict[str, str]:
    return {"Bucket": storage.bucket_name, "Key": storage._normalize_name(clean_name(name))}


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _leave_connections_to_parent() -> None:
    """Two processes that read from one connection get each other's answers: a forked child makes its own."""
    storages._storages.clear()  # type: ignore[attr-defined]


os.register_at_fork(after_in_child=_leave_connections_to_parent)

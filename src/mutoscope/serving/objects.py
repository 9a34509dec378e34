"""Files as objects of an S3-compatible store, for a server and workers that share no disk.

An object is whole or absent. Keys and the address come from the environment, as for every program that uses S3:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL (or ~/.aws).
"""

import contextlib
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutoscope.errors import InputError
from mutoscope.serving.database import Unreachable

ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([\w./-]*))?")
AT_ONCE = 1000
"""Objects that one request may remove."""


@dataclass(frozen=True)
class Objects:
    """A bucket, and what all names in it begin with. Methods raise Unreachable when the store does not answer."""

    client: Any
    bucket: str
    prefix: str

    def put(self, name: str, path: Path) -> None:
        """Keep a file under a name, in the place of what was there."""
        with _reachable():
            self.client.upload_file(str(path), self.bucket, self.prefix + name)

    def get(self, name: str, path: Path) -> None:
        """Write the object of this name to a file."""
        with _reachable():
            self.client.download_file(self.bucket, self.prefix + name, str(path))

    def names(self, beginning: str) -> list[str]:
        """The names that begin so."""
        pages = self.client.get_paginator("list_objects_v2")
        with _reachable():
            return [
                entry["Key"][len(self.prefix) :]
                for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + beginning)
                for entry in page.get("Contents", ())
            ]

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        keys = [{"Key": self.prefix + name} for name in names]
        with _reachable():
            for start in range(0, len(keys), AT_ONCE):
                some = {"Objects": keys[start : start + AT_ONCE], "Quiet": True}
                self.client.delete_objects(Bucket=self.bucket, Delete=some)


def open_objects(address: str) -> Objects:
    """The objects at s3://BUCKET or s3://BUCKET/PREFIX, looked at once.

    Raises InputError without the extra `s3`, for another address and for a bucket that cannot be used.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise InputError(f"The objects {address!r} are no address; write s3://BUCKET or s3://BUCKET/PREFIX.")
    try:
        boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
    except ImportError:
        raise InputError("Files as objects need the extra 's3': pip install 'mutoscope[s3]'.") from None
    bucket, prefix = found[1], (found[2] or "").strip("/")
    settings = config.Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        request_checksum_calculation="when_required",  # servers other than Amazon's may not know the newer ones
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.session.Session().client("s3", config=settings)
        objects = Objects(client, bucket, f"{prefix}/" if prefix else "")
        objects.names("no such name")
    except (Unreachable, ValueError, importlib.import_module("botocore.exceptions").BotoCoreError) as error:
        raise InputError(
            f"The bucket {bucket!r} cannot be used ({error}); make it, and set AWS_ENDPOINT_URL and the AWS keys."
        ) from None
    return objects


@contextlib.contextmanager
def _reachable() -> Iterator[None]:
    """Errors of boto3 as one that says that the store does not answer; they name operations, never keys."""
    faults = importlib.import_module("botocore.exceptions")
    upload = importlib.import_module("boto3.exceptions")
    try:
        yield
    except (faults.ClientError, faults.BotoCoreError, upload.Boto3Error) as error:
        raise Unreachable(f"the objects: {str(error).partition(chr(10))[0]}") from None

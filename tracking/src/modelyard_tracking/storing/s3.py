"""Objects in an S3 bucket: Ceph's RADOS Gateway, or another.

boto3 and not s3fs: an upload here is a request per part with the part's Content-MD5, which the server verifies, and the
ETag of the whole, which we verify; each step has a timeout of its own, and what fails is aborted.
"""

import base64
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modelyard_tracking.digests import file_sha256
from modelyard_tracking.errors import NotFound, Refused, TrackingError, Unavailable
from modelyard_tracking.storing.objects import Address, Stored

PART_BYTES = 16 * 2**20  # of a large object; its ETag follows from it, so another size would upload everything again
CONNECT_S, ANSWER_S = 5, 20  # without a byte moving
_BLOCK = 2**20
_NOT_FOUND = ("404", "NoSuchKey", "NoSuchUpload", "NotFound")
_LOGIN = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


class S3Objects:
    """See `Objects`. Content is compared by ETag, which is the MD5 of each part; downloads are compared by sha256."""

    def __init__(self, address: Address, bucket: str, prefix: str) -> None:
        self._address = address
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._s3 = _client(address)

    def put(self, name: str, source: Path) -> None:
        where = self._where(name)
        with self._answers(), source.open("rb") as file:
            size = source.stat().st_size
            etag = self._in_one(where, file) if size <= PART_BYTES else self._in_parts(where, file)
        with self._answers():
            found = self._s3.head_object(**where)
        if found["ContentLength"] != size or (found["ETag"].strip('"') != etag and not self._reads_back(name, source)):
            raise Unavailable(f"{self._address} does not keep what is written to it: {name} came back changed.")

    def holds(self, name: str, source: Path) -> bool:
        with self._answers():
            try:
                found = self._s3.head_object(**self._where(name))
            except self._s3.exceptions.ClientError as error:
                if _code(error) in _NOT_FOUND:
                    return False
                raise
        return bool(found["ContentLength"] == source.stat().st_size) and (
            found["ETag"].strip('"') == _etag(source) or self._reads_back(name, source)
        )

    def get(self, name: str, target: Path, limit: int) -> str:
        with target.open("wb") as out:
            return self._read(name, out, limit)

    def find(self, name: str) -> Stored | None:
        with self._answers():
            try:
                found = self._s3.head_object(**self._where(name))
            except self._s3.exceptions.ClientError as error:
                if _code(error) in _NOT_FOUND:
                    return None
                raise
            return Stored(name, found["ContentLength"], found["LastModified"])

    def list(self, prefix: str) -> Iterator[Stored]:
        with self._answers():
            pages = self._s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    yield Stored(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["LastModified"])

    def remove(self, name: str) -> None:
        with self._answers():
            self._s3.delete_object(**self._where(name))

    def unfinished(self) -> Iterator[Stored]:
        with self._answers():
            pages = self._s3.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for entry in page.get("Uploads", ()):
                    yield Stored(
                        entry["Key"].removeprefix(self._prefix),
                        self._bytes_of_parts(entry["Key"], entry["UploadId"]),
                        entry["Initiated"],
                        entry["UploadId"],
                    )

    def abort(self, upload: Stored) -> None:
        with self._answers(), suppress(self._s3.exceptions.NoSuchUpload):
            self._s3.abort_multipart_upload(**self._where(upload.name), UploadId=upload.upload)

    def _in_one(self, where: dict[str, str], file: Any) -> str:
        content = file.read()
        md5 = _md5(content)
        # A stream and not bytes: those would have to leave within one timeout, however slow the line is.
        self._s3.put_object(**where, Body=io.BytesIO(content), ContentMD5=_base64(md5))
        return md5.hex()

    def _in_parts(self, where: dict[str, str], file: Any) -> str:
        upload = self._s3.create_multipart_upload(**where)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            sums = b""
            while content := file.read(PART_BYTES):
                md5 = _md5(content)
                number = len(parts) + 1
                done = self._s3.upload_part(
                    **where, UploadId=upload, PartNumber=number, Body=io.BytesIO(content), ContentMD5=_base64(md5)
                )
                parts.append({"PartNumber": number, "ETag": done["ETag"]})
                sums += md5
            self._s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):  # where even this fails, `yard gc` finds the upload
                self._s3.abort_multipart_upload(**where, UploadId=upload)
            raise
        return f"{_md5(sums).hex()}-{len(parts)}"

    def _read(self, name: str, out: Any, limit: int) -> str:
        digest, left = hashlib.sha256(), limit
        with self._answers():
            try:
                body = self._s3.get_object(**self._where(name))["Body"]
            except self._s3.exceptions.ClientError as error:
                if _code(error) in _NOT_FOUND:
                    raise NotFound(f"There is no {name} in {self._address}.") from error
                raise
            with body:
                for block in body.iter_chunks(_BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise Refused(f"{name} in {self._address} is larger than {limit} bytes. It was not used.")
                    digest.update(block)
                    out.write(block)
        return digest.hexdigest()

    def _reads_back(self, name: str, source: Path) -> bool:
        """Compare by content: a bucket that encrypts with keys of its own gives ETags that are no MD5."""
        with Path(os.devnull).open("wb") as nowhere, suppress(Refused):
            return self._read(name, nowhere, source.stat().st_size) == file_sha256(source)
        return False

    def _bytes_of_parts(self, key: str, upload: str) -> int:
        with suppress(self._s3.exceptions.ClientError):  # it has just ended
            pages = self._s3.get_paginator("list_parts").paginate(Bucket=self._bucket, Key=key, UploadId=upload)
            return sum(part["Size"] for page in pages for part in page.get("Parts", ()))
        return 0

    def _where(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    @contextmanager
    def _answers(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
        from urllib3.exceptions import HTTPError

        check = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, then:  yard doctor"
        try:
            yield
        except TrackingError:
            raise
        except ClientError as error:
            code = _code(error)
            if code in _LOGIN:
                raise Unavailable(f"The shared store {self._address} refuses the login ({code}).\n{check}") from error
            if code == "NoSuchBucket":
                raise Unavailable(
                    f"The shared store {self._address} has no bucket {self._bucket!r}. Make it, or mend artifacts_url."
                ) from error
            raise Unavailable(
                f"The shared store {self._address} refuses {error.operation_name}: {code}.\nLook closer:  yard doctor"
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise Unavailable(f"There is no login for the shared store {self._address}.\n{check}") from error
        except (BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
            raise Unavailable(
                f"The shared store {self._address} does not answer: {type(error).__name__}.\nLook closer:  yard doctor"
            ) from error


def _client(address: Address) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{address} needs boto3, which is not installed.\nInstall it:  pip install 'modelyard-tracking[s3]'"
        ) from error
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=ANSWER_S,
        retries={"total_max_attempts": 2, "mode": "standard"},
        # The newer checksums, sent by default, are unknown to Ceph before 19; Content-MD5 is known to all.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # BUCKET.HOST does not resolve where the host is one of our own.
        s3={"addressing_style": "path" if address.endpoint else "auto"},
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=address.endpoint or None,
            region_name=address.region or ("us-east-1" if address.endpoint else None),
            aws_access_key_id=address.key or None,
            aws_secret_access_key=address.secret or None,
            aws_session_token=address.token or None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise Unavailable(f"The shared store {address} cannot be used: {error}\nLook at:  yard config") from error


def _etag(source: Path) -> str:
    """The ETag that `put` gives to this file."""
    with source.open("rb") as file:
        if source.stat().st_size <= PART_BYTES:
            return _md5(file.read()).hex()
        sums = [_md5(content) for content in iter(lambda: file.read(PART_BYTES), b"")]
    return f"{_md5(b''.join(sums)).hex()}-{len(sums)}"


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))

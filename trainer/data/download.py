"""Download an archive over HTTP with timeouts, retries and resumption; network errors are told from the disk's."""

import contextlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from trainer.data.prepared import DataError, Report

_TIMEOUT_S = 30
_TRIES = 3
_BLOCK = 2**20


def download(url: str, path: Path, report: Report) -> None:
    """Download url into path, resuming after the bytes already there if the server supports it.

    Raises DataError if the server refuses or keeps disconnecting, with path keeping what arrived; OSError for the disk.
    """
    tries = 0
    while True:
        try:
            return _fetch_rest(url, path, report)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            tries += 1
            status = error.code if isinstance(error, urllib.error.HTTPError) else None
            if tries == _TRIES or (status is not None and status < 500):
                reason = str(error) or repr(error)
                raise DataError(
                    f"{url}: cannot be fetched ({reason}); run the same command again to resume, or fetch the archive "
                    "yourself and give its path as --source"
                ) from error
            time.sleep(1)


def _fetch_rest(url: str, path: Path, report: Report) -> None:
    held = path.stat().st_size if path.exists() else 0
    # S310 warns of file: and the like; preparation accepts only http(s) URLs, and urllib redirects to nothing local.
    request = urllib.request.Request(url, headers={"Range": f"bytes={held}-"} if held else {})  # noqa: S310
    try:
        with _network():
            response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310  as above
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not held:
            raise
        # The server has no bytes after those held: the file is complete or another one. The checksum will tell.
        return
    with response:
        continued = response.status == http.client.PARTIAL_CONTENT
        if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
            raise http.client.HTTPException("the server sent another range than was asked for")
        done = held if continued else 0
        total = done + (response.length or 0)
        with path.open("ab" if continued else "wb") as file:
            block = b"first"
            while block:
                with _network():
                    block = response.read(_BLOCK)
                file.write(block)
                done += len(block)
                report("downloading", done, total)
        if done < total:
            raise ConnectionError(f"the connection broke off after {done} of {total} bytes")
        report("downloading", done, done)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Convert the network's OSErrors to ConnectionError; those of the disk would not go away by retrying."""
    try:
        yield
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise ConnectionError(str(error)) from error

"""What comes over the network: fetched whole, gone on with where it broke off, checked before it is read."""

import dataclasses
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_fixtures import left

from trainer.data.catalog import DATASETS
from trainer.data.download import download
from trainer.data.prepare import prepare
from trainer.data.prepared import DataError


class Server(http.server.ThreadingHTTPServer):
    """Serves one content with ranges; breaks off after `limit` bytes of an answer. asked: the Range of each request."""

    content = b""
    limit: int | None = None
    asked: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path.endswith("missing"):
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        total = len(self.server.content)
        if wanted and start >= total:
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(total - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        end = total if self.server.limit is None else min(total, start + self.server.limit)
        self.wfile.write(self.server.content[start:end])

    def log_message(self, format: str, *arguments: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_url_is_fetched_and_prepared_and_nothing_else_stays(
    server: Server, archives: dict[str, Path], tmp_path: Path
) -> None:
    """A mirror does as well as a file; the archive is not kept once its arrays are."""
    server.content = archives["cifar10"].read_bytes()
    seen: list[tuple[str, int, int]] = []
    manifest, new = prepare(
        "cifar10", server.url, tmp_path, unofficial=True, report=lambda *progress: seen.append(progress)
    )
    assert new
    assert manifest.source == server.url
    assert ("downloading", len(server.content), len(server.content)) in seen
    assert left(tmp_path) == ["cifar10"]


@pytest.mark.slow
def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    """Within one call the rest is asked for, not the whole; what comes together is what the server has."""
    server.content = os.urandom(3_000_000)
    server.limit = 1_600_000
    download(server.url, tmp_path / "part", lambda stage, done, total: None)
    assert (tmp_path / "part").read_bytes() == server.content
    assert server.asked == [None, "bytes=1600000-"]


@pytest.mark.slow
def test_a_failed_download_is_continued_by_the_next_call_and_checked_as_a_whole(
    server: Server, archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part waits for the next call; once official content is there, asking again needs no network at all."""
    server.content = archives["cifar10"].read_bytes()
    md5 = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(DATASETS, "cifar10", dataclasses.replace(DATASETS["cifar10"], md5=md5, url=server.url))
    server.limit = 1000
    with pytest.raises(DataError, match=r"cannot be fetched \(the connection broke off .*run the same command again"):
        prepare("cifar10", "download", tmp_path)
    (part,) = left(tmp_path)
    assert (tmp_path / part).stat().st_size == 3000
    server.limit = None
    server.asked.clear()
    manifest, new = prepare("cifar10", "download", tmp_path)
    assert new
    assert manifest.official
    assert server.asked == ["bytes=3000-"]
    assert prepare("cifar10", "download", tmp_path) == (manifest, False)
    assert len(server.asked) == 1
    assert left(tmp_path) == ["cifar10"]


@pytest.mark.slow
def test_a_download_that_is_not_the_official_archive_is_fetched_anew_then_refused(
    server: Server, tmp_path: Path
) -> None:
    """A part that fits no longer is thrown away and the whole fetched; a wrong md5 then leaves nothing behind."""
    server.content = os.urandom(5000)
    server.limit = 1000
    with pytest.raises(DataError, match="cannot be fetched"):
        prepare("cifar10", server.url, tmp_path)
    server.limit = None
    server.asked.clear()
    with pytest.raises(DataError, match=r"not the official archive: its md5 is .*--unofficial"):
        prepare("cifar10", server.url, tmp_path)
    assert server.asked == ["bytes=3000-", None]
    assert left(tmp_path) == []


def test_a_server_that_has_no_such_file_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    """A refusal is told at once, with what to do instead."""
    with pytest.raises(DataError, match=r"HTTP Error 404.*give its path as --source"):
        prepare("cifar10", f"{server.url}/missing", tmp_path)
    assert len(server.asked) == 1
    assert left(tmp_path) == []

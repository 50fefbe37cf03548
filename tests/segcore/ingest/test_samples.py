"""Samples: the right file or a clear error, and no file outside its folder; with a local package index."""

import hashlib
import io
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from segcore import downloads
from segcore.errors import DownloadError, ParamsError
from segcore.ingest import samples


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that serves demo-1.tar.gz; returns its sha256."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as bundle:
        bundle.writestr("inner/b.txt", "b")
    content = archive(
        {
            "demo-1/a.txt": b"a",
            "demo-1/p/1.png": b"1",
            "demo-1/p/2.png": b"2",
            "demo-1/z.zip": zipped.getvalue(),
        }
    )
    folder = tmp_path / "index" / "demo"
    folder.mkdir(parents=True)
    (folder / "demo-1.tar.gz").write_bytes(content)
    (folder / "index.html").write_text('<html><body><a href="demo-1.tar.gz">demo-1.tar.gz</a></body></html>')

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "index"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("SEGFLOW_CACHE", str(tmp_path / "cache"))
    yield hashlib.sha256(content).hexdigest()
    server.shutdown()
    server.server_close()


def manifest(digest, *members):
    return samples.Manifest(
        name="demo", title="", package="demo", version="1", file="demo-1.tar.gz", sha256=digest, licence="",
        citation="", members=[downloads.Member(**m) for m in members],
    )  # fmt: skip


def test_members_patterns_and_inner_archives_are_laid_out(index, tmp_path):
    wanted = manifest(
        index,
        {"path": "demo-1/a.txt", "to": "x/y.txt", "sha256": hashlib.sha256(b"a").hexdigest()},
        {"path": "demo-1/p/*.png", "to": "pictures/"},
        {"path": "demo-1/z.zip", "to": ".", "unpack": True},
    )
    samples.fetch(wanted, tmp_path / "out")
    found = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert found == ["inner/b.txt", "pictures/1.png", "pictures/2.png", "x/y.txt"]


def test_a_second_fetch_needs_no_network(index, tmp_path, monkeypatch):
    first = downloads.fetch_archive("demo", "1", "demo-1.tar.gz", index)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    assert downloads.fetch_archive("demo", "1", "demo-1.tar.gz", index) == first


def test_a_corrupt_download_is_refused_and_not_kept(index, tmp_path):
    with pytest.raises(
        DownloadError, match=r"corrupt download, sha256 is \w{64} instead of 0{64}[\s\S]*try again"
    ):
        downloads.fetch_archive("demo", "1", "demo-1.tar.gz", "0" * 64)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(index, tmp_path):
    path = downloads.fetch_archive("demo", "1", "demo-1.tar.gz", index)
    path.write_bytes(b"rotten")
    assert (
        hashlib.sha256(downloads.fetch_archive("demo", "1", "demo-1.tar.gz", index).read_bytes()).hexdigest()
        == index
    )


def test_no_network_names_the_file_and_where_to_put_it_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("SEGFLOW_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DownloadError, match=r"could not be reached[\s\S]*PIP_INDEX_URL[\s\S]*demo-1.tar.gz"):
        downloads.fetch_archive("demo", "1", "demo-1.tar.gz", "0" * 64)


def test_a_member_that_is_missing_or_wrong_is_named(index, tmp_path):
    with pytest.raises(DownloadError, match="holds no demo-1/none"):
        samples.fetch(manifest(index, {"path": "demo-1/none", "to": "x"}), tmp_path / "out")
    with pytest.raises(DownloadError, match=r"demo-1/a.txt: sha256 is"):
        samples.fetch(
            manifest(index, {"path": "demo-1/a.txt", "to": "x", "sha256": "0" * 64}), tmp_path / "out"
        )


def test_a_member_cannot_leave_the_folder(tmp_path):
    path = tmp_path / "evil.tar.gz"
    path.write_bytes(archive({"../../evil": b"x"}))
    with pytest.raises(DownloadError, match="leaves the folder"):
        downloads.extract(path, [downloads.Member(path="*", to="../")], tmp_path / "out")


def test_the_error_for_an_unknown_sample_lists_the_existing_ones(tmp_path):
    (tmp_path / "known.yaml").write_text("{}")
    with pytest.raises(ParamsError, match=r"no such sample[\s\S]*known"):
        samples.load_manifest(tmp_path / "other.yaml")
    with pytest.raises(ParamsError, match="is not a sample manifest"):
        samples.load_manifest(tmp_path / "known.yaml")

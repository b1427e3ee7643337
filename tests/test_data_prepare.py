"""Preparation: real archives become arrays, whole and in the right order, or nothing and one sentence."""

import dataclasses
import hashlib
import http.server
import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.data import cifar10, tinyimagenet
from trainer.data.catalog import DATASETS
from trainer.data.download import download
from trainer.data.prepare import prepare, require_space
from trainer.data.prepared import DataError, Manifest, fingerprint_of, open_dataset, verify
from trainer.data.sources import open_source
from trainer.data.synthesize import synthesize

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES = REPOSITORY.parent / "shared" / "data"
NAMES = {"cifar10": "cifar-10-python.tar.gz", "tinyimagenet": "tiny-imagenet-200.zip"}
Files = dict[str, Any]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small drawn archives of both datasets; not to be changed."""
    folder = tmp_path_factory.mktemp("archives")
    return {
        "cifar10": synthesize("cifar10", folder, train=60, val=20),
        "tinyimagenet": synthesize("tinyimagenet", folder, train=12, val=6, classes=3),
    }


def unpack(archive: Path) -> Files:
    """Give the contents of an archive's files by name, without the outer folder."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            return {name.partition("/")[2]: opened.read(name) for name in opened.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as packed:
        members = [member for member in packed if member.isfile()]
        return {member.name.partition("/")[2]: packed.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def pack(dataset: str, files: Files, path: Path) -> Path:
    """Write files as an archive of the dataset; a name that begins with "!" goes in without the outer folder."""
    inner = {"cifar10": "cifar-10-batches-py", "tinyimagenet": "tiny-imagenet-200"}[dataset]
    names = {name: name[1:] if name.startswith("!") else f"{inner}/{name}" for name in files}
    if dataset == "tinyimagenet":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                entry = zipfile.ZipInfo(names[name])
                entry.external_attr = (0o120777 if name.endswith("link") else 0o100644) << 16
                archive.writestr(entry, content)
        return path
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(names[name])
            if name.endswith("link"):
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = 0 if name.endswith("link") else len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def spread(files: Files, folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def left(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir()) if data.exists() else []


def batch(files: Files, name: str = "data_batch_3") -> dict[str, Any]:
    return {key.decode(): part for key, part in pickle.loads(files[name], encoding="bytes").items()}  # noqa: S301  ours


def jpeg(mode: str, size: tuple[int, int], kind: str = "JPEG") -> bytes:
    packed = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(packed, kind)
    return packed.getvalue()


# What is right


@pytest.mark.parametrize("dataset", ["cifar10", "tinyimagenet"])
def test_packed_and_unpacked_and_repacked_sources_give_one_fingerprint(
    dataset: str, archives: dict[str, Path], tmp_path: Path
) -> None:
    """The fingerprint is of the images, labels and names, whatever they were packed in and in whatever order."""
    files = unpack(archives[dataset])
    backwards = dict(reversed(files.items()))
    folder = spread(files, tmp_path / "an unpacked, oddly named folder")
    sources = [archives[dataset], pack(dataset, backwards, tmp_path / "backwards"), folder]
    manifests = [
        prepare(dataset, str(source), tmp_path / f"data {number}", unofficial=True)[0]
        for number, source in enumerate(sources)
    ]
    assert len({manifest.fingerprint for manifest in manifests}) == 1
    prepared = open_dataset(tmp_path / "data 0", dataset)
    assert fingerprint_of(prepared.manifest.classes, prepared.arrays()) == manifests[0].fingerprint
    changed = {name: np.array(array) for name, array in prepared.arrays().items()}
    changed["val_labels"][0] ^= 1
    assert fingerprint_of(prepared.manifest.classes, changed) != manifests[0].fingerprint


def test_tinyimagenet_comes_in_imagefolder_order_with_grey_images_made_rgb(
    archives: dict[str, Path], tmp_path: Path
) -> None:
    """Classes in sorted order, files in sorted order within them, each pixel as Pillow decodes it."""
    files = unpack(archives["tinyimagenet"])
    grey = "train/synthetic001/images/synthetic001_0.JPEG"
    files[grey] = jpeg("L", (64, 64))
    files["wnids.txt"] = b"synthetic002\r\nsynthetic000\r\nsynthetic001\r\n"
    files["train/synthetic001/images/synthetic001_10.JPEG"] = jpeg("RGB", (64, 64))  # sorts before _2
    source = pack("tinyimagenet", files, tmp_path / "source.zip")
    manifest, _ = prepare("tinyimagenet", str(source), tmp_path / "data", unofficial=True)
    prepared = open_dataset(tmp_path / "data", "tinyimagenet")

    annotations = dict(line.split("\t")[:2] for line in files["val/val_annotations.txt"].decode().splitlines())
    train = sorted((name.split("/")[1], name) for name in files if name.startswith("train/") and name.endswith("JPEG"))
    val = sorted((kind, f"val/images/{name}") for name, kind in annotations.items())
    assert manifest.classes == ["synthetic000", "synthetic001", "synthetic002"]
    for split, expected in (("train", train), ("val", val)):
        pixels = [np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")) for _, name in expected]
        np.testing.assert_array_equal(prepared.images(split), np.stack(pixels).transpose(0, 3, 1, 2))
        assert [manifest.classes[label] for label in prepared.labels(split)] == [kind for kind, _ in expected]
    index = [name for _, name in train].index(grey)
    assert (np.ptp(np.array(prepared.images("train")[index]), axis=0) == 0).all()


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    """More images than a chunk, decoded by one thread or five, come out in the same order."""
    archive = synthesize("tinyimagenet", tmp_path, train=600, val=2, classes=2)
    images = []
    for workers in (1, 5):
        source = open_source(archive, "source")
        images.append(np.concatenate(list(tinyimagenet.read(source, workers).train.images)))
        source.close()
    np.testing.assert_array_equal(*images)
    assert len(images[0]) == 600


def rewritten(files: Files, form: str) -> Files:
    """Write every batch again as Python 3 does at a protocol, or exactly as numpy under Python 2 did."""
    if form == "python 2":  # numpy passed dtype's flags as whole numbers then
        assert all(b"\x89\x88\x87R" in files[name] for name in (*cifar10.TRAIN, cifar10.TEST))
        return {name: content.replace(b"\x89\x88\x87R", b"K\x00K\x01\x87R") for name, content in files.items()}
    names = (*cifar10.TRAIN, cifar10.TEST, cifar10.META)
    loaded = {name: pickle.loads(files[name], encoding="bytes") for name in names}  # noqa: S301  drawn by ourselves
    return files | {name: pickle.dumps(value, int(form)) for name, value in loaded.items()}


@pytest.mark.parametrize("form", ["python 2", "2", "3", "4"])
def test_cifar_batches_are_read_however_python_wrote_them(form: str, archives: dict[str, Path], tmp_path: Path) -> None:
    """Python 2's pickles under numpy's old names and Python 3's under the new ones hold the same images."""
    files = unpack(archives["cifar10"])
    source = pack("cifar10", rewritten(files, form), tmp_path / "source.tar.gz")
    prepare("cifar10", str(source), tmp_path / "data", unofficial=True)
    prepared = open_dataset(tmp_path / "data", "cifar10")
    batches = [batch(files, name) for name in cifar10.TRAIN]
    rows = np.concatenate([part[b"data"] if b"data" in part else part["data"] for part in batches])
    np.testing.assert_array_equal(prepared.images("train").reshape(-1, 3072), rows)
    assert prepared.labels("train").tolist() == [label for part in batches for label in part["labels"]]
    assert prepared.labels("val").tolist() == batch(files, "test_batch")["labels"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of the real datasets are not on this machine")
@pytest.mark.parametrize(
    ("dataset", "train", "val", "classes"), [("cifar10", 2500, 1000, 10), ("tinyimagenet", 2000, 600, 200)]
)
def test_samples_of_the_real_archives_are_prepared(
    dataset: str, train: int, val: int, classes: int, tmp_path: Path
) -> None:
    """The real datasets' own files go through: counts, balance, and grey images among them."""
    seen: list[tuple[str, int, int]] = []
    source = SAMPLES / NAMES[dataset]
    manifest, new = prepare(
        dataset, str(source), tmp_path, unofficial=True, report=lambda *progress: seen.append(progress)
    )
    prepared = open_dataset(tmp_path, dataset)
    assert new
    assert (manifest.train_samples, manifest.val_samples, len(manifest.classes)) == (train, val, classes)
    assert set(np.bincount(prepared.labels("train"))) == {train // classes}
    assert seen[-1] == ("reading", train + val, train + val)
    assert verify(tmp_path, dataset) == manifest


# What is asked for twice, at once, or half


def test_a_second_preparation_of_the_same_content_changes_nothing(archives: dict[str, Path], tmp_path: Path) -> None:
    """The same archive is recognised, and so is its unpacked folder; not a byte is written."""
    data = tmp_path / "data"
    first, new = prepare("cifar10", str(archives["cifar10"]), data, unofficial=True)
    before = {path: path.stat().st_mtime_ns for path in (data / "cifar10").iterdir()}
    folder = spread(unpack(archives["cifar10"]), tmp_path / "cifar-10-batches-py")
    again = [
        prepare("cifar10", str(source), data, unofficial=True) for source in (archives["cifar10"], folder, tmp_path)
    ]
    assert new
    assert again == [(first, False)] * 3
    assert {path: path.stat().st_mtime_ns for path in (data / "cifar10").iterdir()} == before


def test_another_dataset_in_its_place_is_left_alone_and_named(archives: dict[str, Path], tmp_path: Path) -> None:
    """Preparing never replaces: what is there stays, and the sentence says what it is and what to do."""
    first, _ = prepare("cifar10", str(archives["cifar10"]), tmp_path / "data", unofficial=True)
    other = synthesize("cifar10", tmp_path, train=60, val=20, seed=1)
    with pytest.raises(DataError, match=r"already holds another cifar10 .*remove .*or choose another folder"):
        prepare("cifar10", str(other), tmp_path / "data", unofficial=True)
    assert verify(tmp_path / "data", "cifar10") == first
    assert left(tmp_path / "data") == ["cifar10"]


def test_a_folder_that_is_no_dataset_is_not_touched(archives: dict[str, Path], tmp_path: Path) -> None:
    """Somebody's own files under the same name are not overwritten."""
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is no prepared dataset; move it away"):
        prepare("cifar10", str(archives["cifar10"]), tmp_path, unofficial=True)
    assert (tmp_path / "cifar10" / "notes.txt").read_text() == "mine"
    assert left(tmp_path) == ["cifar10"]


def test_of_two_preparations_at_once_one_wins_and_both_are_served(archives: dict[str, Path], tmp_path: Path) -> None:
    """Both write, one rename succeeds, and the other finds the same content in place."""
    both_reading = threading.Barrier(2, timeout=60)
    outcomes: list[tuple[Manifest, bool]] = []

    def once() -> None:
        waited = False

        def report(stage: str, done: int, total: int) -> None:
            nonlocal waited
            if stage == "reading" and not waited:
                waited = True
                both_reading.wait()

        outcomes.append(prepare("cifar10", str(archives["cifar10"]), tmp_path, unofficial=True, report=report))

    threads = [threading.Thread(target=once) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new for _, new in outcomes) == [False, True]
    assert len({manifest.fingerprint for manifest, _ in outcomes}) == 1
    assert left(tmp_path) == ["cifar10"]


def test_a_killed_preparation_leaves_nothing_that_counts_and_the_next_succeeds(
    archives: dict[str, Path], tmp_path: Path
) -> None:
    """kill -9 amid the arrays: no dataset is in place, and the next preparation clears up and finishes."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom trainer.data.prepare import prepare\n"
        "def report(stage, done, total):\n    if stage == 'reading': print('reading', flush=True); time.sleep(600)\n"
        "prepare('tinyimagenet', sys.argv[1], Path(sys.argv[2]), unofficial=True, report=report)\n"
    )
    command = [sys.executable, "-c", script, str(archives["tinyimagenet"]), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        process.send_signal(signal.SIGKILL)
    remains = left(tmp_path)
    foreign = tmp_path / ".tinyimagenet.notes.preparing"
    foreign.mkdir()
    assert len(remains) == 1
    assert remains[0].endswith(".preparing")
    _, new = prepare("tinyimagenet", str(archives["tinyimagenet"]), tmp_path, unofficial=True)
    assert new
    assert left(tmp_path) == [foreign.name, "tinyimagenet"]
    verify(tmp_path, "tinyimagenet")


def test_an_interrupted_preparation_leaves_nothing_and_spares_one_that_lives(
    archives: dict[str, Path], tmp_path: Path
) -> None:
    """Ctrl-C removes what was begun; the folder of another preparation that still runs stays."""

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "reading":
            assert len(left(tmp_path)) == 1
            prepare("tinyimagenet", str(archives["tinyimagenet"]), tmp_path, unofficial=True)
            prepare("tinyimagenet", str(archives["tinyimagenet"]), tmp_path, unofficial=True)
            assert len(left(tmp_path)) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("tinyimagenet", str(archives["tinyimagenet"]), tmp_path, unofficial=True, report=interrupt)
    assert left(tmp_path) == ["tinyimagenet"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(archives: dict[str, Path], tmp_path: Path) -> None:
    """Room is asked for beforehand; and a write that fails all the same (here at a limit on file sizes) is told."""
    with pytest.raises(DataError, match=r"GB free, .* GB needed; free some, or choose another folder with --data"):
        require_space(tmp_path, 10**18)
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom trainer.data.prepare import prepare\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "prepare('tinyimagenet', sys.argv[1], Path(sys.argv[2]), unofficial=True)\n"
    )
    command = [sys.executable, "-c", script, str(archives["tinyimagenet"]), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert "DataError: " in ended.stderr.splitlines()[-1]
    assert "no space to prepare tinyimagenet" in ended.stderr.splitlines()[-1]
    assert left(tmp_path) == []


# What is broken


def without(name: str) -> Callable[[Files], None]:
    return lambda files: files.pop(name) and None


def replaced(name: str, content: bytes | Callable[[bytes], bytes]) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files[name] = content(files.get(name, b"")) if callable(content) else content

    return change


def changed_batch(change: Callable[[dict[str, Any]], object]) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        value = batch(files)
        change(value)
        files["data_batch_3"] = cifar10.dump(value)

    return apply


def as_large(content: bytes) -> bytes:
    """Let a JPEG claim 65,500 pixels in each direction: height and width follow the frame header's length and depth."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", 65500, 65500) + content[at + 4 :]


def without_class_3(files: Files) -> None:
    for name in cifar10.TRAIN:
        value = batch(files, name)
        value["labels"] = [0 if label == 3 else label for label in value["labels"]]
        files[name] = cifar10.dump(value)


TRAIN_IMAGE = "train/synthetic001/images/synthetic001_1.JPEG"
ANNOTATIONS = "val/val_annotations.txt"
AGAIN = "get the archive again"
CALL = b"cposix\nsystem\n(S'touch ran'\ntR."
OWN_ARRAY = b"\x80\x02cnumpy\nndarray\n(K\x05tR."
UNZIP = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x03\x00\x00\x00zip\x86R."
CHANGED = b"\x80\x02c_codecs\nencode\n}X\x05\x00\x00\x00_callK\x01sb."
MEMO = b"\x80\x02}r\xff\xff\xff\x7f."

BROKEN: dict[str, tuple[str, Callable[[Files], None], tuple[str, ...]]] = {
    "missing val image": (
        "tinyimagenet", without("val/images/val_2.JPEG"), ("val/images/val_2.JPEG: is missing", ANNOTATIONS, AGAIN)),
    "truncated jpeg": (
        "tinyimagenet", replaced(TRAIN_IMAGE, lambda content: content[:-200]),
        (TRAIN_IMAGE, "not a whole JPEG", AGAIN)),
    "empty jpeg": ("tinyimagenet", replaced(TRAIN_IMAGE, b""), (TRAIN_IMAGE, "no JPEG at all", AGAIN)),
    "png named jpeg": (
        "tinyimagenet", replaced(TRAIN_IMAGE, jpeg("RGB", (64, 64), "PNG")), (TRAIN_IMAGE, "no JPEG at all", AGAIN)),
    "wrong size": (
        "tinyimagenet", replaced(TRAIN_IMAGE, jpeg("RGB",
        (64, 48))), (TRAIN_IMAGE, "is 64×48 pixels, not 64×64", AGAIN)),
    "decompression bomb": ("tinyimagenet", replaced(TRAIN_IMAGE, as_large), (TRAIN_IMAGE, "pixels", AGAIN)),
    "huge file": ("tinyimagenet", replaced(TRAIN_IMAGE, bytes(2**20 + 1)), (TRAIN_IMAGE, "is 1048577 bytes", AGAIN)),
    "class without images": (
        "tinyimagenet", replaced("wnids.txt", lambda content: content + b"synthetic999\n"),
        ("train/synthetic999/images: the class synthetic999 of wnids.txt has no training images", AGAIN)),
    "class not listed": (
        "tinyimagenet", replaced("wnids.txt", b"synthetic000\nsynthetic001\n"),
        ("train/synthetic002: is a class that wnids.txt does not name", AGAIN)),
    "class listed twice": (
        "tinyimagenet", replaced("wnids.txt", lambda content: content + b"synthetic001\n"),
        ("wnids.txt: names the class synthetic001 twice", AGAIN)),
    "class that escapes": (
        "tinyimagenet", replaced("wnids.txt", b"../synthetic000\n"), ("wnids.txt: has '../synthetic000'", AGAIN)),
    "no class list": ("tinyimagenet", without("wnids.txt"), ("holds neither wnids.txt", AGAIN)),
    "annotated with an unknown class": (
        "tinyimagenet", replaced(ANNOTATIONS, lambda content: content.replace(b"synthetic001", b"n999", 1)),
        (ANNOTATIONS, "'n999', which wnids.txt does not name", AGAIN)),
    "image without annotation": (
        "tinyimagenet", replaced(ANNOTATIONS, lambda content: content[: content.rindex(b"val_5")]),
        ("val/images/val_5.JPEG: has no label", AGAIN)),
    "annotation that escapes": (
        "tinyimagenet", replaced(ANNOTATIONS, lambda content: content.replace(b"val_0", b"../val_0")),
        (ANNOTATIONS, "has '../val_0.JPEG' where a plain name belongs", AGAIN)),
    "no annotations": ("tinyimagenet", without(ANNOTATIONS), (f"{ANNOTATIONS}: is missing", AGAIN)),
    "zip entry that escapes": ("tinyimagenet", replaced("!../evil", b""), ("../evil", "is no path inside", AGAIN)),
    "absolute zip entry": ("tinyimagenet", replaced("!/etc/evil", b""), ("/etc/evil", "is no path inside", AGAIN)),
    "link in a zip": ("tinyimagenet", replaced("link", b"/etc/passwd"), ("link: is a link", AGAIN)),
    "missing batch": ("cifar10", without("data_batch_4"), ("data_batch_4: is missing", AGAIN)),
    "missing names": ("cifar10", without("batches.meta"), ("holds neither batches.meta", AGAIN)),
    "pickle that calls": (
        "cifar10", replaced("data_batch_3", CALL),
        ("data_batch_3: asks to call posix.system", "nothing of it was run")),
    "pickle that makes an array": (
        "cifar10", replaced("data_batch_3", OWN_ARRAY), ("data_batch_3: asks to make", AGAIN)),
    "pickle that decompresses": (
        "cifar10", replaced("data_batch_3", UNZIP), ("data_batch_3: asks to encode with 'zip'", AGAIN)),
    "pickle that changes a function": (
        "cifar10", replaced("data_batch_3", CHANGED), ("data_batch_3: asks to change _codecs.encode", AGAIN)),
    "pickle that asks for memory": (
        "cifar10", replaced("data_batch_3", MEMO), ("data_batch_3: ", "numbers its parts beyond its own", AGAIN)),
    "batch cut short": (
        "cifar10", replaced("data_batch_3", lambda content: content[: len(content) // 2]),
        ("data_batch_3: is not a whole CIFAR-10 batch", AGAIN)),
    "batch that is no dictionary": (
        "cifar10", replaced("data_batch_3", b"\x80\x02]."), ("data_batch_3: ", "does not hold a dictionary", AGAIN)),
    "label out of range": (
        "cifar10", changed_batch(lambda value: value["labels"].__setitem__(0, 10)),
        ("data_batch_3: has the label 10",)),
    "fewer labels than images": (
        "cifar10", changed_batch(lambda value: value["labels"].pop()),
        ("data_batch_3: holds 12 images and 11 labels",)),
    "images of another size": (
        "cifar10", changed_batch(lambda value: value.update(data=value["data"][:, :768])),
        ("data_batch_3: its 'data' is",)),
    "class in no batch": ("cifar10", without_class_3, ("batches.meta: class 'synthetic", "has no image", AGAIN)),
    "tar entry that escapes": ("cifar10", replaced("!../evil", b""), ("../evil", "is no path inside", AGAIN)),
    "link in a tar": ("cifar10", replaced("link", b""), ("link: is a link or a device", AGAIN)),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_data_is_one_sentence_that_names_the_file_and_leaves_nothing(
    kind: str, archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong in an archive: where, what, what to do next; and no trace in the data folder."""
    dataset, change, says = BROKEN[kind]
    monkeypatch.chdir(tmp_path)
    files = unpack(archives[dataset])
    change(files)
    source = pack(dataset, files, tmp_path / "broken archive")
    with pytest.raises(DataError) as raised:
        prepare(dataset, str(source), tmp_path / "data", unofficial=True)
    message = str(raised.value)
    assert str(source) in message
    assert "\n" not in message
    for part in says:
        assert part in message
    assert left(tmp_path / "data") == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("dataset", "damage"),
    [
        ("cifar10", lambda content: content[:-2000]),
        ("cifar10", lambda content: content[:-8] + b"\0\0\0\0" + content[-4:]),  # gzip's checksum
        ("cifar10", lambda content: b"<html>not found</html>"),
        ("cifar10", lambda content: b""),
        ("tinyimagenet", lambda content: content[:-2000]),
        ("tinyimagenet", lambda content: content.replace(b"\xff\xd9", b"\xff\xd8", 9)),  # the entries' checksums
    ],
    ids=["tar cut short", "tar checksum", "page instead", "empty", "zip cut short", "zip checksum"],
)
def test_a_damaged_archive_is_one_sentence_and_leaves_nothing(
    dataset: str, damage: Callable[[bytes], bytes], archives: dict[str, Path], tmp_path: Path
) -> None:
    """Archives that broke on their way are recognised as such, not read as far as they go."""
    source = tmp_path / "damaged"
    source.write_bytes(damage(archives[dataset].read_bytes()))
    with pytest.raises(DataError, match=r"damaged: .*(not a whole|cannot be unpacked).*; get the archive again"):
        prepare(dataset, str(source), tmp_path / "data", unofficial=True)
    assert left(tmp_path / "data") == []


@pytest.mark.parametrize("dataset", ["cifar10", "tinyimagenet"])
def test_a_source_that_is_not_official_needs_the_users_word(
    dataset: str, archives: dict[str, Path], tmp_path: Path
) -> None:
    """Without --unofficial the sentence names both md5s and the flag; nothing is prepared."""
    found = hashlib.md5(archives[dataset].read_bytes(), usedforsecurity=False).hexdigest()
    folder = spread(unpack(archives[dataset]), tmp_path / "unpacked")
    with pytest.raises(DataError, match=f"md5 is {found}, not {DATASETS[dataset].md5}; .*--unofficial"):
        prepare(dataset, str(archives[dataset]), tmp_path / "data")
    with pytest.raises(DataError, match="pass --unofficial to use this one as it is"):
        prepare(dataset, str(folder), tmp_path / "data")
    with pytest.raises(DataError, match="no such file or folder; give the path of"):
        prepare(dataset, str(tmp_path / "nowhere"), tmp_path / "data")
    assert left(tmp_path / "data") == []


def test_an_unpacked_official_cifar_is_known_by_its_files_and_one_changed_file_is_named(
    archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose files all have the official md5s (here: drawn ones taken as official) needs no flag."""
    files = unpack(archives["cifar10"])
    for name in cifar10.OFFICIAL_MD5:
        monkeypatch.setitem(cifar10.OFFICIAL_MD5, name, hashlib.md5(files[name], usedforsecurity=False).hexdigest())
    folder = spread(files, tmp_path / "cifar-10-batches-py")
    manifest, new = prepare("cifar10", str(folder), tmp_path / "data")
    assert new
    assert manifest.official
    (folder / "data_batch_5").write_bytes(cifar10.dump(batch(files, "data_batch_4")))
    with pytest.raises(DataError, match=r"data_batch_5: not the official file: its md5 is .*--unofficial"):
        prepare("cifar10", str(folder), tmp_path / "other")
    assert left(tmp_path / "other") == []


def test_verify_finds_one_changed_byte_and_a_file_cut_short(archives: dict[str, Path], tmp_path: Path) -> None:
    """What is on the disk is held against the manifest, byte by byte."""
    manifest, _ = prepare("cifar10", str(archives["cifar10"]), tmp_path, unofficial=True)
    assert verify(tmp_path, "cifar10") == manifest
    images = tmp_path / "cifar10" / "val_images.npy"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="the arrays have changed since they were prepared; remove"):
        verify(tmp_path, "cifar10")
    images.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"val_images.npy: cannot be read .*; remove .* and prepare it again"):
        verify(tmp_path, "cifar10")
    with pytest.raises(DataError, match=r"val_images.npy: cannot be read .*; remove .* and prepare it again"):
        prepare("cifar10", str(archives["cifar10"]), tmp_path, unofficial=True)


# What comes over the network


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


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    """Within one call the rest is asked for, not the whole; what comes together is what the server has."""
    server.content = os.urandom(3_000_000)
    server.limit = 1_600_000
    download(server.url, tmp_path / "part", lambda stage, done, total: None)
    assert (tmp_path / "part").read_bytes() == server.content
    assert server.asked == [None, "bytes=1600000-"]


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

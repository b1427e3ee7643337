"""Broken data: one sentence that names the file and says what to do, and nothing is left behind."""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archive_fixtures import Files, batch, jpeg, left, pack, spread, unpack

from trainer.data import cifar10
from trainer.data.catalog import DATASETS
from trainer.data.prepare import prepare
from trainer.data.prepared import DataError, verify


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
    "zip entry that escapes": ("tinyimagenet", replaced("!../evil", b""), ("../evil", "is not a path inside", AGAIN)),
    "absolute zip entry": ("tinyimagenet", replaced("!/etc/evil", b""), ("/etc/evil", "is not a path inside", AGAIN)),
    "link in a zip": ("tinyimagenet", replaced("link", b"/etc/passwd"), ("link: is a link", AGAIN)),
    "missing batch": ("cifar10", without("data_batch_4"), ("data_batch_4: is missing", AGAIN)),
    "missing names": ("cifar10", without("batches.meta"), ("holds neither batches.meta", AGAIN)),
    "pickle that calls": (
        "cifar10", replaced("data_batch_3", CALL),
        ("data_batch_3: asks to call posix.system", "none of it was run")),
    "pickle that makes an array": (
        "cifar10", replaced("data_batch_3", OWN_ARRAY), ("data_batch_3: asks to construct", AGAIN)),
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
    "tar entry that escapes": ("cifar10", replaced("!../evil", b""), ("../evil", "is not a path inside", AGAIN)),
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

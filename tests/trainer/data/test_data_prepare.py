"""Preparation: real archives become arrays, whole and in the right order, once, whoever asks and however often."""

import io
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from archive_fixtures import NAMES, Files, batch, jpeg, left, pack, spread, unpack
from conftest import REPOSITORY
from PIL import Image
from shared_files import SAMPLES

from trainer.data import cifar10, tinyimagenet
from trainer.data.prepare import prepare, require_space
from trainer.data.prepared import DataError, Manifest, fingerprint_of, open_dataset, verify
from trainer.data.sources import open_source
from trainer.data.synthesize import synthesize

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


def test_reading_gives_the_images_asked_for_in_their_order(
    archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across blocks of the file, of which some are not asked for, twice the same, and all of them."""
    prepare("cifar10", str(archives["cifar10"]), tmp_path, unofficial=True)
    dataset = open_dataset(tmp_path, "cifar10")
    images, labels = dataset.images("train"), dataset.labels("train")
    monkeypatch.setattr("trainer.data.prepared._ROWS", 7)
    for kept in (np.array([len(labels) - 1, 8, 3, 8, 0, 30]), np.random.default_rng(0).permutation(len(labels))):
        read_images, read_labels = dataset.read("train", kept)
        np.testing.assert_array_equal(read_images, images[kept])
        np.testing.assert_array_equal(read_labels, labels[kept])
    for found, expected in zip(dataset.read("train"), (images, labels), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.flags.writeable  # torch warns of anything else


@pytest.mark.slow
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
    with pytest.raises(DataError, match="is not a prepared dataset; move it away"):
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

"""A sweep file is checked whole before anything runs; whatever is wrong gets one sentence."""

from pathlib import Path

import pytest

from sweep.config.load import load_sweep
from sweep.config.operations import START_S, estimate_s
from sweep.errors import InputError

GOOD = """\
name: study
grid:
  architecture: [resnet18]
  dataset: [cifar10]
  ratio: [0.1, 1.0]
  seed: [42]
training:
  epochs: 5
  lr_milestones: [3]
data: nowhere
"""

CLUSTER = "cluster:\n  file: narvi\n  assign:\n"


def load(tmp_path: Path, text: str):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_sweep(path)


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


BROKEN = {
    "unknown key": (
        changed("  epochs: 5", "  epoch: 5"),
        8,
        "unknown key 'epoch' in 'training'; did you mean 'epochs'?",
    ),
    "unknown top key": (
        changed("data: nowhere", "datas: x"),
        10,
        "unknown key 'datas' in 'the file'; did you mean 'data'?",
    ),
    "unknown axis": (
        changed("  seed: [42]", "  seeds: [42]"),
        6,
        "unknown axis 'seeds' in 'grid'; did you mean 'seed'?",
    ),
    "missing axis": (changed("  seed: [42]\n", ""), 2, "axis 'seed' is missing in 'grid'"),
    "missing name": (changed("name: study\n", ""), 1, "'name' is missing in 'the file'"),
    "bad name": (changed("name: study", "name: ../up"), 1, "'name' is '../up'"),
    "duplicate key": (changed("data: nowhere", "name: again"), 10, "key 'name' is given twice, first on line 1"),
    "duplicate value": (changed("[0.1, 1.0]", "[0.1, 1.0, 1]"), 5, "'grid.ratio' holds 1.0 twice"),
    "ratio of zero": (changed("[0.1, 1.0]", "[0]"), 5, "'grid.ratio' holds 0: a ratio is above 0 and at most 1"),
    "ratio above one": (changed("[0.1, 1.0]", "[1.5]"), 5, "'grid.ratio' holds 1.5: a ratio is above 0"),
    "ratio not a number": (changed("[0.1, 1.0]", "[half]"), 5, "'grid.ratio' holds 'half': a ratio is above 0"),
    "too small for the classes": (
        changed("[0.1, 1.0]", "[0.0001]"),
        5,
        "CIFAR-10: ratio 0.0001 keeps 5 of 50000 images, fewer than the 10 classes",
    ),
    "leaves too few out": (changed("[0.1, 1.0]", "[0.9999]"), 5, "leaves out 5 images, fewer than the 10 classes"),
    "no batch for a replica": (
        changed("  epochs: 5", "  epochs: 5\n  replicas: 50").replace("[0.1, 1.0]", "[0.001]"),
        5,
        "CIFAR-10: 50 images give each of 50 replicas a batch of",
    ),
    "unknown architecture": (changed("resnet18", "resnet81"), 3, "no such architecture; did you mean 'resnet18'?"),
    "unknown dataset": (changed("cifar10", "imagenet21k"), 4, "'grid.dataset' holds 'imagenet21k': no such dataset"),
    "negative seed": (changed("[42]", "[-1]"), 6, "a seed is a whole number from 0 to 4294967295"),
    "seed is true": (changed("[42]", "[true]"), 6, "'grid.seed' holds True: a seed is a whole number"),
    "axis not a list": (changed("seed: [42]", "seed: 42"), 6, "'grid.seed' is 42: expected a list"),
    "empty axis": (changed("seed: [42]", "seed: []"), 6, "'grid.seed' is []: expected a list with at least one value"),
    "epochs not whole": (
        changed("epochs: 5", "epochs: 2.5"),
        8,
        "'training.epochs' is 2.5: input should be a valid int",
    ),
    "epochs zero": (
        changed("epochs: 5", "epochs: 0"),
        8,
        "'training.epochs' is 0: input should be greater than or equal",
    ),
    "epochs a word": (changed("epochs: 5", "epochs: five"), 8, "'training.epochs' is 'five'"),
    "milestones fall": (changed("[3]", "[3, 2]"), 7, "lr_milestones must rise, got [3, 2]"),
    "unknown precision": (changed("epochs: 5", "precision: fp8"), 8, "'training.precision' is 'fp8'"),
    "axis also fixed": (
        changed("seed: [42]", "seed: [42]\n  epochs: [3, 4]"),
        9,
        "'epochs' is an axis of the grid and a fixed value in 'training'",
    ),
    "axis value refused": (changed("seed: [42]", "seed: [42]\n  dropout: [1.5]"), 7, "'grid.dropout' holds 1.5"),
    "not YAML": (changed("[0.1, 1.0]", "[0.1, 1.0"), 6, "is not valid YAML"),
    "tab": (changed("  epochs", "\tepochs"), 8, "is not valid YAML"),
    "empty file": ("", 1, "expected keys and values such as 'name: thesis', got nothing"),
    "a list": ("- name\n", 1, "expected keys and values such as 'name: thesis', got list"),
    "a tag that builds": ("name: !!python/object/apply:os.system [echo]\n", 1, "is not valid YAML"),
    "endless anchor": ("name: &a\n  b: *a\n", 1, "an anchor that contains itself"),
    "unknown cluster": (GOOD + CLUSTER.replace("narvi", "narwi") + "    - {pool: x}\n", 12, "did you mean 'narvi'?"),
    "unknown pool": (GOOD + CLUSTER + "    - {pool: v100-16}\n", 14, "no pool 'v100-16' in narvi.yaml; did you mean"),
    "rule on no axis": (
        GOOD + CLUSTER + "    - {when: {sed: 1}, pool: v100-16gb}\n",
        14,
        "'sed' is no axis of the grid",
    ),
    "rule without runs": (
        GOOD + CLUSTER + "    - {pool: v100-16gb}\n    - {when: {seed: 7}, pool: v100-16gb}\n",
        15,
        "the rule for pool 'v100-16gb' matches no run",
    ),
    "run without a pool": (
        GOOD + CLUSTER + "    - {when: {ratio: 0.1}, pool: v100-16gb}\n",
        13,
        "no rule gives resnet18-cifar10-r1.0-s42 a pool",
    ),
    "no GPU": (GOOD + "execution: {gpus_per_run: 0}\n", 11, "'execution.gpus_per_run' is 0"),
    "GPUs that do not divide the replicas": (
        GOOD + "execution:\n  gpus_per_run: 3\n",
        12,
        "'execution.gpus_per_run' is 3: 3 cannot share 4 replicas evenly; use 1 or 2 or 4",
    ),
    "GPUs that do not divide an axis of replicas": (
        changed("[42]", "[42]\n  replicas: [4, 2]") + "execution: {gpus_per_run: 4}\n",
        12,
        "'execution.gpus_per_run' is 4: 4 cannot share 2 replicas evenly; use 1 or 2",
    ),
    "several runs a GPU and several GPUs a run": (
        GOOD + CLUSTER + "    - {pool: v100-16gb}\n  runs_per_gpu: 2\nexecution: {gpus_per_run: 4}\n",
        16,
        "'execution.gpus_per_run' is 4 and 'cluster.runs_per_gpu' is 2; leave one of them at 1",
    ),
    "no workers": (GOOD + "execution: {workers: 0}\n", 11, "'execution.workers' is 0"),
}


@pytest.mark.parametrize(("text", "line", "sentence"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_sweep_file_is_refused_in_one_sentence(tmp_path: Path, text: str, line: int, sentence: str) -> None:
    """The error names the file, the line, what is wrong and, where there is one, the nearest valid name."""
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert sentence in message
    assert message.startswith(f"{tmp_path / 'study.yaml'}:{line}: ")
    assert "\n" not in message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    """A path that is no readable text file is an error of the input, not a traceback."""
    with pytest.raises(InputError, match=r"gone\.yaml: no such file"):
        load_sweep(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="is a folder"):
        load_sweep(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_sweep(tmp_path / "latin.yaml")


@pytest.mark.parametrize("written", ["3e-4", "3.0e-4", "3E-4", "0.0003", ".0003"])
def test_a_number_is_a_number_however_it_is_written(tmp_path: Path, written: str) -> None:
    """PyYAML alone would read 3e-4 as a string."""
    sweep = load(tmp_path, changed("  epochs: 5", f"  learning_rate: {written}"))
    assert sweep.runs[0].spec.training.learning_rate == 3e-4


def test_yaml_1_1_surprises_do_not_happen(tmp_path: Path) -> None:
    """042 is forty-two, not thirty-four; `no` is a word, not false."""
    sweep = load(tmp_path, changed("[42]", "[042]"))
    assert sweep.runs[0].spec.run.seed == 42
    with pytest.raises(InputError, match=r"'training\.augmentation' is 'no'"):
        load(tmp_path, changed("  epochs: 5", "  augmentation: no"))


def test_any_recipe_field_may_be_an_axis_and_is_part_of_the_run_id(tmp_path: Path) -> None:
    """Runs that differ in a further axis have different ids and different recipes."""
    sweep = load(tmp_path, changed("  seed: [42]", "  seed: [42]\n  learning_rate: [1e-4, 3e-4]\n  replicas: [1, 4]"))
    runs = {placed.id: placed.spec.training for placed in sweep.runs}
    assert len(runs) == 8
    recipe = runs["resnet18-cifar10-r0.1-s42-learning_rate=0.0001-replicas=1"]
    assert (recipe.learning_rate, recipe.replicas, recipe.epochs) == (1e-4, 1, 5)
    assert len({recipe.hash for recipe in runs.values()}) == 4


def test_the_first_matching_rule_gives_a_run_its_pool(tmp_path: Path) -> None:
    """A rule's list matches any of its items; a rule without `when` takes what is left."""
    rules = "    - {when: {ratio: [1.0, 0.5]}, pool: v100-32gb}\n    - {pool: p100-12gb}\n"
    sweep = load(tmp_path, GOOD + CLUSTER + rules)
    assert [placed.pool for placed in sweep.runs] == ["p100-12gb", "v100-32gb"]


def test_a_cluster_file_of_ones_own_is_found_beside_the_sweep_file(tmp_path: Path) -> None:
    """A path is taken relative to the sweep file, and its errors name the cluster file."""
    pool = "name: mine\npools:\n  fast: {device: v100, partition: gpu}\n"
    (tmp_path / "mine.yaml").write_text(pool)
    text = GOOD + "cluster:\n  file: ./mine.yaml\n  assign: [{pool: fast}]\n"
    assert load(tmp_path, text).runs[0].pool == "fast"
    (tmp_path / "mine.yaml").write_text(pool.replace("partition", "partiton"))
    with pytest.raises(InputError, match=r"mine\.yaml:3: unknown key 'partiton' in 'pools\.fast'"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("v10", r"'pools\.fast\.device' is 'v10': no device is known by that name; did you mean 'v100'\? Any other is"),
        ("{nam: a, memory_gb: 8, tflops: 9}", r"unknown key 'nam' in 'pools\.fast\.device'; did you mean 'name'\?"),
        ("{name: a, memory_gb: 8}", r"'tflops' is missing in 'pools\.fast\.device'"),
        (
            "{name: a, memory_gb: much, tflops: 9}",
            r"'pools\.fast\.device\.memory_gb' is 'much': input should be a valid n",
        ),
    ],
)
def test_a_device_that_is_not_known_or_not_described_is_one_sentence(tmp_path: Path, device: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: mine\npools:\n  fast: {{device: {device}, partition: gpu}}\n")
    with pytest.raises(InputError, match=rf"mine\.yaml:3: {words}"):
        load(tmp_path, GOOD + "cluster:\n  file: ./mine.yaml\n  assign: [{pool: fast}]\n")


def test_a_device_of_ones_own_is_planned_by_its_numbers(tmp_path: Path) -> None:
    """Two fifths of its peak: an A100's make it as fast as the table's, twice that twice as fast."""
    text = GOOD + "cluster:\n  file: ./mine.yaml\n  assign: [{pool: fast}]\n"
    costs = []
    for device in ("A100", "{name: a, memory_gb: 40, tflops: 19.5}", "{name: b, memory_gb: 40, tflops: 39}"):
        (tmp_path / "mine.yaml").write_text(f"name: mine\npools:\n  fast: {{device: {device}}}\n")
        costs.append(sum(estimate_s(placed) - START_S for placed in load(tmp_path, text).runs))
    assert costs[:2] == [pytest.approx(2 * costs[2])] * 2

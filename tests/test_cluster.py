"""Training and evaluation on a Dask cluster of processes of this machine."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import psutil
import pytest
from click.testing import Result

from softmax_cli import cluster as cluster_module
from softmax_cli import runs
from softmax_cli.backend import BLAS_VARIABLES
from softmax_cli.checkpoint import Checkpoint, load_checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.cluster import Cluster, open_cluster
from softmax_cli.cluster.place import find_place
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ClusterError, ConfigError
from softmax_cli.evaluation import evaluate
from softmax_cli.examples import Examples
from softmax_cli.features import FeatureMap
from softmax_cli.runs import resume_run, run_epochs, start_run
from softmax_cli.training import TRAINING, State, fit, prepare_examples, start
from tests.helpers import assert_equal_runs, assert_fails, folder_of


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    """Return a cluster of two processes."""
    with open_cluster("local:2") as cluster:
        assert cluster
        cluster.connect()
        yield cluster


@pytest.fixture(scope="module")
def small(sample: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return images of 12 x 12 pixels, in a folder; newton needs little time for them."""
    folder = tmp_path_factory.mktemp("small") / "digits"
    return load_dataset(folder_of(folder, replace(sample, images=sample.images[:, 8:20, 8:20])))


@contextmanager
def scheduler(workers: int) -> Iterator[distributed.LocalCluster]:
    """Yield a scheduler at a TCP address, with workers that are threads of this process."""
    options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "processes": False}
    with distributed.LocalCluster(
        **options, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=100
    ) as cluster:
        yield cluster


def last_state(config: TrainConfig, data: Dataset, cluster: Cluster | None = None) -> State:
    """Return the last state of a run."""
    *_, state = fit(config, data, cluster=cluster)
    return state


def assert_equal_states(one: State, other: State) -> None:
    """Assert that the parameters and the history are equal to the bit."""
    for ours, theirs in zip((*one.model, *one.last), (*other.model, *other.last), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert (one.history, one.temperature) == (other.history, other.temperature)


# The result


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 3},
        {"epochs": 2, "validation_size": 0.4, "calibrate": True, "features": "deskew,gradients"},
        {"epochs": 2, "features": "normalize,pca", "seed": 3},
    ],
    ids=lambda options: options.get("features", "pixels"),
)
def test_k8_training_on_a_cluster_gives_the_same_bits(
    local: Cluster, small: Dataset, options: dict[str, Any]
) -> None:
    config = TrainConfig(solver="newton", **options)
    assert_equal_states(last_state(config, small, local), last_state(config, small))


@pytest.mark.full
def test_training_on_a_cluster_gives_the_same_bits_on_mnist(local: Cluster, full_mnist: Path) -> None:
    data = load_dataset("mnist", "train", Source(full_mnist, offline=True))
    config = TrainConfig(dataset="mnist", solver="newton", epochs=2)
    assert_equal_states(last_state(config, data, local), last_state(config, data))


def test_the_work_is_done_by_the_workers(local: Cluster, sample: Dataset) -> None:
    """Each part is computed in another process, and each process gets some."""
    examples = local.share(sample, examples_of)["all"]
    parts = [slice(begin, begin + 1) for begin in range(64)]
    assert examples.remote
    found = list(examples.remote.map(process_of, None, parts))
    assert [begin for begin, _ in found] == list(range(64))
    processes = {process for _, process in found}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_job_holds_no_images(local: Cluster, small: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to a worker are paths and the fitted features."""
    from softmax_cli.cluster.worker import Job, JobPlugin

    sent: list[int] = []
    begin = JobPlugin.__init__

    def counted(self: JobPlugin, job: Job) -> None:
        sent.append(len(pickle.dumps(job)))
        begin(self, job)

    monkeypatch.setattr(JobPlugin, "__init__", counted)
    last_state(TrainConfig(solver="newton", epochs=1), small, local)
    assert 0 < sent[0] < 5000 < small.images.nbytes


def test_k8_evaluation_on_a_cluster_gives_the_same_result(
    local: Cluster, trained: Checkpoint, sample: Dataset, sample_test: Dataset
) -> None:
    cold = replace(trained, state=replace(trained.state, temperature=1.5))
    for checkpoint, data, rows in (
        (trained, sample_test, None),
        (cold, sample, np.random.default_rng(0).permutation(5000)[:3000]),
    ):
        classifier = Classifier(checkpoint)
        ours, theirs = (evaluate(classifier, data, rows, cluster) for cluster in (local, None))
        assert pickle.dumps(ours) == pickle.dumps(theirs)


def test_the_commands_run_on_a_cluster_of_one(
    invoke: Callable[..., Result], small: Dataset, work: Path
) -> None:
    assert small.origin
    line: tuple[Any, ...] = ("train", "--dataset", small.origin.name, "--solver", "newton", "--epochs", 1)
    assert invoke(*line, "--output", "here.npz").exit_code == 0
    result = invoke(*line, "--output", "there.npz", "--cluster", "local:1")
    assert (result.exit_code, "the local cluster of 1 process is ready: 1 threads" in result.stderr) == (
        0,
        True,
    )
    assert_equal_runs(work / "here.npz", work / "there.npz")
    line = ("eval", "here.npz", "--json", "--compare", "there.npz")
    assert invoke(*line).stdout == invoke(*line, "--cluster", "local:1").stdout != ""


def test_the_regularization_is_chosen_on_a_cluster(local: Cluster, small: Dataset, work: Path) -> None:
    config = TrainConfig(solver="newton", epochs=1, l2="auto")
    here, there = (
        start_run(config, name, data=small, cluster=one)
        for name, one in (("here.npz", None), ("there.npz", local))
    )
    assert here.checkpoint.l2_path == there.checkpoint.l2_path


# Faults


def examples_of(data: Dataset) -> dict[str, Examples]:
    """Return all images of a data set."""
    return {"all": Examples(FeatureMap((28, 28)), data.images, data.labels, np.arange(len(data)))}


def process_of(examples: Examples, argument: None, part: slice) -> tuple[int, int]:
    """Return the begin of the part, and the process that works on it."""
    return part.start, os.getpid()


def die_once(examples: Examples, note: Path, part: slice) -> tuple[int, int]:
    """Kill this process at part 5, once; return the begin of the part, and the sum of its pixels."""
    if part.start == 5 and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part.start, int(examples.images[part].sum())


def test_k1_a_worker_that_is_killed_during_a_pass_changes_nothing(
    local: Cluster, sample: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its part of the work is repeated, and one line is logged; later passes work, too."""
    examples = local.share(sample, examples_of)["all"]
    parts = [slice(begin, begin + 1) for begin in range(40)]
    assert examples.remote
    caplog.clear()
    note = tmp_path / "died"
    for _ in range(2):
        found = list(examples.remote.map(die_once, note, parts))
        assert found == [(part.start, int(sample.images[part].sum())) for part in parts]
    assert note.exists()
    lost = [record.getMessage() for record in caplog.records]
    assert len(lost) == 1
    assert lost[0].startswith("lost the worker at t")


def changed(content: bytes, at: int) -> bytes:
    """Return bytes of which one is another."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at:][1:]


@pytest.mark.parametrize(
    ("name", "difference"),
    [("images-idx3", "images 4,096 to 4,999 differ"), ("labels-idx1", "the labels differ")],
)
def test_k4_a_worker_that_sees_other_data_is_named_with_the_file(
    name: str, difference: str, local: Cluster, small: Dataset, tmp_path: Path
) -> None:
    """Only images that a worker uses are checked, since it need not read others."""
    folder = folder_of(tmp_path / "data", small)
    data = load_dataset(folder)
    file = folder / f"train-{name}-ubyte"
    content = file.read_bytes()
    file.unlink()  # the old one is still mapped
    file.write_bytes(changed(content, -1))
    examples = local.share(data, examples_of)["all"]
    assert examples.remote
    if name.startswith("images"):
        parts = [slice(0, 4000), slice(4000, 4096)]
        assert len(list(examples.remote.map(process_of, None, parts))) == 2
    with pytest.raises(ClusterError, match=rf"worker t\S+ has other data in {folder}: {difference}; all"):
        list(examples.map_parts(process_of, None))


def test_features_that_are_computed_once_need_all_images(
    local: Cluster, small: Dataset, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "data", small)
    data = load_dataset(folder)
    file = folder / "train-images-idx3-ubyte"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(changed(content, 16))
    config = TrainConfig(features="deskew")
    build = partial(prepare_examples, config, start(config, data).features, None)
    remote = local.share(data, build)[TRAINING].remote
    assert remote
    with pytest.raises(ClusterError, match="images 0 to 2,047 differ"):
        list(remote.map(process_of, None, [slice(4400, 4500)]))


def test_k4_a_worker_that_cannot_read_the_data_is_named_with_the_file(
    local: Cluster, small: Dataset, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "data", small)
    data = load_dataset(folder)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(
        ClusterError, match=rf"worker t\S+ cannot read {folder}: .*; the data must be in storage"
    ):
        list(local.share(data, examples_of)["all"].map_parts(process_of, None))


def test_data_without_a_file_are_refused(local: Cluster, sample: Dataset) -> None:
    with pytest.raises(ClusterError, match="sample was not read from a file"):
        local.share(replace(sample, origin=None), examples_of)


def test_k5_another_version_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = cluster_module.__version__
    with scheduler(1) as remote, open_cluster(remote.scheduler_address) as cluster:
        monkeypatch.setattr(cluster_module, "__version__", "99.1")
        assert cluster
        with pytest.raises(
            ClusterError, match=rf"worker tcp://\S+ has version {ours} of .* has 99.1; install"
        ):
            cluster.connect()


def test_k5_a_worker_that_joins_later_is_checked_as_well(
    monkeypatch: pytest.MonkeyPatch, sample: Dataset
) -> None:
    with scheduler(1) as remote, open_cluster(remote.scheduler_address) as cluster:
        assert cluster
        cluster.connect()
        monkeypatch.setattr(cluster_module, "__version__", "99.1")
        with pytest.raises(ClusterError, match=r"and this machine has 99\.1"):
            list(cluster.share(sample, examples_of)["all"].map_parts(process_of, None))
        for name in BLAS_VARIABLES:
            monkeypatch.delenv(name)
        monkeypatch.setattr(cluster_module, "__version__", "0")
        monkeypatch.setattr("softmax_cli.cluster.worker.__version__", "0")
        with pytest.raises(ClusterError, match="may use several threads for a matrix product"):
            list(cluster.share(sample, examples_of)["all"].map_parts(process_of, None))


def test_k3_a_scheduler_that_does_not_answer_is_an_error(
    invoke: Callable[..., Result], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        Path("scheduler.json").write_text(json.dumps({"address": address}))
        line = ("train", "--dataset", "sample", "--solver", "newton", "--cluster", "scheduler.json")
        assert_fails(
            invoke(*line), f"the cluster at {address} does not answer; check that its scheduler runs"
        )
    assert not Path("model.npz").exists()


def test_k3_a_cluster_without_workers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "TIMEOUT", 0.5)
    with scheduler(0) as remote, open_cluster(remote.scheduler_address) as cluster:
        assert cluster
        with pytest.raises(ClusterError, match=f"no workers for .*: dask worker {remote.scheduler_address}"):
            cluster.connect()


@pytest.mark.parametrize("loss", ["workers", "scheduler"])
def test_k2_a_cluster_that_is_lost_ends_the_run_and_resume_continues(
    loss: str, invoke: Callable[..., Result], small: Dataset, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the last iteration is whole; the run continues without a cluster."""
    monkeypatch.setattr(cluster_module, "TIMEOUT", 1.0)
    monkeypatch.setattr(runs, "SAVE_INTERVAL", 0)
    save = runs.save_checkpoint
    assert small.origin
    line = ("train", "--dataset", small.origin.name, "--solver", "newton", "--epochs", 3)
    with scheduler(1) as remote:

        def save_and_lose(path: Path, checkpoint: Checkpoint) -> None:
            save(path, checkpoint)
            if checkpoint.state.epoch == 1:
                remote.scale(0) if loss == "workers" else remote.close()

        monkeypatch.setattr(runs, "save_checkpoint", save_and_lose)
        result = invoke(*line, "--cluster", remote.scheduler_address)
    problem = "has had no workers for" if loss == "workers" else "does not answer"
    assert_fails(result, problem, "model.npz holds iteration 1: continue with: softmax train --resume, also")
    assert load_checkpoint(work / "model.npz").state.epoch == 1
    monkeypatch.setattr(runs, "save_checkpoint", save)
    assert invoke("train", "--resume", "--dataset", small.origin.name).exit_code == 0
    assert load_checkpoint(work / "model.npz").state.epoch == 3


def test_a_run_is_resumed_on_a_cluster(local: Cluster, small: Dataset, work: Path) -> None:
    assert small.origin
    config = TrainConfig(dataset=small.origin.name, solver="newton", epochs=2)
    for output in ("here.npz", "there.npz"):
        first = next(run_epochs(start_run(config, output, data=small)))
        assert first.state.epoch == 1
    for output, cluster in (("here.npz", None), ("there.npz", local)):
        list(run_epochs(resume_run({"dataset": config.dataset}, output), cluster=cluster))
    assert_equal_runs(work / "here.npz", work / "there.npz")


def test_k6_ctrl_c_ends_the_run_and_all_processes(work: Path) -> None:
    """The signal reaches the whole process group, as in a terminal."""
    line = ("train", "--dataset", "sample", "--solver", "newton", "--cluster", "local:2", "--offline")
    process = subprocess.Popen(
        [sys.executable, "-m", "softmax_cli", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    seen = next(text for text in process.stderr if text.startswith("training on"))
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, ""), errors
    assert "Traceback" not in seen + errors
    assert "warning: stopped: model.npz holds epoch" in errors
    assert psutil.wait_procs(children, timeout=10)[1] == []


# The place


@pytest.mark.parametrize(
    "where",
    [
        "",
        "locals",
        "local:0",
        "local:65",
        "local:-1",
        "local:two",
        "http://host:1",
        "tcp://host",
        "missing.json",
    ],
)
def test_k7_a_place_that_is_not_valid_is_refused(
    where: str, invoke: Callable[..., Result], work: Path
) -> None:
    line = ("train", "--dataset", "sample", "--solver", "newton", "--cluster", where)
    assert_fails(invoke(*line), f"cluster {where!r}", code=2)
    assert not Path("model.npz").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"address": 1}', '{"address": "nowhere"}', "[" * 100_000]
)
def test_k7_a_file_that_is_not_of_a_scheduler_is_refused(content: str, work: Path) -> None:
    Path("scheduler.json").write_text(content)
    with pytest.raises(ConfigError, match=r"scheduler\.json is not a scheduler file"):
        find_place("scheduler.json")


def test_sgd_is_refused_with_an_explanation(
    invoke: Callable[..., Result], work: Path, trained: Checkpoint, sample: Dataset
) -> None:
    for line in (("--epochs", 1), ("--config", "quick")):
        result = invoke("train", "--dataset", "sample", *line, "--cluster", "local")
        assert_fails(result, "solver sgd makes a step for each", "use --solver newton", code=2)
    with pytest.raises(ConfigError, match="solver sgd"):
        next(fit(trained.config, sample, cluster=object()))  # type: ignore[arg-type]


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with open_cluster("local") as cluster:
        assert cluster
        with pytest.raises(ClusterError, match=r"pip install 'softmax-regression\[dask\]'"):
            cluster.connect()


# The processes of a local cluster


def test_k3_processes_that_cannot_be_started_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(distributed, "LocalCluster", refused)
    with open_cluster("local:3") as cluster:
        assert cluster
        with pytest.raises(
            ClusterError, match=r"cannot start the local cluster of 3 processes: .*; start fewer"
        ):
            cluster.connect()


def test_k9_local_processes_are_closed_to_others_and_use_one_thread(local: Cluster) -> None:
    """They listen on the loopback interface, and refuse a client without their certificate."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}
    client = local._client
    environments = client.run(lambda: dict(os.environ)).values()
    for environment in environments:
        assert environment["OPENBLAS_NUM_THREADS"] == environment["SOFTMAX_THREADS"] == "1"
        assert "MALLOC_TRIM_THRESHOLD_" not in environment
    address = client.scheduler.address
    assert address.startswith("tls://")
    for protocol in ("tcp", "tls"):
        with pytest.raises((OSError, RuntimeError, TypeError)):
            distributed.Client(address.replace("tls", protocol), timeout=1)

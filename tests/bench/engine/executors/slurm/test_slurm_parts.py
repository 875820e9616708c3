"""What the SLURM executor decides by itself, without a SLURM: options, the ledger, what a state means."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import pytest
import toy_suite
from hypothesis import given
from hypothesis import strategies as st
from small_plan import IMAGES, LEAVES, ROOT

from bench.engine import provenance, slurm_tools
from bench.engine.executors.protocol import Context
from bench.engine.executors.slurm import arrays, client, job
from bench.engine.executors.slurm.client import Entry
from bench.engine.executors.slurm.ledger import Ledger, Submission, entry_of, find_lost_ids, pack_sources
from bench.engine.store import Store
from bench.engine.task import Sources, Task
from bench.errors import BenchError
from bench.grid import Resources

SUBMISSION = Submission("smi-1", ("images-a", "images-b"), "cpu", pack_sources(Sources()), 1, 0, 5.0, {})


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    store = Store(tmp_path / "runs")
    store.prepare()
    ledger = Ledger(store)
    ledger.prepare()
    return ledger


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A stand-in for sbatch and srun on PATH; a function that returns (the file submitted, sbatch's environment)."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = (
        f'#!/bin/sh\ncp "$1" {tmp_path}/file\nenv > {tmp_path}/environment\necho Submitted batch job 70\n'
    )
    for name in ("sbatch", "srun"):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return lambda: ((tmp_path / "file").read_text(), (tmp_path / "environment").read_text().splitlines())


def test_every_resource_of_the_grid_reaches_sbatch(ledger, sbatch, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    names = {
        "partition": "p",
        "account": "a",
        "qos": "q",
        "constraint": "c",
        "wckey": "w",
        "setup": ["load x"],
    }
    wanted = Resources(gpus=2, cpus=3, memory_gb=5, minutes=30, array_parallelism=4, **names)
    context = Context(ledger.store, Sources(), "cuda")
    submission = arrays.submit(arrays.Array(tuple(IMAGES), wanted, ("7", "12")), context, ledger)
    text, environment = sbatch()
    for line in (
        *("--partition=p", "--account=a", "--qos=q", "--constraint=c", "--wckey=w", "--gpus-per-node=2"),
        *("--cpus-per-task=3", "--mem=5GB", "--time=30", "--array=0-4%4", "--dependency=afterany:7:12"),
        *(f"--comment={submission.token}", "--requeue", "--signal=USR2@90", "--job-name=smi-images"),
    ):
        assert f"#SBATCH {line}\n" in text, line
    assert "\nload x\n" in text
    assert " --cpus-per-task=3 " in text.splitlines()[-1], "srun does not inherit it"
    assert not [line for line in environment if line.startswith("SLURM_JOB_ID=")]
    assert f"{job.TOKEN}={submission.token}" in environment
    assert submission.jobs()[IMAGES[4].name] == "70_4"
    assert ledger.all() == [submission]
    assert len(list(ledger.logs.glob("70_*_submitted.pkl"))) == 5


def test_a_single_task_is_a_plain_job(ledger, sbatch):
    context = Context(ledger.store, Sources(), "cuda")
    submission = arrays.submit(arrays.Array((ROOT,), Resources(), ()), context, ledger)
    text, _ = sbatch()
    assert "--array" not in text and "--gpus" not in text and "--dependency" not in text
    assert submission.jobs() == {ROOT.name: "70"}
    ledger.remove(submission)
    assert not ledger.all() and not list(ledger.logs.glob("*.pkl"))


@pytest.mark.parametrize(
    ("said", "raised", "shown"),
    [
        ("sbatch: error: invalid partition specified: x", BenchError, "images: invalid partition.*gpus: 1"),
        ("sbatch: error: AssocMaxSubmitJobLimit", arrays.LimitReached, "AssocMaxSubmitJobLimit"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", arrays.LimitReached, "QOSMax"),
        ("sbatch: error: Unable to contact slurm controller", arrays.TryAgain, "Unable to contact"),
        ("sbatch: error: Job dependency problem", arrays.TryAgain, "dependency problem"),
    ],
)
def test_what_sbatch_refuses_for_good_and_what_for_now(ledger, sbatch, tmp_path, said, raised, shown, capfd):
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    context = Context(ledger.store, Sources(), "cuda")
    with pytest.raises(raised, match=shown) as caught:
        arrays.submit(arrays.Array(tuple(IMAGES), Resources(gpus=1), ()), context, ledger)
    assert "\n" not in str(caught.value)
    assert not ledger.all(), "nothing was submitted"
    assert said not in capfd.readouterr().err, "said once, by the sweep"


@given(st.integers(1, 43200))
def test_a_healthy_job_is_not_told_to_stop_as_it_starts(minutes):
    delay = arrays.signal_delay(minutes)
    assert 60 * minutes - (delay + 30) >= 15, "SLURM looks every 30 s and signals as much too early"
    assert delay >= 15


def test_what_an_enclosing_job_set_is_dropped_and_the_cluster_kept():
    before = {
        *(
            "SLURM_JOB_ID",
            "SLURM_ARRAY_TASK_ID",
            "SLURMD_NODENAME",
            "SUBMITIT_EXECUTOR",
            "CUDA_VISIBLE_DEVICES",
        ),
    }
    kept = {"SLURM_CONF": "/etc/slurm.conf", "PATH": "/bin", "SBATCH_ACCOUNT": "mine"}
    assert slurm_tools.outside_any_job(dict.fromkeys(before, "1") | kept) == kept
    assert slurm_tools.outside_any_job({"CUDA_VISIBLE_DEVICES": "1"}) == {"CUDA_VISIBLE_DEVICES": "1"}, (
        "no job around"
    )


def test_the_environment_is_restored(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(ZeroDivisionError), client.environment(BENCH_TEST="1"):
        assert "SLURM_JOB_ID" not in os.environ and os.environ["BENCH_TEST"] == "1"
        raise ZeroDivisionError
    assert os.environ["SLURM_JOB_ID"] == "7" and "BENCH_TEST" not in os.environ


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUE_HOLD", "A_STATE_OF_A_LATER_RELEASE"]
)
def test_what_is_not_known_to_have_ended_may_still_run(state):
    assert Entry(state).active


@pytest.mark.parametrize(
    "state", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"]
)
def test_what_has_ended(state):
    assert not Entry(state).active


def test_tasks_come_back_from_the_ledger_with_their_keys(ledger):
    ledger.write_tasks(LEAVES)
    assert ledger.read_task(LEAVES[0].name) == LEAVES[0]
    assert ledger.read_task(LEAVES[0].name).inputs["images"].inputs["teacher"].key == ROOT.key


def test_a_damaged_task_file_is_named(ledger):
    ledger.write_tasks([ROOT])
    path = ledger.store.root / "tasks" / f"{ROOT.name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": {"epochs": 2}}))
    with pytest.raises(BenchError, match=ROOT.name):
        ledger.read_task(ROOT.name)
    path.write_text("{")
    with pytest.raises(BenchError, match=ROOT.name):
        ledger.read_task(ROOT.name)


def test_a_submission_whose_sweep_was_killed_is_found_by_its_comment(ledger):
    ledger.write(SUBMISSION)
    queue = {
        "12_0": Entry("RUNNING", "", "smi-1"),
        "12_1": Entry("PENDING", "", "smi-1"),
        "3": Entry("RUNNING"),
    }
    (found,) = find_lost_ids(ledger.all(), queue)
    assert found.jobs() == {"images-a": "12_0", "images-b": "12_1"}


def test_a_job_number_given_out_anew_is_not_mistaken_for_ours():
    assert entry_of("12_0", SUBMISSION, {"12_0": Entry("RUNNING", "", "smi-2")}) is None
    assert entry_of("12_0", SUBMISSION, {"12_0": Entry("RUNNING", "", "smi-1")}).active
    assert entry_of("12_0", SUBMISSION, {"12_0": Entry("RUNNING", "", "a site's own")}).active


def test_the_record_says_when_the_code_has_changed_since_submission(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(provenance, "code_state", lambda: {"commit": "b", "dirty": None})
    submitted = {"commit": "a", "dirty": None}
    notes = job.notes(Submission("smi-1", ("a",), "cpu", {}, 1, 0, 5.0, submitted))
    assert notes["code_changed"] is True and notes["submitted_code"] == submitted
    same = Submission("smi-1", ("a",), "cpu", {}, 1, 0, 5.0, {"commit": "b", "dirty": None})
    assert job.notes(same)["code_changed"] is False
    outside_git = Submission("smi-1", ("a",), "cpu", {}, 1, 0, 5.0, {"commit": None, "dirty": None})
    assert job.notes(outside_git)["code_changed"] is None


def test_without_slurm_the_reason_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    reason = client.why_not_available()
    assert reason.startswith("SLURM is not installed") and "\n" not in reason


@pytest.mark.parametrize("name", ["100%", "it's", 'a "b"', "back\\slash", "two\nlines"])
def test_a_store_whose_path_slurm_would_read_otherwise_is_refused(tmp_path, sbatch, name):
    store = Store(tmp_path / name)
    store.prepare()
    ledger = Ledger(store)
    ledger.prepare()
    with pytest.raises(BenchError, match="--store") as caught:
        arrays.submit(arrays.Array((ROOT,), Resources(), ()), Context(store, Sources(), "cuda"), ledger)
    assert "\n" not in str(caught.value) and not ledger.all()


def test_a_store_with_spaces_and_letters_of_any_language_is_none(tmp_path, sbatch):
    store = Store(tmp_path / "mes données 実験")
    store.prepare()
    ledger = Ledger(store)
    ledger.prepare()
    arrays.submit(arrays.Array((ROOT,), Resources(), ()), Context(store, Sources(), "cuda"), ledger)
    assert f"#SBATCH --output='{store.root}/logs/slurm/%j_0_log.out'" in sbatch()[0]


def test_the_queue_is_asked_for_once_however_many_jobs_there_are(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho x >> {tmp_path}/calls\necho '7|RUNNING|None|smi-1'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = client.queue([str(number) for number in range(5000)], mine=True)
    assert found == {"7": Entry("RUNNING", "", "smi-1")}
    assert (tmp_path / "calls").read_text() == "x\n"


def test_a_comment_may_hold_the_sign_that_parts_the_queues_columns(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho '7|PENDING|Priority|a site|its own'\necho ' 8|RUNNING|None|'\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = client.queue(["7", "8"], mine=False)
    assert found == {"7": Entry("PENDING", "Priority", "a site|its own"), "8": Entry("RUNNING")}


@pytest.mark.parametrize(
    ("gpus", "device", "runs_on"),
    [(1, "cuda", "cuda"), (0, "cuda", "cpu"), (1, "cpu", "cpu"), (0, "cpu", "cpu")],
)
def test_a_job_runs_on_the_gpu_that_it_has_unless_told_otherwise(gpus, device, runs_on):
    assert job.device_of(replace(SUBMISSION, gpus=gpus, device=device)) == runs_on


def test_short_tasks_share_jobs_and_each_has_its_place(ledger, sbatch):
    wanted = Resources(tasks_per_job=2)
    context = Context(ledger.store, Sources(), "cpu")
    submission = arrays.submit(arrays.Array(tuple(IMAGES), wanted, ()), context, ledger)
    assert "#SBATCH --array=0-2%3\n" in sbatch()[0]
    assert [submission.jobs()[task.name] for task in IMAGES] == ["70_0", "70_0", "70_1", "70_1", "70_2"]
    assert [submission.tasks_of(index) for index in range(3)] == [
        tuple(task.name for task in group) for group in (IMAGES[:2], IMAGES[2:4], IMAGES[4:])
    ]
    assert ledger.all() == [submission]


def run_job(ledger, monkeypatch, tasks, kinds):
    """What a SLURM job does, without a SLURM."""
    ledger.write_tasks(tasks)
    names = tuple(task.name for task in tasks)
    ledger.write(
        Submission("smi-1", names, "cpu", pack_sources(Sources()), 1, 0, 5.0, {}, tasks_per_job=len(tasks))
    )
    monkeypatch.setenv(job.TOKEN, "smi-1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path]))
    return job.SlurmTask(str(ledger.store.root), kinds)()


def test_one_process_runs_the_tasks_of_a_job_each_with_its_record_and_log(ledger, monkeypatch):
    tasks = [Task("where", {"number": number}) for number in range(3)]
    run_job(ledger, monkeypatch, tasks, {"where": toy_suite.ToyKind(1, toy_suite.where)})
    records = [ledger.store.record(task) for task in tasks]
    assert len({record["metrics"]["process"] for record in records}) == 1
    assert all(ledger.store.log_path(task).is_file() for task in tasks)
    assert not ledger.store.claims.held()


def test_a_task_whose_processes_die_does_not_take_its_neighbours_along(ledger, monkeypatch):
    tasks = [Task("root", {"name": name}) for name in ("before", "deadly", "after")]
    monkeypatch.setenv("TOY_NAME", "deadly")
    monkeypatch.setenv("TOY_BEHAVIOUR", "die")
    run_job(ledger, monkeypatch, tasks, toy_suite.KINDS)
    assert [ledger.store.find(task).status for task in tasks] == ["done", "failed", "done"]
    record = ledger.store.record(tasks[1])
    assert record["error"]["cause"] == "worker died" and len(record["earlier_attempts"]) == 3

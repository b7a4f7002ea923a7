"""Shared set-up: offline, few threads, a throw-away Hugging Face cache, and the fixtures several files use."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports a Hugging Face library: they read these once. Subprocesses inherit them.
HF_HOME = tempfile.mkdtemp(prefix="collapse-tests-hf-")
os.environ["HF_HOME"] = HF_HOME
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLLAPSE_CACHE"] = f"{HF_HOME}/collapse"  # what dry runs time is kept there
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(name, None)
# Side by side (`pytest -n 2`) each process has one thread: two of two threads on two cores wait for each other.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    given = os.environ.get(name, "")
    os.environ[name] = str(min(THREADS, int(given)) if given.isdigit() and given != "0" else THREADS)
os.environ.pop("COLLAPSE_CHECKPOINT_SECONDS", None)
# Tests of a GPU are asked for by `pytest -m gpu`. All others are of the CPU, on a machine with a GPU, too: some lay what
# models give beside plain tensors, or fork. The workers of xdist have what the first process decided.
if "PYTEST_XDIST_WORKER" not in os.environ and "gpu" not in " ".join(sys.argv).replace("not gpu", ""):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# A shell's background jobs ignore SIGINT, and `nohup` SIGHUP, and what is ignored stays so in subprocesses: the tests send both.
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), usual)

# No test of this process can see whether bytes have reached the disk: nothing waits for it here. What is synced, and when,
# is asked by tests that put a function of their own in this place; processes that tests start sync as a user's do.
os.fsync = lambda file: os.fstat(file) and None

# What torch and transformers hold is half a million objects: Python's search for cycles among them took 7% of all tests' time.
gc.set_threshold(20_000, 10, 10)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

import collapse_cli  # noqa: E402, F401 - before any test imports torch: it says how OpenMP's threads wait

if TYPE_CHECKING:
    from support.objects import S3
    from support.served import Served

PROJECT = Path(__file__).resolve().parent.parent
# In the order in which they begin: what takes a process of its own and many others' time (the driver of forks with all its files, a
# browser, the server), then files of more than ten seconds, the longest first.
LONGEST = (
    "engine/test_side_by_side.py",
    "report/test_report_browser.py",
    "lm/test_architectures.py",
    "whole/test_e2e_run.py",
    "foreign/test_asking.py",
    "learners/test_devices.py",
    "view/test_view_browser.py",
    "experiment/test_blocks.py",
    "theory/test_theory_simulated.py",
    "lm/test_lm_slots.py",
    "tracking/test_tracking.py",
    "lm/test_lm_sample.py",
    "whole/test_exact_values.py",
    "report/test_report_hostile.py",
    "config/test_presets.py",
    "engine/test_disk_full.py",
    "engine/test_object_store.py",
    "whole/test_e2e_remedies.py",
    "whole/test_weights_and_budgets.py",
    "report/test_report_families.py",
    "run/test_timing.py",
    "whole/test_e2e_report.py",
    "whole/test_hub.py",
    "project/test_wheel.py",
    "lm/test_lm_search.py",
    "cli/test_interrupted.py",
    "whole/test_wikitext2_small.py",
    "findings/test_scaling.py",
    "experiment/test_select.py",
    "whole/test_eval_blocks.py",
    "view/test_view.py",
    "config/test_unread.py",
    "experiment/test_together.py",
    "learners/test_ridge.py",
    "lm/test_anchors.py",
    "cli/test_theory_command.py",
    "report/test_report_mixture.py",
    "config/test_extremes.py",
    "config/test_default_experiment.py",
    "report/test_report.py",
    "findings/test_forecast.py",
    "findings/test_forecast_share.py",
    "check/test_two_texts.py",
    "lm/test_lm_pick.py",
    "data/test_longtext.py",
    "cli/test_start_and_output.py",
    "cli/test_check_command.py",
    "lm/test_template_trial.py",
    "lm/test_lm_objective.py",
    "whole/test_before.py",
)

OF_MODELS = ("lm", "learners")  # folders of tests

# The same examples on every run, so that a red test stays red; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: with `-n 2 --no-loadscope-reorder` no process ends long before the other."""
    place = {PROJECT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 2 --dist loadfile`: files that share what takes ten seconds to start go to one process."""
    from xdist.scheduler import LoadFileScheduling

    class OneOfEach(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((what for what, users in shared.items() if file in users), file)

    def users(folder: str, word: str) -> set[str]:
        files = sorted((PROJECT / "tests").glob(f"{folder}/test_*.py"))
        return {path.relative_to(PROJECT).as_posix() for path in files if word in path.read_text(encoding="utf-8")}

    shared = {"the driver of forks": users("*", "e2e.drive("), "the server": users("foreign", "server")}
    return OneOfEach(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_sessionfinish() -> None:
    if used := sys.modules.get("support.e2e"):
        used.end_driver()
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; tests that need it are skipped where it is absent."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: the folder ../shared/data is not beside the project ({PROJECT.name})")
    return folder


@pytest.fixture(autouse=True)
def nothing_known_of_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trials of models are made anew in each test that may change what models of one configuration do, and after it: those of
    models and learners, and those that patch. Others know of earlier ones' trials, as the runs of one process do.
    """
    anew = request.path.parent.name in OF_MODELS or "monkeypatch" in request.fixturenames
    _forget_models(anew)
    yield
    _forget_models(anew)


def _forget_models(anew: bool) -> None:
    if anew and (trial := sys.modules.get("collapse_cli.lm.trial")):
        trial._verdicts.clear()


@pytest.fixture
def every_step_checkpointed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training writes a checkpoint after each step instead of once a minute."""
    monkeypatch.setenv("COLLAPSE_CHECKPOINT_SECONDS", "0")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Served"]:
    """A real server of completions; who kills it starts it again."""
    from support.served import served

    with served(tmp_path_factory.mktemp("server")) as one:
        yield one


@pytest.fixture(scope="session")
def s3() -> Iterator["S3"]:
    """A server of S3 with one bucket; each test has a prefix of its own."""
    from support.objects import serving

    with serving() as one:
        yield one

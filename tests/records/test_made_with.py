"""The processor in a run's record: what other machines are told apart by, whose sums round differently."""

import json
from pathlib import Path

import pytest
from support import objects

from collapse_cli.cli import doctor
from collapse_cli.cli.doctor import examine
from collapse_cli.engine.remote_addresses import copy_of
from collapse_cli.records import made_with

INTEL = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse2 avx avx2 fma avx512f avx512_bf16 amx_bf16 avx512_vnni

processor\t: 1
model name\t: another core
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm sve bf16 i8mm
CPU implementer\t: 0x41

Model\t\t: Raspberry Pi 5
"""


@pytest.mark.parametrize(
    ("text", "name", "vectors"),
    [
        (INTEL, "Intel(R) Xeon(R) Platinum 8480+", ["AVX2", "AVX-512", "AVX-512 bfloat16", "AMX bfloat16"]),
        (ARM, "Raspberry Pi 5", ["NEON", "SVE", "NEON bfloat16"]),
        ("processor : 0\nmodel name : old\nflags : fpu sse2 avx\n", "old", []),
    ],
)
def test_the_processor_is_read_from_what_linux_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, vectors: list[str]
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(made_with, "CPUINFO", tmp_path / "cpuinfo")
    assert made_with.processor() == (name, vectors)


def test_elsewhere_it_is_what_the_system_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_with, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    assert made_with.processor() == ("riscv64", [])
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(made_with.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": "Apple M4\n"}))
    assert made_with.processor() == ("Apple M4", [])


def test_a_record_and_the_doctor_say_which_processor_it_was(tmp_path: Path) -> None:
    said = made_with.hardware()
    assert json.loads(json.dumps(said)) == said
    name, vectors = made_with.processor()
    assert (said["processor"], said["vectors"]) == (name, vectors)
    assert name
    import torch

    assert said["kernels"] == torch.backends.cpu.get_cpu_capability()
    facts = examine(tmp_path)
    assert "the place itself" not in facts
    assert facts["GGUF files"] == "read"
    assert facts["processor"].startswith(f"{name}, {said['cores']} core")
    assert f"{torch.get_num_threads()} torch thread" in facts["processor"]
    assert all(one in facts["vector instructions"] for one in [*vectors, said["kernels"]])


def test_the_doctor_asks_the_place_of_runs_that_are_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That its copy can be written to says nothing of it."""
    for name, value in {**objects.KEYS, "AWS_ENDPOINT_URL": "nowhere", "COLLAPSE_CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert doctor.elsewhere(copy_of("s3://bucket/runs")).startswith(
        "NOT USABLE: s3://bucket/runs/store cannot be used: "
    )
    assert doctor.elsewhere(copy_of(f"file://{tmp_path}/there")).startswith("answers")

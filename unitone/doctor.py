"""``unitone doctor``: versions, devices, disk, and which extras work, with the cure for the rest.

Exit status 1 if a module of the core cannot be imported, 0 otherwise. Every import is tried in
this process and no failure of one stops the report. ``espeakng_loader`` is only looked for, never
imported: it is GPL-3 and runs in a process of its own.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import platform
import shutil
import sys
import warnings
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import unitone
from unitone.processor import bf16_instruction, cpuinfo

CORE: dict[str, str] = {
    "torch": "torch",
    "numpy": "numpy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "lhotse": "lhotse",
    "faiss": "faiss-cpu",
    "sentencepiece": "sentencepiece",
    "einops": "einops",
    "jaxtyping": "jaxtyping",
    "safetensors": "safetensors",
    "pyarrow": "pyarrow",
    "rapidfuzz": "rapidfuzz",
    "sacrebleu": "sacrebleu",
    "tqdm": "tqdm",
    "tyro": "tyro",
    "matplotlib": "matplotlib",
}
"""Module: distribution. What ``pip install unitone`` brings."""

EXTRAS: dict[str, tuple[dict[str, str], str]] = {
    "hf": (
        {"transformers": "transformers", "huggingface_hub": "huggingface-hub"},
        "weights by hub name",
    ),
    "ray": ({"ray.data": "ray"}, "encode --engine ray"),
    "tour": ({"espeakng_loader": "espeakng-loader"}, "the synthetic corpus and the tour"),
    "logging": ({"tensorboard": "tensorboard"}, "the curves of training in TensorBoard"),
    "gpu": ({"faiss": "faiss-gpu-cu12"}, "k-means on a CUDA device by FAISS"),
    "dev": (
        {
            "pytest": "pytest",
            "hypothesis": "hypothesis",
            "beartype": "beartype",
            "sklearn": "scikit-learn",
            "mypy": "mypy",
            "pyright": "pyright",
            "ruff": "ruff",
        },
        "tests, lint, benchmarks",
    ),
    "docs": (
        {"mkdocs": "mkdocs", "material": "mkdocs-material", "mkdocstrings": "mkdocstrings"},
        "make docs",
    ),
}
"""Extra: its modules with their distributions, and what it is for."""

FIND_ONLY = frozenset({"espeakng_loader"})


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Whether one module can be imported."""

    module: str
    distribution: str
    version: str | None
    problem: str | None
    """None where the module works, else one line."""


@dataclass(frozen=True, kw_only=True)
class Extra:
    """Whether one optional group of dependencies works."""

    name: str
    purpose: str
    works: bool
    probes: tuple[Probe, ...]
    cure: str | None
    """One line to type, or None where nothing has to be done."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything ``unitone doctor`` found out."""

    python: str
    unitone: str
    platform: str
    core: tuple[Probe, ...]
    core_cure: str | None
    extras: tuple[Extra, ...]
    devices: dict[str, str]
    disk: dict[str, str]

    @property
    def healthy(self) -> bool:
        """Whether every module of the core can be imported."""
        return self.core_cure is None


def main(argv: list[str] | None = None) -> int:
    """Print the report; return 1 if a core module fails to import."""
    parser = argparse.ArgumentParser(
        prog="unitone doctor", description="Show versions, devices, disk, and which extras work."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args(argv)
    report = examine()
    if options.json:
        fields = {**asdict(report), "healthy": report.healthy}
        print(json.dumps(fields, indent=2, ensure_ascii=False))
    else:
        print(as_text(report))
    return 0 if report.healthy else 1


def examine() -> Report:
    """Try every import, look at the machine, and return what was found."""
    core = tuple(probe(module, distribution) for module, distribution in CORE.items())
    return Report(
        python=f"{platform.python_version()} ({sys.executable})",
        unitone=f"{unitone.__version__} ({Path(unitone.__file__).parent})",
        platform=platform.platform(),
        core=core,
        core_cure=_install() if any(found.problem for found in core) else None,
        extras=tuple(_extra(name) for name in EXTRAS),
        devices=devices(),
        disk=disk(),
    )


def probe(module: str, distribution: str) -> Probe:
    """Import ``module`` and say what version it has or why it fails; never raises."""
    problem = None
    try:
        if module in FIND_ONLY:
            if find_spec(module) is None:
                problem = "not installed"
        else:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        problem = "not installed" if missing == module.split(".")[0] else f"needs {missing}"
    except (Exception, SystemExit) as error:  # a broken package may raise anything at import
        problem = f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"
    return Probe(
        module=module, distribution=distribution, version=_version(distribution), problem=problem
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _extra(name: str) -> Extra:
    modules, purpose = EXTRAS[name]
    probes = tuple(probe(module, distribution) for module, distribution in modules.items())
    cure = _install(name) if any(found.problem for found in probes) else None
    if name == "gpu":
        probes, cure = (_faiss_gpu(),), None
        if probes[0].problem and _cuda_count():
            cure = f"pip uninstall -y faiss-cpu && {_install(name)}"
    works = not any(found.problem for found in probes)
    return Extra(name=name, purpose=purpose, works=works, probes=probes, cure=cure)


def _faiss_gpu() -> Probe:
    """FAISS for CPU and for GPU are one module; only its contents tell them apart."""
    found = probe("faiss", "faiss-gpu-cu12")
    problem = found.problem
    if problem is None and not hasattr(sys.modules["faiss"], "StandardGpuResources"):
        problem = "FAISS without GPU support; torch does it" if _cuda_count() else "no CUDA device"
    return Probe(
        module="faiss", distribution="faiss-gpu-cu12", version=found.version, problem=problem
    )


def _install(extra: str | None = None) -> str:
    """Return the line that installs the core or an extra, as this copy was installed."""
    checkout = (Path(unitone.__file__).resolve().parents[1] / "pyproject.toml").is_file()
    suffix = f"[{extra}]" if extra else ""
    target = f"-e '.{suffix}' -c constraints.txt" if checkout else f"'unitone{suffix}'"
    return f"pip install {target}"


def devices() -> dict[str, str]:
    """Return what there is to compute on; values are sentences for people."""
    found = {"cpu": f"{_cpu_model()}, {os.cpu_count()} logical cores"}
    try:
        import torch
    except Exception as error:
        return {**found, "torch": f"cannot be imported: {error}"}
    found["cpu"] += f", torch uses {torch.get_num_threads()} threads"
    found["cpu kernels"] = torch.backends.cpu.get_cpu_capability()
    found["cpu bf16"] = bf16_instruction() or "no instructions for it; fp32 is faster"
    if not torch.cuda.is_available():
        found["cuda"] = "none"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        found[f"cuda:{index}"] = f"{properties.name}, {memory}, CUDA {torch.version.cuda}"
    mps = torch.backends.mps.is_available()
    found["mps"] = f"Apple GPU, {_mps_memory(torch)}" if mps else "none"
    return found


def _cuda_count() -> int:
    try:
        import torch
    except Exception:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _mps_memory(torch: Any) -> str:
    return f"{torch.mps.recommended_max_memory() / 2**30:.0f} GiB usable"


def _cpu_model() -> str:
    return cpuinfo("model name") or platform.processor() or platform.machine()


def disk() -> dict[str, str]:
    """Return the free space where results and downloads go."""
    places = {"here": Path.cwd(), "home": Path.home()}
    found = {}
    for name, place in places.items():
        try:
            usage = shutil.disk_usage(place)
        except OSError as error:
            found[name] = f"{place}: {error.strerror}"
            continue
        found[name] = f"{usage.free / 1e9:.0f} GB free of {usage.total / 1e9:.0f} GB ({place})"
    return found


def as_text(report: Report) -> str:
    """Lay the report out in aligned columns, cures under what they cure."""
    machine = {"python": report.python, "unitone": report.unitone, "platform": report.platform}
    lines = [*_columns(machine), "", "core"]
    lines += _columns({found.module: _state(found) for found in report.core}, indent=2)
    if report.core_cure:
        lines.append(f"    cure: {report.core_cure}")
    lines += ["", "devices", *_columns(report.devices, indent=2)]
    lines += ["", "disk", *_columns(report.disk, indent=2), "", "extras"]
    for extra in report.extras:
        mark = "works" if extra.works else "-"
        versions = ", ".join(
            f"{found.distribution} {found.version}"
            for found in extra.probes
            if found.version and not found.problem
        )
        lines.append(f"  {extra.name:<9}{mark:<7}{extra.purpose:<38}{versions}".rstrip())
        lines += [f"    {found.module}: {found.problem}" for found in extra.probes if found.problem]
        if extra.cure:
            lines.append(f"    cure: {extra.cure}")
    verdict = "all core modules import" if report.healthy else "a core module fails; see its cure"
    return "\n".join([*lines, "", verdict])


def _state(found: Probe) -> str:
    if found.problem:
        return f"FAILS  {found.problem}"
    return found.version or "works"


def _columns(rows: dict[str, str], *, indent: int = 0) -> list[str]:
    width = max(map(len, rows)) + 2
    return [f"{'':{indent}}{name:<{width}}{value}" for name, value in rows.items()]


if __name__ == "__main__":
    sys.exit(main())

"""How the trainer trains: a flat dataclass, nested in the configuration of every program."""

from dataclasses import dataclass
from typing import Literal

from unitone.errors import ConfigError
from unitone.train.distributed import Parallel
from unitone.train.optim import OptimizerName
from unitone.train.schedules import Schedule

MAY_DIFFER = frozenset(
    {
        *("steps", "max_seconds", "validate_every", "log_every", "save_every", "save_seconds"),
        *("keep", "workers", "threads", "device", "parallel", "compile", "out"),
    }
)
"""Settings that may change when a run goes on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int
    """Optimiser steps of the run."""
    lr: float
    """Peak learning rate; the same for AdamW and Muon."""
    accumulate: int = 1
    """Micro-batches of a step over all processes; a multiple of their number."""
    optimizer: OptimizerName = "adamw"
    """adamw, or muon for the matrices inside the blocks that the model names."""
    weight_decay: float = 0.1
    """Decoupled; none on vectors."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's."""
    clip_norm: float | None = 1.0
    """Longest gradient of a step; None doesn't clip."""
    schedule: Schedule = "wsd"
    """wsd (linear decay at the end), tri-stage (exponential), cosine, constant."""
    warmup_steps: int = 0
    """Steps in which the learning rate grows from 0 to its peak."""
    decay_share: float = 0.2
    """Share of the run in which wsd and tri-stage decay."""
    lr_floor: float = 0.01
    """Share of the peak that is left at the end of the run."""
    ema: float | None = None
    """Decay of the average of the weights that is validated and saved, such as 0.999."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products in bfloat16 (autocast), weights in float32; fast on CPUs with AMX."""
    compile: bool = False
    """Compile the players."""
    parallel: Parallel = "auto"
    """Of several processes: ddp (auto), or fsdp, which shards the weights too."""
    seed: int = 0
    """Of dropout and whatever else a player draws from torch's global state."""
    max_seconds: float | None = None
    """Budget of wall-clock time, over all starts; the schedule follows steps or time, whichever is
    further. A run that hits it can't be repeated to the bit."""
    validate_every: int = 1000
    """Steps between validations."""
    best: str | None = None
    """Metric of the validation by which out/best is chosen."""
    best_mode: Literal["min", "max"] = "min"
    """Which of two values of it is better."""
    save_every: int = 1000
    """Steps between checkpoints."""
    save_seconds: float | None = 600.0
    """Write one after this time, too."""
    keep: int = 2
    """Last checkpoints that are kept."""
    log_every: int = 10
    """Steps between records of metrics."""
    explode_factor: float | None = 10.0
    """A loss above this times the running median (and above the first) stops the run."""
    workers: int = 0
    """Processes that load data; 0 loads in the training process. The batches are the same."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = None
    """CPU threads."""

    def __post_init__(self) -> None:
        positive = (
            *(
                "steps",
                "lr",
                "accumulate",
                "validate_every",
                "save_every",
                "keep",
                "log_every",
                "threads",
            ),
            *("clip_norm", "max_seconds", "save_seconds", "explode_factor"),
        )
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be more than 0, got {value}")
        for name in ("warmup_steps", "weight_decay", "workers"):
            if getattr(self, name) < 0:
                given = getattr(self, name)
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 0, got {given}")
        for name in ("decay_share", "lr_floor"):
            if not 0 < getattr(self, name) <= 1:
                given = getattr(self, name)
                raise ConfigError(f"--{name.replace('_', '-')} must be in (0, 1], got {given}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"--ema must be between 0 and 1, got {self.ema}")

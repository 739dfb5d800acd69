"""How the trainer trains: a flat dataclass, nested in the configuration of every program."""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from unitone.errors import ConfigError
from unitone.train.schedules import Schedule, lr_factor

OptimizerName = Literal["adamw", "muon"]
Parallel = Literal["auto", "none", "ddp", "fsdp"]

MAY_DIFFER = frozenset(
    {
        *("steps", "max_seconds", "validate_every", "log_every", "save_every", "save_seconds"),
        *("keep", "workers", "threads", "device", "parallel", "compile", "out", "best_mode"),
    }
)
"""Settings that may change when a run goes on."""
WARMUP_OF_TIME = 0.1
"""Share of ``max_seconds`` that warms up at the most: a slow machine may do few steps."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How one network is optimized; the fields are `TrainConfig`'s, and one more.

    A network that wants another learning rate has
    ``optimization = replace(train.optimization, lr=1e-4)``.
    """

    lr: float
    optimizer: OptimizerName
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float | None
    schedule: Schedule
    warmup_steps: int
    decay_share: float
    lr_floor: float
    update_every: int = 1
    """Steps of the run for one of this network, which sees the batches of that step only."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.update_every < 1:
            raise ConfigError(
                f"a network needs lr > 0 and update_every >= 1, got {self.lr}, {self.update_every}"
            )

    def lr_at(self, *, step: int, progress: float, time: float = 0.0) -> float:
        """Return the learning rate after ``step`` steps and ``progress`` (0..1) of the run.

        ``time`` is the share of ``max_seconds`` that is spent, where it is limited.
        """
        return self.lr * lr_factor(
            self.schedule,
            progress=progress,
            warmup=max((step + 1) / max(self.warmup_steps, 1), time / WARMUP_OF_TIME),
            decay_share=self.decay_share,
            floor=self.lr_floor,
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int
    """Optimizer steps of the run."""
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
    """Steps in which the learning rate grows from 0 to its peak; with ``max_seconds``, no more than
    a tenth of the time."""
    decay_share: float = 0.2
    """Share of the run in which wsd and tri-stage decay."""
    lr_floor: float = 0.01
    """Share of the peak that is left at the end of the run."""
    ema: float | None = None
    """Decay of the average of the weights that is validated and saved, such as 0.999."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16: matrix products in bfloat16 (autocast), weights in float32; auto: where the device has
    instructions for it, elsewhere fp32, which is several times as fast there."""
    compile: bool = False
    """Compile the networks."""
    parallel: Parallel = "auto"
    """Of several processes: ddp (auto), or fsdp, which shards the weights too."""
    seed: int = 0
    """Of dropout and whatever else a network draws from torch's global state."""
    max_seconds: float | None = None
    """Budget of wall-clock time, over all starts; the schedule follows steps or time, whichever is
    further. A run that hits it can't be repeated to the bit."""
    validate_every: int = 1000
    """Steps between validations."""
    best: str | None = None
    """Metric of the validation by which out/best is chosen."""
    best_mode: Literal["min", "max"] | None = None
    """Which of two values of it is better; default: as the metric is meant."""
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

    def resolved(self) -> "TrainConfig":
        """Return the same with a precision in place of ``auto``; what a run records.

        Raises:
            ConfigError: there is no such device.
        """
        if self.precision != "auto":
            return self
        from unitone import devices  # and PyTorch with it

        return replace(self, precision=devices.fast_precision(devices.resolve(self.device)))

    @property
    def optimization(self) -> OptimConfig:
        """How every network is optimized that has no settings of its own."""
        names = {field.name for field in fields(self)} & {
            field.name for field in fields(OptimConfig)
        }
        return OptimConfig(**{name: getattr(self, name) for name in names})

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                option = field.name.replace("_", "-")
                raise ConfigError(f"--{option} must be a finite number, got {value}")
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
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"--betas must be in [0, 1), got {' '.join(map(str, self.betas))}")
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

"""The training loop of every model: language models, unit decoders with a GAN, recognizers.

A network is a module whose ``forward(batch)`` returns a `Loss` (`unitone.train.network`). A
language model is one network; a GAN is two, ``{"discriminator": …, "generator": …}``, which step in
this order on the same batches, each holding the other without registering it. While one steps, the
others' parameters require no gradient. Each may have optimizer settings and an interval of its own.

A step takes ``accumulate`` micro-batches over all processes; gradients are of the sums of their
losses, divided by the number of items in all of them. Data, dropout and order are functions of the
seed and the step alone. So neither the number of processes nor of data workers nor being killed
shapes the loss curve; on a CPU in float32, with the same number of threads, it is the same to the
bit after a resume. Only ``max_seconds`` makes a run depend on the speed of the machine.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unitone import files
from unitone.config import to_dict
from unitone.errors import ConfigError, UnitoneError
from unitone.logs import Progress
from unitone.seeding import reseeded
from unitone.train import checkpoint, distributed, memory
from unitone.train.config import MAY_DIFFER
from unitone.train.config import TrainConfig as TrainConfig
from unitone.train.loading import BatchSource as BatchSource
from unitone.train.loading import Position, batches, to_device
from unitone.train.meter import Meter, Pair
from unitone.train.network import Loss as Loss
from unitone.train.network import TrainedNetwork, assemble, own_optimization
from unitone.train.rundir import MARKS, RunDir
from unitone.train.stopping import Stop
from unitone.train.watch import Outcome, describe_terms, save_batches

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _State:
    """Where a run is; ``state.json`` of its checkpoints."""

    step: int = 0
    position: Position = field(default_factory=Position)
    seconds: float = 0.0
    validated: int = 0
    """Step of the last validation."""
    best: float | None = None
    window: dict[str, Pair] = field(default_factory=dict)
    """What the meter has since the last record of metrics."""

    def saved(self) -> dict[str, Any]:
        """Return what a checkpoint has of it, as JSON values."""
        return {**asdict(self), "position": self.position.saved()}


class Trainer:
    """Trains the networks into the folder ``out``; goes on where an earlier run stopped.

    ``out`` gets ``config.json``, ``run.json``, ``metrics.jsonl``, ``checkpoints/``, and what
    ``save_model`` makes of the models in ``best/`` and ``last/``.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        networks: Mapping[str, nn.Module],
        source: BatchSource,
        out: Path,
        validate: Callable[[int], dict[str, float]] | None = None,
        higher_is_better: Collection[str] = (),
        save_model: Callable[[Path], None] | None = None,
        settings: Mapping[str, Any] | None = None,
        may_differ: Collection[str] = (),
    ) -> None:
        """Store the parts; nothing is opened before `run`.

        Args:
            config: how to train.
            networks: by name, in the order they step; with the weights to begin with.
            source: the data.
            out: the run's folder.
            validate: given the step, returns metrics; called with the averaged weights, in
                evaluation mode, without gradients, by the first process only.
            higher_is_better: those of the metrics of which more is better; of the others, less.
            save_model: writes a model directory into an empty folder; called in the same way.
            settings: the program's whole configuration, for ``config.json``.
            may_differ: names of settings, beside ours, that may change when a run goes on.
        """
        if config.best is not None and validate is None:
            raise ConfigError(f"--best {config.best}: there is no validation")
        self.config = config.resolved()
        self._shared = config.optimization
        self._modules = networks
        self._source = source
        self._validate = validate
        highest = config.best in higher_is_better
        self._highest = highest if config.best_mode is None else config.best_mode == "max"
        self._save_model = save_model
        self._settings = {"train": to_dict(config)} if settings is None else dict(settings)
        own = {name: one for name, m in networks.items() if (one := own_optimization(m))}
        if own:
            self._settings["optimization"] = {name: to_dict(one) for name, one in own.items()}
        self._may_differ = MAY_DIFFER | set(may_differ)
        self._dir = RunDir(out)
        self._state = _State()
        self._wish, self._stop = Stop(), False  # of this process; of all, as agreed

    def run(self) -> None:
        """Train until ``steps`` or ``max_seconds`` is reached.

        Raises:
            ConfigError: ``out`` holds a run with other settings, or one that lost its checkpoints.
            CheckpointError: the newest checkpoint is damaged; says how to go on.
            UnitoneError: a loss is not finite or exploded; ``out/offending-batch-…`` has the batch.
            KeyboardInterrupt: after SIGTERM or SIGINT; a checkpoint was written.
        """
        with contextlib.ExitStack() as stack:
            if self.config.threads is not None:
                torch.set_num_threads(self.config.threads)
            self._world = stack.enter_context(distributed.started(self.config.device))
            if self._world.device.type == "cpu":
                memory.keep_freed()
            if self._world.first:
                stack.enter_context(files.locked(self._dir.out))
                files.require_own(self._dir.out, *MARKS)
            stack.callback(self._dir.close)
            self._networks = assemble(self._modules, self.config, world=self._world)
            self._resume()
            stack.enter_context(self._wish.listening())
            self._started = time.monotonic() - self._state.seconds
            self._saved = (self._state.step, self._state.seconds)
            self._pending: deque[Outcome] = deque()
            self._lag = lag_on(self._world.device) * len(self._networks)
            self._meter = Meter()
            self._meter.sums = self._state.window if self._world.first else {}
            self._train()

    def _resume(self) -> None:
        """Load the newest checkpoint, if there is one."""
        folders = checkpoint.found(self._dir.checkpoints)
        if folders:
            self._dir.check(self._settings, may_differ=self._may_differ)
            tensors, saved = checkpoint.read(folders[-1])
            for network in self._networks:
                network.load(tensors, saved["players"], where=str(folders[-1]))
            position = Position.of(saved["state"].pop("position"))
            window = {
                name: (pair[0], pair[1]) for name, pair in saved["state"].pop("window").items()
            }
            self._state = _State(**saved["state"], position=position, window=window)
            logger.info("going on from %s", folders[-1])
        else:
            self._dir.require_unlost(save_every=self.config.save_every)
        if not self._world.first:
            return
        for name in ("best", "last"):
            checkpoint.restore(self._dir.out / name)
        self._dir.start(self._settings, step=self._state.step, world_size=self._world.size)

    def _train(self) -> None:
        world, first_step = self._world, self._state.step
        if self._progress() < 1:
            self._steps()
        trained = self._state.step > first_step
        if world.of_first(trained or not (self._dir.out / "last").exists()):
            self._export("last")
        if world.first:
            self._tell(trained=trained)

    def _tell(self, *, trained: bool) -> None:
        """Say what was done, and where the models and the curves lie."""
        out = self._dir.out
        models = [str(out / name) for name in ("best", "last") if (out / name).is_dir()]
        more = "--steps" if self._time() < 1 else "--max-seconds"
        logger.info(
            "%s: %s%s",
            f"{out} is trained, {self._state.step} steps in {self._state.seconds:.0f} s",
            f"models in {' and '.join(models)}, " if models else "",
            f"curves in {out / 'metrics.jsonl'}",
        )
        if not trained:
            logger.info("nothing was left to do; a larger %s prolongs the run", more)

    def _steps(self) -> None:
        """Train until the run is done."""
        config, state, world = self.config, self._state, self._world
        stream_of_batches = batches(
            self._source,
            start=state.position,
            per_step=config.accumulate,
            rank=world.rank,
            world_size=world.size,
            workers=config.workers,
        )
        with contextlib.closing(stream_of_batches), self._bar() as bar:
            while True:
                self._pause()
                if self._stop:
                    raise KeyboardInterrupt
                if self._progress() >= 1:
                    break
                loaded = [next(stream_of_batches) for _ in range(config.accumulate // world.size)]
                before = self._done()
                self._step([batch for batch, _ in loaded])
                state.position = loaded[-1][1]
                bar.advance(self._done() - before)
                if state.step % config.log_every == 0 or self._progress() >= 1:
                    self._log(bar)

    def _bar(self) -> Progress:
        """Return a bar of what this start has to do: seconds where they are limited, or steps."""
        limit = self.config.max_seconds
        total = float(self.config.steps) if limit is None else limit
        what = f"train from step {self._state.step}" if self._state.step else "train"
        unit = "step" if limit is None else "s"
        return Progress(what, total=total - self._done(), unit=unit)

    def _done(self) -> float:
        in_steps = self.config.max_seconds is None
        return float(self._state.step) if in_steps else self._state.seconds

    def _progress(self) -> float:
        """Return the share of the run that is done, by steps or by time."""
        return max(self._state.step / max(self.config.steps, 1), self._time())

    def _time(self) -> float:
        """Return the share of ``max_seconds`` that is spent; 0 where time is not limited."""
        return self._state.seconds / (self.config.max_seconds or float("inf"))

    def _pause(self) -> None:
        """Between two steps: validate and write a checkpoint, where they are due."""
        config, state = self.config, self._state
        done = self._progress() >= 1
        due = done or state.step % config.validate_every == 0
        if self._validate is not None and state.step and due and state.validated < state.step:
            self._evaluate()
        saved_step, saved_seconds = self._saved
        waited = state.seconds - saved_seconds >= (config.save_seconds or float("inf"))
        due = done or waited or self._stop or state.step % config.save_every == 0
        if due and state.step > saved_step:
            self._save()

    def _step(self, loaded: list[Any]) -> None:
        """One step of every network whose turn it is, on the same micro-batches."""
        state, world = self._state, self._world
        on_device = [to_device(batch, world.device) for batch in loaded]
        step, progress, spent = state.step, self._progress(), self._time()
        self._lr = self._shared.lr_at(step=step, progress=progress, time=spent)
        state.step += 1
        for network in self._networks:
            if state.step % network.optimization.update_every:
                continue
            with contextlib.ExitStack() as stack:
                for other in self._networks:
                    if other is not network:
                        stack.enter_context(other.frozen())
                around = partial(self._around, network)
                totals, parts = network.backward(on_device, context=around)
            seconds = time.monotonic() - self._started if world.first else 0.0
            clock = torch.tensor([seconds, float(self._wish.wanted)], device=world.device)
            totals = world.sum(torch.cat([totals, clock]))
            scale = world.size / totals[1].clamp(min=1)  # the processes' gradients were averaged
            norm = network.clip(scale=scale)
            outcome = Outcome(
                step=state.step,
                network=network.name,
                totals=torch.cat([totals, norm.reshape(1)]),
                parts=parts,
                batches=on_device,
            )
            self._pending.append(outcome)
            self._settle(keep=self._lag)
            network.update(network.optimization.lr_at(step=step, progress=progress, time=spent))

    @contextlib.contextmanager
    def _around(self, network: TrainedNetwork, index: int) -> Iterator[None]:
        """Surround a micro-batch: precision, and dropout as (seed, step, batch) say."""
        step, world = self._state.step, self._world
        number = index * world.size + world.rank
        half = self.config.precision == "bf16"
        with (
            reseeded(self.config.seed, network.name, step, number, device=world.device),
            torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=half),
        ):
            yield

    def _settle(self, *, keep: int = 0) -> None:
        """Read the numbers of the steps, all but the last ``keep``; stop if one is unsound."""
        while len(self._pending) > keep:
            outcome = self._pending.popleft()
            (total, count, seconds, stop, norm), parts = outcome.read()
            network = next(n for n in self._networks if n.name == outcome.network)
            loss = total / max(count, 1.0)
            complaint = network.watch.complaint(loss=loss, norm=norm)
            if complaint is not None:
                self._refuse(outcome, complaint + describe_terms(parts))
            self._state.seconds = seconds
            self._stop = stop > 0
            steady = next(n for n in self._networks if n.optimization.update_every == 1)
            first = network is steady  # each step is counted once
            prefix = "" if len(self._networks) == 1 else f"{network.name}/"
            pairs = {f"{prefix}parts/{name}": pair for name, pair in parts.items()}
            if self._world.first:
                pairs |= {f"{prefix}loss": (total, count), f"{prefix}grad_norm": (norm, 1.0)}
            paddings = [getattr(batch, "padding", None) for batch in outcome.batches]
            known = [share for share in paddings if isinstance(share, float)]
            if first and known:
                pairs["padding"] = (sum(known), float(len(known)))
            self._meter.add(pairs, items=count if first else 0.0)

    def _refuse(self, outcome: Outcome, complaint: str) -> None:
        folder = self._dir.out / f"offending-batch-{outcome.step}"
        world = self._world
        save_batches(folder, outcome, rank=world.rank, world_size=world.size)
        good = checkpoint.found(self._dir.checkpoints)
        kept = (
            f"the last good checkpoint, {good[-1].name}, is still there"
            if good
            else "there is no checkpoint yet: begin anew with a lower --lr or a longer warm-up"
        )
        raise UnitoneError(
            f"step {outcome.step}, network {outcome.network!r}: {complaint}. The batch is in "
            f"{folder}; {kept}"
        )

    def _log(self, bar: Progress) -> None:
        self._settle()
        self._meter.merge(self._world)
        record = self._meter.record()
        if not self._world.first:
            return
        step, seconds = self._state.step, round(self._state.seconds, 3)
        own = {f"{n.name}/lr": n.lr for n in self._networks if n.optimization != self._shared}
        self._dir.write({"step": step, "seconds": seconds, "lr": self._lr, **own, **record})
        shown = {name: f"{mean:.4g}" for name, mean in record.items() if name.endswith("loss")}
        rate = f"{record['items_per_second']:.4g}"
        bar.note(**shown, lr=f"{self._lr:.3g}", items_per_s=rate)

    def _evaluate(self) -> None:
        """Validate, and keep the model if it is the best."""
        assert self._validate is not None
        self._settle()
        config, state = self.config, self._state
        state.validated = state.step
        metrics: dict[str, float] | None = None
        with self.averaged():
            if self._world.first:
                metrics = self._validate(state.step)
        metrics = self._world.of_first(metrics)
        assert metrics is not None
        if self._world.first:
            self._dir.write({"step": state.step, "validation": metrics})
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            logger.info("step %d: %s", state.step, shown)
        if config.best is None:
            return
        if config.best not in metrics:
            known = ", ".join(sorted(metrics))
            raise ConfigError(f"--best {config.best}: the validation has {known}")
        value = metrics[config.best]
        sign = -1 if self._highest else 1
        if state.best is None or sign * value < sign * state.best:
            state.best = value
            self._export("best")

    def _export(self, name: str) -> None:
        """Have the model written to ``out/name``."""
        if self._save_model is None:
            return
        with self.averaged():
            if self._world.first:
                with checkpoint.replacing_folder(self._dir.out / name) as folder:
                    self._save_model(folder)
        self._world.gather(None)  # the others wait for it

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the networks ready for use: averaged weights if there are any, whole, no dropout."""
        with contextlib.ExitStack() as stack:
            for network in self._networks:
                if network.ema is not None:
                    stack.enter_context(network.ema.swapped())
                network.module.eval()
                stack.enter_context(distributed.unsharded(network.module, keep=self._world.first))
            device = self._world.device
            stack.enter_context(reseeded(self.config.seed, "use", self._state.step, device=device))
            stack.enter_context(torch.no_grad())
            try:
                yield
            finally:
                for network in self._networks:
                    network.module.train()

    def _save(self) -> None:
        self._settle()
        self._meter.merge(self._world)
        self._state.window = self._meter.sums
        keep = self._world.first
        tensors = {k: v for one in self._networks for k, v in one.tensors(keep=keep).items()}
        if self._world.first:
            networks = {network.name: network.state() for network in self._networks}
            state = {"state": self._state.saved(), "players": networks}  # compat: names of before
            folder = checkpoint.folder_of(self._dir.checkpoints, self._state.step)
            checkpoint.write(folder, tensors, state)
            checkpoint.prune(self._dir.checkpoints, keep=self.config.keep)
        self._saved = (self._state.step, self._state.seconds)


def lag_on(device: torch.device) -> int:
    """Return after how many steps their numbers are read: a GPU must not wait for Python."""
    return 2 if device.type == "cuda" else 0

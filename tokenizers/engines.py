"""Where a job runs: in this process, or on the actors of a Ray cluster through Ray Data.

A job is a small picklable object; ``open()`` loads what is heavy (once per process) and returns a
function from a block of work to its results. Results don't depend on the engine, so the caller
writes them down in one place, whatever order they come in.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, runtime_checkable

from unitone.errors import ConfigError

logger = logging.getLogger(__name__)

Engine = Literal["local", "ray"]
Work_contra = TypeVar("Work_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)
Work = TypeVar("Work")
Result = TypeVar("Result")


@runtime_checkable
class Job(Protocol[Work_contra, Result_co]):
    """What an engine runs."""

    def open(self) -> Callable[[Work_contra], Iterator[Result_co]]:
        """Load models; return the function that turns a block into results."""
        ...


def run(
    job: Job[Work, Result], blocks: Sequence[Work], *, engine: Engine, workers: int
) -> Iterator[Result]:
    """Yield the results of every block: in order from ``local``, as they come from ``ray``.

    Args:
        job: what to do; pickled to the workers by ``ray``.
        blocks: the work, in pieces large enough to be worth sending.
        engine: where.
        workers: Ray actors; ``local`` is one process and doesn't look at it.
    """
    if engine == "ray":
        yield from _run_ray(job, blocks, workers)
        return
    function = job.open()
    for block in blocks:
        yield from function(block)


class _Actor(Generic[Work, Result]):
    """One Ray worker: holds the opened job, takes and returns pickled blocks."""

    def __init__(self, job: Job[Work, Result]) -> None:
        self._function = job.open()

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        return {"results": pickle.dumps(list(self._function(pickle.loads(row["block"]))))}


def _run_ray(job: Job[Work, Result], blocks: Sequence[Work], workers: int) -> Iterator[Result]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'unitone[ray]'") from error
    if not ray.is_initialized():
        _start(ray, workers)
    total = int(ray.cluster_resources().get("CPU", 1))
    # the tasks that feed the actors need a processor too: an actor pool that holds all of them
    # waits for ever for its first block
    actors = max(min(workers, total - 1), 1)
    if actors < workers:
        logger.warning("ray: %d actors instead of %d, of %d CPUs", actors, workers, total)
    rows = [{"block": pickle.dumps(block)} for block in blocks]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        cast("Any", _Actor), fn_constructor_args=(job,), concurrency=actors, num_cpus=1
    )
    for row in results.iter_rows():
        yield from pickle.loads(row["results"])


def _start(ray: Any, workers: int) -> None:
    """Join the cluster of ``RAY_ADDRESS``; without one, make a local one with a CPU to spare."""
    address = os.environ.get("RAY_ADDRESS")
    cpus = None if address else max(os.cpu_count() or 1, workers + 1)
    ray.init(
        address=address,
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False

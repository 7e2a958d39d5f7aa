"""Independent trainings as Dask tasks: one GPU each, their epochs on one progress bar.

A task whose worker dies is given to another one by Dask (at most ``distributed.scheduler.allowed-failures``
times, 3 by default), and goes on from the checkpoint that the first one left.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from distributed import Client, KilledWorker, as_completed, get_worker

from sesgrid.batches.running import progress_bar
from sesgrid.errors import SesgridError, SesgridWarning
from sesgrid.kernels.device import DEVICE_LOCK
from sesgrid.run.cluster import TRAINING, on_gpus
from sesgrid.stages.train import Progress

__all__ = ["run_trainings"]

_TOPIC = "sesgrid-train"

Work = TypeVar("Work")


def run_trainings(
    client: Client,
    label: str,
    work: Sequence[Work],
    do: Callable[[Work, Progress], Any],
    epochs: int,
) -> Iterator[tuple[Work, Any, list[str]]]:
    """Do each piece of work on a worker, in any order.

    Parameters
    ----------
    client : Client
    label : str
        Shown on the progress bar.
    work : sequence
        What a task is given.
    do : callable
        Called on the worker with the work and what is to be called after every epoch.
    epochs : int
        At most, of all the work.

    Yields
    ------
    work, result, notes
        As they are finished; notes are the warnings that it gave.

    Raises
    ------
    SesgridError
        Every worker that a task was given to died.
    Exception
        What the first task that failed raised; those that wait are not begun.
    """
    if not work:
        return
    with progress_bar(label, epochs, "epoch") as bar:

        def show(event: tuple[float, dict[str, Any]]) -> None:
            message = event[1]
            bar.update(1)
            bar.set_postfix_str(f"{message['model_id']} val_loss {message['val_loss']:.3f}")

        client.subscribe_topic(_TOPIC, show)
        try:
            options = {"pure": False, "resources": on_gpus(client, TRAINING)}
            futures = {client.submit(_on_worker, do, w, **options): w for w in work}
            for future in as_completed(list(futures)):
                if future.status == "error":
                    error = future.exception()  # a cancelled future would only say that it was
                    client.cancel(list(futures))
                    raise _told(error)
                result = future.result()
                # or Dask would do it again, were the worker that holds the result to die
                done = futures.pop(future)
                future.release()
                yield done, *result
        finally:
            client.unsubscribe_topic(_TOPIC)


def _told(error: BaseException) -> BaseException:
    """The error as it was, but for a task that takes its workers with it."""
    if not isinstance(error, KilledWorker):
        return error
    return SesgridError(
        f"every worker that a training was given to died ({error.allowed_failures + 1}): most often they "
        "lack memory (see their logs); give them more (cluster.memory), or choose a smaller "
        "train.batch_size, then run again, and it goes on from its checkpoint"
    )


def _on_worker(do: Callable[[Work, Progress], Any], work: Work) -> tuple[Any, list[str]]:
    """Work where the task landed; warnings travel back as text.

    One at a time in a process: seeds and warnings are the process' own, and what is timed must not wait
    for another training.
    """

    def progress(model_id: str, epoch: int, logs: Mapping[str, float]) -> None:
        message = {"model_id": model_id, "epoch": epoch, "val_loss": float(logs["val_loss"])}
        get_worker().log_event(_TOPIC, message)

    with DEVICE_LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SesgridWarning)
        result = do(work, progress)
    return result, [str(w.message) for w in caught if issubclass(w.category, SesgridWarning)]

"""Tasks in flight on a cluster: sent as there is room, handed back as they end."""

from __future__ import annotations

import asyncio
import heapq
import os
import queue
import resource
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pyarrow as pa
from distributed import Client, Future

from sesgrid.errors import ClusterError

__all__ = ["Ended", "Flight", "Note", "Noted", "Packed", "pack_rows", "peak_mb", "slots"]

_LOOK_S = 5.0
"""How often the cluster is looked at while nothing ends."""

_AHEAD_S, _MOST_A_SLOT = 0.5, 32
"""Work that a slot has before it, and the most tasks that this may be."""

_PAUSED_S = 120.0
"""How long all workers may be paused, as Dask pauses those whose memory is nearly full."""

_ALONE_S = 3600.0
"""How long there may be no worker: jobs wait in a queue."""

_FETCH_S = 30.0
"""How long results may take to arrive; they are rows, not pixels."""

_GLANCE_S = 0.2
"""How often it is looked at, while results arrive, whether one of them is lost."""

_TOGETHER_S = 0.05
"""What ends within so much time is fetched, and followed by others, together."""


def peak_mb() -> int:
    """Most memory that this process ever held."""
    try:
        # not ru_maxrss, which a child inherits from the process that started it
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) >> 10
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@dataclass(frozen=True)
class Note:
    """What a task tells of itself."""

    worker: str
    """Host and process."""
    seconds: float
    peak_mb: int
    """Most memory that its process ever held."""
    attempt: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)


@dataclass(frozen=True)
class Packed:
    """What a task sends to the driver: rows as columns, and whatever else its batch's record is made of."""

    rows: pa.Table
    extra: tuple[Any, ...] = ()


def pack_rows(results: Sequence[dict[str, Any]]) -> Packed:
    """Results that are rows; a row may lack columns."""
    names = dict.fromkeys(name for row in results for name in row)
    return Packed(pa.table({name: [row.get(name) for row in results] for name in names}))


@dataclass(frozen=True)
class Noted:
    """A stage whose tasks pack their results and tell how long they took and where.

    Packing is done by the worker: a nation's rows, one by one, would be more than its driver can take in.
    """

    stage: Callable[..., Sequence[Any]]
    pack: Callable[[Sequence[Any]], Packed] = pack_rows

    def __call__(
        self, items: Sequence[Any], *inputs: np.ndarray
    ) -> list[tuple[Packed, Note] | None]:
        """One result per item, as `sesgrid.stages.place.place` asks for: the first has it all."""
        started = time.perf_counter()
        packed = self.pack(self.stage(items, *inputs))
        seconds = round(time.perf_counter() - started, 4)
        note = Note(f"{socket.gethostname()}:{os.getpid()}", seconds, peak_mb())
        return [(packed, note), *[None] * (len(items) - 1)]


@dataclass(frozen=True)
class Ended:
    """A task's end, good or bad."""

    batch: str
    index: int
    """Of the task in its batch."""
    attempt: int
    packed: Packed | None = None
    note: Note | None = None
    error: BaseException | None = None


@dataclass(frozen=True)
class _Sent:
    batch: str
    index: int
    attempt: int
    task: Any


def slots(client: Client, resources: Mapping[str, float] | None) -> int:
    """Tasks that the cluster's workers compute at once.

    A slot is a thread, or, of tasks that take a share of a GPU, a share.
    """
    return _slots(_workers(client), resources)


def _workers(client: Client) -> list[dict[str, Any]]:
    """What the scheduler knows of each worker."""
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _slots(workers: Iterable[Mapping[str, Any]], resources: Mapping[str, float] | None) -> int:
    total = 0
    for worker in workers:
        has = worker.get("resources") or {}
        shares = [int(has.get(name, 0) / v + 1e-6) for name, v in (resources or {}).items()]
        total += min([int(worker["nthreads"]), *shares])
    return total


class Flight:
    """Tasks on a cluster: few a slot, so that a worker's queue, also that of one with a GPU, is bounded.

    Two a slot: one that is computed, and one that waits for it. Tasks of some milliseconds would leave the
    slots idle while their results travel; of these there are as many as make half a second, at most 32. What
    is sent or fetched at about the same time is one message: a graph costs the scheduler milliseconds, a
    task in it a fraction.

    Parameters
    ----------
    client : Client
    make : callable
        Tasks → a placed graph of one chunk each.
    resources : mapping, optional
        What a worker must have for a task.
    """

    def __init__(
        self,
        client: Client,
        make: Callable[[Sequence[Any]], da.Array],
        resources: Mapping[str, float] | None,
    ) -> None:
        self._client, self._make, self._resources = client, make, resources
        self._ready: deque[_Sent] = deque()
        """Not yet on the cluster."""
        self._later: list[tuple[float, int, _Sent]] = []
        """To be tried again, by when."""
        self._flying: dict[Future, _Sent] = {}
        self._lost: list[Future] = []
        """Flying ones that had landed before their worker was gone."""
        self._landed: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._slots, self._looked, self._count = 0, -np.inf, 0
        self._active = time.monotonic()
        """When a worker was last seen that is not paused."""
        self._seconds: float | None = None
        """Of a task, the recent ones counting most."""
        self._woke = -np.inf

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.cancel(list(self._flying))
        self._flying.clear()

    @property
    def _room(self) -> int:
        """Tasks that the cluster is given at once."""
        a_slot = 2 if self._seconds is None else int(_AHEAD_S / max(self._seconds, 1e-3))
        return self._slots * min(max(a_slot, 2), _MOST_A_SLOT)

    def has_room(self) -> bool:
        """Whether the cluster would take more tasks than were sent."""
        self._look()
        # those that wait for another attempt count too: a store that is away is not asked for all at once
        return len(self._flying) + len(self._ready) + len(self._later) < self._room

    def send(self, batch: str, tasks: Sequence[Any]) -> None:
        """Give the tasks of a batch to the cluster, as it has room."""
        self._ready.extend(_Sent(batch, index, 1, task) for index, task in enumerate(tasks))

    def again(self, end: Ended, task: Any, seconds: float) -> None:
        """Try a task once more, after some seconds; nothing of its old graph is used."""
        self._count += 1
        sent = _Sent(end.batch, end.index, end.attempt + 1, task)
        heapq.heappush(self._later, (time.monotonic() + seconds, self._count, sent))

    def ended(self) -> list[Ended]:
        """Tasks that ended; waits for the first, or for one that is to be tried again.

        Raises
        ------
        ClusterError
            The scheduler is gone, or all workers are gone or paused for good.
        """
        self._look()
        self._launch()
        landed = self._wait()
        found = self._fetch(landed)
        self._lost = [f for f in dict.fromkeys([*self._lost, *landed]) if f not in found]
        ends = [_ended(self._flying.pop(f), f, result) for f, result in found.items()]
        for end in ends:
            if end.note is not None:
                known = end.note.seconds if self._seconds is None else self._seconds
                self._seconds = 0.7 * known + 0.3 * end.note.seconds
        return ends

    def _launch(self) -> None:
        """Put on the cluster what is due and what it has room for, as one graph."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._later)[2])
        room = self._room - len(self._flying)
        n = min(max(room, 0 if self._flying else 1), len(self._ready))
        if not n:
            return
        sent = [self._ready.popleft() for _ in range(n)]
        chunks = self._make([s.task for s in sent]).to_delayed().ravel()
        for s, future in zip(
            sent, self._client.compute(list(chunks), resources=self._resources), strict=True
        ):
            self._flying[future] = s
            future.add_done_callback(self._landed.put)

    def _wait(self) -> list[Future]:
        """What landed since the last look; waits for the first, as long as there is something to wait for."""
        patience = _LOOK_S
        if self._later:
            patience = min(patience, max(0.0, self._later[0][0] - time.monotonic()))
        landed = []
        with suppress(queue.Empty):
            landed.append(self._landed.get(timeout=patience))
            time.sleep(max(0.0, self._woke + _TOGETHER_S - time.monotonic()))
            while True:
                landed.append(self._landed.get_nowait())
        self._woke = time.monotonic()
        landed += [f for f in self._lost if f.done()]
        if not landed:
            self._looked = -np.inf
            self._look()
            # never wait for a callback alone: one that is lost would be waited for to the end of days
            landed = [f for f in self._flying if f.done()]
        return [f for f in dict.fromkeys(landed) if f in self._flying]

    def _fetch(self, futures: Sequence[Future]) -> dict[Future, Any]:
        """Results, or errors; what was lost with its worker is left out: it is computed again."""
        found: dict[Future, Any] = {f: f.exception() for f in futures if f.status == "error"}
        well = [f for f in futures if f not in found and f.done()]
        with suppress(Exception):  # then each is asked for on its own
            return found | dict(zip(well, self._client.sync(self._gather, well), strict=True))
        well = [f for f in well if f.done()]
        told = self._client.sync(self._gather_each, well)
        # what takes too long may still come, or its worker is gone and nobody knows it yet; an error else
        # says that the cluster forgot it, or that it cannot be read
        found |= {f: t for f, t in zip(well, told, strict=True) if not isinstance(t, TimeoutError)}
        return found

    async def _gather(self, futures: Sequence[Future]) -> list[Any]:
        """Results, in so much time: what is lost would be waited for until there are workers again."""
        if not futures:
            return []
        asked = asyncio.ensure_future(self._client.gather(list(futures), asynchronous=True))
        until = time.monotonic() + _FETCH_S
        while not (await asyncio.wait([asked], timeout=_GLANCE_S))[0]:
            # asking tells the client what is lost: that is done no longer, and is being computed again
            if time.monotonic() > until or not all(f.done() for f in futures):
                asked.cancel()
                raise TimeoutError(f"{len(futures)} results did not arrive")
        return list(asked.result())

    async def _gather_each(self, futures: Sequence[Future]) -> list[Any]:
        """The result of each, or why there is none, all asked for at once."""
        ends = await asyncio.gather(*(self._gather([f]) for f in futures), return_exceptions=True)
        return [end if isinstance(end, BaseException) else end[0] for end in ends]

    def _look(self) -> None:
        """How large the cluster is, and whether it is there."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        if self._client.status not in ("running", "connecting"):
            raise ClusterError(
                f"the connection to the Dask scheduler is {self._client.status}: what was finished is kept; "
                "run again, and it goes on from there"
            )
        workers = _workers(self._client)
        self._looked, self._slots = now, _slots(workers, self._resources)
        if any(w.get("status") != "paused" for w in workers):
            self._active = now
        elif not workers and now - self._active > _ALONE_S:
            raise ClusterError(
                f"there has been no worker for {_ALONE_S / 60:.0f} minutes, and nothing goes on: see the "
                "cluster's own logs; what was finished is kept: run again, and it goes on from there"
            )
        elif workers and now - self._active > _PAUSED_S:
            raise ClusterError(
                f"all {len(workers)} workers have been paused for {_PAUSED_S:.0f} s, as Dask does with those "
                "that are near their memory limit, and nothing goes on: give workers more memory or fewer "
                "threads, or set distributed.worker.memory.pause to False there; what was finished is kept"
            )


def _ended(sent: _Sent, future: Future, result: Any) -> Ended:
    """How a task ended: its results and note, or why there are none."""
    where = (sent.batch, sent.index, sent.attempt)
    future.release()
    if isinstance(result, BaseException):
        return Ended(*where, error=result)
    packed, note = result[0]
    return Ended(*where, packed=packed, note=replace(note, attempt=sent.attempt))

"""Many movies, one task each, on a Dask cluster: a session for each, and a table of all.

`batch_list` says which movies, `batch_folder` is where a batch lies, `batch_task` what a worker does with a
movie. Here is what the person's own process does: it leaves out what is finished, hands the rest to the
cluster, and writes the table as they come back.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.pipeline.batch_folder import FAILED, FINISHED, TABLE, BatchFolder, Row, fingerprint
from napari_rbcflow.pipeline.batch_list import BatchMovie, list_movies
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

_ASKING = 16
"""Movies whose state is asked for at a time: in a store, each answer takes a while."""
_ANSWER_S = 10.0
_SHARE_OF_MEMORY = 0.9
_TABLE_SHARE = 0.05
"""Of the time at most goes into writing the table, of thousands of movies too; the last time always."""

Progress = Callable[[Row, int, int, float], object]


def analyze_many(
    movies: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    memory_gb: float | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Analyse many movies, as ``rbcflow batch`` does; called again, only what is not finished.

    Each movie gets a session folder in `out`. The table `out`/``batch.csv``, and the same as
    ``batch.parquet``, grows a row a movie as they finish. A movie that fails does so alone.

    Parameters
    ----------
    movies : path, or iterable of paths
        Each a movie as `analyze` takes it, a pattern (``monday/*.tif``), or a list: a CSV file with the
        column `movie` and any of `patient`, `sample`, `date`, the settings of `analyze` and the fields of
        the run's record. Also addresses that fsspec knows, such as ``s3://bucket/monday.tif``.
    out : path
        The batch's folder: a new one, or that of an earlier call. Also an address of an object store.
    scheduler : str, optional
        Address of a Dask scheduler; by default this computer works alone.
    workers : int, optional
        How many movies at a time on this computer; by default one for two cores.
    memory_gb : float, optional
        What a movie may take before it is given up; by default a worker's share of the computer, or what Dask
        gives the worker.
    progress : callable, optional
        Called after each movie with its row, how many are done, of how many, and about how many seconds are
        left (not a number where nothing is known yet).
    **settings
        Those of `analyze`, for all movies that a list says nothing else of.

    Returns
    -------
    DataFrame
        The rows of these movies, in their order.

    Raises
    ------
    BadInput
        If nothing can begin. Nothing was created.
    RunFailed
        If the scheduler is lost or the table cannot be written. What was finished is kept.
    """
    if find_spec("distributed") is None or find_spec("pyarrow") is None:
        raise BadInput("pipeline.batch-needs-dask")
    if workers is not None and workers < 1:
        raise BadInput("pipeline.batch-workers-outside", value=workers)
    if memory_gb is not None and not memory_gb > 0:
        raise BadInput("pipeline.batch-memory-outside", value=memory_gb)
    listed = list_movies(movies, **settings)
    folder = BatchFolder(str(out))
    with contextlib.ExitStack() as stack:
        begun = folder.begun
        if begun:
            stack.enter_context(folder.held())
        with ThreadPoolExecutor(_ASKING) as asking:
            prints = dict(zip([m.key for m in listed], asking.map(_print_of, listed), strict=True))
        batch = _Batch(folder, listed, folder.rows() if begun else {})
        missing = [movie for movie in listed if prints[movie.key] is None]
        if len(missing) == len(listed) and not batch.known(listed):
            if len(listed) == 1:
                raise BadInput("sources.no-file", path=missing[0].movie)
            raise BadInput("pipeline.batch-none-there", movies=len(listed), path=missing[0].movie)
        to_do = [movie for movie in listed if not batch.finished(movie, prints[movie.key])]
        cluster = None
        if any(prints[movie.key] is not None for movie in to_do):
            cluster = stack.enter_context(_cluster(folder, scheduler, workers, memory_gb, len(to_do)))
        if not begun:
            folder.create()
            stack.enter_context(folder.held())
        batch.write_table()
        try:
            batch.carry_out(to_do, prints, cluster, progress)
        finally:
            batch.write_table(last=True)
    return folder.table([batch.rows[movie.key] for movie in listed])


def _print_of(movie: BatchMovie) -> str | None:
    try:
        return fingerprint(movie.address)
    except FileNotFoundError:
        return None
    except OSError as error:
        logging.getLogger(__name__).warning("%s: %s", movie.movie, error)
        return ""  # the worker finds out, and says why


class _Cluster:
    """A Dask client with what each task gets."""

    def __init__(self, client: Client, memory_bytes: int | None) -> None:
        self.client, self.memory_bytes = client, memory_bytes


@contextlib.contextmanager
def _cluster(
    folder: BatchFolder, scheduler: str | None, workers: int | None, memory_gb: float | None, movies: int
) -> Iterator[_Cluster]:
    """Open a cluster with a process for each worker; in the end these processes are gone."""
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    from napari_rbcflow.pipeline.batch_task import CORES, Processes, plugin_name

    most = None if memory_gb is None else int(memory_gb * 1e9)
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            n = min(workers or max(1, CPU_COUNT // CORES), movies)
            most = most or int(_SHARE_OF_MEMORY * MEMORY_LIMIT / n)
            # Threads of this process, as each has a process of its own for its movies. Without an address
            # for its pages, Dask would show them to the whole network.
            local = stack.enter_context(
                LocalCluster(
                    n_workers=n,
                    threads_per_worker=1,
                    processes=False,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address="127.0.0.1:0",
                    silence_logs=logging.ERROR,
                )
            )
            client = stack.enter_context(Client(local))
        else:
            try:
                client = stack.enter_context(Client(scheduler, timeout=_ANSWER_S))
            except (OSError, ValueError, TypeError) as error:
                why = str(error) or type(error).__name__
                raise BadInput("pipeline.batch-no-scheduler", address=scheduler, why=why) from None
        name = plugin_name(folder)
        client.register_plugin(Processes(name), name=name)
        try:
            yield _Cluster(client, most)
        finally:
            with contextlib.suppress(Exception):  # a scheduler that is gone
                client.unregister_worker_plugin(name)


class _Batch:
    """The rows of a batch, and how they come about.

    Attributes
    ----------
    rows : dict of str to Row
        By the key of a movie; those of earlier calls too.
    """

    def __init__(self, folder: BatchFolder, listed: Collection[BatchMovie], rows: dict[str, Row]) -> None:
        self.folder, self.rows = folder, rows
        self._listed = [movie.key for movie in listed]
        self._names = {row["session"].casefold() for row in rows.values() if row["session"]}
        self._written, self._cost = float("-inf"), 0.0

    def known(self, listed: Collection[BatchMovie]) -> bool:
        """Whether anything is known of any of these movies."""
        return any(movie.key in self.rows for movie in listed)

    def finished(self, movie: BatchMovie, mark: str | None) -> bool:
        """Say whether nothing is left to do; of a movie that is not there any more, its session is enough."""
        row = self.rows.get(movie.key)
        if row is None or row["status"] != FINISHED or row["settings_hash"] != movie.settings_hash:
            return False
        if mark is not None and mark != row["fingerprint"]:
            return False
        if not self.folder.exists(f"{row['session']}/run.json"):
            return False
        if (row["movie"], row["columns"]) != (movie.movie, dict(movie.columns)):
            row |= {"movie": movie.movie, "columns": dict(movie.columns)}
            self.folder.keep(row)
        return True

    def carry_out(
        self,
        to_do: Collection[BatchMovie],
        prints: Mapping[str, str | None],
        cluster: _Cluster | None,
        progress: Progress | None,
    ) -> None:
        """Do these movies; their rows are in the table as soon as they have come."""
        began, of = time.monotonic(), len(self._listed)
        missing = sum(prints[movie.key] is None for movie in to_do)  # which come first, and take no time
        for n, row in enumerate(self._ended(to_do, prints, cluster), 1):
            self.rows[row["key"]] = row
            self.write_table()
            if progress is not None:
                analysed, left = n - missing, len(to_do) - n
                seconds = (time.monotonic() - began) / analysed * left if analysed > 0 else math.nan
                progress(row, of - left, of, seconds)

    def _ended(
        self, to_do: Collection[BatchMovie], prints: Mapping[str, str | None], cluster: _Cluster | None
    ) -> Iterator[Row]:
        tasks: dict[Future, BatchMovie] = {}
        for movie in to_do:
            if prints[movie.key] is None:
                yield self._failed(movie, say("sources.no-file", path=movie.movie))
        if cluster is None:
            return
        from distributed import as_completed

        from napari_rbcflow.pipeline.batch_task import analyze_one

        for movie in to_do:
            if prints[movie.key] is not None:
                task = cluster.client.submit(
                    analyze_one,
                    movie,
                    self.folder.address,
                    self._name(movie),
                    self.rows.get(movie.key),
                    cluster.memory_bytes,
                    key=f"rbcflow-{movie.key}-{time.time_ns()}",
                    pure=False,
                )
                tasks[task] = movie
        for task in as_completed(list(tasks)):
            movie = tasks.pop(task)
            if task.status == "finished":
                yield task.result()
            elif task.status == "error":
                why = " ".join(str(task.exception()).split())
                yield self._failed(movie, say("pipeline.batch-worker-lost", why=why))
            else:
                raise RunFailed("pipeline.batch-scheduler-lost")
            task.release()

    def _failed(self, movie: BatchMovie, reason: str) -> Row:
        row = movie.row(FAILED, reason)
        self.folder.keep(row)
        return row

    def _name(self, movie: BatchMovie) -> str:
        """Choose the name of a session's folder: that of one that failed or was deleted, else a new one."""
        row = self.rows.get(movie.key)
        if row is not None and row["session"]:
            name = str(row["session"])
            by_hand = any(self.folder.exists(f"{name}/{file}") for file in ("reviews.csv", "changes.csv"))
            if not self.folder.exists(name) or (row["status"] != FINISHED and not by_hand):
                return name
        stem = Path(movie.address).stem.lstrip(".") or "movie"
        name, n = stem, 1
        while name.casefold() in self._names or self.folder.exists(name):
            n += 1
            name = f"{stem}-{n}"
        self._names.add(name.casefold())
        return name

    def write_table(self, *, last: bool = False) -> None:
        """Write the table unless that was just done; `last` says that it must be."""
        if not last and time.monotonic() - self._written < self._cost / _TABLE_SHARE:
            return
        began = time.monotonic()
        listed = [key for key in self._listed if key in self.rows]
        others = sorted(self.rows.keys() - set(listed), key=lambda key: str(self.rows[key]["movie"]))
        try:
            self.folder.write_table([self.rows[key] for key in (*listed, *others)])
        except OSError as error:  # open in a spreadsheet, on Windows
            if last:
                why = error.strerror or error
                raise RunFailed("pipeline.batch-table-lost", file=self.folder.path(TABLE), why=why) from error
        self._written = time.monotonic()
        self._cost = self._written - began

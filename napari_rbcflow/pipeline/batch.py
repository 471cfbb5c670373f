"""Many movies, one task each, on a Dask cluster: a session for each, and a table of all.

`batch_list` says which movies, `batch_folder` is where a batch lies, `batch_task` what a worker does with a
movie. Here is what the person's own process does: it leaves out what is finished, hands the rest to the
cluster, and writes the table as they come back.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.pipeline.batch_folder import (
    FAILED,
    FINISHED,
    OF_MOVIE,
    RUNNING,
    TABLE,
    WAITING,
    BatchFolder,
    Row,
    fingerprint,
)
from napari_rbcflow.pipeline.batch_list import BatchMovie, list_movies
from napari_rbcflow.pipeline.client import batch_goes_on
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

_ASKING = 16  # movies whose state is asked for at a time: in a store, each answer takes a while
_ANSWER_S = 10.0
_SHARE_OF_MEMORY = 0.9
_TABLE_SHARE = 0.05
"""Of the time at most goes into writing the table, of thousands of movies too; the last time always."""

_LOOK_S, _LOOK_EVERY_S = 0.1, 0.5
_LEAST_DONE = 0.05  # of a movie, before anything is said of the time left

Progress = Callable[[Row, int, int, float], object]
Look = Callable[[Sequence[Row], float], object]


def analyze_many(
    movies: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    memory_gb: float | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
    stop: threading.Event | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Analyse many movies, as ``rbcflow batch`` does; called again, only what is not finished.

    Each movie gets a session folder in `out`. The table `out`/``batch.csv``, and the same as
    ``batch.parquet``, grows a row a movie as they finish. A movie that fails does so alone. What is finished
    is read again: the table says what its session says now, after a review too.

    Parameters
    ----------
    movies : path, or iterable of paths
        Each a movie as `analyze` takes it, a pattern (``monday/*.tif``), or a list: a CSV file with the
        column `movie` and any of `patient`, `sample`, `date`, the settings of `analyze` and the fields of
        the run's record. Also addresses that fsspec knows, such as ``s3://bucket/monday.tif``. None at all
        only brings the table of a batch up to date.
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
    look : callable, optional
        Called about twice a second, by the thread that called this, with all rows in their order and the
        seconds left. `status` of a row is ``waiting``, ``running`` (then `share` says how much of it is
        done), ``finished`` or ``failed``.
    stop : threading.Event, optional
        Set in another thread, it ends the batch: what was not finished is given up, and done the next time.
        Set from the start, nothing is analysed, but `look` and the table tell what is done and what is not.
    **settings
        Those of `analyze`, for all movies that a list says nothing else of.

    Returns
    -------
    DataFrame
        The rows of these movies, in their order; without those that `stop` left.

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
    folder, stop = BatchFolder(str(out)), stop or threading.Event()
    words = [movies] if isinstance(movies, (str, Path)) else list(movies)
    if not words and folder.begun:
        return _brought_up_to_date(folder, look)
    listed = list_movies(words, **settings)
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
        batch.read_again()
        to_do = [movie for movie in listed if not batch.finished(movie, prints[movie.key])]
        if look is not None:  # a cluster takes seconds to come up
            look(batch.rows_now({movie.key for movie in to_do}, {}), math.nan)
        cluster = None
        if any(prints[movie.key] is not None for movie in to_do) and not stop.is_set():
            cluster = stack.enter_context(_cluster(folder, scheduler, workers, memory_gb, len(to_do)))
        if not begun:
            folder.create()
            stack.enter_context(folder.held())
        batch.write_table()
        try:
            batch.carry_out(to_do, prints, cluster, progress, look, stop)
        finally:
            batch.write_table(last=True)
    return folder.table([batch.rows[movie.key] for movie in listed if movie.key in batch.rows])


def _brought_up_to_date(folder: BatchFolder, look: Look | None) -> pd.DataFrame:
    with folder.held():
        batch = _Batch(folder, [], folder.rows())
        batch.read_again()
        batch.write_table(last=True)
    if look is not None:
        look(batch.in_order(), math.nan)
    return folder.table(batch.in_order())


def _print_of(movie: BatchMovie) -> str | None:
    try:
        return fingerprint(movie.address)
    except FileNotFoundError:
        return None
    except OSError as error:
        logging.getLogger(__name__).warning("%s: %s", movie.movie, error)
        return ""  # the worker finds out, and says why


class _Cluster:
    """A Dask client with what each task gets; `shares` of the movies under way, by their keys."""

    def __init__(self, client: Client, memory_bytes: int | None, topic: str) -> None:
        self.client, self.memory_bytes = client, memory_bytes
        self.shares: dict[str, float] = {}
        client.subscribe_topic(topic, self._hear)

    def _hear(self, event: tuple[float, tuple[str, float]]) -> None:
        key, share = event[1]
        self.shares[key] = min(1.0, share)


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
            stack.enter_context(batch_goes_on())
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
            # Not as the default, which all other work of dask in this process would then ask for.
            client = stack.enter_context(Client(local, set_as_default=False))
        else:
            try:
                client = stack.enter_context(Client(scheduler, timeout=_ANSWER_S, set_as_default=False))
            except (OSError, ValueError, TypeError) as error:
                why = str(error) or type(error).__name__
                raise BadInput("pipeline.batch-no-scheduler", address=scheduler, why=why) from None
        name = plugin_name(folder)
        client.register_plugin(Processes(name), name=name)
        try:
            yield _Cluster(client, most, name)
        finally:
            with contextlib.suppress(Exception):  # a scheduler that is gone
                client.unregister_worker_plugin(name)


class _Batch:
    """The rows of a batch, by the key of a movie, those of earlier calls too, and how they come about."""

    def __init__(self, folder: BatchFolder, listed: Collection[BatchMovie], rows: dict[str, Row]) -> None:
        self.folder, self.rows = folder, rows
        self._listed = {movie.key: movie for movie in listed}
        self._names = {row["session"].casefold() for row in rows.values() if row["session"]}
        self._written, self._cost = float("-inf"), 0.0

    def known(self, listed: Collection[BatchMovie]) -> bool:
        """Whether anything is known of any of these movies."""
        return any(movie.key in self.rows for movie in listed)

    def read_again(self) -> None:
        """Take in what the sessions of finished movies say now; one may have been reviewed, or be gone."""
        finished = [row for row in self.rows.values() if row["status"] == FINISHED]
        with ThreadPoolExecutor(_ASKING) as asking:
            self.rows |= {row["key"]: row for row in asking.map(self._as_it_is_now, finished)}

    def _as_it_is_now(self, row: Row) -> Row:
        session = row["session"]
        try:
            results = self.folder.results(session)
            if results is None:
                reason = say("pipeline.batch-session-gone", session=session)
            elif results["started"] == row["started"]:
                return row | results
            else:  # moved here from another movie, or what a batch that was killed had not yet replaced
                reason, session = say("pipeline.batch-session-other", session=session), ""
        except OSError as error:  # of a network; `as_of` says how old the row is
            logging.getLogger(__name__).warning("%s: %s", session, error)
            return row
        except BadInput as error:
            reason, session = str(error), ""  # its folder is left as it is
        plain = {name: row[name] for name in ("key", *OF_MOVIE, "columns", "settings_hash") if name in row}
        return plain | {"status": FAILED, "reason": reason, "session": session}

    def finished(self, movie: BatchMovie, mark: str | None) -> bool:
        """Say whether nothing is left to do; of a movie that is not there any more, its session is enough."""
        row = self.rows.get(movie.key)
        if row is None or row["status"] != FINISHED or row["settings_hash"] != movie.settings_hash:
            return False
        if mark is not None and mark != row["fingerprint"]:
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
        look: Look | None,
        stop: threading.Event,
    ) -> None:
        """Do these movies; their rows are in the table as soon as they have come."""
        began, looked, of = time.monotonic(), -math.inf, len(self._listed)
        shares = {} if cluster is None else cluster.shares
        left = {movie.key for movie in to_do}
        analysed = 0  # those that are missing take no time
        for row in self._ended(to_do, prints, cluster, stop):
            if row is not None:
                left.discard(row["key"])
                self.rows[row["key"]] = row
                analysed += prints[row["key"]] is not None
                self.write_table()
            done = analysed + sum(shares.get(key, 0.0) for key in left)
            to_go = sum(1 - shares.get(key, 0.0) for key in left)
            seconds = (time.monotonic() - began) / done * to_go if done >= _LEAST_DONE else math.nan
            if row is not None and progress is not None:
                progress(row, of - len(left), of, seconds)
            if look is not None and (row or time.monotonic() - looked >= _LOOK_EVERY_S):
                looked = time.monotonic()
                look(self.rows_now(left, shares), seconds)
        if look is not None:
            known = {row["key"] for row in self.rows.values() if row["status"] == FAILED}
            look(self.rows_now(left - known, {}), math.nan)

    def rows_now(self, left: Collection[str], shares: Mapping[str, float]) -> list[Row]:
        """Return the rows of all listed movies, also of those that are `left`."""
        going = {key: {"status": RUNNING, "share": share} for key, share in shares.items()}
        return [
            movie.row(WAITING) | going.get(key, {}) if key in left else self.rows[key]
            for key, movie in self._listed.items()
        ]

    def _ended(
        self,
        to_do: Collection[BatchMovie],
        prints: Mapping[str, str | None],
        cluster: _Cluster | None,
        stop: threading.Event,
    ) -> Iterator[Row | None]:
        """Return each row as it comes, and None every moment where nothing does."""
        yield None
        if stop.is_set():
            return
        tasks: dict[Future, BatchMovie] = {}
        for movie in to_do:
            if prints[movie.key] is None:
                yield self._failed(movie, say("sources.no-file", path=movie.movie))
        if cluster is None:
            return
        from distributed import as_completed

        from napari_rbcflow.pipeline.batch_task import analyze_one

        for n, movie in enumerate(to_do):
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
                    priority=-n,  # in the order of the list
                )
                tasks[task] = movie
        ended = as_completed(list(tasks), loop=cluster.client.loop)
        while tasks:
            if not ended.has_ready():
                if stop.wait(_LOOK_S):
                    return
                yield None
                continue
            task = next(ended)
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

    def in_order(self) -> list[Row]:
        """Return all rows, those that were listed first."""
        others = sorted(self.rows.keys() - self._listed, key=lambda key: str(self.rows[key]["movie"]))
        return [self.rows[key] for key in (*self._listed, *others) if key in self.rows]

    def write_table(self, *, last: bool = False) -> None:
        """Write the table unless that was just done; `last` says that it must be."""
        if not last and time.monotonic() - self._written < self._cost / _TABLE_SHARE:
            return
        began = time.monotonic()
        try:
            self.folder.write_table(self.in_order())
        except OSError as error:  # open in a spreadsheet, on Windows
            if last:
                why = error.strerror or error
                raise RunFailed("pipeline.batch-table-lost", file=self.folder.path(TABLE), why=why) from error
        self._written = time.monotonic()
        self._cost = self._written - began

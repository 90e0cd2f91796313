"""Calls in a child process that may crash or hang."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

SECONDS = 60
"""The longest that one call may take."""


def isolated(function, calls):
    """Yield (call, result, None) for each call, or (call, None, what ended the child).

    Parameters
    ----------
    function : callable
        Of a module, so that the child finds it.
    calls : iterable of tuple
        Its arguments.
    """
    pool = None
    for call in calls:
        pool = pool or ProcessPoolExecutor(1, get_context("fork"))
        try:
            result, ended = pool.submit(function, *call).result(SECONDS), None
        except (BrokenProcessPool, TimeoutError) as error:
            result, ended = None, type(error).__name__
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(cancel_futures=True)
            pool = None
        yield call, result, ended
    if pool:
        pool.shutdown()

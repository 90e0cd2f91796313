"""Forked children, in every way that servers make them."""

import concurrent.futures
import hashlib
import http.client
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import striate
from small_nets import picture, wide
from striate import Model

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the system has no fork"
)


def run_script(code, folder, *arguments):
    """Run a program as a file, as `multiprocessing` needs it."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(code))
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", script, HERE, *arguments],
        check=True,
        timeout=120,
    )


def test_a_child_runs_at_once_with_all_its_threads_and_exits(tmp_path):
    code = """
        import os, sys, time
        sys.path.insert(0, sys.argv[1])
        from small_nets import picture, wide
        from striate import Model
        from striate.kernels import _program
        x = picture(0, 1, 24, 24, 64)
        model = Model(wide(), threads=3)
        wanted = model(x).tobytes()
        child = os.fork()
        if child == 0:
            assert _program.workers() == 0
            start = time.monotonic()
            assert model(x).tobytes() == wanted
            assert time.monotonic() - start < 1
            assert _program.workers() == 2
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert model(x).tobytes() == wanted
    """
    run_script(code, tmp_path)


def test_forks_while_other_threads_run_and_plan(tmp_path):
    """A child gets no lock that a thread of its parent holds."""
    code = """
        import os, sys, threading
        sys.path.insert(0, sys.argv[1])
        from small_nets import any_size, picture, wide
        from striate import Model
        x = picture(0, 1, 24, 24, 64)
        heavy, model = Model(wide(), threads=2), Model(any_size(), threads=2)
        wanted = heavy(x).tobytes()
        stop = threading.Event()

        def run():
            while not stop.is_set():
                heavy(x)

        def plan():
            size = 8
            while not stop.is_set():
                size = 8 + (size + 1) % 90
                model(picture(1, 1, size, 40, 3))

        threads = [threading.Thread(target=f) for f in (run, run, plan)]
        for thread in threads:
            thread.start()
        codes = []
        for turn in range(25):
            child = os.fork()
            if child == 0:
                good = heavy(x).tobytes() == wanted
                y = model(picture(1, 1, 20, 40 + turn, 3))
                again = Model(any_size(), threads=1)(picture(1, 1, 20, 40 + turn, 3))
                os._exit(0 if good and y.tobytes() == again.tobytes() else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * 25, codes
    """
    run_script(code, tmp_path)


def test_forks_while_another_thread_imports_a_kernel(tmp_path):
    """A child can import what a thread of its parent had begun to import."""
    code = """
        import os, signal, sys, threading, time
        from striate import kernels

        class Slow:
            def find_spec(self, name, path, target=None):
                if name.startswith("striate.kernels.gather_"):
                    begun.set()
                    time.sleep(0.5)

        begun = threading.Event()
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=kernels.load, args=("gather",))
        thread.start()
        begun.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            kernels.load("gather")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        thread.join()
        kernels.load("copy")
    """
    run_script(code, tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, tmp_path):
    code = """
        import multiprocessing, sys
        sys.path.insert(0, sys.argv[1])
        from small_nets import picture, wide
        from striate import Model
        model = Model(wide(48, 2), threads=2)

        def answer(seed):
            return model(picture(seed, 1, 24, 24, 48)).tobytes()

        if __name__ == "__main__":
            wanted = [answer(seed) for seed in range(6)]
            with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
                assert pool.map(answer, range(6)) == wanted
    """
    run_script(code, tmp_path, method)


APPLICATION = """
import hashlib, os, sys
sys.path.insert(0, {here!r})
import striate
from small_nets import picture

model = striate.load({path!r}, threads=2)
model(picture(0, 1, 24, 24, 48))

def application(environ, start_response):
    seed = int(environ["PATH_INFO"].strip("/"))
    y = model(picture(seed, 1, 24, 24, 48))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{os.getpid()}} {{hashlib.sha256(y.tobytes()).hexdigest()}}".encode()]
"""


@pytest.mark.skipif(find_spec("gunicorn") is None, reason="gunicorn is not installed")
@pytest.mark.parametrize("workers", ["sync", "gthread"])
def test_gunicorn_that_loads_the_model_before_it_forks(workers, tmp_path):
    path = str(tmp_path / "net.h5")
    striate.save(wide(48, 2), path)
    (tmp_path / "service.py").write_text(APPLICATION.format(here=str(HERE), path=path))
    log = tmp_path / "log"
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "--preload"]
    command += ["--workers", "2", "--worker-class", workers, "--threads", "4"]
    command += ["--graceful-timeout", "5", "--bind", "127.0.0.1:0"]
    command += ["--error-logfile", str(log)]
    command += ["--no-control-socket"] if _has_control_socket() else []
    server = subprocess.Popen([*command, "service:application"], cwd=tmp_path)
    try:
        port = _port(server, log)
        model = Model(wide(48, 2), threads=1)
        wanted = [
            hashlib.sha256(model(picture(s, 1, 24, 24, 48)).tobytes()).hexdigest()
            for s in range(24)
        ]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda s: _asked(port, s), range(24)))
        assert [digest for _, digest in answers] == wanted
        assert str(server.pid) not in {pid for pid, _ in answers}
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def _has_control_socket():
    """Return whether this gunicorn would open a socket of its own besides."""
    shown = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--help"], capture_output=True, text=True
    )
    return "--no-control-socket" in shown.stdout


def _port(server, log):
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        found = log.exists() and re.search(r"127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(log.read_text() if log.exists() else "no log")


def _asked(port, seed):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/{seed}")
    pid, digest = connection.getresponse().read().decode().split()
    connection.close()
    return pid, digest

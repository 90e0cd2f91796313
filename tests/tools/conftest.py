"""What the tests of the commands share."""

import pytest


@pytest.fixture
def run(request, capsys):
    """Return a function that runs a command and returns status, output, errors.

    It runs what a test's file names `COMMAND`.
    """

    def call(*arguments):
        try:
            status = request.module.COMMAND([str(argument) for argument in arguments])
        except SystemExit as leave:
            status = leave.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def one_torch_thread():
    """Let PyTorch compute with one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

"""Other people's HDF5 files, odd and broken ones, are refused and do nothing else."""

import io
import os
import subprocess
import sys
import urllib.request
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

PUBLISHED = "https://github.com/HDFGroup/cve_hdf5/archive/refs/heads/main.zip"
"""The files with which the HDF Group reproduces the library's known vulnerabilities."""

ENDINGS = (".h5", ".hdf5", ".nc", ".mat", ".he5")

PROGRAM = """
import resource, sys, time
from striate import ModelFormatError, read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.process_time()
    for copy in (False, True):
        try:
            read(path, copy=copy)
            sys.exit(f"{path} was read")
        except ModelFormatError as error:
            assert error.path == path and error.code
    assert time.process_time() - start < 2, path
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
assert "h5py" not in sys.modules
"""


def assert_all_refused(paths):
    """Read files in a process of its own: a crash, too, is a failure."""
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    subprocess.run(command, check=True, timeout=100)


@pytest.mark.parametrize("package", ["h5py", "tables"])
def test_files_that_other_packages_test_themselves_with(package):
    try:
        listed = files(package) or []
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    paths = [Path(f.locate()) for f in listed if f.suffix in ENDINGS]
    assert paths
    assert_all_refused(paths)


def test_published_vulnerabilities(tmp_path):
    """Those in ``$STRIATE_CVE_FILES``, a clone of the repository, or fetched."""
    folder = os.environ.get("STRIATE_CVE_FILES")
    if folder is None:
        folder = tmp_path
        try:
            with urllib.request.urlopen(PUBLISHED, timeout=10) as answer:
                archive = zipfile.ZipFile(io.BytesIO(answer.read()))
        except OSError as error:
            pytest.skip(f"cannot be fetched: {error}")
        for number, name in enumerate(archive.namelist()):
            if "/cvefiles/" in name and not name.endswith(("/", ".md")):
                (tmp_path / f"{number}.h5").write_bytes(archive.read(name))
    paths = [path for path in Path(folder).rglob("*") if path.suffix == ".h5"]
    assert len(paths) > 80
    assert_all_refused(paths)

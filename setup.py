"""Build the kernels: every file of ``pyx/``, once per instruction set.

Three switches in the environment are for builds that look for mistakes:
``STRIATE_SANITIZE=address,undefined`` compiles with these sanitizers,
``STRIATE_CHECKED=1`` with Cython's own checks of indices, and
``STRIATE_BUILD_ISAS=base,avx2`` leaves the other instruction sets out.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ISAS: dict[str, list[str]] = {"base": []}
if platform.machine() in {"x86_64", "AMD64"}:
    ISAS["avx2"] = ["-march=x86-64-v3"]
    ISAS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
if wanted := os.environ.get("STRIATE_BUILD_ISAS"):
    ISAS = {isa: flags for isa, flags in ISAS.items() if isa in wanted.split(",")}
SANITIZERS = os.environ.get("STRIATE_SANITIZE")
CHECKED = bool(os.environ.get("STRIATE_CHECKED"))

FOLDER = Path(__file__).parent / "pyx"
SOURCES = sorted(f"pyx/{path.name}" for path in FOLDER.iterdir() if path.is_file())
ONCE = ["pyx/checksum.pyx", "pyx/cpu.pyx", "pyx/mapping.pyx", "pyx/program.pyx"]
KERNELS = [p for p in SOURCES if p.endswith(".pyx") and p not in ONCE]
INCLUDED = [p for p in SOURCES if not p.endswith(".pyx")]
SHARED = "striate.kernels._cyutility"

# -fwrapv, because integer lanes whose result is not used may overflow. Without the last
# GCC stops inlining the shared tile function into its instances; without its own flags
# it keeps their accumulators in memory.
FLAGS = [
    "-O3",
    "-g0",
    "-fwrapv",
    "-DCYTHON_INLINE=inline __attribute__((always_inline))",
]
GCC_FLAGS = [
    "--param=max-completely-peeled-insns=2000",
    "--param=max-completely-peel-times=64",
]
LINK_FLAGS: list[str] = []
if SANITIZERS:
    LINK_FLAGS += [f"-fsanitize={SANITIZERS}"]
    FLAGS += [*LINK_FLAGS, "-O1", "-g", "-fno-sanitize-recover=undefined"]


class BuildKernels(build_ext):
    """Compile with the flags the kernels need; say so if there is no compiler."""

    def finalize_options(self) -> None:
        """Compile as many modules at once as there are processors."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self) -> None:
        """Add the compiler's own flags, then build."""
        command = self.compiler.compiler_so[0]  # type: ignore[attr-defined]
        if shutil.which(command) is None:
            sys.exit(
                f"striate needs a C compiler: {command!r} was not found. "
                "Install GCC or Clang (Debian: apt-get install gcc) or set CC."
            )
        if "clang" not in Path(command).name:
            for extension in self.extensions:
                extension.extra_compile_args += GCC_FLAGS
        super().build_extensions()


def modules(isa: str, flags: list[str]) -> list[Extension]:
    """Return the extension modules of one instruction set."""
    sources = {f"{Path(pyx).stem}_{isa}": [pyx] for pyx in KERNELS}
    if isa == "base":
        sources |= {f"_{Path(pyx).stem}": [pyx] for pyx in ONCE if pyx in SOURCES}
        sources["_cyutility"] = []
    built = cythonize(
        [
            Extension(
                f"striate.kernels.{name}",
                files,
                depends=["setup.py", *files, *INCLUDED],
            )
            for name, files in sources.items()
        ],
        build_dir=f"build/cython-{isa}",  # Cython names the C file after the pyx
        include_path=["pyx"],
        language_level=3,
        compiler_directives={
            "boundscheck": CHECKED,
            "wraparound": CHECKED,
            "initializedcheck": CHECKED,
            "cdivision": True,
            "freethreading_compatible": True,
        },
        shared_utility_qualified_name=SHARED,
        quiet=True,
    )
    for module in built:
        # Not in Extension(): cythonize would add one call's flags to the next's.
        module.extra_compile_args = [*FLAGS, *flags]
        module.extra_link_args = LINK_FLAGS
        module.include_dirs = ["pyx"]
        module.libraries = ["m"] if sysconfig.get_platform() != "win32" else []
    return built


setup(
    ext_modules=[m for isa, flags in ISAS.items() for m in modules(isa, flags)],
    cmdclass={"build_ext": BuildKernels},
)

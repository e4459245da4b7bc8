"""Run every benchmark of this folder, one after another, and keep what each prints.

    make bench
    python benchmarks/run_all.py [name ...]

Each `bench_*.py` compares with a peer in one run and can be run alone with its own options. Output goes to the
terminal and to `benchmarks/results/<name>.txt` with the machine and the versions in front.
"""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent
PACKAGES = ("opengnome", "torch", "numpy", "pymatgen-core", "ase", "chgnet", "vesin", "moyopy")


def header() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n{versions}\n"


def main() -> int:
    wanted = sys.argv[1:]
    scripts = [path for path in sorted(FOLDER.glob("bench_*.py")) if not wanted or path.stem in wanted]
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    failed = []
    for script in scripts:
        print(f"== {script.stem}", flush=True)
        run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
        print(run.stdout + run.stderr, flush=True)
        (results / f"{script.stem}.txt").write_text(header() + run.stdout)
        failed += [] if run.returncode == 0 else [script.stem]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    raise SystemExit(main())

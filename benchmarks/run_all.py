"""Run every benchmark of this folder, one after another, and keep what each prints.

    make bench
    python benchmarks/run_all.py [name ...]

Each `bench_*.py` compares with a peer in one run and can be run alone with its own options. Output goes to the
terminal and to `benchmarks/results/<name>.txt` with the machine and the versions in front. Those that need a table of
docs/data.md find it in the folder that OPENGNOME_DATA names; without it they are left out, and named.
"""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent
NEED_DATA = {
    "bench_compositions": ("--table", "{data}/mp_compositions.parquet", "--output", "{results}/compositions"),
    "bench_dedup": ("--data", "{data}"),
    "bench_generation": ("--data", "{data}"),
}
"""Benchmarks of tables that are not part of the project, and the options that name them."""
PACKAGES = ("opengnome", "torch", "numpy", "pymatgen-core", "ase", "chgnet", "vesin", "moyopy")


def header() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n{versions}\n"


def main() -> int:
    wanted = sys.argv[1:]
    scripts = [path for path in sorted(FOLDER.glob("bench_*.py")) if not wanted or path.stem in wanted]
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    failed, left_out = [], []
    data = os.environ.get("OPENGNOME_DATA")
    for script in scripts:
        if script.stem in NEED_DATA and not data:
            left_out.append(script.stem)
            continue
        print(f"== {script.stem}", flush=True)
        options = [part.format(data=data, results=results) for part in NEED_DATA.get(script.stem, ())]
        run = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True, check=False)
        print(run.stdout + run.stderr, flush=True)
        (results / f"{script.stem}.txt").write_text(header() + run.stdout)
        failed += [] if run.returncode == 0 else [script.stem]
    if left_out:
        print(f"left out, OPENGNOME_DATA is not set: {', '.join(left_out)}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    raise SystemExit(main())

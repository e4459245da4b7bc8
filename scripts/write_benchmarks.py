"""Write docs/benchmarks.md from the results in docs/results.

    python scripts/write_benchmarks.py

Each file in docs/results is the JSON that one benchmark wrote; the page names the command of each. A benchmark without
a file is listed as not measured.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "results"

HEADER = """# Benchmarks

Written by `scripts/write_benchmarks.py` from `docs/results/*.json`; each section names the command that made its
file. DATA is the folder with the tables of [data.md](data.md). All on virtual machines with two cores of an AMD EPYC
and no graphics card: Zen 4 for the independent members, the uncertainty on the hash test and on GNoME crystals,
compositions, scaling law, hulls and all about candidates, Zen 5 for the rest. Errors are of formation energies,
meV/atom.
"""


def meV(value: float, digits: int = 1) -> str:  # noqa: N802 - the unit's name
    """An energy in eV/atom as text in meV/atom."""
    return f"{1000 * value:.{digits}f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown of a table."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def accuracy(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/accuracy.py`."""
    by_number = result["by_number_of_elements"]
    maes = result["members_mae"]
    names = result.get("members", [f"member-{i}" for i in range(len(maes))])
    rows = [(f"member {int(name.split('-')[-1])}", meV(mae)) for name, mae in zip(names, maes, strict=True)]
    if len(maes) > 1:
        rows.append((f"**median of {len(maes)}**", f"**{meV(result['mae'])}**"))
    rows.append(("median absolute error", meV(result["median_absolute_error"])))
    trained = [meV(mae) for mae in result.get("members_train_mae", {}).values()]
    parts = [
        table(["", "MAE"], rows),
        f"Trained on {result['n_train']:,} crystals, judged on {result['n']:,}."
        + (f" Error on the training crystals in the last epoch: {', '.join(trained)}." if trained else ""),
    ]
    if len(maes) > 1 and "mae_of_median_by_number_of_members" in result:
        parts.append(by_number_of_members(result["mae_of_median_by_number_of_members"]))
    parts.append(
        table(["elements", "crystals", "MAE"], ([n, f"{v['n']:,}", meV(v["mae"])] for n, v in by_number.items()))
    )
    if "by_structure_source" in result:
        parts.append(by_structure_source(result["by_structure_source"]))
    if len(maes) == 1:
        parts.append("One member: its spread is zero everywhere, so intervals are not judged.")
    elif "coverage" in result:
        parts.append(
            table(
                ["nominal coverage", *(f"{100 * float(k):.0f} %" for k in result["coverage"])],
                [["measured", *(f"{100 * v:.1f} %" for v in result["coverage"].values())]],
            )
        )
    return "\n\n".join(parts)


def by_number_of_members(result: dict[str, dict[str, float]]) -> str:
    """How the error of the median falls with the members."""
    rows = ([k, *(meV(v[of]) for of in ("mean", "smallest", "largest")), str(v["subsets"])] for k, v in result.items())
    return table(["members", "MAE of their median, mean", "smallest", "largest", "of so many subsets"], rows)


def by_structure_source(result: dict[str, dict[str, float]]) -> str:
    """Errors by the database that a structure is of; older results have fewer figures."""
    texts = {
        "MAE": ("mae", meV),
        "median": ("median_absolute_error", meV),
        "MAE without the worst tenth": ("mae_without_worst_tenth", meV),
        "errors above 200": ("share_above_200_meV", lambda share: f"{100 * share:.1f} %"),
        "their part of the MAE": ("mae_from_above_200_meV", meV),
    }
    shown = {title: text for title, text in texts.items() if all(text[0] in row for row in result.values())}
    rows = ([name, f"{row['n']:,}", *(text(row[key]) for key, text in shown.values())] for name, row in result.items())
    return table(["database of the structure", "crystals", *shown], rows)


def shipped(manifest: dict[str, Any]) -> str:
    """Section of the manifest of a shipped ensemble."""
    metrics = manifest["metrics"]
    rows = [(f"{n} elements", row) for n, row in metrics["by"]["number of elements"].items()]
    rows += sorted(metrics["by"]["anion family"].items(), key=lambda row: -row[1]["n"])
    coverage = ", ".join(f"{100 * float(k):.0f} %: {100 * v:.1f} %" for k, v in metrics["coverage"].items())
    head = (
        f"MAE **{meV(metrics['mae'])}**, median {meV(metrics['median_absolute_error'])} on {metrics['n']:,} held out "
        f"by formula hash, {len(manifest['members'])} members. Share inside the intervals: {coverage}."
    )
    lines = ([name, f"{row['n']:,.0f}", meV(row["mae"])] for name, row in rows)
    return f"{head}\n\n{table(['group', 'number', 'MAE'], lines)}"


def compositions(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/bench_compositions.py`."""
    readings = {
        "table": "hull of the predictions of the table's compounds",
        "extra": "the formulas that are in no fold as further competitors",
        "own": "truth from the table's compounds alone",
        "true energies, table": "true energies, table's compounds",
        "true energies, extra": "true energies, further competitors",
    }
    members = ", ".join(meV(mae) for mae in result["mae_ef_of_members"])
    coverage = ", ".join(f"{100 * float(k):.0f} %: {100 * v:.1f} %" for k, v in result["coverage"].items())
    text = (
        f"Mean of {result['members']} networks: MAE of formation energies **{meV(result['mae_ef'])}**, median "
        f"{meV(result['median_ef'])}; single networks {members}, {result['processor_seconds']:.0f} s each on one core. "
        f"Share inside the intervals: {coverage}."
    )
    by_reading = table(
        ["stable by", "F1", "precision", "recall", "accuracy", "MAE of decomposition energies"],
        (
            [readings[name], *(f"{row[k]:.3f}" for k in ("f1", "precision", "recall", "accuracy")), meV(row["mae_ed"])]
            for name, row in result["stability"].items()
        ),
    )
    published = result.get("published", {})
    if not published:
        return f"{text}\n\n{by_reading}"
    rows = ([name, meV(row["mae_ef"]), f"{row['f1']:.3f}"] for name, row in published.items())
    return f"{text}\n\n{by_reading}\n\nPublished, five folds:\n\n{table(['model', 'MAE', 'F1'], rows)}"


def unrelaxed(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/unrelaxed.py`."""
    names = {
        "relaxed": "the relaxed target itself",
        "unrelaxed": "stand-in, no scan",
    }
    rows = []
    for key, row in result.items():
        if not isinstance(row, dict):
            continue
        name = names.get(key, key.replace("scan_", "scan ").replace("_", " "))
        rows.append(
            [
                name,
                meV(row["mae"]),
                meV(row["bias"]),
                f"{100 * row['precision']:.0f} %",
                f"{100 * row['recall']:.0f} %",
                " / ".join(f"{100 * row[f'coverage_{level}']:.0f}" for level in ("0.5", "0.8", "0.95")),
                f"{100 * row['minimum_at_smallest_volume']:.0f} %" if "minimum_at_smallest_volume" in row else "",
            ]
        )
    text = (
        f"{result['targets']:,} targets of held-out compositions, {result['mean_elements_replaced']:.1f} elements "
        f"replaced on average, median error of the guessed volume {100 * result['median_volume_error']:.1f} %, "
        f"{100 * result['within_50_meV_of_hull']:.0f} % truly within 50 meV/atom of the hull."
    )
    head = ["input", "MAE", "bias", "precision", "recall", "coverage of 50 / 80 / 95 %", "minimum at smallest volume"]
    return text + "\n\n" + table(head, rows)


def fine_tuning(rows: list[dict[str, float]]) -> str:
    """Section of a result of `benchmarks/fine_tuning.py`."""
    return table(
        ["training crystals", "from nothing", "from shipped"],
        ([f"{r['training_crystals']:,.0f}", meV(r["from nothing"]), meV(r["from shipped"])] for r in rows),
    )


def scaling(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/scaling.py`."""
    sizes = result["sizes"]
    sets = {name: part for name, part in result.items() if name not in ("sizes", "seeds")}
    errors = table(
        ["judged on", *(f"{n:,.0f}" for n in sizes)],
        ([name, *(meV(mae, 0) for mae in part["mae"])] for name, part in sets.items()),
    )
    laws = table(
        ["judged on", "exponent", "95 %", "95 %, of the fit", "exponent with offset", "95 %", "offset"],
        (
            [
                name,
                f"{part['power law']['exponent']:.2f}",
                interval(part["power law"]["exponent_95"]),
                interval(exponent_95_of_the_fit(sizes, part["mae"])),
                f"{part['power law with offset']['exponent']:.2f}",
                interval(part["power law with offset"]["exponent_95"]),
                meV(part["power law with offset"]["offset"], 0),
            ]
            for name, part in sets.items()
        ),
    )
    n_seeds = len(result.get("seeds", [0]))
    networks = "One network" if n_seeds == 1 else f"{n_seeds} networks"
    drawn = (
        "the judged crystals, and hold only for these networks and these crystals"
        if n_seeds == 1
        else "the networks and the judged crystals, too narrow for so few networks"
    )
    text = (
        f"{networks} per size, 6,000 steps each: 380 epochs of 500 crystals, 12 of 16,000. So the largest sizes are "
        "trained shorter than they could use, which bends the curve and makes the offset larger. Intervals under "
        f'"95 %" are of bootstrap samples of {drawn}; they take the law for right. Those of the fit are t-intervals of '
        f"the straight line through the logarithms, with {len(sizes) - 2} degrees of freedom: they know how badly the "
        "errors follow the law. The exponent between neighbouring sizes alone goes from "
        f"{' to '.join(f'{x:.2f}' for x in local_slopes(sizes, sets))}."
    )
    return f"{text}\n\n{errors}\n\n{laws}\n\n![errors against training size](results/scaling.svg)"


def interval(bounds: Iterable[float]) -> str:
    """An interval as text."""
    return " to ".join(f"{x:.2f}" for x in bounds)


def exponent_95_of_the_fit(sizes: list[float], maes: list[float]) -> tuple[float, float]:
    """95 % t-interval of b in MAE = a N^-b, a straight line in the logarithms."""
    line = linregress(np.log(sizes), np.log(maes))
    half = student.ppf(0.975, len(sizes) - 2) * line.stderr
    return -line.slope - half, -line.slope + half


def local_slopes(sizes: list[float], sets: dict[str, dict[str, Any]]) -> tuple[float, float]:
    """Smallest and largest exponent between neighbouring sizes."""
    slopes = [-np.diff(np.log(part["mae"])) / np.diff(np.log(sizes)) for part in sets.values()]
    return float(np.min(slopes)), float(np.max(slopes))


def uncertainty(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/zero_shot.py`."""
    head = ["crystals", "number", "MAE", "bias", "rank correlation of error and spread"]
    head += ["inside 50 / 80 / 95 %", "miscalibration area", "MAE by quarters of the spread"]
    rows = [
        [
            name,
            f"{row['n']:,}",
            meV(row["mae"]),
            meV(row["bias"]),
            f"{row['rank_correlation_of_error_and_spread']:.2f}",
            " / ".join(f"{100 * row[f'coverage_{level}']:.0f}" for level in ("0.5", "0.8", "0.95")),
            f"{row['miscalibration_area']:.3f}",
            ", ".join(meV(mae, 0) for mae in row["mae_of_quarters"]),
        ]
        for name, row in result.items()
        if isinstance(row, dict)
    ]
    return table(head, rows)


def ground_states(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/ground_states.py`."""
    head = ["compound", "known crystal", "reached after", "starts", "converged", "lowest found - known", "its group"]
    rows = (
        [
            row["formula"],
            f"{row['structure_type']}, {row['known_space_group']}",
            "not" if row["reached_after"] is None else str(row["reached_after"]),
            str(row["starts"]),
            str(row["converged"]),
            meV(row["lowest_minus_known"]),
            row["lowest_space_group"],
        ]
        for row in result["compounds"]
    )
    text = (
        f"The known crystal, relaxed by CHGNet, is reached or undercut for {result['found']} of "
        f"{len(result['compounds'])} compounds. A search ended when its lowest energy, within 2 meV/atom, had come "
        "back once after the known one was reached, or after 100 starts. Energies in meV/atom."
    )
    return f"{text}\n\n{table(head, rows)}"


def derivatives(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/derivatives.py`."""
    text = (
        f"Of {result['crystals_looked_at']:,} crystals of four and more elements {result['ordered_derivatives']:,} are "
        f"ordered derivatives of a crystal of the table; {result['made']:,} ({100 * result['share_made']:.0f} %) are "
        "made."
    )
    rows = ([name, f"{n:,}", result["examples"][name][0]] for name, n in result["fates"].items())
    return f"{text}\n\n{table(['fate', 'number', 'for example'], rows)}"


PEERS = {
    **{"opengnome": "**OpenGNoME**", "megnet": "MEGNet", "m3gnet": "M3GNet"},
    **{"chgnet": "CHGNet", "alignn": "ALIGNN", "cgcnn": "CGCNN"},
}


def peers(results: list[dict[str, Any]]) -> str:
    """Section of a list that `benchmarks/peers/collect.py` wrote."""
    rows = [
        [
            PEERS.get(r["peer"], r["peer"]),
            f"{r['parameters']:,}",
            f"{r['train_minutes']:.0f}",
            f"{r['epochs']:.1f}",
            meV(r["validation_mae"]),
            f"{r['train_crystals_per_second']:,.0f}",
            f"{r['inference_crystals_per_second']:,.0f}",
            f"{r['peak_rss_gb']:.1f} GB",
        ]
        for r in results
    ]
    r = results[0]
    clock = "wall" if r["options"]["clock"] == "wall" else "processor"
    text = (
        f"Each from nothing on {r['train_crystals']:,} crystals, judged on {r['validation_crystals']:,}; the same "
        f"loop, {float(r['options']['minutes']):.0f} minutes of {clock} time with {r['options']['threads']} threads on "
        f"{r['machine']['cpu']}, torch {r['versions']['torch']}. Building of graphs is not counted."
    )
    head = ["network", "parameters", "minutes", "epochs", "validation MAE"]
    head += ["training crystals/s", "inference crystals/s", "memory"]
    return f"{text}\n\n{table(head, rows)}"


def search(result: dict[str, dict[str, Any]]) -> str:
    """Section of a result of `benchmarks/search.py`."""
    described = next(iter(result.values()))["variant"]
    text = (
        f"Each trained on the same {described['trained_on']} of the MEGNet split for {described['epochs']} epochs and "
        f"judged on {described['judged_on']}; one seed, so differences below 2 % are noise. Changes are from the "
        "base."
    )
    rows = ([name, meV(row["mae"]), f"{row['crystals_per_second']:,.0f}"] for name, row in result.items())
    return f"{text}\n\n{table(['variant', 'MAE', 'crystals/s'], rows)}"


def screening(results: list[dict[str, Any]]) -> str:
    """Section of results of `benchmarks/bench_screening.py`, one per setting."""
    rows = [
        [
            f"{r['members']} x {r['volumes']}" + (", bfloat16" if r["bfloat16"] else ""),
            f"{r['candidates_per_hour']:,.0f}",
            " / ".join(f"{100 * r['share'][k]:.1f}" for k in ("generation", "graphs", "networks", "hull")),
            f"{r['core_hours_per_billion']:,.0f}",
            f"{r['core_hours_per_billion'] / 128 / 24:,.1f}",
        ]
        for r in results
    ]
    r = results[0]
    text = (
        f"{r['parents']} parents of at most 20 atoms, {r['proposed']:,} proposals, {r['kept']:,} candidates after "
        f"the filters and caps, {r['judged']:,} of them judged, {r['atoms_per_candidate']:.1f} atoms on average; "
        "one core of the machine named above. The last column is the same work on a server of 128 such cores."
    )
    head = ["members x volumes", "candidates per hour", "% generation / graphs / networks / hull"]
    head += ["core hours for 10^9", "days on 128 cores"]
    return f"{text}\n\n{table(head, rows)}"


def map_reduce(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/bench_map_reduce.py`."""
    counts = result["counts"]
    n = counts["generated"]
    before, after = result["driver_mb_before_and_after_selection"]
    screening = list(result["driver_mb_while_screening"].items())
    rows = [
        ["candidates of so many parents", f"{n:,} of {result['parents']:,}"],
        ["screened", f"{result['screening_seconds'] / 60:,.0f} min, {result['candidates_per_hour']:,.0f} per hour"],
        [
            "within the window, compositions of these",
            f"{counts['within_window']:,}, {counts['lowest_per_composition']:,}",
        ],
        [
            "reduced and chosen",
            f"{result['selection_seconds']:,.1f} s, {result['selection_us_per_candidate']:.1f} us per candidate",
        ],
        [
            "memory of the driver while screening",
            f"{screening[0][1]:,.0f} MB in the beginning, {screening[-1][1]:,.0f} MB at the end",
        ],
        ["memory of the driver before and after the choice", f"{before:,.0f} and {after:,.0f} MB"],
        ["of this the digests of all candidates", f"{result['digests_mb']:.0f} MB"],
        ["largest memory of a worker", f"{result['largest_worker_peak_mb']:,.0f} MB"],
        ["shards on the disk", f"{result['shards_mb']:,.0f} MB"],
    ]
    text = (
        f"The shipped networks in bfloat16 at {result['volumes']} volume, parents of at most 12 atoms, "
        f"{result['workers']} workers."
    )
    return f"{text}\n\n{table(['', ''], rows)}\n\n{billion(result)}"


def billion(result: dict[str, Any]) -> str:
    """What 10^9 candidates would take by the rates of a run of fewer."""
    n = result["counts"]["generated"]
    before, after = result["driver_mb_before_and_after_selection"]
    hours = 1e9 * result["selection_us_per_candidate"] / 1e6 / 3600
    digests, kept, shards = (mb * 1e9 / n / 1000 for mb in (result["digests_mb"], after - before, result["shards_mb"]))
    return (
        "On paper, 10^9 candidates on servers with two AMD EPYC 9554 each (128 Zen 4 cores): the networks take the "
        "days of the last column of the table before, divided by the servers. "
        f"The shards are {shards:,.0f} GB on the disk. One process reduces them in {hours:.1f} h; its memory is "
        f"{digests:.0f} GB for the digests of all candidates and, if as large a share were kept as in this run, "
        f"{kept:,.0f} GB for the lowest of each composition within the window. A smaller `screening.window` keeps less."
    )


def campaign_overhead(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/bench_campaign_overhead.py`."""
    asked = result["asked"]
    rows = [
        ["bookkeeping per calculation, ms", asked["calculation_ms"], result["calculation_ms"]],
        *([f"- {step}", "", cost] for step, cost in result["calculation_ms_by_step"].items()),
        ["per event when a campaign is resumed, ms", "", result["replayed_event_ms"]],
        ["per candidate in the choice, us", asked["candidate_us"], result["candidate_us"]],
    ]
    text = (
        f"{result['calculations']:,} calculations on {result['workers']} workers, {result['candidates']:,} candidates."
    )
    head = ["", "asked", "wall", "processor time of the driver"]
    lines = ([name, str(limit), f"{cost['wall']:.2f}", f"{cost['driver_processor']:.2f}"] for name, limit, cost in rows)
    return f"{text}\n\n{table(head, lines)}"


def random_structures(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/bench_random_structures.py`."""
    rows = [
        [
            name,
            f"{row['made']:,} of {row['asked']:,}",
            f"{row['structures_per_s']:,.1f}",
            f"{100 * row['share_within_our_distances']:.0f} %",
            str(row["n_found_groups"]),
            " / ".join(f"{100 * share:.0f}" for share in row["found_by_crystal_system"].values()),
        ]
        for name, row in result["overall"].items()
    ]
    head = ["generator", "made", "per second", "within our minimum distances", "space groups found"]
    head += ["% " + " / ".join(result["overall"]["ours"]["found_by_crystal_system"])]
    times = f"{result['times_the_fastest_peer']:.0f}"
    text = (
        f"{len(result['runs']['ours'])} compositions; ours makes {times} times as many per second as the faster peer."
    )
    return f"{text}\n\n{table(head, rows)}"


def composition_rule(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/composition_rule.py`."""
    columns = ("known", "stable", "experimental", "gnome", "uniform", "permuted")
    numbers = result["numbers"]
    head = ["share accepted", *(f"{name} ({numbers[name]:,})" if name in numbers else name for name in columns)]
    rows = ([gate, *(f"{100 * row[name]:.1f} %" for name in columns)] for gate, row in result["gates"].items())
    text = (
        "Known formulas of the Materials Project, those of them that are stable or made, GNoME's, and random ones: "
        "drawn uniformly, and with the elements of known formulas permuted. Each + adds a gate to the row above."
    )
    return "\n\n".join([text, table(head, rows), *beside_smact(result["smact"])])


def beside_smact(result: dict[str, Any] | None) -> list[str]:
    """The same beside SMACT, where it was installed."""
    if result is None:
        return []
    columns = ("known", "gnome", "uniform", "permuted")
    head = [f"beside SMACT {result['version']}", *columns, "formulas per second"]
    rows = [
        [
            label if label.startswith("smact") else f"ours, {label}",
            *(f"{100 * result[name][label]['share']:.1f} %" for name in columns),
            f"{result['known'][label]['formulas_per_second']:,}",
        ]
        for label in result["known"]
    ]
    text = (
        "Shares accepted of the same formulas, of at most 5 elements and 40 atoms "
        f"(`pip install --no-deps smact=={result['version']}` before)."
    )
    return [text, table(head, rows)]


def verbatim(text: str) -> str:
    """What a benchmark printed."""
    return f"```text\n{text.rstrip()}\n```"


def gpaw_reference(result: dict[str, Any]) -> str:
    """Section of a result of `benchmarks/gpaw_reference.py`."""
    rows = [
        [
            name,
            row["prototype"],
            f"{row['a']:.3f}",
            f"{row['published_a']:.3f}",
            f"{row['error_percent']:+.2f} %",
            f"{row['seconds']:.0f}",
            row["source"],
        ]
        for name, row in result["lattice"].items()
        if row["status"] == "converged"
    ]
    text = (
        "PBE lattice constants (A) of full relaxations from another volume, by the defaults of the GPAW oracle; wall "
        "seconds on one core that other work shared in part."
    )
    head = ["crystal", "prototype", "GPAW", "published", "difference", "seconds", "source"]
    states = [
        [
            name,
            f"{row['a']:.3f}",
            f"{row['bulk_modulus_gpa']:.1f}",
            f"{row['rms_residual_mev_per_atom']:.4f}",
            f"{row['largest_difference_of_stress_and_slope_gpa']:.3f}",
        ]
        for name, row in result["eos"].items()
    ]
    state_head = [
        "equation of state",
        "a, A",
        "bulk modulus, GPa",
        "rms residual, meV/atom",
        "largest difference of stress and slope, GPa",
    ]
    forces = [
        [name, f"{row['largest_force']:.2f}", ", ".join(f"{1000 * d:+.2f}" for d in row["difference_from_energies"])]
        for name, row in result["forces"].items()
    ]
    force_head = ["forces", "largest, eV/A", "two components minus finite differences of energies, meV/A"]
    tables = (table(head, rows), table(state_head, states), table(force_head, forces))
    return "\n\n".join((text, *tables, "Formation energies and other functionals are not finished."))


def hulls(text: str) -> str:
    """Section of what `benchmarks/bench_hull.py` printed."""
    explained = (
        "The table's column of decomposition energies was computed among 85,014 compounds, of which the table holds "
        "67,792. A compound that is missing can only lower what we find, and every difference of the table alone has "
        "that sign: equality for 99.9 % cannot be reached from these data. With formulas of another table as further "
        "competitors the mean difference falls from 27 to 1 meV/atom; where that table's energy of a formula is lower "
        "than the one the column was made with, what we find lies higher. Equality with pymatgen on the same "
        "compounds is the check."
    )
    return f"{explained}\n\n{verbatim(text)}"


Section = tuple[str, str, str, Callable[[Any], str]]
SECTIONS: tuple[Section, ...] = (
    (
        "Materials Project 2018, MEGNet split, independent members",
        "mp2018_members.json",
        "python benchmarks/accuracy.py mp2018 --data DATA --output runs/mp2018 --set training.epochs=44 --member 1; "
        "--collect docs/results/mp2018_members.parquet --json "
        "docs/results/mp2018_members.json",
        accuracy,
    ),
    (
        "Materials Project 2018, MEGNet split, one training restarted twice",
        "mp2018.json",
        "python benchmarks/accuracy.py mp2018 --data DATA --output runs/m --set training.epochs=44 --member 0; "
        "--member 1 --initial runs/m/members/member-00.safetensors --set training.epochs=24 --set "
        "training.learning_rate=7e-4; --member 2 --initial runs/m/members/member-01.safetensors --set "
        "training.epochs=14 --set training.learning_rate=6e-4; --judge",
        accuracy,
    ),
    (
        "GNoME crystals, hash split",
        "gnome.json",
        "python benchmarks/accuracy.py gnome --data DATA --output runs/gnome --member 0; --judge",
        accuracy,
    ),
    (
        "The shipped structural ensemble on its hash test",
        "../../src/opengnome/models/data/structural/ensemble.json",
        "python scripts/ship_models.py structural --data DATA --run runs/mp --max-atoms 40",
        shipped,
    ),
    (
        "The shipped compositional ensemble on its hash test",
        "../../src/opengnome/models/data/compositional/ensemble.json",
        "python scripts/ship_models.py compositional --data DATA --run runs/compositional",
        shipped,
    ),
    (
        "The shipped structural ensemble on GNoME crystals, none of which it saw",
        "zero_shot.json",
        "python benchmarks/zero_shot.py --table DATA/gnome_pbe.parquet --json docs/results/zero_shot.json",
        uncertainty,
    ),
    (
        "The same on the hash test after one shift per element, fitted to the other GNoME crystals",
        "zero_shot_shifted.json",
        "python benchmarks/zero_shot.py --table DATA/gnome_pbe.parquet --element-shifts --json "
        "docs/results/zero_shot_shifted.json",
        uncertainty,
    ),
    (
        "Uncertainty of the shipped structural ensemble on its hash test, cross-fitted",
        "hash_test.json",
        "python benchmarks/zero_shot.py --table DATA/mp_crystals.parquet --hash-test --cross-fit --json "
        "docs/results/hash_test.json",
        uncertainty,
    ),
    (
        "Compositions, four folds",
        "compositions.json",
        "python benchmarks/bench_compositions.py --table DATA/mp_compositions.parquet --extra DATA/mp_crystals.parquet "
        "--train-on-extra --members 5 --output runs/compositions",
        compositions,
    ),
    (
        "Unrelaxed substitutions and the volume scan",
        "unrelaxed.json",
        "python benchmarks/unrelaxed.py --table DATA/mp_crystals.parquet --targets 2000 --json unrelaxed.json",
        unrelaxed,
    ),
    (
        "The same after two epochs with noise on volumes and distances (one member)",
        "unrelaxed_noise.json",
        "python benchmarks/accuracy.py mp --data DATA --output runs/noise --max-atoms 40 --member 1 --initial "
        "runs/mp/members/member-01.safetensors --set training.epochs=2 --set training.learning_rate=3e-4 --set "
        "training.volume_noise=0.06 --set training.distance_noise=0.015; --judge; python benchmarks/unrelaxed.py "
        "--ensemble runs/noise/ensemble --table DATA/mp_crystals.parquet --targets 2000",
        unrelaxed,
    ),
    (
        "Fine-tuning against training from nothing",
        "fine_tuning.json",
        "python benchmarks/fine_tuning.py --table DATA/gnome_pbe.parquet --steps 1500 --json fine_tuning.json",
        fine_tuning,
    ),
    (
        "Search of the default network",
        "search.json",
        "python benchmarks/search.py --data DATA --output runs/search --json docs/results/search.json",
        search,
    ),
    (
        "Scaling law",
        "scaling.json",
        "python benchmarks/scaling.py --data DATA --output runs/scaling --sizes 500 1000 2000 4000 8000 16000; --fit",
        scaling,
    ),
    (
        "Candidates beside pymatgen",
        "generation.txt",
        "python benchmarks/bench_generation.py --data DATA --parents 1000",
        verbatim,
    ),
    (
        "From parents to the distance from the hull",
        "screening.json",
        "python benchmarks/bench_screening.py --table DATA/mp_crystals.parquet --parents 400 [--bfloat16]",
        screening,
    ),
    (
        "Candidates in one run",
        "map_reduce.json",
        "python benchmarks/bench_map_reduce.py --table DATA/mp_crystals.parquet --parents 9500 --json map_reduce.json",
        map_reduce,
    ),
    (
        "What a campaign adds to its calculations",
        "campaign_overhead.json",
        "python benchmarks/bench_campaign_overhead.py --json docs/results/campaign_overhead.json",
        campaign_overhead,
    ),
    (
        "Duplicates beside pymatgen",
        "dedup.txt",
        "python benchmarks/bench_dedup.py --data DATA",
        verbatim,
    ),
    (
        "Random structures beside PyXtal and ase-ga",
        "random_structures.json",
        "python benchmarks/bench_random_structures.py --peer-python PEERS/bin/python --output "
        "docs/results/random_structures.json",
        random_structures,
    ),
    (
        "The composition rule",
        "composition_rule.json",
        "python benchmarks/composition_rule.py --data DATA --output docs/results/composition_rule.json",
        composition_rule,
    ),
    (
        "Ordered derivatives by partial substitution",
        "derivatives.json",
        "python benchmarks/derivatives.py --data DATA --json docs/results/derivatives.json",
        derivatives,
    ),
    (
        "Ground states from random structures",
        "ground_states.json",
        "python benchmarks/ground_states.py --output runs/ground_states --json docs/results/ground_states.json",
        ground_states,
    ),
    (
        "Hulls beside pymatgen, all compositions, up to a million entries",
        "hull.txt",
        "python benchmarks/bench_hull.py; --compositions DATA/mp_compositions.parquet --extra DATA/mp_crystals.parquet "
        "--sample 300; --scaling 1000 10000 100000 --elements 10 30 89; --scaling 1000000 --elements 89",
        hulls,
    ),
    (
        "GPAW beside published lattice constants",
        "gpaw_reference.json",
        "python benchmarks/gpaw_reference.py --data DATA --work runs/gpaw --only lattice eos forces",
        gpaw_reference,
    ),
    (
        "Peers after the same time",
        "peers.json",
        "benchmarks/peers/README.md",
        peers,
    ),
)


def main() -> None:
    """Write the page."""
    parts = [HEADER]
    for title, name, command, write in SECTIONS:
        path = RESULTS / name
        parts.append(f"## {title}\n")
        if path.exists():
            content = path.read_text()
            parts.append(f"`{command}`\n\n{write(json.loads(content) if path.suffix == '.json' else content)}\n")
        else:
            parts.append(f"Not measured yet. `{command}`\n")
    (DOCS / "benchmarks.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()

"""Which acquisition rule finds the most stable crystals per calculation, against a table of known energies.

    python benchmarks/retrospective.py --table mp_crystals.parquet --output runs/retrospective [--repeats 5] [--first 0]
    python benchmarks/retrospective.py --table mp_crystals.parquet --output runs/retrospective --fit
    python benchmarks/retrospective.py --table mp_crystals.parquet --output runs/retrospective --plot [--docs docs]

Each repeat starts from other crystals and runs every strategy (random choice, the acquisition rules of a campaign, one
spread over chemical systems) for six rounds of 5,000 calculations together; see `opengnome.campaign.retrospective`.
Networks are trained from random weights: the shipped ones have seen the table. One core is enough. Killed, the same
command goes on after the last round. The strategies advance together, so that unfinished runs can be compared as far as
they are (`--rounds 2`). Two processes may fill one folder where each has repeats of its own, `--repeats 3` and
`--first 3 --repeats 5`. Begin the second when the first has told how many crystals there are, or both build the graphs.
`--fit` writes `retrospective.json` from what is finished, `--plot` that and `retrospective.svg`. Settings:
`--settings FILE.toml`, `--set n_start=1000`.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from opengnome.campaign.retrospective import run_retrospective
from opengnome.campaign.retrospective_measures import summarise
from opengnome.campaign.retrospective_settings import RetrospectiveSettings
from opengnome.campaign.retrospective_table import prepare_table
from opengnome.campaign.settings import CampaignSettings
from opengnome.models.checkpoint import write_json
from opengnome.settings import load

REFERENCE = "probability_stable"
"""Others are compared with it: the paper's way, each candidate by itself against what is known."""
COLOURS = ("#7a8794", "#0072b2", "#d98e04", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def draw(result: dict, path: Path) -> None:
    """Hit curves, and the share of stable crystals in each round."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
    for colour, (name, part) in zip(COLOURS, result["strategies"].items(), strict=False):
        curve = part["targets"]["stable"]["curve"]
        left.plot([0, *curve["calculations"]], [0, *curve["found"]], color=colour, lw=1.4, label=words(name))
        shares = [100 * part_round["share stable"] for part_round in part["rounds"]]
        right.plot(range(1, len(shares) + 1), shares, "o-", color=colour, lw=1.2, ms=4, label=name)
    n = np.array([0, result["budgets"][-1]])
    left.plot(n, n, color="#1c2530", lw=0.8, ls="--", label="perfect")
    left.plot(n, n * result["share_of_targets"]["stable"], color="#1c2530", lw=0.8, ls=":", label="random, expected")
    right.axhline(100 * result["share_of_targets"]["stable"], color="#1c2530", lw=0.8, ls=":")
    left.set(xlabel="calculations", ylabel="stable crystals found")
    right.set(xlabel="round", ylabel="stable, % of the round's calculations")
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "opengnome"}):
        figure.savefig(path, metadata={"Date": None})


def comparison(result: dict, target: str) -> list[str]:
    """One target for all strategies, as lines of a Markdown table."""
    ends = [str(n) for n in result["budgets"]]
    lines = [
        "| strategy | repeats | " + " | ".join(f"share at {n} | enrichment at {n}" for n in ends) + " | area |",
        "|---|---:|" + "---:|" * (2 * len(ends) + 1),
    ]
    for name, part in result["strategies"].items():
        of_target = part["targets"][target]
        cells = [words(name), str(len(part["repeats"]))]
        for n in ends:
            at = of_target["at"].get(n)
            if at is None:
                cells += ["", ""]
            else:
                cells += [f"{100 * at['share']:.1f} %", interval_text(at["enrichment"], at["interval"])]
        cells.append(interval_text(of_target["area"]["mean"], of_target["area"]["interval"], digits=3))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def against_reference(result: dict) -> list[str]:
    """What the strategies found more than the default rule, from the same start."""
    ends = [str(n) for n in result["budgets"]]
    lines = [
        f"| stable found more than {words(result['reference'])} | "
        + " | ".join(f"at {n}" for n in ends)
        + " | chemical systems with a find |",
        "|---|" + "---:|" * (len(ends) + 1),
    ]
    for name, part in result["strategies"].items():
        cells = [words(name)]
        for n in ends:
            at = part["targets"]["stable"]["at"].get(n, {})
            more = at.get("more_than_reference")
            text = "" if more is None else interval_text(more, at["more_than_reference_interval"], digits=0, sign="+")
            cells.append(text)
        cells.append(f"{np.mean(part['systems_with_a_find']):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def by_round(result: dict) -> list[str]:
    """Shares and errors of every round."""
    columns = {
        "stable": ("share stable", 100),
        "within 50 meV/atom": ("share within 50 meV/atom", 100),
        "below the hull then": ("share below the hull at the start of the round", 100),
        "MAE held out": ("held_out_mae", 1000),
        "MAE of the pool": ("pool_mae", 1000),
        "MAE of the chosen": ("chosen_mae", 1000),
        "bias of the chosen": ("chosen_bias", 1000),
    }
    lines = ["| strategy | round | " + " | ".join(columns) + " |", "|---|---:|" + "---:|" * len(columns)]
    for name, part in result["strategies"].items():
        for number, of_round in enumerate(part["rounds"], start=1):
            cells = [
                "" if key not in of_round else f"{factor * of_round[key]:.0f}" + (" %" if factor == 100 else "")
                for key, factor in columns.values()
            ]
            lines.append(f"| {words(name)} | {number} | " + " | ".join(cells) + " |")
    return lines


def interval_text(value: float, interval: list[float] | None, *, digits: int = 2, sign: str = "") -> str:
    """A number with its interval, where there is one."""
    text = f"{value:{sign}.{digits}f}"
    return text if interval is None else f"{text} ({interval[0]:{sign}.{digits}f} to {interval[1]:{sign}.{digits}f})"


def words(name: str) -> str:
    return name.replace("_", " ")


COMMANDS = """```console
$ python benchmarks/retrospective.py --table mp_crystals.parquet --output runs/retrospective
$ python benchmarks/retrospective.py --table mp_crystals.parquet --output runs/retrospective --plot --docs docs
```"""
GEOMETRY = {
    "estimated_volume": "The model sees every crystal, known or not, at the volume that its composition leads to "
    "expect; shape and positions are those relaxed, which no campaign knows before the calculation",
    "recorded": "The model sees every crystal as relaxed, which no campaign knows before the calculation",
}


def one_line(text: str) -> str:
    """A paragraph without the line breaks of this file."""
    return " ".join(text.split())


def setting(result: dict) -> str:
    """What is compared, in a paragraph."""
    given = result["conditions"]
    partly = ""
    if result["rounds_judged"] < given["n_rounds"]:
        partly = f" Here the first {result['rounds_judged']} rounds are judged."
    return one_line(f"""
        A campaign on `{result["table"]}`, whose energies are all known. At the start {given["n_start"]:,} random
        compounds and the {result["n_elemental_crystals"]} crystals of one element are known; the other
        {result["n_pool"]:,} are the pool, and {given["budget"]:,} of them are looked up in {given["n_rounds"]} rounds.
        The rules are those of `rounds.acquisition` (formulas and sources: `campaign/acquisition.py`), behind the
        filters of a campaign: predicted within {1000 * given["window"]:.0f} meV/atom of the current hull, one crystal
        per composition and round. `among candidates` measures each against the hull of what is known and of all other
        candidates as predicted, not only of what is known. Each repeat starts from other crystals; the strategies of a
        repeat share the start and the first ensemble.{partly}
    """)


def truth(result: dict) -> str:
    """What counts as found, and what can be reached."""
    stable = result["share_of_targets"]["stable"]
    share, most = f"{100 * stable:.1f} %", f"{1 / stable:.2f}"
    drawn = f"{100 * result['share_of_targets_one_per_composition']['stable']:.1f} %"
    return one_line(f"""
        **Truth.** Stable is what lies on the hull of the whole table of {result["n_crystals"]:,} crystals: {share} of
        the pool. So no strategy can have an enrichment over random choice above {most}. The area is 0 for random and 1
        for perfect choice. The random strategy, as all others, takes one crystal per composition and round; by the
        weights of such a draw {drawn} are stable, a little more than of all crystals, which is enrichment 1. The pool
        is rich because a database keeps what is near the hull; among generated candidates
        the share is smaller (`real_campaign.md`), and there is more to gain.
    """)


def model(result: dict) -> str:
    """How the energies are predicted, and what flatters them."""
    given = result["conditions"]
    after = (
        f"and for {given['fine_tuning']['epochs']} epochs from the weights of the round before in the others"
        if given["initial"] == "previous"
        else "and in all others"
    )
    return one_line(f"""
        **Model.** {given["n_members"]} networks of width {given["model"]["width"]} with {given["model"]["layers"]}
        layers, trained for {given["training"]["epochs"]} epochs from random weights in the first round {after}; 15 % of
        the formulas are held out by hash and calibrate the spread. The shipped networks have seen this table and are
        not used. {GEOMETRY[given["geometry"]]}: that flatters all rules that ask the model alike, and random choice not
        at all. {result["n_left_out"]} crystals without a graph or an expected volume are in no pool.
    """)


INTERVALS = """In brackets: of three or more repeats the 95 % interval of their mean by Student's t (not the binomial
error of all calculations together, which would be too narrow: repeats choose from one table, and largely the same
crystals); of two repeats their range; of one the binomial 95 % interval (Wilson) of its enrichment, which is too narrow
as well, for it knows nothing of other starts and other networks, and none of its area and differences."""


def unspent(result: dict) -> str:
    """Why cells are empty, where some are."""
    whole = str(result["budgets"][-1])
    short = [words(n) for n, part in result["strategies"].items() if whole not in part["targets"]["stable"]["at"]]
    if not short:
        return ""
    return (
        f" Cells are empty where too few candidates were left to get so far in every repeat ({', '.join(short)}); the "
        "area is that of what was spent."
    )


def verdict(result: dict) -> str:
    """Which strategy found the most, at each budget."""

    def found(name: str, n: str) -> float:
        at = result["strategies"][name]["targets"]["stable"]["at"].get(n)
        return 0.0 if at is None else at["share"]

    budgets = [str(n) for n in result["budgets"]]
    best = {n: max(result["strategies"], key=lambda name: found(name, n)) for n in budgets}
    words_of_best = " and ".join(f"{words(name)} at {n}" for n, name in best.items())
    return one_line(f"""
        **The most stable crystals** were found by {words_of_best}. A campaign's default is
        `rounds.acquisition = "{CampaignSettings().rounds.acquisition}"` with
        `rounds.competitors = "{CampaignSettings().rounds.competitors}"`.
    """)


def document(result: dict) -> str:
    """The comparison as a page of the documentation."""
    paragraphs = [
        "<!-- written by benchmarks/retrospective.py; do not edit -->",
        "# Acquisition rules against known energies",
        setting(result),
        COMMANDS,
        truth(result),
        model(result),
        "![stable crystals found against calculations](results/retrospective.svg)",
        "## Stable crystals found",
        one_line(INTERVALS) + unspent(result),
        "\n".join(comparison(result, "stable")),
        "\n".join(against_reference(result)),
        verdict(result),
        "## Within 25 and 50 meV/atom of the hull",
        "\n".join(comparison(result, "within 25 meV/atom")),
        "\n".join(comparison(result, "within 50 meV/atom")),
        "## Rounds",
        "Shares of the round's calculations; errors in meV/atom, predicted minus known.",
        "\n".join(by_round(result)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5, help="run those before this number")
    parser.add_argument("--first", type=int, default=0, help="the first repeat to run; others may run elsewhere")
    parser.add_argument("--rounds", type=int, help="with --fit or --plot: judge the first rounds only")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--plot", action="store_true")
    parser.add_argument("--docs", type=Path, help="also write retrospective.md, and results/ of it, in this folder")
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    options = parser.parse_args()
    if not 0 <= options.first < options.repeats:
        parser.error(f"no repeat to run: --first {options.first} must lie below --repeats {options.repeats}, from 0 on")
    settings = load(RetrospectiveSettings, options.settings, options.overrides)
    began = time.perf_counter()

    def progress(line: str) -> None:
        print(f"{time.perf_counter() - began:.0f} s: {line}", flush=True)

    table = prepare_table(options.table, options.output / "graphs", settings, progress)
    progress(f"{len(table)} crystals, {len(table.left_out)} of them in no pool")
    if not (options.fit or options.plot or options.docs):
        repeats = range(options.first, options.repeats)
        run_retrospective(table, settings, options.output, repeats=repeats, progress=progress)
        return
    result = summarise(table, settings, options.output, reference=REFERENCE, n_rounds=options.rounds)
    write_json(options.output / "retrospective.json", result)
    print("\n".join(comparison(result, "stable") + against_reference(result)))
    if options.plot:
        draw(result, options.output / "retrospective.svg")
    if options.docs is not None:
        write_json(options.docs / "results" / "retrospective.json", result)
        draw(result, options.docs / "results" / "retrospective.svg")
        (options.docs / "retrospective.md").write_text(document(result))


if __name__ == "__main__":
    main()

"""The command line: parsing only, every command calls one public function.

Heavy imports happen inside the commands, so that `--help` and mistakes answer at once.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opengnome import __version__
from opengnome.errors import OpenGnomeError

if TYPE_CHECKING:
    from opengnome.campaign.stability import Judged

app = typer.Typer(
    name="opengnome",
    help="Discover stable inorganic crystals: candidates, energy models, convex hulls, relaxations, in one loop.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)

Overrides = Annotated[
    list[str],
    typer.Option("--set", help="Override a setting: section.key=value. Repeatable.", metavar="KEY=VALUE"),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", "-s", help="TOML (or YAML) file with the settings.", metavar="FILE"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress lines.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Table out: CSV or Parquet by suffix; printed when not given.", metavar="FILE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print rows as JSON lines, for programs.")]
Inputs = Annotated[
    list[Path], typer.Argument(help="Files or folders: CIF, POSCAR, extxyz, Parquet.", metavar="CRYSTALS...")
]
HullTable = Annotated[
    Path | None,
    typer.Option(
        "--hull",
        help="Known crystals with energies (Parquet), or a campaign, to measure against.",
        metavar="PATH",
    ),
]


def main() -> None:
    """Entry point: errors made on purpose, and those of a disk, become one line; status 2 for wrong use, 1 when the
    work failed, 75 when a signal stopped it and the same command goes on.
    """
    try:
        app()
    except OpenGnomeError as error:
        typer.echo(f"opengnome: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        from opengnome.oracles.scratch import is_fault_of_disk

        if not is_fault_of_disk(error):
            raise
        remedy = "make room there, or make it writable; what is finished is kept, and the same command goes on"
        typer.echo(f"opengnome: cannot write: {error}; {remedy}", err=True)
        raise SystemExit(1) from error


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def discover(
    directory: Annotated[Path, typer.Argument(help="Directory of the campaign; made when it is not there.")],
    settings: SettingsFile = None,
    overrides: Overrides = [],  # noqa: B006 - Typer wants a list
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue; running the same command again does so too.")
    ] = False,
    workers: Annotated[int | None, typer.Option("--workers", "-j", help="Processes; one per core by default.")] = None,
    quiet: Quiet = False,
) -> None:
    """Run a discovery campaign, or continue one.

    Example: `opengnome discover runs/oxides --settings oxides.toml --set rounds.budget=100`
    """
    from opengnome.campaign import Progress
    from opengnome.campaign import discover as run_campaign
    from opengnome.campaign.discover import load_settings
    from opengnome.campaign.layout import Layout

    chosen = load_settings(directory, settings, overrides=overrides, workers=workers, resume=resume)
    progress = Progress(Layout(directory).progress, quiet=quiet)
    run_campaign(directory, chosen, progress=progress)
    progress.message("campaign finished, writing the report")
    _report(directory, None, None)


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(help="Directory of a campaign, running or not.")],
) -> None:
    """Show how far a campaign is and what it has found.

    Example: `opengnome status runs/oxides`
    """
    from opengnome.report import status_lines

    typer.echo(status_lines(directory))


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="Directory of a campaign, finished or not.")],
    system: Annotated[
        str | None, typer.Option("--system", help="Chemical system whose hull is drawn, e.g. Na-Zr-O.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file; DIRECTORY/report.html by default.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of rounds as Markdown instead.")
    ] = False,
) -> None:
    """Write one HTML file with rounds, models, hull and discoveries, and a CIF of each discovery.

    Example: `opengnome report runs/oxides --system Na-Zr-O`
    """
    if markdown:
        from opengnome.report import rounds_markdown

        typer.echo(rounds_markdown(directory))
    else:
        _report(directory, system, output)


def _report(directory: Path, system: str | None, output: Path | None) -> None:
    from opengnome.report import write_report

    path = write_report(directory, chemical_system=system, output=output)
    typer.echo(f"report: {path}")


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="Parquet table of crystals with a formation-energy column.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the trained ensemble.")],
    kind: Annotated[
        str, typer.Option("--kind", help="`structural`: from crystals. `compositional`: from formulas alone.")
    ] = "structural",
    column: Annotated[
        str, typer.Option("--column", help="Column with the formation energy, eV/atom.")
    ] = "formation_energy_per_atom",
    max_atoms: Annotated[int | None, typer.Option("--max-atoms", help="Leave out larger cells.", min=1)] = None,
    members: Annotated[int, typer.Option("--members", help="Networks in the ensemble.", min=2)] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the ensemble.", min=0)] = 0,
    settings: SettingsFile = None,
    overrides: Overrides = [],  # noqa: B006
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes; 0 is one per core.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Train an ensemble of energy models on crystals (or compositions) with formation energies.

    Example: `opengnome train crystals.parquet -o model --set training.epochs=50`. Several processes or graphics
    cards for each network: `torchrun --nproc-per-node 4 -m opengnome train crystals.parquet -o model`
    """
    from opengnome.campaign.train import train_any

    metrics = train_any(
        kind,
        table,
        output,
        column=column,
        max_atoms=max_atoms,
        n_members=members,
        seed=seed,
        settings_file=settings,
        overrides=overrides,
        workers=workers,
        quiet=quiet,
    )
    for name, value in metrics.items():
        typer.echo(f"{name}: {value}")


@app.command()
def predict(
    crystals: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders: CIF, POSCAR, extxyz, Parquet.", metavar="CRYSTALS..."),
    ] = None,
    formulas: Annotated[
        list[str],
        typer.Option("--formula", help="Predict the lowest energy of a composition instead. Repeatable."),
    ] = [],  # noqa: B006
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Directory of a trained ensemble, or of a campaign; the shipped one else."),
    ] = None,
    hull: HullTable = None,
    scan: Annotated[
        bool, typer.Option("--scan/--no-scan", help="Scan volumes from 80 to 120 %, for unrelaxed crystals.")
    ] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Predict formation energies with uncertainty; one row per crystal, with the reason where there is none.

    Example: `opengnome predict crystal.cif`, `opengnome predict --formula Li15Si4`, or
    `opengnome predict candidates/ --model runs/oxides -o out.csv`
    """
    from opengnome.campaign.commands import predict_formula_rows, predict_rows
    from opengnome.campaign.tables import emit

    if bool(crystals) == bool(formulas):
        raise typer.BadParameter("give files of crystals, or formulas with --formula")
    tell = partial(typer.echo, err=True)
    if formulas:
        rows = predict_formula_rows(formulas, model=model, hull=hull, tell=tell)
    else:
        rows = predict_rows(crystals or [], model=model, hull=hull, scan=scan, tell=tell)
    raise typer.Exit(emit(rows, output, as_json=as_json))


@app.command(name="hull")
def hull_command(
    table: Annotated[
        Path, typer.Argument(help="Entries with energies (CSV, Parquet, JSON; docs/hull.md), or a campaign.")
    ],
    system: Annotated[
        str | None,
        typer.Option("--system", help="Only this chemical system and its subsystems, e.g. Li-Fe-O."),
    ] = None,
    against: Annotated[
        list[Path],
        typer.Option(
            "--against", help="Judge by the hull of this file (or campaign) instead. Repeatable.", metavar="FILE"
        ),
    ] = [],  # noqa: B006
    references: Annotated[
        Path | None,
        typer.Option(
            "--references",
            help="Elements that total energies need and TABLE lacks; also JSON {Li: eV/atom}.",
            metavar="FILE",
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="`table`, `gnome`, `computed-entries`, `materials-project`, `optimade`; recognised else."
        ),
    ] = None,
    energy: Annotated[
        str | None,
        typer.Option(
            "--energy", help="`total`, `formation`, or the column: NAME, or NAME:formation:atom (total, cell)."
        ),
    ] = None,
    level: Annotated[
        str | None, typer.Option("--level", help="Level of theory of the rows that state none, e.g. PBE.")
    ] = None,
    correction: Annotated[
        str | None,
        typer.Option(
            "--correction",
            help="Corrections in place of those of the files: `none`, `mp2020`, a JSON of shifts; joined by +.",
        ),
    ] = None,
    trust_settings: Annotated[
        bool,
        typer.Option(
            "--trust-settings",
            help="For mp2020: potentials and U are the Materials Project's where they are not given.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the hull of --system, 2 to 4 elements: .svg, .png or .html.", metavar="FILE"),
    ] = None,
    chemical_potentials: Annotated[
        Path | None,
        typer.Option(
            "--chemical-potentials",
            help="Draw where each phase of --system is stable, 2 or 3 elements: .svg, .png or .html.",
            metavar="FILE",
        ),
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Formation energy, energy above the hull, decomposition energy and products of every entry of a table.

    Example: `opengnome hull entries.json.gz --system Li-Fe-O --plot hull.svg -o hull.csv`, or
    `opengnome hull candidates.csv --against known.parquet --level PBE`
    """
    from opengnome.campaign.stability import judge
    from opengnome.campaign.tables import emit

    judged = judge(
        table,
        system=system,
        against=against,
        references=references,
        format=file_format,
        energy=energy,
        level=level,
        correction=correction,
        trust_settings=trust_settings,
    )
    for source, row in judged.unused:
        typer.echo(f"{source}: not part of the hull: {row.id}: {row.status}: {row.reason}", err=True)
    code = emit(judged.rows, output, as_json=as_json)  # before the drawings, whose failure must not cost the answers
    if plot is not None or chemical_potentials is not None:
        _draw(judged, system, plot, chemical_potentials)
    raise typer.Exit(code)


def _draw(judged: "Judged", system: str | None, plot: Path | None, chemical_potentials: Path | None) -> None:
    from opengnome.report.chemical_potential_diagram import draw_chemical_potentials
    from opengnome.report.phase_diagram import draw_phase_diagram

    if plot is not None:
        draw_phase_diagram(judged.only_hull(), plot, system=system, entries=judged.entries)
    if chemical_potentials is not None:
        draw_chemical_potentials(judged.only_hull(), chemical_potentials, system=system)


@app.command()
def generate(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Candidates: .parquet, .extxyz, or a folder of CIFs; for --system .csv or .parquet."
        ),
    ],
    parents: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders: CIF, POSCAR, extxyz, Parquet.", metavar="CRYSTALS..."),
    ] = None,
    formulas: Annotated[
        list[str], typer.Option("--formula", help="Random crystals of this formula instead. Repeatable.")
    ] = [],  # noqa: B006
    systems: Annotated[
        list[str],
        typer.Option("--system", help="New formulas of this chemical system instead, e.g. Li-Fe-O. Repeatable."),
    ] = [],  # noqa: B006
    number: Annotated[int, typer.Option("--number", "-n", help="Random crystals per formula.", min=1)] = 100,
    known: Annotated[
        Path | None, typer.Option("--known", help="Crystals whose compositions are not new.", metavar="PATH")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Ensemble, or campaign, that ranks formulas; the shipped one else."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all draws.", min=0)] = 0,
    settings: SettingsFile = None,
    overrides: Overrides = [],  # noqa: B006
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes; 0 is one per core.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Make candidates: from parents by ionic and symmetry-aware partial substitution, or from formulas at random.

    The candidates do not depend on the number of workers; killed, the same command goes on where it was.

    Example: `opengnome generate parents/ -o candidates.parquet --set max_atoms=20`, `opengnome generate --formula
    LiFePO4 -o starts.extxyz -n 50`, or `opengnome generate --system Li-Fe-O -o formulas.csv`
    """
    from opengnome.campaign import Progress
    from opengnome.campaign.candidates import composition_rows, generate_candidates, generate_random
    from opengnome.campaign.tables import emit
    from opengnome.generation import CompositionSettings, GenerationSettings, RandomStructureSettings
    from opengnome.settings import load

    if sum(map(bool, (parents, formulas, systems))) != 1:
        raise typer.BadParameter("give crystals, or formulas with --formula, or chemical systems with --system")
    failed: list[Any] = []
    if systems:
        chosen = load(CompositionSettings, settings, overrides)
        rows = composition_rows(systems, known=known, model=model, seed=seed, settings=chosen)
        raise typer.Exit(emit(rows, output, as_json=False))
    if formulas:
        starts = load(RandomStructureSettings, settings, overrides)
        counts = generate_random(formulas, output, number=number, seed=seed, settings=starts)
    else:
        counts, failed = generate_candidates(
            parents or [],
            output,
            known=known,
            seed=seed,
            settings=load(GenerationSettings, settings, overrides),
            workers=workers,
            progress=Progress(quiet=quiet),
        )
    for name, count in counts.items():
        typer.echo(f"{name}: {count}")
    for row in failed:
        typer.echo(f"{row.id}: {row.reason}", err=True)
    raise typer.Exit(1 if failed else 0)


@app.command()
def dedup(
    crystals: Inputs,
    output: Output = None,
    energy: Annotated[
        str | None,
        typer.Option("--energy", help="Column of a Parquet table: the lowest of a group represents it, not the first."),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Also the fingerprint and the protostructure label of each crystal.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes; 0 is one per core.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Which crystals are the same, whatever their cell, origin, orientation and small displacements; a row each.

    Example: `opengnome dedup candidates/ known.parquet -o groups.csv`
    """
    from opengnome.campaign.deduplicate import deduplicated_rows
    from opengnome.campaign.tables import emit

    rows = deduplicated_rows(crystals, energy=energy, labels=labels, workers=workers)
    raise typer.Exit(emit(rows, output, as_json=as_json))


@app.command()
def relax(
    crystals: Inputs,
    output: Output = None,
    relaxed: Annotated[
        Path | None,
        typer.Option("--relaxed", help="Relaxed crystals: .parquet (a known set), .extxyz, or a folder of CIFs."),
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            "--oracle", help="chgnet (default), gpaw, vasp, espresso, ase, recorded; over --settings.", metavar="NAME"
        ),
    ] = None,
    functional: Annotated[
        str | None,
        typer.Option("--functional", help="For gpaw and vasp: pbe, pbe+u (default) or r2scan.", metavar="NAME"),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            "--references",
            help="Table of an earlier `relax` of the same level, with elements for formation energies.",
            metavar="FILE",
        ),
    ] = None,
    settings: SettingsFile = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: Json = False,
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes; 0 is one per core.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Relax crystals with an oracle: CHGNet, density-functional theory, any ASE calculator; one row per crystal.

    Finished calculations are kept in NAME.calculations beside the table (-o), or else beside the relaxed crystals
    (--relaxed): killed, the same command goes on. With neither they are not kept. Ctrl-C and SIGTERM write the rows
    so far, the others as `not_run`, exit status 75. Formation energies count from the lowest elements of the same
    level: put them into the batch. All columns are in files and --json.

    Example: `opengnome relax candidates/ -o energies.csv --relaxed relaxed/ --set relaxation.fmax=0.02`, or
    `opengnome relax crystals/ elements/ --oracle gpaw --functional r2scan -o r2scan.csv --relaxed known.parquet -j 2`
    """
    from opengnome.campaign import Progress
    from opengnome.campaign.oracle_flags import oracle_settings
    from opengnome.campaign.relaxed_rows import for_screen
    from opengnome.campaign.relaxing import calculations_beside, relax_rows
    from opengnome.campaign.stopping import EXIT_STOPPED, StopRequest
    from opengnome.campaign.tables import emit

    stop = StopRequest()
    rows: list[dict[str, Any]] = relax_rows(
        crystals,
        settings=oracle_settings(settings, overrides, oracle=oracle, functional=functional),
        relaxed=relaxed,
        references=references,
        keep=calculations_beside(output, relaxed),
        workers=workers,
        progress=Progress(quiet=quiet),
        stop=stop,
    )
    whole = output is not None or as_json
    code = emit(rows if whole else for_screen(rows), output, as_json=as_json)
    raise typer.Exit(EXIT_STOPPED if stop.by else code)


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(help="Directory of a campaign, running or not.")],
    mend: Annotated[
        bool, typer.Option("--mend", help="Mend what can be; only while nothing runs the campaign.")
    ] = False,
    again: Annotated[
        list[str],
        typer.Option(
            "--again",
            help="With --mend: calculations that ended so are made once more by `discover` (failed, timed_out, ...).",
            metavar="STATUS",
        ),
    ] = [],  # noqa: B006 - Typer wants a list
    as_json: Annotated[bool, typer.Option("--json", help="Print findings as JSON lines, for programs.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare the journal of a campaign with its files; a line per finding. Changes nothing without --mend.

    Exit status 0: whole, or mended. 1: something is wrong. Work that --mend withdraws is done again by `discover`.
    Files in the way are moved into DIRECTORY/damaged. What is a note, a warning, an error: docs/campaign_store.md.

    Example: `opengnome check runs/oxides --mend`
    """
    from opengnome.campaign import Progress
    from opengnome.campaign.checking import check_campaign
    from opengnome.campaign.findings import lines

    checked = check_campaign(directory, mending=mend, again=again, progress=Progress(quiet=quiet or as_json))
    for line in lines(checked, as_json=as_json):
        typer.echo(line)
    raise typer.Exit(checked.exit_code)

"""`evaluate`, `train` and `grid`: the two networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, device_option, must_be_makeable
from napari_rbcflow.errors import BadInput


@cli.command(short_help="Score both stages on labelled sequences.")
@click.argument("dataset", type=PATH)
@click.option("--json", "json_file", type=PATH, help="Write all figures and predictions here.")
@click.option("--pictures", type=PATH, help="Draw confusion matrices and the worst errors into this folder.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Which set, of a folder that holds several [default: test].",
)
@click.option("--only", multiple=True, help="Patient, date or run to score; repeatable [default: all].")
@click.option("--stage1", type=PATH, help="Other weights for stage 1 (.safetensors).")
@click.option("--stage2", type=PATH, help="Other weights for stage 2 (.safetensors).")
@device_option
@debug_option
def evaluate(
    dataset: Path,
    json_file: Path | None,
    pictures: Path | None,
    split: str | None,
    only: tuple[str, ...],
    stage1: Path | None,
    stage2: Path | None,
    device: str,
) -> None:
    """Score both stages on labelled sequences in the published layout (dataset.csv, img/).

    Prints each stage's scores, and the tank-treading fraction of each acquisition beside the true one
    (Table 5 of Darrin et al. 2023). A folder with train/, validation/ and test/ is scored on test/.

    Example: rbcflow evaluate sequences --json scores.json
    """
    from napari_rbcflow.classification import TwoStage, choose_split
    from napari_rbcflow.classification.evaluation import evaluate as score
    from napari_rbcflow.pipeline import keep_freed_memory

    keep_freed_memory()
    for made in (json_file, pictures):
        if made is not None:
            must_be_makeable(made)
    if json_file is not None and json_file == pictures:
        raise BadInput(f"{json_file} cannot be both the scores and the folder of pictures; give two names")
    _, chosen = choose_split(dataset, split)
    if chosen is not None and split is None:
        click.echo(f"{dataset} holds several sets: scoring {chosen} (--split chooses another)", err=True)
    two_stage = TwoStage.load(device=device, stage1=stage1, stage2=stage2)
    result = score(dataset, two_stage, pictures=pictures, split=chosen, only=only)
    click.echo(summary(result))
    for name in ("stage1", "stage2"):
        if seen := result[name]["seen_in_training"]:
            click.echo(
                f"warning: {name}'s weights were trained on {len(seen)} of these acquisitions: "
                "what they score here is no test of them (held-back figures stand in their card)",
                err=True,
            )
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1, allow_nan=False))


def summary(result: Mapping[str, Any]) -> str:
    """Return what `evaluate` found as a few lines."""
    from napari_rbcflow.classification.evaluation.evaluate import table5

    lines = []
    for name, positive in (("stage1", "reliable"), ("stage2", "flipping")):
        s = result[name]
        lines.append(
            f"{name}: {s['n']} sequences, positive class {positive}: "
            + ", ".join(f"{k} {_figure(s[k])}" for k in ("f1", "accuracy", "precision", "recall", "auc"))
        )
        lines.append("  confusion (rows true, columns predicted) " + " / ".join(s["classes"][:2]))
        lines += ["  " + "  ".join(f"{n:6d}" for n in row) for row in s["confusion"]]
    return "\n".join([*lines, table5(result)])


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


@cli.command(short_help="Train a stage on labelled sequences.")
@click.argument("datasets", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, help="Folder for weights and card [default: stageN-MODEL].")
@click.option("--stage", type=click.Choice(["1", "2"]), required=True)
@click.option(
    "--model", type=click.Choice(["blend", "small", "c-rnn", "cnn"]), default="blend", show_default=True
)
@click.option("--sampling", type=click.Choice(["uniform", "similarity"]), help="[default: the model's own].")
@click.option(
    "--frames", type=click.IntRange(1), metavar="K", help="At most per sequence [default: the model's own]."
)
@click.option("--epochs", type=click.IntRange(1), help="[default: the model's own].")
@click.option(
    "--simulated", type=float, metavar="SHARE", help="Of simulated sequences [default: the model's own]."
)
@click.option(
    "--composed", type=float, metavar="SHARE", help="Of tracks of composed movies [default: the model's own]."
)
@click.option("--keep-folds", is_flag=True, help="With --folds: also write the weights without each group.")
@click.option(
    "--without", multiple=True, metavar="NAME", help="Patient, date or acquisition to leave out; repeatable."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Networks, averaged.")
@click.option(
    "--folds",
    type=click.Choice(["acquisition", "date", "patient"]),
    help="Hold back each of these in turn, for figures, threshold and calibration.",
)
@device_option
@debug_option
def train(
    datasets: tuple[Path, ...],
    output: Path | None,
    stage: str,
    model: str,
    sampling: Any,
    frames: int | None,
    epochs: int | None,
    simulated: float | None,
    composed: float | None,
    keep_folds: bool,
    without: tuple[str, ...],
    seed: int,
    seeds: int,
    folds: Any,
    device: str,
) -> None:
    """Train one stage on labelled sequences and write weights with their model card.

    Example: rbcflow train sequences -o stage1 --stage 1 --model c-rnn --frames 50
    """
    from napari_rbcflow.classification.training import train as fit

    output = output or Path(f"stage{stage}-{model}")
    card = fit(
        list(datasets),
        output,
        stage=int(stage),
        model=model,
        sampling=sampling,
        frames=frames,
        epochs=epochs,
        simulated=simulated,
        composed=composed,
        keep_folds=keep_folds,
        without=without,
        seeds=range(seed, seed + seeds),
        folds=folds,
        device=device,
        progress=lambda said: click.echo(said, err=True),
    )
    click.echo(f"{card['name']} with its card: {output}")


@cli.command(short_help="Train the paper's grid of networks, and print its tables.")
@click.argument("datasets", nargs=-1, type=PATH)
@click.option(
    "-o", "--output", required=True, type=PATH, help="Folder of the grid; one begun before is gone on with."
)
@click.option("--stage", "stages", multiple=True, type=click.Choice(["1", "2"]), help="[default: both].")
@click.option("--models", multiple=True, type=click.Choice(["cnn", "c-rnn"]), help="[default: both].")
@click.option(
    "--samplings", multiple=True, type=click.Choice(["uniform", "similarity"]), help="[default: both]."
)
@click.option(
    "--frames", multiple=True, type=click.Choice(["10", "20", "30", "50"]), help="K [default: all four]."
)
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--validation", multiple=True, metavar="NAME", help="Patient, date or acquisition to choose with."
)
@click.option("--test", multiple=True, metavar="NAME", help="Patient, date or acquisition to test on.")
@click.option("--markdown", is_flag=True, help="Print the tables in Markdown.")
@device_option
@debug_option
def grid(
    datasets: tuple[Path, ...],
    output: Path,
    stages: tuple[str, ...],
    models: Any,
    samplings: Any,
    frames: tuple[str, ...],
    epochs: int,
    seed: int,
    validation: tuple[str, ...],
    test: tuple[str, ...],
    markdown: bool,
    device: str,
) -> None:
    """Train the grid of Tables 3 and 4 of Darrin et al. (2023), and print these tables for your data.

    Two models (CNN, C-RNN), two samplings and four K, for both stages, with the paper's recipe. Stopped, the
    same command goes on where it was. The tables are also in the folder, as .txt, .md and .json. Options that
    narrow the grid may be given several times. Without DATASETS, prints the tables of what is there.

    Data with train/, validation/ and test/ is taken as it is. Other data is held back by whole patients,
    dates or acquisitions: those you name, else a patient (or date) near a third of the cells to test on,
    and every fourth acquisition of the rest to choose with.

    Example: rbcflow grid sequences -o grid --stage 1 --models cnn
    """
    from napari_rbcflow.classification.grid import FRAMES, MODELS, SAMPLINGS, run_grid, write_tables
    from napari_rbcflow.classification.grid.folder import as_markdown, as_text

    if datasets:
        tables = run_grid(
            datasets,
            output,
            stages=[int(stage) for stage in stages] or (1, 2),
            models=models or MODELS,
            samplings=samplings or SAMPLINGS,
            frames=[int(k) for k in frames] or FRAMES,
            epochs=epochs,
            seed=seed,
            validation=validation,
            test=test,
            device=device,
            progress=lambda said: click.echo(said, err=True),
        )
    else:
        tables = write_tables(output)
    click.echo(as_markdown(tables) if markdown else as_text(tables))

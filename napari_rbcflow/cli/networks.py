"""`evaluate`, `train` and `grid`: the two networks; `benchmark`: how fast this machine is, part by part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from napari_rbcflow.cli.group import PATH, cli, debug_option, device_option, echo, must_be_new, write_file
from napari_rbcflow.cli.process import nothing_made_yet
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say


@cli.command(help=say("cli.evaluate"), short_help=say("cli.evaluate-short"))
@click.argument("dataset", type=PATH)
@click.option("--json", "json_file", type=PATH, help=say("cli.evaluate-json"))
@click.option("--pictures", type=PATH, help=say("cli.pictures"))
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help=say("cli.split"))
@click.option("--only", multiple=True, help=say("cli.only"))
@click.option("--stage1", type=PATH, help=say("cli.stage1"))
@click.option("--stage2", type=PATH, help=say("cli.stage2"))
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
    from napari_rbcflow.classification import TwoStage, choose_split
    from napari_rbcflow.classification.evaluation import evaluate as score
    from napari_rbcflow.pipeline import keep_freed_memory

    keep_freed_memory()
    for file in (json_file, pictures):
        if file is not None:
            must_be_new(file)
    if json_file is not None and json_file == pictures:
        raise BadInput("cli.scores-and-pictures", file=json_file)
    _, chosen = choose_split(dataset, split)
    if chosen is not None and split is None:
        click.echo(say("cli.scoring", dataset=dataset, split=chosen), err=True)
    two_stage = TwoStage.load(device=device, stage1=stage1, stage2=stage2)
    result = score(dataset, two_stage, pictures=pictures, split=chosen, only=only)
    click.echo(summary(result))
    for stage in ("stage1", "stage2"):
        if seen := result[stage]["seen_in_training"]:
            click.echo(say("cli.seen-in-training", stage=stage, acquisitions=len(seen)), err=True)
    if json_file is not None:
        write_file(json_file, json.dumps(result, indent=1, allow_nan=False).encode())


def summary(result: Mapping[str, Any]) -> str:
    """Return what `evaluate` found as a few lines."""
    from napari_rbcflow.classification.evaluation.evaluate import table5

    lines = []
    for stage, positive in (("stage1", "reliable"), ("stage2", "flipping")):
        s = result[stage]
        figures = ", ".join(f"{k} {_figure(s[k])}" for k in ("f1", "accuracy", "precision", "recall", "auc"))
        first, second = s["classes"][:2]
        lines.append(say("cli.scores", stage=stage, sequences=s["n"], positive=positive, figures=figures))
        lines.append(say("cli.confusion", first=first, second=second))
        lines += ["  " + "  ".join(f"{n:6d}" for n in row) for row in s["confusion"]]
    return "\n".join([*lines, table5(result)])


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _tell(sentence: str) -> None:
    echo(sentence, err=True)


@cli.command(help=say("cli.train"), short_help=say("cli.train-short"))
@click.argument("datasets", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, help=say("cli.train-output"))
@click.option("--stage", type=click.Choice(["1", "2"]), required=True, help=say("cli.stage"))
@click.option("--from", "start", type=PATH, metavar="FILE", help=say("cli.train-from"))
@click.option(
    "--model",
    type=click.Choice(["blend", "small", "c-rnn", "cnn"]),
    default="blend",
    show_default=True,
    help=say("cli.model"),
)
@click.option("--sampling", type=click.Choice(["uniform", "similarity"]), help=say("cli.sampling"))
@click.option("--frames", type=click.IntRange(1), metavar="K", help=say("cli.train-frames"))
@click.option("--epochs", type=click.IntRange(1), help=say("cli.epochs"))
@click.option("--simulated", type=float, metavar="SHARE", help=say("cli.simulated-share"))
@click.option("--composed", type=float, metavar="SHARE", help=say("cli.composed-share"))
@click.option("--keep-folds", is_flag=True, help=say("cli.keep-folds"))
@click.option("--without", multiple=True, metavar="NAME", help=say("cli.without"))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=say("cli.train-seed"))
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help=say("cli.seeds"))
@click.option("--folds", type=click.Choice(["acquisition", "date", "patient"]), help=say("cli.folds"))
@device_option
@debug_option
def train(
    datasets: tuple[Path, ...],
    output: Path | None,
    stage: str,
    start: Path | None,
    model: str,
    seed: int,
    seeds: int,
    **options: Any,
) -> None:
    with nothing_made_yet():
        from napari_rbcflow.classification.training import train as fit
        from napari_rbcflow.classification.training import train_further

    if start is not None:
        output = output or Path(f"stage{stage}-further")
        kept = {name: options.pop(name) for name in ("epochs", "without", "device")}
        if left := next((name for name, value in options.items() if value), None):
            raise BadInput("classification.further-option", setting=left)
        card = train_further(datasets, output, start=start, stage=int(stage), progress=_tell, **kept)
    else:
        output = output or Path(f"stage{stage}-{model}")
        networks = range(seed, seed + seeds)
        card = fit(datasets, output, stage=int(stage), model=model, seeds=networks, progress=_tell, **options)
    click.echo(say("cli.trained", name=card["name"], folder=output))


@cli.command(help=say("cli.grid"), short_help=say("cli.grid-short"))
@click.argument("datasets", nargs=-1, type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help=say("cli.grid-output"))
@click.option("--stage", "stages", multiple=True, type=click.Choice(["1", "2"]), help=say("cli.grid-stage"))
@click.option("--models", multiple=True, type=click.Choice(["cnn", "c-rnn"]), help=say("cli.grid-models"))
@click.option(
    "--samplings",
    multiple=True,
    type=click.Choice(["uniform", "similarity"]),
    help=say("cli.grid-samplings"),
)
@click.option(
    "--frames", multiple=True, type=click.Choice(["10", "20", "30", "50"]), help=say("cli.grid-frames")
)
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True, help=say("cli.grid-epochs"))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=say("cli.grid-seed"))
@click.option("--validation", multiple=True, metavar="NAME", help=say("cli.validation"))
@click.option("--test", multiple=True, metavar="NAME", help=say("cli.test"))
@click.option("--markdown", is_flag=True, help=say("cli.markdown"))
@device_option
@debug_option
def grid(
    datasets: tuple[Path, ...],
    output: Path,
    stages: tuple[str, ...],
    models: Any,
    samplings: Any,
    frames: tuple[str, ...],
    markdown: bool,
    **options: Any,
) -> None:
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
            progress=_tell,
            **options,
        )
    else:
        tables = write_tables(output)
    click.echo(as_markdown(tables) if markdown else as_text(tables))


@cli.command(help=say("cli.benchmark"), short_help=say("cli.benchmark-short"))
@click.option("--json", "json_file", type=PATH, help=say("cli.json-too"))
@device_option
@click.option("--minutes", type=float, metavar="M", help=say("cli.minutes"))
@click.option("--folder", type=PATH, help=say("cli.benchmark-folder"))
@click.option("--quick", is_flag=True, help=say("cli.quick"))
@debug_option
def benchmark(
    json_file: Path | None, device: str, minutes: float | None, folder: Path | None, quick: bool
) -> None:
    from napari_rbcflow.benchmark import QUICK, as_text
    from napari_rbcflow.benchmark import benchmark as measure
    from napari_rbcflow.cli.terminal import bar

    if json_file is not None:
        must_be_new(json_file)
    with bar(say("cli.measuring")) as show:
        record = measure(
            device=device,
            minutes=minutes,
            folder=folder,
            effort=QUICK if quick else None,
            progress=lambda share, note: show(share, 1.0, note),
        )
    click.echo(as_text(record))
    if json_file is not None:
        write_file(json_file, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())

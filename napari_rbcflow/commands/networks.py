"""`evaluate` and `train`: the two networks."""

from __future__ import annotations

import json
from pathlib import Path

import click

from napari_rbcflow.commands.group import cli
from napari_rbcflow.commands.options import FOLDER, debug_option, device_option
from napari_rbcflow.errors import BadInput


@cli.command()
@click.argument("dataset", type=FOLDER)
@click.option("--json", "json_file", type=FOLDER, help="Write all figures and predictions here.")
@click.option(
    "--pictures", type=FOLDER, help="Draw confusion matrices and the worst errors into this folder."
)
@click.option("--stage1", type=FOLDER, help="Other weights for stage 1 (.safetensors).")
@click.option("--stage2", type=FOLDER, help="Other weights for stage 2 (.safetensors).")
@device_option
@debug_option
def evaluate(
    dataset: Path,
    json_file: Path | None,
    pictures: Path | None,
    stage1: Path | None,
    stage2: Path | None,
    device: str,
) -> None:
    """Score both stages on labelled sequences in the published layout (dataset.csv, img/).

    Example: rbcflow evaluate ../shared/data/darrin2023/stage1 --json scores.json
    """
    from napari_rbcflow.classification.evaluation import evaluate as score
    from napari_rbcflow.classification.evaluation import summary
    from napari_rbcflow.classification.two_stage import TwoStage

    for made in (json_file, pictures):
        if made is not None and made.exists():
            raise BadInput(f"{made} exists already: choose another name, or move it away")
    result = score(dataset, TwoStage.load(device=device, stage1=stage1, stage2=stage2), pictures=pictures)
    click.echo(summary(result))
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1, allow_nan=False))


@cli.command()
@click.argument("datasets", nargs=-1, required=True, type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder for weights and model card.")
@click.option("--stage", type=click.Choice(["1", "2"]), required=True)
@click.option("--model", type=click.Choice(["small", "c-rnn", "cnn"]), default="small", show_default=True)
@click.option(
    "--sampling", type=click.Choice(["uniform", "similarity"]), default="uniform", show_default=True
)
@click.option(
    "--frames", type=click.IntRange(2), default=20, show_default=True, help="K, at most per sequence."
)
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@device_option
@debug_option
def train(
    datasets: tuple[Path, ...],
    output: Path,
    stage: str,
    model: str,
    sampling: str,
    frames: int,
    epochs: int,
    seed: int,
    device: str,
) -> None:
    """Train one stage on labelled sequences and write weights with their model card.

    Example: rbcflow train ../shared/data/darrin2023/stage1 -o stage1 --stage 1 --model c-rnn --frames 50
    """
    from napari_rbcflow.classification.training import train as fit
    from napari_rbcflow.commands.terminal import bar

    with bar("training") as show:
        card = fit(
            list(datasets),
            output,
            stage=int(stage),
            model=model,
            sampling=sampling,
            frames=frames,
            epochs=epochs,
            seed=seed,
            device=device,
            progress=lambda done, of, note: show(done, of, note),
        )
    click.echo(f"weights and card: {card}")

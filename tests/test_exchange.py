"""What leaves for other programs, read back by those programs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import SOURCE, account_of, begin, some_pairs, write

from napari_rbcflow import exchange
from napari_rbcflow.errors import BadInput
from napari_rbcflow.ring import FrameRing, open_ring
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session, read_signatures, sign
from napari_rbcflow.session.schema import read_run, write_run
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.trend import gather
from napari_rbcflow.types import Frame

Command = Callable[..., tuple[int, str, str]]
DRAWN = {"operator": "Ada", "drawn": "2026-03-02T09:30+01:00", "instrument_serial": "A1"}


def reviewed(folder: Path, **changes: Any) -> Path:
    """Write a session whose number is a result."""
    write(folder, some_pairs(90), **changes)
    session = open_session(folder)
    labels = session.cells.set_index("cell")["label"]
    session.review({cell: str(labels[cell]) for cell in session.review_sample(60)}, by="Ada")
    return folder


def told(folder: Path, **entries: Any) -> Path:
    """Change what ``run.json`` says."""
    write_run(folder, read_run(folder) | entries)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result, a provisional number, a run that failed, one that was changed afterwards, a simulated one."""
    place = tmp_path_factory.mktemp("study")
    told(reviewed(place / "result"), record=DRAWN)
    write(place / "provisional", some_pairs(90, seed=1), patient="=1+1")
    write(place / "failed", some_pairs(90, seed=2), status="failed")
    changed = reviewed(place / "changed", patient="CD")
    run = read_run(changed)
    told(changed, fraction=run["fraction"] | {"estimate": 0.999, "high": 1.0})
    told(write(place / "simulated", some_pairs(90, seed=3)), simulated=True)
    return place


def test_one_row_a_run_with_a_dictionary_of_the_columns(study: Path, tmp_path: Path, rbcflow: Command):
    out = tmp_path / "runs.csv"
    code, said, _ = rbcflow("export", study, "--as", "table", "-o", out)
    assert (code, said.strip()) == (0, say("cli.exported-table", out=out, count=5))
    runs = pd.read_csv(out).set_index("session")
    dictionary = pd.read_csv(tmp_path / "runs.columns.csv").set_index("column")
    assert {"session", *runs.columns} - set(dictionary.index) == {f"record_{name}" for name in DRAWN}
    assert dictionary["meaning"].str.len().min() > 5
    assert (dictionary["key"].str.count(":") == 5).all()
    assert list(runs["verdict"].sort_index()) == [
        *("no-result", "no-result", "provisional", "result", "provisional")
    ]
    number = open_session(study / "result").conclusion.headline
    assert number is not None
    assert runs.loc["result", "tank_treading_fraction"] == number.estimate
    assert dict(runs["number_of"].dropna()) == {
        **{"result": "reviewed", "provisional": "machine", "simulated": "machine"}
    }
    # Neither a number nor counts that give it away.
    nothing = runs.loc[
        ["failed", "changed"], [name for name in runs if "fraction" in name or "_cells" in name]
    ]
    assert nothing.isna().all(axis=None)
    assert list(runs.index[runs["simulated"] == 1]) == ["simulated"]
    assert runs.loc["result", "record_drawn"] == DRAWN["drawn"]


def test_only_a_result_leaves_as_a_final_observation(study: Path, tmp_path: Path, rbcflow: Command):
    fhir = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    names = ("result", "provisional", "failed", "changed")
    out = tmp_path / "all.json"
    assert rbcflow("export", *(study / name for name in names), "--as", "fhir", "-o", out)[0] == 0
    bundle = fhir.Bundle.model_validate_json(out.read_text())
    found = dict(zip(names, (entry.resource for entry in bundle.entry), strict=True))
    assert [one.status for one in found.values()] == ["final", "preliminary", "cancelled", "cancelled"]
    for name, one in found.items():
        assert bool(one.valueQuantity) is (name in ("result", "provisional"))
        assert bool(one.dataAbsentReason) is (one.valueQuantity is None)
        parts = {part.code.coding[0].code: part for part in one.component}
        assert ("cells" in parts) is (one.valueQuantity is not None)
        assert parts["verdict"].valueCodeableConcept.coding[0].code == {
            **{"result": "result", "provisional": "provisional"}
        }.get(name, "no-result")
    figure, one = open_session(study / "result").conclusion.headline, found["result"]
    assert figure is not None
    assert float(one.valueQuantity.value) == round(100 * (figure.estimate or 0), 2)
    parts = {part.code.coding[0].code: part for part in one.component}
    low, high = (float(parts[f"interval-{end}"].valueQuantity.value) for end in ("low", "high"))
    assert figure.low is not None
    assert figure.high is not None
    # Rounded to two decimals, and no narrower than it is.
    assert 100 * figure.low - 0.01 < low <= 100 * figure.low
    assert 100 * figure.high <= high < 100 * figure.high + 0.01
    assert parts["cells"].valueInteger == 60
    assert one.effectiveDateTime.isoformat() == "2026-03-02T09:30:00+01:00"
    assert (one.performer[0].display, one.contained[0].serialNumber) == ("Ada", "A1")
    assert found["provisional"].effectiveDateTime is None
    assert say("exchange.why-not-whole", finding="").strip() in found["changed"].note[0].text
    # The same run is the same observation, wherever its folder lies.
    assert exchange.write_fhir([study / "result"], tmp_path / "one.json") == 1
    assert json.loads((tmp_path / "one.json").read_text())["id"] == one.id


def test_a_patient_has_one_name_in_every_format(tmp_path: Path):
    for k, name in enumerate(("Zo\u0308e  B", " Zöe\u00a0B")):
        write(tmp_path / f"s{k}", some_pairs(20, seed=k), patient=name)
    exchange.write_fhir([tmp_path], tmp_path / "all.json")
    entries = json.loads((tmp_path / "all.json").read_text("utf-8"))["entry"]
    told = {entry["resource"]["subject"]["identifier"]["value"] for entry in entries}
    assert (
        told
        == set(exchange.runs_table([tmp_path])["patient"])
        == set(gather([tmp_path]).patients)
        == {"Zöe B"}
    )


def test_who_signed_stands_in_the_observation_and_in_a_provenance(study: Path, tmp_path: Path):
    fhir = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    folder = Path(shutil.copytree(study / "result", tmp_path / "result"))

    def exported(name: str) -> list[Any]:
        assert exchange.write_fhir([folder], tmp_path / name) == 1
        told = json.loads((tmp_path / name).read_text())
        if told["resourceType"] == "Observation":
            told = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": told}]}
        return [entry.resource for entry in fhir.Bundle.model_validate(told).entry]

    for name in ("Ada", "Ben"):
        sign(folder, name)
    one, ada, ben = exported("signed.json")
    assert [performer.display for performer in one.performer] == ["Ada", "Ben"]
    words = [signature.words([]) for signature in read_signatures(folder)]
    assert set(words) <= {note.text for note in one.note}
    for signed, who in ((ada, "Ada"), (ben, "Ben")):
        assert signed.target[0].reference == f"urn:uuid:{one.id}"
        assert signed.agent[0].who.display == who
        hashes = {entity.what.display: entity.what.identifier.value for entity in signed.entity}
        assert hashes["run.json"] == hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
        assert signed.recorded.tzinfo is not None
    # What was changed since is signed by nobody, and neither is what does not follow from its cells.
    cells = (folder / "cells.csv").read_bytes()
    (folder / "cells.csv").write_bytes(cells.replace(b"tank-treading", b"flipping", 1))
    (one,) = exported("damaged.json")
    assert (one.status, [performer.display for performer in one.performer]) == ("cancelled", ["Ada"])
    (folder / "cells.csv").write_bytes(cells)
    session = open_session(folder)
    session.review({session.review_sample(61)[-1]: "unreliable"}, by="Ada")
    (one,) = exported("changed.json")
    assert [performer.display for performer in one.performer] == ["Ada"]  # the operator
    assert any(say("session.signed-anew") in note.text for note in one.note)


def test_what_is_no_patients_number_does_not_leave_as_one(study: Path, tmp_path: Path, rbcflow: Command):
    control = told(write(tmp_path / "control", some_pairs(40)), record={"control_lot": "C7"})
    running = begin(tmp_path / "running")
    for folder, kind, key, values in (
        (study, "fhir", "exchange.simulated", {"folder": study / "simulated"}),
        (control, "fhir", "exchange.control", {"folder": control, "lot": "C7"}),
        (tmp_path / "running", "table", "exchange.still-running", {"folder": tmp_path / "running"}),
        (study, "geff", "exchange.one-session", {"sessions": 5}),
        (study, "ro-crate", "exchange.crate-name", {"study": tmp_path}),
    ):
        code, _, err = rbcflow("export", folder, "--as", kind, "-o", tmp_path / "out")
        assert code == 2
        assert say(key, **values).replace("`output`", "--output") in err
        assert not (tmp_path / "out").exists()
    running.close(account_of([]), "stopped", "user")
    with pytest.raises(BadInput) as raised:
        exchange.write_crate([study], tmp_path / "ro-crate-metadata.json")
    assert raised.value.key == "exchange.crate-elsewhere"


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    """A ring of eight frames that went round and lost one: 3, 4, 5, 7, 8, 9, 10, 11."""
    rng = np.random.default_rng(0)
    path = tmp_path / "ring.zarr"
    made = FrameRing.create(
        path, height=72, width=96, capacity=8, crop_capacity=8, fps=50.0, pixel_size_um=0.5, simulated=True
    )
    for index in (0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11):
        made.append(Frame(index, index / 50, rng.integers(0, 255, (72, 96), dtype=np.uint8)))
    made.close()
    return path


def test_another_program_opens_the_ring_as_it_lies(ring: Path):
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs is not installed")
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    io = pytest.importorskip("ome_zarr.io")
    yaozarrs.validate_zarr_store(ring)
    (node,) = reader.Reader(io.parse_url(ring))()
    assert [axis["name"] for axis in node.metadata["axes"]] == ["t", "y", "x"]
    assert node.metadata["coordinateTransformations"][0][0]["scale"] == [0.02, 0.5, 0.5]
    frames = np.asarray(node.data[0])
    # Slot by slot: the newest frame lies before the oldest.
    kept = open_ring(ring)
    for slot, index in enumerate((9, 10, 11, 3, 4, 5, 7, 8)):
        np.testing.assert_array_equal(frames[slot], kept.frame(index))


def test_frames_leave_in_the_order_of_time(ring: Path, tmp_path: Path, rbcflow: Command):
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs is not installed")
    folder, out = write(tmp_path / "S", some_pairs(9)), tmp_path / "frames.ome.zarr"
    whole = open_ring(ring)
    shutil.rmtree(folder / "frames.zarr")
    code, _, err = rbcflow("export", folder, "--as", "ome-zarr", "-o", out)
    assert (code, say("exchange.no-ring", folder=folder) in err) == (2, True)
    shutil.copytree(ring, folder / "frames.zarr")
    assert rbcflow("export", folder, "--as", "ome-zarr", "-o", out)[0] == 0
    yaozarrs.validate_zarr_store(out)
    image = yaozarrs.open_group(out)
    attributes = json.loads((out / "zarr.json").read_text())["attributes"]
    assert attributes["rbcflow_repeated"] == [3]
    steps = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert [step.get("scale", step.get("translation")) for step in steps] == [
        *([0.02, 0.5, 0.5], [0.06, 0.0, 0.0])
    ]
    frames = np.asarray(image["0"].to_zarr_python())
    for at, index in enumerate((3, 4, 5, 5, 7, 8, 9, 10, 11)):
        np.testing.assert_array_equal(frames[at], whole.frame(index))
    # Our own reader knows rate, scale, and that nothing of it is a patient's; the repetition is a lost frame.
    movie = open_movie(out)
    with movie as info:
        read = [frame.index for frame in movie.frames()]
    assert (info.fps, info.pixel_size_um, info.simulated) == (50.0, 0.5, True)
    assert sorted(read) == [0, 1, 2, 4, 5, 6, 7, 8]


def test_tracks_leave_as_a_graph(study: Path, tmp_path: Path, rbcflow: Command):
    geff = pytest.importorskip("geff", reason="geff is not installed")
    out = tmp_path / "tracks.geff"
    assert rbcflow("export", study / "result", "--as", "geff", "-o", out)[0] == 0
    geff.validate_structure(out)
    graph, metadata = geff.read(out, backend="networkx")
    tracks = open_session(study / "result").tracks
    assert graph.number_of_nodes() == len(tracks)
    chains = {}
    for node, held in graph.nodes(data=True):
        chains.setdefault(held["cell"], []).append((held["t"], held["y"], held["x"], held["seen"]))
        for _, after in graph.out_edges(node):
            assert graph.nodes[after]["cell"] == held["cell"]
    assert graph.number_of_edges() == len(tracks) - len(chains)
    for cell, rows in tracks.groupby("cell"):
        np.testing.assert_allclose(
            np.array(sorted(chains[cell])), rows[["frame", "y_px", "x_px", "seen"]].to_numpy(float), atol=1e-3
        )
    scales = {axis.name: (axis.scale, axis.scaled_unit) for axis in metadata.axes}
    assert scales == {
        "t": (1 / SOURCE.fps, "second"),
        **dict.fromkeys("yx", (SOURCE.pixel_size_um, "micrometer")),
    }


def test_a_study_becomes_a_crate(study: Path, rbcflow: Command):
    rocrate = pytest.importorskip("rocrate.rocrate", reason="rocrate is not installed")
    out = study / "ro-crate-metadata.json"
    assert rbcflow("export", study, "--as", "ro-crate", "-o", out)[0] == 0
    crate = rocrate.ROCrate(study)
    names = ("result", "provisional", "failed", "changed", "simulated")
    parts = {name: crate.dereference(f"{name}/") for name in names}
    for part in parts.values():
        for held in part["hasPart"]:
            assert (study / held.id).exists()
    assert say("exchange.crate-simulated") in parts["simulated"]["description"]
    assert "variableMeasured" not in parts["failed"].properties()
    run = next(act for act in crate.root_dataset["mentions"] if act["result"].id == "result/")
    assert (run["agent"]["name"], run["instrument"]["@type"]) == ("Ada", "SoftwareApplication")
    assert "BG" not in out.read_text()

"""Packages of Camtrap DP, held against what the standard says of their tables; and traps with many pictures.

Fields, types, words and limits are stated here once more, from the table schemas of Camtrap DP 1.0.2
(https://github.com/tdwg/camtrap-dp/tree/1.0.2); frictionless holds the tables against them.
"""

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import frictionless
import piexif

import drawings
import trap_bench as bench
import trapsync
from trapsync import cli
from trapsync.catalog.runs import Schedule
from trapsync.files import failpoint
from trapsync.image import Label

PROJECT = """\
[project]
title = "Moths of the valley"
sampling_design = "opportunistic"
contributors = [{ title = "Ada Moser", role = "contact", email = "ada@example.org" }]
data_license = "CC0-1.0"
media_license = "https://creativecommons.org/licenses/by/4.0/"
"""
CONFIG = f"""\
[trap]
device = "{drawings.DEVICE}"
name = "valley-1"
clock = "trusted"
utc_offset = "+05:45"
latitude = 46.2
longitude = -6.1
[storage]
spool = "spool"
state = "state"
[camera]
kind = "none"
"""

_TIME = {"type": "datetime", "format": "%Y-%m-%dT%H:%M:%S%z"}
_DEPLOYMENT = {
    "fields": "deploymentID",
    "reference": {"resource": "deployments", "fields": "deploymentID"},
}
_MEDIUM = {"fields": "mediaID", "reference": {"resource": "media", "fields": "mediaID"}}
_PATH = r"^(?=^[^./~])(^((?!\.{2}).)*$).*$"


def _text(*words: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "constraints": ({"enum": list(words)} if words else {}) | more}


def _number(least: float | None = None, most: float | None = None, kind: str = "number") -> dict[str, Any]:
    limits = {"minimum": least, "maximum": most}
    return {"type": kind, "constraints": {name: one for name, one in limits.items() if one is not None}}


def _needed(field: dict[str, Any], *, is_key: bool = False) -> dict[str, Any]:
    more = {"required": True} | ({"unique": True} if is_key else {})
    return field | {"constraints": field.get("constraints", {}) | more}


_TRUTH = {"type": "boolean"}
_FEATURES = (
    *("roadPaved", "roadDirt", "trailHiking", "trailGame", "roadUnderpass", "roadOverpass", "roadBridge"),
    *("culvert", "burrow", "nestSite", "carcass", "waterSource", "fruitingTree"),
)
FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "deployments": {
        "deploymentID": _needed(_text(), is_key=True),
        "locationID": _text(),
        "locationName": _text(),
        "latitude": _needed(_number(-90, 90)),
        "longitude": _needed(_number(-180, 180)),
        "coordinateUncertainty": _number(1, kind="integer"),
        "deploymentStart": _needed(_TIME),
        "deploymentEnd": _needed(_TIME),
        "setupBy": _text(),
        "cameraID": _text(),
        "cameraModel": _text(),
        "cameraDelay": _number(0, kind="integer"),
        "cameraHeight": _number(0),
        "cameraDepth": _number(0),
        "cameraTilt": _number(-90, 90, "integer"),
        "cameraHeading": _number(0, 360, "integer"),
        "detectionDistance": _number(0),
        "timestampIssues": _TRUTH,
        "baitUse": _TRUTH,
        "featureType": _text(*_FEATURES),
        "habitat": _text(),
        "deploymentGroups": _text(),
        "deploymentTags": _text(),
        "deploymentComments": _text(),
    },
    "media": {
        "mediaID": _needed(_text(), is_key=True),
        "deploymentID": _needed(_text()),
        "captureMethod": _text("activityDetection", "timeLapse"),
        "timestamp": _needed(_TIME),
        "filePath": _needed(_text(pattern=_PATH)),
        "filePublic": _needed(_TRUTH),
        "fileName": _text(),
        "fileMediatype": _needed(_text(pattern="^(image|video|audio)/.*$")),
        "exifData": {"type": "any"},
        "favorite": _TRUTH,
        "mediaComments": _text(),
    },
    "observations": {
        "observationID": _needed(_text(), is_key=True),
        "deploymentID": _needed(_text()),
        "mediaID": _text(),
        "eventID": _text(),
        "eventStart": _needed(_TIME),
        "eventEnd": _needed(_TIME),
        "observationLevel": _needed(_text("media", "event")),
        "observationType": _needed(_text("animal", "human", "vehicle", "blank", "unknown", "unclassified")),
        "cameraSetupType": _text("setup", "calibration"),
        "scientificName": _text(),
        "count": _number(1, kind="integer"),
        "lifeStage": _text("adult", "subadult", "juvenile"),
        "sex": _text("female", "male"),
        "behavior": _text(),
        "individualID": _text(),
        "individualPositionRadius": _number(0),
        "individualPositionAngle": _number(-90, 90),
        "individualSpeed": _number(0),
        "bboxX": _number(0, 1),
        "bboxY": _number(0, 1),
        "bboxWidth": _number(1e-15, 1),
        "bboxHeight": _number(1e-15, 1),
        "classificationMethod": _text("human", "machine"),
        "classifiedBy": _text(),
        "classificationTimestamp": _TIME,
        "classificationProbability": _number(0, 1),
        "observationTags": _text(),
        "observationComments": _text(),
    },
}
_KEYS = {"deployments": [], "media": [_DEPLOYMENT], "observations": [_DEPLOYMENT, _MEDIUM]}


def _schema(name: str) -> dict[str, Any]:
    fields = [{"name": field, **about} for field, about in FIELDS[name].items()]
    return {
        "fields": fields,
        "missingValues": ["", "NA", "NaN", "nan"],
        "primaryKey": [fields[0]["name"]],
        "foreignKeys": _KEYS[name],
    }


def problems(folder: Path) -> list[str]:
    """What frictionless has against the tables of a package, with keys from one to another; nothing if it is valid."""
    described = json.loads((folder / "datapackage.json").read_text(encoding="utf-8"))
    del described["profile"]  # an address: what stands there is a matter of `descriptor`'s tests
    for resource in described["resources"]:
        if resource["name"] in FIELDS:
            resource["schema"] = _schema(resource["name"])
    package = frictionless.Package.from_descriptor(described, basepath=str(folder))
    report = package.validate()
    return [" ".join(map(str, one)) for one in report.flatten(["type", "fieldName", "note", "message"])]


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table, read as strictly as Python's csv can."""
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def many(trap: bench.Trap, count: int) -> None:
    """Put so many rows into the catalog, like that of one picture, each a minute later, without their files."""
    trap.ingest(trap.put())
    with closing(sqlite3.connect(trap.storage.catalog)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(images)") if row[1] != "id"]
        name = f"'{drawings.DEVICE}.' || strftime('%Y-%m-%d_%H-%M-%S', rank + 60 * n, 'unixepoch') || '.jpg'"
        values = [{"key": name, "rank": "rank + 60 * n"}.get(one, one) for one in columns]
        db.execute(
            f"""WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
                INSERT INTO images ({", ".join(columns)}) SELECT {", ".join(values)} FROM images, numbers""",
            [count - 1],
        )


def weigh(folder: Path, count: int, every: float = 3600.0) -> tuple[float, int]:
    """Export so many pictures in a process of its own; seconds of CPU, and kilobytes of memory at the most.

    One was due in each `every` seconds, until now.
    """
    trap = bench.Trap(folder)
    trap.catalog.times.note_boot()
    trap.catalog.runs.begin(Schedule(every, (), 46.2, -6.1, "UTC"), is_single=False)
    many(trap, count)
    trap.catalog.close()
    (folder / "trap.toml").write_text(CONFIG + PROJECT)
    call = [sys.executable, "-m", "trapsync", "-c", "trap.toml", "export", "camtrap-dp", "package"]
    # By way of a small process: the kernel counts what the memory of its parent was as a child's own.
    done = subprocess.run(
        [sys.executable, "-c", _WEIGHING, *call],
        cwd=folder,
        env=os.environ | {"TRAPSYNC_AS_ROOT": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


_WEIGHING = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def foreign(taken: str, offset: str) -> bytes:
    """Another camera's picture of that local time; without an offset from UTC where that is empty."""
    details = {piexif.ExifIFD.DateTimeOriginal: taken} | (
        {piexif.ExifIFD.OffsetTimeOriginal: offset} if offset else {}
    )
    return drawings.with_exif({"Exif": details})


def label(trap: bench.Trap, destination: str, *answers: list[dict[str, Any]] | None) -> None:
    """A destination, which is Scale, answers about the images in their order; None: it made an error."""
    images = trap.catalog.images.on_card(0, len(answers))
    labels = {
        image.id: Label(f"task-{image.id}", "error" if shapes is None else "done", shapes or ())
        for image, shapes in zip(images, answers, strict=True)
    }
    trap.catalog.labels.put(destination, labels)
    with closing(sqlite3.connect(trap.storage.catalog)) as db, db:
        db.execute("UPDATE destinations SET kind = 'scale' WHERE name = ?", [destination])


def change(folder: Path, name: str, field: str, value: str) -> None:
    """Put another value into the first row of a table, which gets one where it has none."""
    table = rows(folder, name)
    if not table:
        (deployment, *_) = rows(folder, "deployments")
        times = dict.fromkeys(("gapStart", "gapEnd"), deployment["deploymentStart"])
        table = [{"deploymentID": deployment["deploymentID"], **times, "reason": ""}]
    table[0][field] = value
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


# ── Kills ────────────────────────────────────────────────────────────────────────────────────────────


def failpoints() -> list[str]:
    """The steps of an export that last."""
    texts = (path.read_text() for path in (Path(trapsync.__file__).parent / "camtrap_dp").glob("*.py"))
    return sorted({name for text in texts for name in re.findall(r'failpoint.hit\("([^"]+)"\)', text)})


def kill(folder: Path, way: str, name: str) -> bool:
    """Kill an export of the trap here at a failpoint; False if it never came there."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            failpoint.hit = failpoint._Armed(f"{name}#1")
            words = ["-c", "trap.toml", "export", "camtrap-dp", str(folder), way]
            cli.cli.main(words, standalone_mode=False)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    """Each file of a package, but for when it was made and what it is called."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    described = json.loads(found.pop("datapackage.json"))
    del described["created"], described["name"]
    tables = {
        name: text for name, text in found.items() if name != "deployments.csv"
    }  # which goes on until now
    return tables | {"datapackage.json": json.dumps(described).encode()}

"""Labels in the catalog, and as COCO JSON."""

import json
from typing import Any

import pytest

from coco import check_coco
from trap_bench import Memory, Trap
from trapsync.catalog import integrity
from trapsync.catalog.label_export import Labelled, coco, plain
from trapsync.image import Label
from trapsync.runtime.destination_context import TrapContext

BOX = {"type": "box", "label": "moth", "left": 10, "top": 20, "width": 30.5, "height": 40, "uuid": "b1"}
CORNERS = [(0, 0), (10, 0), (10, 10), (5, 15), (0, 10)]
POLYGON = {"type": "polygon", "label": "fly", "vertices": [{"x": x, "y": y} for x, y in CORNERS]}
POINT = {"type": "point", "label": "moth", "x": 3, "y": 4}
DONE = Label("t1", "done", [BOX, POLYGON])


def image(number: int = 1, label: Label = DONE) -> Labelled:
    """An image of the catalog, answered about."""
    key = f"0a1b2c3d.2026-06-21_20-19-{number:02}.jpg"
    return Labelled(number, key, "0" * 64, 160, 120, "labels", label)


def test_boxes_and_polygons_become_coco_annotations() -> None:
    dataset, left_out = coco([image()], ["moth", "fly"])
    check_coco(dataset)
    box, polygon = dataset["annotations"]
    assert (box["category_id"], box["bbox"], box["area"]) == (1, [10, 20, 30.5, 40], 1220)
    assert box["segmentation"] == [[10, 20, 40.5, 20, 40.5, 60, 10, 60]]
    assert (polygon["category_id"], polygon["bbox"], polygon["area"]) == (2, [0, 0, 10, 15], 125)
    assert left_out == 0
    assert dataset["images"] == [
        {
            "id": 1,
            "file_name": "0a1b2c3d.2026-06-21_20-19-01.jpg",
            "width": 160,
            "height": 120,
            "date_captured": "2026-06-21T20:19:01Z",
        }
    ]


def test_an_image_in_which_nothing_was_found_is_in_the_dataset_and_one_in_error_is_not() -> None:
    empty, failed = image(1, Label("t1", "done")), image(2, Label("t2", "error", reason="no such picture"))
    dataset, _ = coco([empty, failed], ["moth"])
    check_coco(dataset)
    assert [row["id"] for row in dataset["images"]] == [1]
    assert dataset["annotations"] == []
    assert [row["name"] for row in dataset["categories"]] == ["moth"]


def test_categories_keep_their_numbers_when_others_come() -> None:
    more = Label("t2", "done", [{**BOX, "label": "ant"}])
    few, many = (coco(images, ["moth"])[0] for images in ([image()], [image(), image(2, more)]))
    assert {row["name"]: row["id"] for row in few["categories"]} == {"moth": 1, "fly": 2}
    assert {row["name"]: row["id"] for row in many["categories"]} == {"moth": 1, "ant": 2, "fly": 3}


@pytest.mark.parametrize(
    "shape",
    [
        POINT,
        {**BOX, "width": 0},
        {**BOX, "left": None},
        {key: BOX[key] for key in ("type", "label")},
        {"type": "box"},
        {**POLYGON, "vertices": POLYGON["vertices"][:2]},
        {**POLYGON, "vertices": 7},
        {"label": "moth"},
        {},
    ],
)
def test_what_has_no_area_is_left_out_and_counted(shape: dict[str, Any]) -> None:
    label = Label("t1", "done", [shape, BOX])
    dataset, left_out = coco([image(1, label)], ["moth"])
    check_coco(dataset)
    assert (len(dataset["annotations"]), left_out) == (1, 1)
    assert plain([image(1, label)])[0]["annotations"] == [shape, BOX]


def test_two_services_that_labelled_one_image_share_its_row() -> None:
    dataset, _ = coco([image(), image()])
    check_coco(dataset)
    assert (len(dataset["images"]), len(dataset["annotations"])) == (1, 4)


# ── In the catalog ───────────────────────────────────────────────────────────────────────────────────


def labelled_trap(trap: Trap) -> tuple[TrapContext, list[int]]:
    """A trap with three images, two of which were given to `labels` as tasks; their ids."""
    trap.register(Memory("labels", required=False), Memory("other", required=False))
    for second in range(3):
        trap.put(second, seed=second)
    trap.ingest()
    images = trap.catalog.deliveries.due("labels", "oldest", 3)
    for number, one in enumerate(images[:2]):
        trap.catalog.deliveries.mark_delivered(
            "labels", [(one.id, f"echo:{one.sha256}", {"task": f"t{number}"})]
        )
    trap.catalog.deliveries.mark_delivered("other", [(images[0].id, f"echo:{images[0].sha256}", {})])
    return trap.context("labels"), [one.id for one in images]


def test_a_task_is_open_until_it_is_answered(trap: Trap) -> None:
    labels, ids = labelled_trap(trap)
    assert labels.unanswered() == {"t0": ids[0], "t1": ids[1]}
    labels.put_answers({ids[0]: Label("t0", "done", [BOX])})
    assert labels.unanswered() == {"t1": ids[1]}
    labels.put_answers({ids[1]: Label("t1", "error", reason="cancelled")})
    assert labels.unanswered() == {}
    assert trap.catalog.labels.counts() == [{"destination": "labels", "open": 0, "done": 1, "error": 1}]


def test_labels_outlive_a_restart_and_come_in_the_order_of_the_images(trap: Trap) -> None:
    labels, ids = labelled_trap(trap)
    labels.put_answers({ids[1]: Label("t1", "error", reason="cancelled"), ids[0]: DONE})
    trap.restart()
    first, second = trap.catalog.labels.answered("labels")
    assert (first.image_id, first.label, first.width) == (ids[0], DONE, 160)
    assert (second.image_id, second.label.state, second.label.reason) == (ids[1], "error", "cancelled")
    assert trap.catalog.labels.answered("other") == []


def test_a_new_task_for_an_image_opens_it_again(trap: Trap) -> None:
    labels, ids = labelled_trap(trap)
    labels.put_answers({ids[0]: Label("t0", "error", reason="cancelled")})
    (image,) = (one for one in trap.catalog.proofs.delivered_to("labels", 0, 9) if one.id == ids[0])
    trap.catalog.deliveries.mark_delivered("labels", [(image.id, f"echo:{image.sha256}", {"task": "again"})])
    assert labels.unanswered()["again"] == ids[0]
    labels.put_answers({ids[0]: Label("again", "done", [BOX])})
    assert [one.label.task for one in trap.catalog.labels.answered()] == ["again"]


def test_a_label_that_a_byte_turned_over_in_is_not_believed(trap: Trap) -> None:
    labels, ids = labelled_trap(trap)
    labels.put_answers({ids[0]: DONE})
    assert integrity.problem(trap.catalog.connection._db.conn) is None
    trap.catalog.connection._db.execute(
        "UPDATE labels SET annotations = replace(annotations, '30.5', '31.5')"
    )
    assert integrity.problem(trap.catalog.connection._db.conn) == "a label whose seal is broken"


@pytest.mark.parametrize(
    "odd",
    [
        *({"left": "nan"}, {"width": "inf"}, {"width": 1e308, "height": 1e308}, {"left": None}, {"top": [1]}),
        *({"type": 5}, {"type": "polygon"}, {"type": "polygon", "vertices": 5}, {"left": 10**400}),
        *({"type": "polygon", "vertices": "abc"}, {"type": "polygon", "vertices": [1, 2, 3]}),
        *({"attributes": 5}, {"attributes": "x"}, {"attributes": [1]}, {"label": ["moth"]}, {"label": None}),
    ],
    ids=lambda odd: str(odd)[:30],
)
def test_an_odd_shape_costs_itself_and_the_others_are_exported(odd: dict[str, Any]) -> None:
    label = Label("task", "done", [{**BOX, **odd}, BOX])
    dataset, _ = coco([image(label=label)])

    assert json.loads(json.dumps(dataset, allow_nan=False)) == dataset
    assert [10, 20, 30.5, 40] in [one["bbox"] for one in dataset["annotations"]]

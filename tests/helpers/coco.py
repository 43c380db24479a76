"""What readers of COCO files rely on."""

import json
import math
from typing import Any


def check_coco(dataset: dict[str, Any]) -> None:
    """What readers of COCO rely on (cocodataset.org, "Data format", object detection)."""
    assert set(dataset) == {"info", "licenses", "images", "annotations", "categories"}
    ids: dict[str, set[int]] = {}
    for part in ("images", "annotations", "categories"):
        numbers = [row["id"] for row in dataset[part]]
        assert all(isinstance(number, int) and number > 0 for number in numbers)
        assert len(numbers) == len(set(numbers))
        ids[part] = set(numbers)
    for row in dataset["images"]:
        assert {"file_name", "width", "height"} <= set(row)
    for row in dataset["annotations"]:
        assert row["image_id"] in ids["images"]
        assert row["category_id"] in ids["categories"]
        assert row["iscrowd"] == 0
        assert len(row["bbox"]) == 4
        assert all(math.isfinite(number) for number in (*row["bbox"], row["area"]))
        assert row["area"] > 0
        for outline in row["segmentation"]:
            assert len(outline) >= 6
            assert len(outline) % 2 == 0
    assert json.loads(json.dumps(dataset, allow_nan=False)) == dataset

"""`/metrics` of the hub: what the newest heartbeats say, read by Prometheus' own parser."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import hub_server
from hub_server import RunningHub

HOSTILE = 'val"ley\\\n# HELP trapsync_x <script>alert(1)</script>'
BEAT: dict[str, Any] = {
    "device": "0a5bb6f4",
    "name": "valley-1",
    "verdict": "warning",
    "newest_image": {"name": "a.jpg", "age_s": 60},
    "ledger": {"captured": 12, "delivered": 10, "pending": 2, "quarantined": 0, "dropped": 0, "lost": 0},
    "disk": {"free_bytes": 24_900_000_000, "days_left": 61.3},
    "battery": 18.0,
    "last_night": {"night": "2026-06-20", "expected": 96, "taken": 93, "missed": {"camera": 3}},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path_factory.mktemp("hub")) as running:
        yield running


def scraped(hub: RunningHub, *beats: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """The values by name and labels, once the hub has these heartbeats."""
    for beat in beats:
        url = f"{hub.url}/heartbeats/{beat['device']}"
        requests.post(url, json.dumps(beat), auth=hub.auth("trap"), timeout=30)
    answer = requests.get(f"{hub.url}/metrics", auth=hub.auth("reader"), timeout=30)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("trapsync_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_say_what_the_newest_heartbeat_of_each_trap_says(hub: RunningHub) -> None:
    found = scraped(hub, BEAT | {"verdict": "ok"}, BEAT, {"device": "00000001"})
    trap = ("0a5bb6f4", "valley-1")
    assert found["verdict", *trap, "warning"] == 1
    assert found["verdict", *trap, "ok"] == 0
    assert found["images", *trap, "pending"] == 2
    assert found["battery_percent", *trap] == 18
    assert found["card_days_left", *trap] == 61.3
    assert found["last_night_expected", *trap] == 96
    assert found["last_night_missed", *trap, "camera"] == 3
    assert 60 <= found["newest_image_age_seconds", *trap] < 120
    assert found["heartbeat_age_seconds", "00000001", ""] < 60
    assert not [key for key in found if key[0] == "battery_percent" and key[1] == "00000001"]


def test_hostile_words_are_labels_and_nothing_else(hub: RunningHub) -> None:
    odd = {"expected": 1, "taken": 0, "missed": {'x"} 1\nnode_boot 1 #': 1, "camera": 1}}
    found = scraped(hub, BEAT | {"device": "0a5bb6f5", "name": HOSTILE, "last_night": odd})
    names = {key[2] for key in found if key[1] == "0a5bb6f5"}
    assert len(names) == 1
    assert "\n" not in names.pop()
    assert {key[0] for key in found if key[1] == "0a5bb6f5"} <= {key[0] for key in scraped(hub, BEAT)}
    assert [key[3] for key in found if key[0] == "last_night_missed" and key[1] == "0a5bb6f5"] == ["camera"]


def test_of_a_trap_whose_heartbeat_makes_no_sense_only_its_age_is_known(hub: RunningHub) -> None:
    found = scraped(hub, {"device": "0a5bb6f6", "battery": "high"})
    assert {key[0] for key in found if key[1] == "0a5bb6f6"} == {"heartbeat_age_seconds"}


def test_traps_and_strangers_read_no_metrics(hub: RunningHub) -> None:
    assert requests.get(f"{hub.url}/metrics", timeout=30).status_code == 401

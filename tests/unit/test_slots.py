"""Where documents lie: slots at a hub and in a bucket, topics on a broker, the same on both sides."""

import pytest

from trapsync.net.slots import SLOT, slot_at, slot_of, slots_of_trap, topic_of


def test_a_trap_asks_for_keys_first_then_for_the_most_particular() -> None:
    assert slots_of_trap("0a5bb6f4", ["north-slope"], ["0123456789abcdef"]) == [
        "key-0123456789abcdef.keys",
        "device-0a5bb6f4.settings",
        "device-0a5bb6f4.resend",
        "group-north-slope.settings",
        "group-north-slope.resend",
        "all.settings",
        "all.resend",
    ]


def test_each_slot_has_a_topic_and_each_topic_its_slot() -> None:
    found = slots_of_trap("0a5bb6f4", ["north-slope", "a_b"], ["0123456789abcdef"])
    assert all(SLOT.fullmatch(slot) and slot_at(topic_of(slot)) == slot for slot in found)
    assert topic_of("group-north-slope.settings") == "pushed/group/north-slope/settings"
    assert slot_of("group:north-slope", "resend") == "group-north-slope.resend"


@pytest.mark.parametrize(
    "topic",
    ["pushed/all", "pushed//settings", "pushed/device/x/settings", "pushed/all/keys", "other/all/settings",
     "pushed/group-a/settings",
     "pushed/device/0a5bb6f4/keys", "pushed/key/0123456789abcdef/settings", "pushed/group/a/b/settings", ""],
)  # fmt: skip
def test_another_topic_has_none(topic: str) -> None:
    assert slot_at(topic) is None

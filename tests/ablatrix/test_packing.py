from __future__ import annotations

from typing import Any

import pytest

from ablatrix.errors import Refused
from ablatrix.packing import bundle, check_fits, room, shortage
from ablatrix.schema import Resources


def node(alive: bool = True, labels: dict[str, str] | None = None, **has: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": has, "Labels": labels or {}}


def test_a_trial_asks_in_rays_words_and_units() -> None:
    asked = bundle(Resources(cpus=4, gpus=0.25, memory_gb=2, custom={"a100": 1}))

    assert asked == {"CPU": 4, "GPU": 0.25, "memory": 2e9, "a100": 1}


def test_a_larger_share_never_asks_for_more_than_one_gpu_where_a_part_was_enough() -> None:
    assert bundle(Resources(gpus=0.25), share=2)["GPU"] == 0.5
    assert bundle(Resources(gpus=0.75), share=2)["GPU"] == 1.0
    assert bundle(Resources(gpus=2), share=2)["GPU"] == 2


def test_room_is_counted_by_node_and_dead_nodes_have_none() -> None:
    nodes = [node(CPU=5.0), node(CPU=3.0), node(alive=False, CPU=64.0)]

    assert room(Resources(cpus=2), 1.0, nodes) == 3
    assert room(Resources(cpus=2, gpus=1), 1.0, nodes) == 0


def test_labels_keep_other_nodes_out() -> None:
    nodes = [node(CPU=8.0, labels={"zone": "a"}), node(CPU=8.0, labels={"zone": "b"})]

    assert room(Resources(labels={"zone": "b"}), 1.0, nodes) == 8


@pytest.mark.parametrize(
    "resources", [Resources(cpus=4), Resources(gpus=1), Resources(labels={"zone": "x"}), Resources(custom={"tpu": 1}), Resources(workers=3)]
)
def test_a_trial_that_no_node_can_hold_is_refused_with_what_there_is(resources: Resources) -> None:
    with pytest.raises(Refused, match=r"a trial asks for .*CPU .*and the nodes have: CPU 2"):
        check_fits(resources, [node(CPU=2.0)])


def test_a_trial_that_fits_is_let_through() -> None:
    check_fits(Resources(cpus=2, workers=2), [node(CPU=2.0), node(CPU=2.0)])


def test_a_part_of_a_gpu_lies_on_one_gpu() -> None:
    node_of_four = [node(CPU=64.0, GPU=4.0)]

    assert room(Resources(gpus=0.6), 1.0, node_of_four) == 4
    assert room(Resources(gpus=0.3), 1.0, node_of_four) == 12
    assert room(Resources(gpus=0.1), 1.0, node_of_four) == 40
    assert room(Resources(gpus=2), 1.0, node_of_four) == 2
    with pytest.raises(Refused, match="asks for 5 times"):
        check_fits(Resources(gpus=1, workers=5), node_of_four)


def test_custom_resources_divide_as_they_are_written() -> None:
    assert room(Resources(custom={"slot": 0.1}), 1.0, [node(CPU=64.0, slot=0.7)]) == 7


def test_a_shortage_names_what_is_asked_for_beside_what_each_node_has_of_it() -> None:
    nodes = [node(CPU=8.0, memory=4e9, labels={"zone": "a", "rack": "7"}, plenty=1.0), node(alive=False, CPU=64.0, memory=64e9, a100=1.0)]
    found = shortage(Resources(cpus=2, memory_gb=16, custom={"a100": 1}, labels={"zone": "b"}), nodes)

    assert found == "a trial asks for CPU 2, a100 1, memory 16 GB, zone=b, and the nodes have: CPU 8, memory 4 GB, zone=a"
    assert shortage(Resources(cpus=2), nodes) is None

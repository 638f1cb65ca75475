"""All protocols together: keys, independence, early refusal."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from ablatrix_models.evaluate.features import extract
from ablatrix_models.evaluate.knn import knn_top1
from ablatrix_models.evaluate.protocols import check, evaluate
from ablatrix_models.pretrain import initial_method
from ablatrix_models.recipe import Recipe, RecipeError
from ablatrix_models.recipe.evaluate import Evaluate
from ablatrix_models.recipe.fields import build

ALL = {
    "knn": {"kind": "cosine", "k": 20},
    "linear": {"kind": "cached", "lr": 0.05, "final_lr": 1e-4, "epochs": 5, "batch_size": 50},
    "finetune": {"kind": "sgd", "epochs": 1, "batch_size": 50, "classifier_lr": 0.5, "labels": 0.5},
}


TRANSFORMER = {
    "knn": {"kind": "cosine", "k": 20, "features": "backbone"},
    "linear": {"kind": "lars", "epochs": 2, "batch_size": 50, "lr": 6.4, "warmup_epochs": 1},
    "finetune": {"kind": "vit", "epochs": 1, "warmup_epochs": 0, "batch_size": 50, "labels": 0.5},
    "logistic": {"kind": "cls", "labels": 0.5},
}


def recipe(**protocols: object) -> Recipe:
    return Recipe.read({"data": {"name": "digits", "image_size": 10}, "schedule": {"epochs": 0}, "evaluate": protocols})


def run(chosen: Recipe, method, train, test, **options) -> dict[str, float]:
    return evaluate(chosen, method, train, test, **{"seed": 0, "device": "cpu", **options})


def test_each_protocol_that_is_on_yields_its_metric_in_percent(method, train, test) -> None:
    everything = recipe(**ALL)

    found = run(everything, method, train, test)

    assert tuple(found) == everything.evaluate.metrics() == ("knn.top1", "linear.top1", "finetune.top1")
    assert all(isinstance(score, float) and 0 <= score <= 100 for score in found.values())


def test_what_else_runs_does_not_change_a_score(method, train, test) -> None:
    together = run(recipe(**ALL), method, train, test)

    for names in itertools.chain.from_iterable(itertools.combinations(ALL, n) for n in (0, 1, 2)):
        alone = run(recipe(**ALL), method, train, test, only=names)

        assert alone == {f"{name}.top1": together[f"{name}.top1"] for name in names}


def test_a_transformer_passes_all_four_apart_or_together(vit, train, test) -> None:
    chosen = dataclasses.replace(recipe(), evaluate=build(Evaluate, TRANSFORMER)[0])

    together = run(chosen, vit, train, test)
    apart = [run(chosen, vit, train, test, only=(name,)) for name in TRANSFORMER]

    assert tuple(together) == chosen.evaluate.metrics() == ("knn.top1", "linear.top1", "finetune.top1", "logistic.top1")
    assert [{name: together[name]} for name in together] == apart
    assert together["knn.top1"] > 60  # a third is chance


@pytest.mark.parametrize("name", ["siameseim", "mae"])
def test_methods_with_a_transformer_are_evaluated_as_recipes_build_them(name, train, test) -> None:
    depths = {"projector_depth": 1, "decoder_depth": 1} if name == "siameseim" else {"depth": 1}
    chosen = Recipe.read(
        {
            "method": {"name": name, "dim": 16, "heads": 2, "mask": {"kind": "random", "ratio": 0.5}, **depths},
            "backbone": {"name": "vit-tiny", "width": 16, "depth": 1, "heads": 2, "patch": 5},
            "data": {"name": "digits", "image_size": 10},
            "schedule": {"epochs": 0},
            "mixing": "none",
            "evaluate": TRANSFORMER,
        }
    )

    found = run(chosen, initial_method(chosen, 0), train, test)

    assert tuple(found) == chosen.evaluate.metrics()
    assert found["logistic.top1"] > 45  # a third is chance


def test_a_protocol_that_is_off_is_left_out(method, train, test) -> None:
    found = run(recipe(knn=ALL["knn"]), method, train, test)

    assert list(found) == ["knn.top1"]


@pytest.mark.parametrize(("features", "encode"), [("backbone", "features"), ("projection", "project")])
def test_knn_reads_the_features_that_the_recipe_names(features, encode, method, train, test) -> None:
    chosen = recipe(knn={**ALL["knn"], "features": features})

    found = run(chosen, method, train, test)

    bank, queries = (extract(getattr(method, encode), images, chosen.data, device="cpu") for images in (train, test))
    assert found["knn.top1"] == knn_top1(chosen.evaluate.knn, bank, train.labels, queries, test.labels, 3)


def test_the_recipes_precision_reaches_every_protocol(method, train, test) -> None:
    seen: set[torch.dtype] = set()
    method.encoder[3].register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    chosen = Recipe.read({**recipe(**ALL).as_mapping(), "compute": {"precision": "bf16"}})

    for name in ALL:
        seen.clear()
        run(chosen, method, train, test, only=(name,))

        assert seen == {torch.bfloat16}


def test_all_of_it_leaves_the_global_generator_as_found(method, train, test) -> None:
    state = torch.get_rng_state()

    run(recipe(**ALL), method, train, test)

    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_protocol_is_named(method, train, test) -> None:
    with pytest.raises(ValueError, match=r"unknown protocol 'lineer' in `only`\. Known: knn, linear, finetune, logistic"):
        run(recipe(**ALL), method, train, test, only=("lineer",))


def test_what_the_data_cannot_give_is_refused_before_any_image_is_encoded(train, test) -> None:
    greedy = recipe(knn={"kind": "cosine", "k": 151})

    with pytest.raises(RecipeError, match=r"evaluate\.knn\.k: is 151, more than the 150 labelled images"):
        check(greedy.evaluate, train.labels)
    with pytest.raises(RecipeError, match=r"evaluate\.knn\.k"):
        run(greedy, None, train, test)


def test_labels_are_not_missed_by_a_protocol_that_is_off(train) -> None:
    check(recipe(knn={"kind": "off", "k": 10_000}, linear=ALL["linear"]).evaluate, train.labels)

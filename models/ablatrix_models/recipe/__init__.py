"""Recipes: every hyperparameter of one training run, resolved and frozen.

Free of torch, so that checking and planning a sweep costs milliseconds. Each part stands in the module
named after the component that it configures.
"""

from ablatrix_models.recipe.fields import Problem, RecipeError
from ablatrix_models.recipe.root import RESULT_VERSION, Recipe

__all__ = ["RESULT_VERSION", "Problem", "Recipe", "RecipeError"]

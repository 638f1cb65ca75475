"""How a trained encoder is judged: one module per protocol, `protocols.evaluate` for all of a recipe's."""

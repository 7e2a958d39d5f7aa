"""What a model's card says of its use, beside what it was made from."""

from __future__ import annotations

__all__ = ["INTENDED_USE", "LIMITS", "OPEN_WITH"]

INTENDED_USE = (
    "Research: to study how the built environment, seen from the air, goes with the living standard that a "
    "census tells of its inhabitants, and which parts of the picture a network relies on."
)

LIMITS = (
    "Not to inform the allocation of resources to economically deprived communities: a model may carry the "
    "biases of its training data, entrench stereotypes and harm people in lower socioeconomic classes "
    "(Abitbol & Karsai 2020, Discussion).",
    "It tells the class of a 200 m cell, not the income of a household or a person.",
    "It was trained on the city, the vintage and the imagery named in this card; elsewhere its figures do "
    "not hold unless they are measured there (`sesgrid transfer`).",
    "Incomes of cells with few households are imputed from their neighbours; scores with random folds are "
    "higher than those for places that the model has never seen.",
    "What it looks at is what correlates with income in the picture, which need not cause it.",
)
"""After the study's own discussion of what such models may do."""

OPEN_WITH = (
    "import sesgrid, keras; keras.saving.load_model(path); or sesgrid.ModelRef.open(path).load()"
)
"""The first opens the file alone; the second compares it with this card before."""

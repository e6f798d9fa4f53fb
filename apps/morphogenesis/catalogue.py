"""What a run may name: tasks and hosts, as data. Imports nothing heavy, so that the web process can read it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCard:
    """A task that ships. ``input_shape`` is one sample without the batch dimension."""

    name: str
    title: str
    description: str
    input_shape: tuple[int, ...]
    classes: int
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCard:
    """A host network that ships. ``width`` is its start width for a task without a recipe: about half of the final one.

    ``preference`` ranks the growth operators where evidence does not.
    """

    name: str
    title: str
    description: str
    width: int
    depth: int
    preference: tuple[str, ...] = ("widen", "residual")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Defaults of one task on one host, used where the caller names none. Chosen on validation data: docs/growth.md."""

    width: int
    epochs: int
    learning_rate: float


TASKS: dict[str, TaskCard] = {
    card.name: card
    for card in (
        TaskCard(
            name="digits",
            title="Handwritten digits",
            description="1,797 images of 8x8 pixels, ten classes (scikit-learn's copy of the UCI digits).",
            input_shape=(1, 8, 8),
            classes=10,
            hosts=("mlp", "cnn"),
        ),
        TaskCard(
            name="spirals",
            title="Two spirals",
            description="Two interleaved noisy spirals in the plane, generated; the same points for every run.",
            input_shape=(2,),
            classes=2,
            hosts=("mlp",),
        ),
    )
}

HOSTS: dict[str, HostCard] = {
    card.name: card
    for card in (
        HostCard(
            name="mlp",
            title="MLP",
            description="Fully connected layers with ReLU and a linear head.",
            width=32,
            depth=2,
        ),
        HostCard(
            name="cnn",
            title="CNN",
            description="Convolutions with batch norm and ReLU, global average pooling, a linear head.",
            width=8,
            depth=3,
        ),
    )
}

RECIPES: dict[tuple[str, str], Recipe] = {
    ("digits", "mlp"): Recipe(width=8, epochs=40, learning_rate=3e-3),
    ("digits", "cnn"): Recipe(width=6, epochs=40, learning_rate=3e-3),
    ("spirals", "mlp"): Recipe(width=8, epochs=80, learning_rate=5e-3),
}

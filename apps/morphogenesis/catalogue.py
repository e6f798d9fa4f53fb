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
    """A host network that ships. ``width`` is the default start width: about half of the final one."""

    name: str
    title: str
    description: str
    width: int
    depth: int


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

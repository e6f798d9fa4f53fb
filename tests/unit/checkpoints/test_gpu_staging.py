"""Staging from a CUDA device: training goes on, and the copy is of the moment at which it was asked for."""

import pytest
import torch

from apps.checkpoints.store.staging import Staging

pytestmark = pytest.mark.gpu

ITEMS = 32 * 1024 * 1024
"""128 MB: the copy takes long enough for the next step to overtake it, if it could."""


def test_a_step_after_the_copy_does_not_show_in_it() -> None:
    weights = [torch.full((ITEMS,), float(number), device="cuda") for number in range(3)]
    staging = Staging()
    for _ in range(3):  # the last two into memory that is there already
        before = [weight[0].item() for weight in weights]
        staged = staging.take(weights)
        for weight in weights:
            weight.add_(1)
        staged.wait()

        assert [(copied.min().item(), copied.max().item()) for copied in staged.tensors] == [(x, x) for x in before]
        staged.release()


def test_the_copy_lies_in_pinned_memory_and_beside_that_of_the_host() -> None:
    moment = torch.randn(100_000)
    staged = Staging().take([torch.ones(100_000, device="cuda"), moment])
    staged.wait()

    assert [copied.is_pinned() for copied in staged.tensors] == [True, False]
    assert torch.equal(staged.tensors[1], moment)


def test_a_copy_does_not_hold_up_the_host() -> None:
    weight = torch.ones(ITEMS, device="cuda")
    staging = Staging()
    staging.take([weight]).release()
    torch.cuda._sleep(2_000_000_000)  # about a second of work before it, in the device's queue
    begun = torch.cuda.Event()
    begun.record()

    staged = staging.take([weight])

    assert not begun.query(), "the host is back while the device has not even come to the copy"
    staged.wait()
    assert staged.tensors[0].min().item() == 1


def test_odd_tensors_of_a_device_are_copied_as_they_look() -> None:
    tensors = [torch.arange(60_000, device="cuda").view(300, 200).t(), torch.tensor(3, device="cuda")]
    tensors += [torch.randn(40_000, device="cuda").bfloat16(), torch.empty(0, 3, device="cuda")]

    staged = Staging().take(tensors)
    staged.wait()

    assert all(torch.equal(copied, tensor.cpu()) for copied, tensor in zip(staged.tensors, tensors, strict=True))

"""Staging: copies that stay what they were, in memory that is used again."""

import threading

import pytest
import torch
from torch import Tensor

from apps.checkpoints.store.staging import SMALL_ITEMS, Staging
from tests.support.waiting import wait_until

LARGE = SMALL_ITEMS + 1
KINDS = {
    "large": lambda: torch.randn(LARGE),
    "small": lambda: torch.randn(3, 5),
    "of no dimension": lambda: torch.tensor(2.5),
    "empty": lambda: torch.empty(0, 7),
    "transposed": lambda: torch.randn(300, 200).t(),
    "every other item": lambda: torch.randn(2 * LARGE)[::2],
    "expanded": lambda: torch.randn(1, 300).expand(200, 300),
    "bfloat16": lambda: torch.randn(LARGE).bfloat16(),
    "float8": lambda: torch.randn(LARGE).to(torch.float8_e4m3fn),
    "bool": lambda: torch.randn(LARGE) > 0,
    "int64": lambda: torch.arange(LARGE),
    "conjugated": lambda: torch.randn(LARGE, dtype=torch.complex64).conj(),
    "a parameter": lambda: torch.nn.Parameter(torch.randn(LARGE)),
}


def bits(tensor: Tensor) -> bytes:
    dense = tensor.detach().resolve_conj().contiguous()
    return bytes(dense.reshape(-1).view(torch.uint8).numpy().data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_has_the_bits_of_its_tensor_whatever_is_written_to_it_later(kind: str) -> None:
    torch.manual_seed(1)
    tensor = KINDS[kind]()
    before = bits(tensor)

    staged = Staging().take([torch.ones(3), tensor])
    staged.wait()
    tensor.data = torch.zeros_like(tensor) if kind == "expanded" else tensor.data.fill_(0)

    copied = staged.tensors[1]
    assert (copied.dtype, copied.shape, bits(copied)) == (tensor.dtype, tensor.shape, before)
    assert copied.is_contiguous()
    assert not copied.requires_grad


def test_memory_that_was_released_is_used_again() -> None:
    staging, tensors = Staging(), [torch.randn(LARGE), torch.randn(5)]
    first = staging.take(tensors)
    places = [tensor.data_ptr() for tensor in first.tensors]
    first.release()

    assert [tensor.data_ptr() for tensor in staging.take(tensors).tensors] == places


def test_a_state_that_has_become_a_little_smaller_uses_the_same_memory() -> None:
    staging, tensors = Staging(), [torch.randn(LARGE) for _ in range(4)]
    first = staging.take(tensors)
    place = first.tensors[0].data_ptr()
    first.release()

    assert staging.take(tensors[:3]).tensors[0].data_ptr() == place


def test_a_state_that_has_grown_is_copied_whole() -> None:
    staging, tensors = Staging(), [torch.randn(LARGE)]
    staging.take(tensors).release()
    tensors.append(torch.randn(3 * LARGE))

    assert [bits(tensor) for tensor in staging.take(tensors).tensors] == [bits(tensor) for tensor in tensors]


def test_a_second_copy_does_not_touch_the_first() -> None:
    staging, tensor = Staging(), torch.randn(LARGE)
    first, before = staging.take([tensor]), bits(tensor)
    staging.take([tensor.add_(1)])

    assert bits(first.tensors[0]) == before


def test_a_third_copy_waits_until_one_is_released() -> None:
    staging, tensor = Staging(), torch.randn(3)
    first, _ = staging.take([tensor]), staging.take([tensor])
    third = threading.Thread(target=staging.take, args=([tensor],), daemon=True)
    third.start()
    assert third.is_alive()

    first.release()

    wait_until(lambda: not third.is_alive(), seconds=10)


def test_a_copy_that_was_released_twice_is_lent_once() -> None:
    staging, tensor = Staging(), torch.randn(3)
    first = staging.take([tensor])
    first.release()
    first.release()

    places = {staging.take([tensor]).tensors[0].data_ptr() for _ in range(2)}

    assert len(places) == 2

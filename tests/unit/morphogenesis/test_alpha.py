"""Alpha: monotone, clamped, exact at its target, and steady until it has arrived."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.morphogenesis.alpha import CURVES, AlphaRamp

curves = st.sampled_from(sorted(CURVES))
strengths = st.floats(0.0, 1.0)
tempos = st.integers(1, 500)


def walk(ramp: AlphaRamp) -> list[float]:
    values = [ramp.value]
    while not ramp.holding:
        ramp.advance()
        values.append(ramp.value)
    return values


@given(curves, strengths, strengths, tempos)
def test_alpha_is_monotone_and_stays_between_its_ends(curve: str, start: float, target: float, steps: int) -> None:
    values = walk(AlphaRamp(curve=curve, start=start, target=target, steps=steps))
    assert values in (sorted(values), sorted(values, reverse=True))
    assert all(min(start, target) <= value <= max(start, target) for value in values)


@given(curves, strengths, strengths, tempos)
def test_alpha_starts_at_its_start_and_ends_exactly_at_its_target(
    curve: str, start: float, target: float, steps: int
) -> None:
    values = walk(AlphaRamp(curve=curve, start=start, target=target, steps=steps))
    assert values[0] == pytest.approx(start, abs=1e-12)
    assert values[-1] == target
    assert len(values) == steps + 1


@given(curves, tempos)
def test_alpha_stays_at_its_target(curve: str, steps: int) -> None:
    ramp = AlphaRamp(curve=curve, start=0.0, target=1.0, steps=steps)
    walk(ramp)
    ramp.advance()
    assert ramp.value == 1.0


@given(curves, tempos, tempos)
def test_a_planned_cull_ramps_down_from_hold(curve: str, up: int, down: int) -> None:
    ramp = AlphaRamp(curve=curve, start=0.0, target=1.0, steps=up)
    walk(ramp)
    ramp.retarget(0.0, down)
    values = walk(ramp)
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (1.0, 0.0)


@given(curves, st.integers(2, 500))
def test_alpha_cannot_be_retargeted_on_its_way(curve: str, steps: int) -> None:
    ramp = AlphaRamp(curve=curve, start=0.0, target=1.0, steps=steps)
    ramp.advance()
    with pytest.raises(ValueError, match="only from hold"):
        ramp.retarget(0.0, steps)


@given(curves, strengths, strengths, tempos, st.integers(0, 600))
def test_a_ramp_survives_a_snapshot(curve: str, start: float, target: float, steps: int, taken: int) -> None:
    ramp = AlphaRamp(curve=curve, start=start, target=target, steps=steps, taken=min(taken, steps))
    assert AlphaRamp.from_dict(ramp.to_dict()) == ramp

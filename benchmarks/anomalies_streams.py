"""Streams like those of the Numenta Anomaly Benchmark, generated: families of the same kinds, lengths and labels.

The benchmark's own files are not shipped. These look like them as its papers describe them: windows as its labels have
them (a tenth of the stream over its anomalies, the anomaly in the middle), events that nobody labelled, heavy tails,
quantised values, flat lines, and streams without any anomaly. They are easier than real ones: labels are where the
anomalies are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from apps.observability.contracts import Numbers

DAY = 86_400
FIVE_MINUTES = 300
START = 1_396_310_400  # 2014-04-01, a Tuesday
CLEAN = {"none", "artificial"}
"""Families of streams without events that nobody labelled."""
Chance = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Values over time, and (first, last) positions of each labelled window."""

    name: str
    family: str
    times: Numbers
    values: Numbers
    windows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A recipe's result: values, the moments of the anomalies, seconds from value to value."""

    values: Numbers
    moments: tuple[int, ...]
    step: float = FIVE_MINUTES


def streams(seed: int, copies: int = 1) -> list[Stream]:
    """One stream of each recipe, ``copies`` times."""
    found = []
    for copy in range(copies):
        for number, (name, recipe) in enumerate(RECIPES.items()):
            chance = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, copy, number])))
            drawn = recipe(chance)
            length, family = len(drawn.values), name.partition("_")[0]
            values = drawn.values if family in CLEAN else with_events(chance, drawn.values)
            found.append(
                Stream(
                    name=f"{name}-{seed}-{copy}",
                    family=family,
                    times=START + drawn.step * np.arange(length, dtype=float),
                    values=values,
                    windows=windows(length, drawn.moments),
                )
            )
    return found


def with_events(chance: Chance, values: Numbers) -> Numbers:
    """``values`` with what nobody labels: a slow drift of the level, some spikes, some stretches higher or lower."""
    length = len(values)
    usual = float(np.subtract(*np.percentile(values, [90, 10]))) or float(values.std())
    found = values * np.exp(0.05 * noise(chance, length, 1 - 10 / length))
    for at in chance.integers(0, length, int(chance.integers(1, 5))).tolist():
        found[at : at + int(chance.integers(1, 4))] += usual * chance.uniform(0.3, 1.2)
    for at in chance.integers(0, length, int(chance.integers(1, 4))).tolist():
        stretch = slice(at, at + int(length * chance.uniform(0.01, 0.05)))
        found[stretch] += usual * chance.uniform(-0.25, 0.35)
    return found


def windows(length: int, moments: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """A tenth of the stream over its anomalies, each around its own; those that would overlap are one."""
    found: list[tuple[int, int]] = []
    for moment in sorted(moments):
        half = length // (20 * len(moments))
        first, last = max(moment - half, 0), min(moment + half, length - 1)
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def places(chance: Chance, length: int, count: int) -> tuple[int, ...]:
    """Moments of anomalies: behind the first fifth, well apart."""
    edges = np.linspace(0.22, 0.97, count + 1) * length
    return tuple(
        int(chance.uniform(low + 0.15 * (high - low), high - 0.15 * (high - low))) for low, high in pairwise(edges)
    )


def noise(chance: Chance, length: int, memory: float = 0.0) -> Numbers:
    """Normal noise of variance 1 that remembers ``memory`` of its last value."""
    shocks = chance.normal(size=length) * math.sqrt(1 - memory * memory)
    if not memory:
        return shocks
    found = np.empty(length)
    last = 0.0
    for place, shock in enumerate(shocks.tolist()):
        last = memory * last + shock
        found[place] = last
    return found


def day(length: int, step: float = FIVE_MINUTES, phase: float = 0.3) -> Numbers:
    """A daily wave from 0 to 1."""
    return 0.5 + 0.5 * np.sin(2 * np.pi * (np.arange(length) * step / DAY - phase))


def daytime(length: int, step: float = FIVE_MINUTES) -> Numbers:
    """1 from 9 to 18 o'clock, else 0."""
    hour = np.arange(length) * step % DAY / 3600
    return ((hour >= 9) & (hour < 18)).astype(float)


def bursts(chance: Chance, length: int, every: float, size: Callable[[], float], decay: float) -> Numbers:
    """Sudden rises that decay, about ``every`` so many values."""
    found = np.zeros(length)
    for start in np.flatnonzero(chance.random(length) < 1 / every):
        tail = size() * np.exp(-np.arange(min(length - start, int(8 * decay) + 1)) / decay)
        found[start : start + len(tail)] += tail
    return found


def flat(chance: Chance) -> Drawn:
    return Drawn(values=np.full(4032, 45.0), moments=())


def square(chance: Chance) -> Drawn:
    return Drawn(values=20 + 60 * daytime(4032), moments=())


def square_noise(chance: Chance) -> Drawn:
    high = daytime(4032)
    return Drawn(values=18 + chance.uniform(0, 3, 4032) + high * (50 + chance.uniform(0, 15, 4032)), moments=())


def uniform(chance: Chance) -> Drawn:
    return Drawn(values=chance.uniform(18, 22, 4032), moments=())


def missing_day(chance: Chance) -> Drawn:
    values = square_noise(chance).values
    at = 9 * 288 + 108
    values[at : at + 108] = 18 + chance.uniform(0, 3, 108)
    return Drawn(values=values, moments=(at + 60,))


def day_jumps(chance: Chance) -> Drawn:
    values = square_noise(chance).values
    at = 10 * 288 + 130
    values[at : at + 40] += chance.choice([-40, 70])
    return Drawn(values=values, moments=(at + 20,))


def flat_day(chance: Chance) -> Drawn:
    values = square_noise(chance).values
    at = 9 * 288 + 108
    values[at : at + 108] = values[at - 1]
    return Drawn(values=values, moments=(at + 30,))


def spike_density(chance: Chance) -> Drawn:
    values = np.zeros(4032)
    values[::60] = 20
    at = int(chance.integers(1700, 2600))
    values[at : at + 400 : 9] = 20
    return Drawn(values=values, moments=(at + 150,))


def balancer(chance: Chance) -> Drawn:
    values = bursts(chance, 4032, 14, lambda: float(chance.uniform(0.3, 1.0)), 0.8)
    (at,) = places(chance, 4032, 1)
    values[at : at + 20] += 2.0 * chance.random(20)
    return Drawn(values=values, moments=(at,))


def cpu_quantised(chance: Chance) -> Drawn:
    base = chance.choice([0.066, 0.132, 0.134], 4032, p=[0.15, 0.45, 0.4])
    small = bursts(chance, 4032, 300, lambda: float(chance.uniform(0.05, 0.4)), 0.6)
    moments = places(chance, 4032, 2)
    for at in moments:
        small[at] += chance.uniform(1.5, 2.5)
    return Drawn(values=np.round(base + small, 3), moments=moments)


def cpu_noise(chance: Chance) -> Drawn:
    base = 43 + 2.5 * noise(chance, 4032) + bursts(chance, 4032, 900, lambda: float(chance.uniform(3, 8)), 1.5)
    first, second = places(chance, 4032, 2)
    base[first : first + 3] += 16
    base[second:] -= chance.uniform(3, 7)
    return Drawn(values=base, moments=(first, second))


def cpu_jump(chance: Chance) -> Drawn:
    base = 35 + 4 * noise(chance, 4032, 0.6) + 6 * day(4032)
    (at,) = places(chance, 4032, 1)
    base[at:] = 96 + 2 * noise(chance, 4032 - at)
    return Drawn(values=np.clip(base, 0, 100), moments=(at,))


def cpu_bursts(chance: Chance) -> Drawn:
    base = 2 + 0.1 * np.abs(noise(chance, 4032)) + bursts(chance, 4032, 140, lambda: float(chance.uniform(8, 30)), 2.0)
    (at,) = places(chance, 4032, 1)
    base[at : at + 60] += chance.uniform(20, 60)
    return Drawn(values=np.clip(base, 0, 100), moments=(at + 10,))


def cpu_drop(chance: Chance) -> Drawn:
    base = 93 + 3 * noise(chance, 4032, 0.4)
    (at,) = places(chance, 4032, 1)
    base[at : at + 90] -= chance.uniform(15, 70)
    return Drawn(values=np.clip(base, 0, 100), moments=(at,))


def cpu_daily(chance: Chance) -> Drawn:
    base = 14 + 5 * day(4032) + 0.8 * noise(chance, 4032, 0.3)
    base += bursts(chance, 4032, 500, lambda: float(chance.uniform(2, 5)), 2)
    first, second = places(chance, 4032, 2)
    base[first : first + 6] += 25
    base[second : second + 30] += 9
    return Drawn(values=base, moments=(first, second))


def cpu_loads(chance: Chance) -> Drawn:
    """A job that runs each few hours, then at another pace."""
    length = 8000
    base = 30 + 3 * noise(chance, length, 0.5)
    (at,) = places(chance, length, 1)
    for place in range(0, length, 72):
        base[place : place + 14] += 35
    base[at : at + 700] = 48 + 3 * noise(chance, 700, 0.5)
    return Drawn(values=base, moments=(at + 200,))


def disk_bursts(chance: Chance) -> Drawn:
    base = bursts(chance, 4032, 45, lambda: float(chance.lognormal(16, 0.8)), 1.2)
    moments = places(chance, 4032, 2)
    for at in moments:
        base[at : at + 12] += chance.lognormal(18.5, 0.3)
    return Drawn(values=np.round(base), moments=moments)


def network_noise(chance: Chance) -> Drawn:
    base = chance.lognormal(11, 0.3, 4032) + bursts(chance, 4032, 350, lambda: float(chance.lognormal(13, 0.7)), 1.0)
    first, second = places(chance, 4032, 2)
    base[first : first + 8] += chance.uniform(8e6, 2e7)
    base[second : second + 120] *= 0.05
    return Drawn(values=base, moments=(first, second + 10))


def requests_daily(chance: Chance) -> Drawn:
    rate = 25 + 70 * day(4032) ** 2
    values = chance.poisson(rate * chance.lognormal(0, 0.35, 4032)).astype(float)
    first, second = places(chance, 4032, 2)
    values[first : first + 3] += 420
    values[second : second + 8] += 260
    return Drawn(values=values, moments=(first, second))


def requests_frozen(chance: Chance) -> Drawn:
    values = 33 + 6 * noise(chance, 4600, 0.95) + 1.5 * noise(chance, 4600)
    first, second = places(chance, 4600, 2)
    values[first : first + 60] = values[first]
    values[second : second + 40] -= 30
    return Drawn(values=np.maximum(values, 0), moments=(first + 10, second))


def ads_cost(chance: Chance) -> Drawn:
    length = 1600
    values = (0.08 + 0.05 * day(length, 3600)) * chance.lognormal(0, 0.25, length)
    values += bursts(chance, length, 200, lambda: float(chance.uniform(0.05, 0.2)), 0.7)
    moments = places(chance, length, int(chance.integers(1, 4)))
    for at in moments:
        values[at : at + int(chance.integers(1, 4))] += chance.uniform(0.5, 2.5)
    return Drawn(values=values, moments=moments, step=3600)


def ads_impressions(chance: Chance) -> Drawn:
    length = 1600
    values = (0.5 + 0.4 * day(length, 3600)) * chance.lognormal(0, 0.2, length)
    first, second = places(chance, length, 2)
    values[first : first + 30] *= 2.2
    values[second : second + 24] *= 0.2
    return Drawn(values=values, moments=(first, second + 4), step=3600)


def known_room(chance: Chance) -> Drawn:
    length = 7267
    drift = 2.2 * noise(chance, length, 0.995)
    values = 71 + drift + 1.5 * day(length, 3600) + 0.4 * noise(chance, length)
    first, second = places(chance, length, 2)
    values[first : first + 40] -= 9
    values[second : second + 60] -= 10
    return Drawn(values=values, moments=(first, second), step=3600)


def known_machine(chance: Chance) -> Drawn:
    length = 22_000
    values = 88 + 5 * noise(chance, length, 0.997) + 1.2 * noise(chance, length, 0.5)
    moments = places(chance, length, 4)
    for at in moments:
        depth = float(chance.uniform(25, 70))
        fall = depth * np.concatenate([np.linspace(0, 1, 60), np.ones(80), np.linspace(1, 0, 150)])
        values[at - 40 : at + 250] -= fall
    return Drawn(values=values, moments=moments)


def known_latency(chance: Chance) -> Drawn:
    values = 45 + 1.3 * noise(chance, 4032, 0.3) + bursts(chance, 4032, 400, lambda: float(chance.uniform(3, 8)), 1)
    moments = places(chance, 4032, 3)
    for at, rise in zip(moments, (30, 12, 45), strict=True):
        values[at : at + 6] += rise
    return Drawn(values=values, moments=moments)


def known_taxi(chance: Chance) -> Drawn:
    length = 10_320
    weekday = (np.arange(length) // 48 % 7) < 5
    wave = 0.15 + day(length, 1800, 0.4) ** 1.3 * np.where(weekday, 1.0, 0.85)
    values = 22_000 * wave + 700 * noise(chance, length, 0.6)
    moments = places(chance, length, 5)
    for place, at in enumerate(moments):
        values[at : at + 48] *= (0.45, 1.45, 0.5, 1.5, 0.2)[place]
    return Drawn(values=np.maximum(values, 0), moments=tuple(at + 12 for at in moments), step=1800)


def known_keys(chance: Chance) -> Drawn:
    values = np.where(chance.random(1882) < 0.1, chance.lognormal(-3, 0.6, 1882), 0.0)
    first, second = places(chance, 1882, 2)
    values[first : first + 12] += chance.lognormal(-1.3, 0.4, 12)
    values[second : second + 8] += chance.lognormal(-0.9, 0.4, 8)
    return Drawn(values=values, moments=(first, second))


def traffic_speed(chance: Chance) -> Drawn:
    length, step = 2500, 480
    hour = np.arange(length) * step % DAY / 3600
    rush = np.exp(-((hour - 8) ** 2)) + np.exp(-((hour - 17) ** 2) / 2)
    busy = chance.uniform(0, 1, length // 180 + 1).repeat(180)[:length]
    values = 72 - 28 * rush * busy + 3.5 * noise(chance, length, 0.3)
    moments = places(chance, length, 2)
    for at in moments:
        values[at : at + 14] -= chance.uniform(30, 50)
    return Drawn(values=np.clip(np.round(values), 5, 90), moments=moments, step=step)


def traffic_occupancy(chance: Chance) -> Drawn:
    length, step = 2400, 480
    hour = np.arange(length) * step % DAY / 3600
    load = 3 + 6 * np.exp(-((hour - 8) ** 2) / 3) + 8 * np.exp(-((hour - 17) ** 2) / 3)
    values = load * chance.lognormal(0, 0.35, length)
    moments = places(chance, length, 2)
    for at in moments:
        values[at : at + 10] += chance.uniform(22, 40)
    return Drawn(values=np.round(values, 2), moments=moments, step=step)


def traffic_time(chance: Chance) -> Drawn:
    length, step = 2500, 700
    values = 90 * chance.lognormal(0, 0.25, length) * (1 + 0.8 * day(length, step) ** 3)
    values += bursts(chance, length, 60, lambda: float(chance.lognormal(5, 0.8)), 1.5)
    moments = places(chance, length, 2)
    for at in moments:
        values[at : at + 12] += chance.uniform(2000, 4500)
    return Drawn(values=np.round(values), moments=moments, step=step)


def tweets(chance: Chance) -> Drawn:
    length = 15_900
    level = float(chance.choice([3.0, 8.0, 20.0, 80.0]))
    rate = level * (0.3 + 1.4 * day(length)) * np.exp(0.35 * noise(chance, length, 0.9))
    rate = rate + level * bursts(chance, length, 350, lambda: float(1 + chance.pareto(2.2)), 4.0)
    moments = places(chance, length, int(chance.integers(2, 5)))
    for at in moments:
        size = level * float(chance.uniform(15, 60))
        rate[at : at + 60] += size * np.exp(-np.arange(60) / float(chance.uniform(2, 20)))
    return Drawn(values=chance.poisson(rate).astype(float), moments=moments)


RECIPES: dict[str, Callable[[Chance], Drawn]] = {
    "none_flat": flat,
    "none_square": square,
    "none_square-noise": square_noise,
    "none_uniform": uniform,
    "artificial_missing-day": missing_day,
    "artificial_day-jumps": day_jumps,
    "artificial_flat-day": flat_day,
    "artificial_spike-density": spike_density,
    "artificial_balancer": balancer,
    "cloud_cpu-quantised": cpu_quantised,
    "cloud_cpu-noise": cpu_noise,
    "cloud_cpu-jump": cpu_jump,
    "cloud_cpu-bursts": cpu_bursts,
    "cloud_cpu-drop": cpu_drop,
    "cloud_cpu-daily": cpu_daily,
    "cloud_disk": disk_bursts,
    "cloud_network": network_noise,
    "cloud_requests": requests_daily,
    "cloud_frozen": requests_frozen,
    "ads_cost": ads_cost,
    "ads_impressions": ads_impressions,
    "known_room": known_room,
    "known_cpu-loads": cpu_loads,
    "known_machine": known_machine,
    "known_latency": known_latency,
    "known_taxi": known_taxi,
    "known_keys": known_keys,
    "traffic_speed": traffic_speed,
    "traffic_occupancy": traffic_occupancy,
    "traffic_time": traffic_time,
    "tweets_1": tweets,
    "tweets_2": tweets,
    "tweets_3": tweets,
    "tweets_4": tweets,
}

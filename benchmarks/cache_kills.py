"""The campaign of kills: processes and servers of the cache die at seeded moments, and no acknowledged write is lost.

In each round a writer stores kernels, acknowledging each after its commit, while a relay works off the outbox, a mover
takes bytes out of L3 and brings them back, and a reader reads and forgets. One of them, or Redis, is killed (-9): at
a named step, or at a moment within the round. Then a process that knows nothing yet looks at what is left
(``cache_kill_roles.checker``). A seed always gives the same rounds: who writes what, who is killed, and where; how the
processes interleave, the machine decides.

- Redis comes back empty; the broker with what it had written to its disk.
- A step that is not reached (another process did that work first) is a kill after the work.
- Leases last half a second here, so that nobody waits five for a reader that was killed with one.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from benchmarks import cache_kill_roles as roles
from benchmarks.cache_kill_roles import ACKNOWLEDGED, DONE, Item, Step
from benchmarks.cache_site import Child, Site, in_fresh_process
from benchmarks.targets import Measurement

FULL_KILLS, QUICK_KILLS = 1000, 30
SEED = 2026
LEASE_SECONDS = 0.5
ROUND_SECONDS = 30.0
WRITES = 3
SIZES = ((0.70, 2_000, 100_000), (0.20, 100_000, 500_000), (0.08, 550_000, 1_500_000), (0.02, 4_200_000, 5_000_000))
"""Share of the kernels, and between how many bytes: within a chunk, of several chunks, of two segments."""
LATEST_MOMENT = 0.06
ROLES = ("writer", "mover", "relay", "reader")
VICTIMS = {"writer": 0.35, "relay": 0.32, "mover": 0.12, "reader": 0.07, "redis": 0.12, "broker": 0.02}
STEPS = {"relay": roles.RELAY_STEPS, "mover": roles.MOVER_STEPS, "reader": roles.READER_STEPS}
MODES = ("through", "back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """``step``, or a ``moment`` in seconds after the round began; ``in_turn``: one role after the other works."""

    number: int
    victim: str
    mode: str
    items: tuple[Item, ...]
    step: Step | None = None
    moment: float | None = None
    in_turn: bool = False

    @property
    def name(self) -> str:
        where = f"{self.step}" if self.step else f"at {self.moment * 1e3:.0f} ms" if self.moment is not None else ""
        return f"{self.number}: {self.victim} {where} ({self.mode})"


def seeded_rounds(count: int, seed: int) -> Iterator[Round]:
    """``count`` rounds; half of those that kill a process do so at a named step."""
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        victim = chance.choices(tuple(VICTIMS), tuple(VICTIMS.values()))[0]
        mode = chance.choice(MODES)
        steps = roles.WRITER_STEPS[mode] if victim == "writer" else STEPS.get(victim, ())
        step = None
        if steps and chance.random() < 0.5:
            step = Step(chance.choice(("before", "after")), chance.choice(steps), chance.randint(1, WRITES))
        moment = None if step else chance.uniform(0, LATEST_MOMENT)
        items = _items(chance, number)
        yield Round(number=number, victim=victim, mode=mode, items=items, step=step, moment=moment)


def named_rounds(seed: int) -> Iterator[Round]:
    """Every named step once, before and after, with nobody to do that work first."""
    named = [("writer", mode, name) for mode in MODES for name in roles.WRITER_STEPS[mode]]
    # Written back, what goes into L2 is left to the relay.
    named += [(role, "back", name) for role, names in STEPS.items() for name in names]
    for number, (victim, mode, name) in enumerate(named):
        for when in ("before", "after"):
            place = 2 * number + (when == "after")
            items = _items(random.Random(f"{seed} named {place}"), -1 - place, count=1)
            yield Round(number=place, victim=victim, mode=mode, items=items, step=Step(when, name), in_turn=True)


def _items(chance: random.Random, number: int, count: int = WRITES) -> tuple[Item, ...]:
    shares = [share for share, _, _ in SIZES]
    limits = chance.choices([size[1:] for size in SIZES], shares, k=count)
    return tuple(Item(number * WRITES + place, chance.randint(*limit)) for place, limit in enumerate(limits))


def conduct(site: Site, rounds: Sequence[Round], seed: int) -> dict[str, Any]:
    """Play the rounds and look at everything once more in the end. In a process with the environment of ``site``."""
    crew, began = Crew(site, seed), time.monotonic()
    crew.play(Round(number=-1, victim="", mode="back", items=_items(random.Random(seed), -1_000_000), in_turn=True))
    for played in rounds:
        crew.play(played)
    crew.end()
    for found in crew.check(tuple(crew.acknowledged), ()).values():
        crew.faults += [f"in the end: {fault}" for fault in found]
    return {
        "seed": seed,
        "kills": sum(crew.kills.values()),
        "kills_of": dict(crew.kills),
        "steps_reached": crew.steps_reached,
        "steps_missed": crew.steps_missed,
        "writes": crew.writes,
        "acknowledged": len(crew.acknowledged),
        "lost": crew.lost,
        "faults": crew.faults,
        "seconds": time.monotonic() - began,
    }


class Crew:
    """The processes of the roles: who is killed is replaced."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._chance = random.Random(f"{seed} crew")
        self._children: dict[str, Child] = {}
        self.acknowledged: list[Item] = []
        self.writes = 0
        self.kills = dict.fromkeys(VICTIMS, 0)
        self.steps_reached = 0
        self.steps_missed: list[str] = []
        self.lost: list[str] = []
        self.faults: list[str] = []
        """All that is wrong, the lost writes too."""

    def play(self, played: Round) -> None:
        """One round with its kill, and the look at what it left."""
        before = len(self.acknowledged)
        self._hire()
        orders = self._orders(played)
        alive = self._work_in_turn(played, orders) if played.in_turn else self._work_together(played, orders)
        self._see_to_the_kill(played, alive)
        fresh = self.acknowledged[before:]
        begun = [item for item in played.items if item not in fresh]
        found = self.check(fresh, begun)
        self.lost += [f"{played.name}: {fault}" for fault in found["lost"]]
        self.faults += [f"{played.name}: {kind}: {fault}" for kind, faults in found.items() for fault in faults]

    def check(self, acknowledged: Sequence[Item], begun: Sequence[Item]) -> dict[str, list[str]]:
        """What a fresh process finds."""
        child = Child(roles.checker, acknowledged, begun)
        found: dict[str, list[str]] = child.receive()
        child.end()
        return found

    def end(self) -> None:
        for child in self._children.values():
            child.kill()

    def _hire(self) -> None:
        for role in ROLES:
            if role not in self._children:
                self._children[role] = Child(getattr(roles, role))

    def _orders(self, played: Round) -> dict[str, Any]:
        self.writes += len(played.items)
        known = [item.digest for item in self._chance.sample(self.acknowledged, min(4, len(self.acknowledged)))]
        work = {"writer": (played.mode, played.items), "mover": known[:2], "relay": None, "reader": known}
        return {role: (played.step if role == played.victim else None, work[role]) for role in ROLES}

    def _work_in_turn(self, played: Round, orders: dict[str, Any]) -> set[str]:
        """Who is alive afterwards."""
        alive = set()
        for role in ROLES:
            self._children[role].send(orders[role])
            if role == "relay":
                self._children[role].send("stop")
            if self._is_done(role):
                alive.add(role)
        return alive

    def _work_together(self, played: Round, orders: dict[str, Any]) -> set[str]:
        """Who is alive afterwards; at the moment of the round, if it has one, its victim was killed."""
        began = time.monotonic()
        for role in ROLES:
            self._children[role].send(orders[role])
        if played.moment is not None:
            time.sleep(max(0.0, began + played.moment - time.monotonic()))
            self._kill(played.victim)
        alive = {role for role in ROLES if role != "relay" and self._is_done(role)}
        self._children["relay"].send("stop")
        return alive | ({"relay"} if self._is_done("relay") else set())

    def _kill(self, victim: str) -> None:
        if victim in ROLES:
            self._children[victim].kill()
            return
        server = self._site.l2 if victim == "redis" else self._site.broker
        server.kill()
        server.start()

    def _is_done(self, role: str) -> bool:
        """Wait until the role has done its work, noting what it says; False: it died instead.

        Raises:
            RuntimeError: neither within ROUND_SECONDS.
        """
        child = self._children[role]
        try:
            while wait([child.pipe], ROUND_SECONDS):
                kind, what = child.receive()
                if kind == ACKNOWLEDGED:
                    self.acknowledged.append(what)
                elif kind == DONE:
                    self.faults += [f"read beside: {fault}" for fault in what or ()]
                    return True
        except EOFError:
            return False
        raise RuntimeError(f"the {role} does not get on")

    def _see_to_the_kill(self, played: Round, alive: set[str]) -> None:
        """Count it; kill who has not come by its step; replace the dead."""
        for role in set(ROLES) - alive - {played.victim}:
            self.faults.append(f"{played.name}: the {role} died of itself")
        if played.victim:
            self.kills[played.victim] += 1
        if played.step is not None:
            if played.victim in alive:
                self.steps_missed.append(played.name)
                self._children[played.victim].kill()
            else:
                self.steps_reached += 1
        for role in [role for role, child in self._children.items() if role not in alive or not child.is_alive]:
            self._children.pop(role).end()


def run(site: Site, kills: int, say: Callable[[str], Any]) -> dict[str, Any]:
    """The named steps (some of them, where they would be more than half), then seeded rounds: ``kills`` in all."""
    every = list(named_rounds(SEED))
    named = random.Random(SEED).sample(every, min(len(every), kills // 2))
    rounds = [*named, *seeded_rounds(kills - len(named), SEED)]
    say(f"{len(rounds):,} kills ...")
    found: dict[str, Any] = in_fresh_process(conduct, site, rounds, SEED)
    return found


def measurements(found: dict[str, Any]) -> dict[str, Measurement]:
    lost = Measurement(value=float(len(found["lost"])), n=found["kills"], spread=0.0)
    return {"acknowledged_writes_lost_in_1000_kills": lost}


def lines(found: dict[str, Any]) -> list[str]:
    """For people: who was killed, and all that was wrong afterwards."""
    killed = ", ".join(f"{count} of {victim}" for victim, count in found["kills_of"].items())
    return [
        f"  {found['kills']:,} kills in {found['seconds']:.0f} s ({killed}), {found['steps_reached']} at a named step; "
        f"seed {found['seed']}",
        f"  {found['writes']:,} writes, {found['acknowledged']:,} acknowledged; {len(found['lost'])} lost, "
        f"{len(found['faults'])} faults in all",
        *(f"  {fault}" for fault in found["faults"]),
    ]

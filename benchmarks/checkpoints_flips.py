"""One bit of a kept state flipped, and the state restored: who notices?

Ours: one bit in each region of the pack and of the manifest, and 200 more in each file at seeded places. The others:
one bit in the bytes of a tensor.
"""

import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.checkpoints_processes import Work, serving
from benchmarks.targets import Measurement

RANDOM_FLIPS = 200
SEED = 2026
MEGABYTES = 4
"""Every flip is one more restore of the whole state."""


class Flips:
    """Restores damaged states, each system its own."""

    def ours(self, work: Work, count: int) -> dict[str, Any]:
        """{"regions": {name: noticed}, "random": {"pack": [flips, noticed], ...}, "undetected": n, "flips": n}"""
        from apps.checkpoints.adapter import System
        from apps.checkpoints.store.folder import Folder

        root = work.folder / "flips"
        state = _state(work)
        system = System(root)
        saved = system.finish(system.begin(state, "damaged"))
        folder = Folder(root)
        pack, manifest = folder.pack_path(saved.packs[0].pack_id), folder.manifest_path(saved.manifest.id)
        chance = random.Random(SEED)
        regions = {}
        for path, spans in ((pack, _regions_of_pack(saved.packs[0])), (manifest, _regions_of_manifest(manifest))):
            for name, start, stop in spans:
                regions[name] = _notices(system, path, chance.randrange(start * 8, stop * 8))
        rows = {}
        for name, path in (("pack", pack), ("manifest", manifest)):
            size = path.stat().st_size * 8
            rows[name] = [_notices(system, path, chance.randrange(size)) for _ in range(count)]
        system.close()
        shutil.rmtree(root)
        every = [*regions.values(), *(noticed for row in rows.values() for noticed in row)]
        return {
            "regions": regions,
            "random": {name: {"flips": len(row), "noticed": sum(row)} for name, row in rows.items()},
            "flips": len(every),
            "undetected": len(every) - sum(every),
        }

    def peer(self, name: str, work: Work) -> str:
        """What one flipped bit of a tensor did."""
        from benchmarks import checkpoints_systems as systems

        systems.quiet()
        state = _state(work)
        root = work.folder / "flips-peer"
        system = systems.SYSTEMS[name](root)
        system.finish(system.begin(state, "damaged"))
        path, bit = _in_tensor(root, state)
        flip(path, bit)
        try:
            found = system.restore("damaged")
            outcome = "not noticed" if systems.digest(found) == systems.digest(state) else "restored silently wrong"
        except Exception as error:
            outcome = f"noticed: {type(error).__name__}"
        system.close()
        shutil.rmtree(root)
        return outcome


def measure(work: Work, *, flips: int) -> dict[str, Any]:
    from benchmarks.checkpoints_systems import SYSTEMS

    with serving(Flips) as peer:
        found = {"ours": peer.ask("ours", work, flips)}
        peers = {name: peer.ask("peer", name, work) for name in SYSTEMS if name != "ours"}
        return {**found, "peers": peers}


def measurements(found: Mapping[str, Any]) -> dict[str, Measurement]:
    ours = found["ours"]
    return {"bit_flips_undetected": Measurement(value=ours["undetected"], n=ours["flips"], spread=0.0)}


def lines(found: Mapping[str, Any]) -> list[str]:
    ours = found["ours"]
    said = ", ".join(f"{row['noticed']} of {row['flips']} in the {name}" for name, row in ours["random"].items())
    regions = f"{sum(ours['regions'].values())} of {len(ours['regions'])} regions"
    return [
        f"  {'ours':<18}noticed: {regions}; at random places {said}",
        *(f"  {name:<18}{outcome}" for name, outcome in found["peers"].items()),
    ]


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file over, in place; the same again undoes it."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def _notices(system: Any, path: Path, bit: int) -> bool:
    from apps.checkpoints.store.errors import CorruptCheckpoint

    flip(path, bit)
    try:
        system.restore("damaged")
    except CorruptCheckpoint:
        return True
    finally:
        flip(path, bit)
    return False


def _regions_of_pack(index: Any) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, byte after the last) as ``apps.checkpoints.store.packs`` lays a pack out."""
    from apps.checkpoints.store.packs import HEADER_BYTES, TRAILER_BYTES

    yield "pack: magic number", 0, 8
    yield "pack: its id", 8, HEADER_BYTES
    for number, entry in enumerate(index.entries):
        yield f"pack: object {number}", entry.offset, entry.end
    trailer = index.size - TRAILER_BYTES
    yield "pack: index", index.entries[-1].end, trailer
    yield "pack: length of the index", trailer, trailer + 8
    yield "pack: digest of the index", trailer + 8, trailer + 40
    yield "pack: end mark", trailer + 40, index.size


def _regions_of_manifest(path: Path) -> Iterator[tuple[str, int, int]]:
    yield "manifest: prefix", 0, 7
    yield "manifest: digest", 7, 71
    yield "manifest: end of the first line", 71, 72
    yield "manifest: body", 72, path.stat().st_size


def _state(work: Work) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(work.state)
    return state


def _in_tensor(root: Path, state: dict[str, Any]) -> tuple[Path, int]:
    """A bit in the middle of the largest weight; in a compressed file, in the middle of it."""
    path = max((path for path in root.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    weight = max(state["model"].values(), key=lambda tensor: tensor.nbytes)
    middle = weight.reshape(-1)[weight.numel() // 2 :][:64].numpy().tobytes()
    at = data.find(middle)
    return path, 8 * (at if at >= 0 else len(data) // 2) + 3

"""The checkpoint store for programs without the platform: a folder, and nested dictionaries of tensors.

    system = System("/data/checkpoints")
    handle = system.begin({"model": {...}, "optimizer": {...}, "step": 120}, "step-120")   # training may go on
    system.finish(handle)                                                                  # it is durable
    state = system.restore("step-120")
    model = system.restore_component("step-120", "model")

The index is the folder's own files, so any process may restore what another has saved. It needs no Django.
"""

import json
import string
from collections.abc import Collection, Mapping
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.index import FolderIndex, Saved
from apps.checkpoints.store.manifests import COMPONENT, Manifest, parse
from apps.checkpoints.store.restoring import FolderSource, load
from apps.checkpoints.store.saving import Handle, Meta, Saver
from apps.core.ids import new_id

KEY, NAMES = "key", "names"
"""Labels of a manifest: the caller's key; and, as JSON, the names of the components where they are no words."""
WHOLE = "state"
"""The one component of a state that has no named parts."""
MOST_COMPONENTS = 32
"""A dictionary with more entries is kept as one component: its small tensors share objects only within one."""

_NOBODY = UUID(int=0)


class System:
    """A store of checkpoints in the folder ``root``, each found again by its key. Threads may share it."""

    def __init__(self, root: str | Path) -> None:
        self.folder = Folder(Path(root))
        self._saver = Saver(self.folder, FolderIndex(self.folder))

    def begin(self, state: Any, key: str, *, frozen: Collection[Any] = ()) -> Handle:
        """Copy ``state``, and return as soon as training may go on.

        ``frozen``: tensors of it that nobody writes to any more; they are read where they are, and cost no time here.

        Raises:
            UnsupportedState: it holds something else than tensors, arrays, scalars, and containers of these.
        """
        components, names = _split(state)
        labels = {KEY: key} | ({} if names is None else {NAMES: json.dumps(names)})
        meta = Meta(id=new_id(), run_id=_NOBODY, workspace_id=_NOBODY, reason="adapter", labels=labels)
        handle = self._saver.begin(components, meta, frozen={id(tensor) for tensor in frozen})
        if handle is None:
            raise AssertionError("a save that may wait is never refused")
        return handle

    def finish(self, handle: Handle) -> Saved:
        """Return once it is durable. Raises what went wrong, such as OSError (a full disk)."""
        return handle.wait()

    def restore(self, key: str) -> Any:
        """The state that was last saved under ``key``, every byte of it verified; tensors are on the CPU.

        Raises:
            KeyError: none was. CorruptCheckpoint: it, or one that may be it, is not what was written.
        """
        manifest, source = self._find(key)
        found = load(manifest, source, torch=True)
        if NAMES in manifest.labels:
            return dict(zip(json.loads(manifest.labels[NAMES]), found.values(), strict=True))
        return found[WHOLE] if _is_whole(manifest) else found

    def restore_component(self, key: str, name: str) -> Any:
        """What stood under ``name`` in the state; only its bytes are read.

        Raises:
            KeyError, CorruptCheckpoint: as ``restore``, and KeyError also for a name that is not there.
        """
        manifest, source = self._find(key)
        if _is_whole(manifest):
            return load(manifest, source, torch=True)[WHOLE][name]
        if NAMES in manifest.labels:
            names = json.loads(manifest.labels[NAMES])
            if name not in names:
                raise KeyError(name)
            component = list(manifest.components)[names.index(name)]
        else:
            component = name
        return load(manifest, source, [component], torch=True)[component]

    def size(self) -> int:
        """Bytes on the disk of all that was saved."""
        return self.folder.size()

    def close(self) -> None:
        """Wait for what is in flight, and end the threads."""
        self._saver.close()

    def _find(self, key: str) -> tuple[Manifest, FolderSource]:
        """Ids are in the order of time, so the greatest is the newest."""
        index = FolderIndex(self.folder)  # read anew: another process may have saved, or the disk have failed
        found = {manifest.id: manifest for manifest in index.checkpoints() if manifest.labels.get(KEY) == key}
        newest = max(found, default=None)
        for manifest_id in sorted(index.damaged, reverse=True):
            if self.folder.has_manifest(manifest_id) and (newest is None or manifest_id > newest):
                self._refuse_if_of(key, manifest_id, index)
        if newest is None:
            raise KeyError(key)
        return found[newest], FolderSource(self.folder, index.place)

    def _refuse_if_of(self, key: str, manifest_id: UUID, index: FolderIndex) -> None:
        """A damaged checkpoint of this key must not be passed over for an older one. Raises CorruptCheckpoint."""
        problem = index.damaged[manifest_id]
        try:
            if parse(self.folder.read_manifest(manifest_id), manifest_id).labels.get(KEY) != key:
                return
        except CorruptCheckpoint:
            pass  # nobody can tell whose it is
        packs = "; ".join(
            f"pack {pack}: {error}" for pack, error in index.damaged.items() if self.folder.has_pack(pack)
        )
        raise CorruptCheckpoint(
            f"{problem.message} (checkpoint {manifest_id}; {packs or 'its packs are sound'})",
            part=problem.part,
            digest=problem.digest,
        ) from problem


def _split(state: Any) -> tuple[Mapping[str, Any], list[str] | None]:
    """Components of a state, and their names where these are none that a manifest takes."""
    if not isinstance(state, dict) or not 0 < len(state) <= MOST_COMPONENTS or set(map(type, state)) != {str}:
        return {WHOLE: state}, None
    if WHOLE not in state and all(COMPONENT.fullmatch(name) for name in state):
        return state, None
    letters = product(string.ascii_lowercase, repeat=2)
    return {f"part_{a}{b}": tree for (a, b), tree in zip(letters, state.values(), strict=False)}, list(state)


def _is_whole(manifest: Manifest) -> bool:
    return NAMES not in manifest.labels and list(manifest.components) == [WHOLE]

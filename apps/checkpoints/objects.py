"""One object of a checkpoint, read and verified."""

from apps.checkpoints.store import encodings
from apps.checkpoints.store.packs import check_raw, check_stored
from apps.checkpoints.store.restoring import Source


def read_object(source: Source, digest: str) -> memoryview:
    """The raw bytes of an object, 8 MiB at most.

    Raises:
        CorruptCheckpoint: they are gone, or not those that were stored. Whatever else the source raises.
    """
    place = source.place(digest)
    entry = place.entry
    stored = memoryview(bytearray(entry.stored_size))
    count = source.read_into(place.pack_id, entry.offset, stored)
    check_stored(entry, stored[:count])
    raw = encodings.decode(entry.encoding, stored, entry.raw_size, entry.itemsize)
    check_raw(entry, raw)
    return raw

"""Small flat objects that users attach to assets: cards and tags."""

from collections.abc import Mapping
from typing import Any

from apps.core.errors import Invalid
from apps.core.parsers import is_storable

MAX_MEMBERS = 32
MAX_NAME = 100
MAX_TEXT = 4000


def flat_object(pointer: str, values: Any) -> dict[str, Any]:
    """``values`` as a dict: at most 32 members of text, numbers, true, false, null, or lists of these.

    Raises:
        Invalid: ``pointer`` or the member below it is at fault.
    """
    if not isinstance(values, Mapping):
        raise Invalid("must be an object", pointer=pointer, code="type")
    if len(values) > MAX_MEMBERS:
        raise Invalid(f"has {len(values)} members; at most {MAX_MEMBERS}", pointer=pointer, code="too_many")
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        if not all(item is None or isinstance(item, str | int | float) for item in items):
            raise Invalid("must be text, a number, true, false, null or a list of these", pointer=f"{pointer}/{name}")
        if len(name) > MAX_NAME or len(str(value)) > MAX_TEXT:
            raise Invalid(f"is longer than {MAX_TEXT} characters", pointer=f"{pointer}/{name}")
        if not is_storable(name):
            raise Invalid("has a name that holds a NUL or half of a surrogate pair", pointer=pointer)
        if not all(map(is_storable, items)):
            detail = "holds a NUL, half of a surrogate pair or a number that is too large"
            raise Invalid(detail, pointer=f"{pointer}/{name}")
    return dict(values)

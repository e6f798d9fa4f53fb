"""The static files are looked up once a session, not once for each test that asks for a page: they stay the same."""

from collections.abc import Iterator
from typing import Any

import pytest
from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]

_indexes: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="session", autouse=True)
def _index_static_files_once() -> Iterator[None]:
    """Every test client loads the middleware anew, and that would list and stat some 250 files for each."""
    list_files = WhiteNoiseMiddleware.add_files_from_finders

    def add_files(self: Any) -> None:
        if self.static_prefix not in _indexes:
            others, self.files = self.files, {}
            list_files(self)
            _indexes[self.static_prefix], self.files = self.files, others
        self.files.update(_indexes[self.static_prefix])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add_files)
        yield

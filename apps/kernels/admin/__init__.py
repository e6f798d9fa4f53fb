"""The admin of kernels, one module for each kind of thing. The order of the imports is that of the menu."""

from apps.kernels.admin import kernels, aliases, tags, outcomes, retention, cache  # noqa: F401, I001 - they register their models

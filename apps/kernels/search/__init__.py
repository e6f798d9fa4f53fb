"""The search of kernels: one abstract syntax (``nodes``), spelled as text or as JSON, one compiler to SQL.

node = search.parse("tags.arch in ('conv', 'attn') and usage_count > 100")
search.matching(node)                                   # a queryset
search.run(search.Query(filter=node, page_size=20))     # a page of plain rows
"""

from apps.kernels.search.fields import FIELDS
from apps.kernels.search.matching import matching
from apps.kernels.search.nodes import EVERYTHING, Node
from apps.kernels.search.running import Page, Query, run
from apps.kernels.search.text import parse, to_text
from apps.kernels.search.tree import from_json, to_json

__all__ = [
    "EVERYTHING",
    "FIELDS",
    "Node",
    "Page",
    "Query",
    "from_json",
    "matching",
    "parse",
    "run",
    "to_json",
    "to_text",
]

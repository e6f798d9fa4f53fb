"""Pages as their readers see them."""

import re
from html import unescape

from django.test import Client

TAG = re.compile(r"<[^>]+>")


def page_of(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return answer.content.decode()


def words_of(html: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(unescape(TAG.sub(" ", html)).replace("\xa0", " ").split())

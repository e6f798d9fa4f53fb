"""Label matchers as clients send and read them (``apps.observability.matchers``)."""

from apps.core.serializers import Choice, StrictSerializer, Text
from apps.observability.matchers import LONGEST, OPERATORS


class LabelMatcher(StrictSerializer):
    """A label that is not there has the empty value; regular expressions match the whole value."""

    label = Text(max_length=60)  # type: ignore[assignment]  # a member of this name
    op = Choice(choices=[(op, op) for op in OPERATORS])
    value = Text(max_length=LONGEST, allow_blank=True, trim_whitespace=False)

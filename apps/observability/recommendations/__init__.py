"""What people should do next, each with what it was concluded from.

``contracts``: what a rule is and what it says; ``facts``: what rules are told of; ``capacity``, ``growth`` and
``attention``: what they look for; ``rules``: all of them with their limits, as data.
"""

"""Retirement, read only: the rules, what they need to know, plans in draft, explanations. ``services`` writes."""

"""What is read every 15 seconds besides what the other apps tell: hosts, servers, queues, the cache, running runs.

Each registers its families in ``apps.core.registry``: `/metrics` and the store read the same functions, so that a
series has one name and one meaning.
"""

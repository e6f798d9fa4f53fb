"""The store of metrics: ``writing`` and ``reading`` are its doors. docs/metrics.md says how it is laid out.

Samples of the last days lie one a row; older hours packed, one row an hour (``packing``); averages of five minutes and
of an hour are made beside them (``services.upkeep``). Times are whole milliseconds, as Prometheus has them.
"""

"""The embedded default: real PostgreSQL and two real Valkeys under our own small supervisor.

Nothing here imports Django: `manage.py` reads this package before the settings exist.

| module | subject |
|---|---|
| `up` | the command line `manage.py up`, start to stop |
| `stack` | which services run where; attach to a running stack; run a command inside one |
| `postgres`, `valkey` | find the binary, make the data, the command line, ready or not |
| `processes` | the table of web, workers and beat |
| `supervisor` | one loop: start, watch, restart, stop, pump logs |
| `process`, `keeper`, `privileges` | one child that cannot outlive us and does not run as root |
| `state`, `home`, `ports` | what is remembered, where, and on which ports |
"""

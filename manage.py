#!/usr/bin/env python
"""Django's command line, with two additions: `up` starts the stack, and every other command joins a stack that runs."""

import os
import sys

from esper_site.embedded.errors import StackError


def main() -> int:
    if sys.argv[1:2] == ["up"]:
        # Before Django: `up` is what makes the servers that the settings describe.
        from esper_site.embedded.up import main as up

        return up(sys.argv[2:])
    from esper_site.embedded.stack import environment

    try:
        os.environ.update(environment())
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "esper_site.settings.dev")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.stderr.write("Django is not installed for this Python. Run `make setup`, then use .venv/bin/python.\n")
        return 1
    from django.core.exceptions import ImproperlyConfigured
    from django.db import OperationalError
    from environs import EnvError

    try:
        execute_from_command_line(sys.argv)
    except (EnvError, ImproperlyConfigured) as error:  # a variable has a wrong value: the message names it
        sys.stderr.write(f"{error}\n")
        return 1
    except OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        sys.stderr.write(
            f"The database does not answer: {reason}\nStart it, or correct DATABASE_URL; `make serve` runs one.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

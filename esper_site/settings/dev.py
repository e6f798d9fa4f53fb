"""The embedded default: one machine, loopback only. `manage.py up` generates the secret key and the passwords."""

from esper_site.settings.base import *
from esper_site.settings.base import SECRET_KEY, STORAGES, env

DEBUG = env.bool("ESPER_DEBUG", False)
# Commands that run without a stack (check, makemigrations) sign nothing; `up` gives every process the stored key.
SECRET_KEY = SECRET_KEY or "no-stack-is-running-so-nothing-is-signed-with-this-placeholder"
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}

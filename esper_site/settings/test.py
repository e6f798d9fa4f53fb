"""For pytest: fast password hashing, plain static files. Servers come from tests/support/stack.py."""

from esper_site.settings.base import *
from esper_site.settings.base import REST_FRAMEWORK, STORAGES

SECRET_KEY = "only-for-tests-" + "x" * 40
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
REST_FRAMEWORK = {
    **REST_FRAMEWORK,
    "DEFAULT_THROTTLE_RATES": {"read": None, "write": None, "login": None, "login_address": None},
}

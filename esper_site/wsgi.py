import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "esper_site.settings.dev")

application = get_wsgi_application()

from apps.kernels.cache import process  # noqa: E402 - needs the settings
from apps.observability.collectors.reporter import reporter  # noqa: E402 - likewise

process.start()
reporter.start()

# What is loaded by now lives as long as the process: the collector need not look at it again with every request.
gc.collect()
gc.freeze()

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "esper_site.settings.dev")

application = get_wsgi_application()

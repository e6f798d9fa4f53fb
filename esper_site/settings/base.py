"""Settings shared by every environment. Everything that differs between machines comes from the environment.

Importing this module touches no server: settings load with no stack running, so that `manage.py up` can start one.
``docs/configuration.md`` lists every variable.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from environs import Env
from redis.backoff import NoBackoff
from redis.retry import Retry

from esper_site.settings import mail, object_storage, process_metrics

env = Env()

BASE_DIR = Path(__file__).resolve().parent.parent.parent
ESPER_HOME = Path(env.str("ESPER_HOME", str(BASE_DIR / ".esper")))

SECRET_KEY = env.str("ESPER_SECRET_KEY", "")
DEBUG = False
ALLOWED_HOSTS: list[str] = env.list("ESPER_ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("ESPER_TRUSTED_ORIGINS", [])

INSTALLED_APPS = [
    "apps.core",
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_celery_beat",
    "django_filters",
    "django_htmx",
    "django_prometheus",
    "django_structlog",
    "drf_spectacular",
    "knox",
    "pgtrigger",
    "rest_framework",
    "storages",
    "apps.audit",
    "apps.accounts",
    "apps.blueprints",
    "apps.kernels",
    "apps.checkpoints",
    "apps.observability",
    "apps.training",
    "apps.dashboards",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "apps.core.middleware.RequestContext",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "apps.core.middleware.SecurityHeaders",
    "apps.core.middleware.StripTrailingSlash",
    "apps.core.middleware.LimitBody",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "apps.core.middleware.ServiceErrors",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "esper_site.urls"
WSGI_APPLICATION = "esper_site.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Database: the application role; migrations use DATABASE_OWNER_URL (apps.core.management.commands.migrate).
NO_DATABASE = "postgresql://esper_app@127.0.0.1:1/esper"  # refused at once; the system check names the remedy
DATABASE_URL = env.str("DATABASE_URL", NO_DATABASE)
DATABASE_OWNER_URL = env.str("DATABASE_OWNER_URL", DATABASE_URL)
# A new connection costs more than most requests: the web process keeps one a thread (processes.web), asked whether it
# still lives before each request.
KEEP_SECONDS = env.int("ESPER_DB_KEEP_SECONDS", 0)
DATABASES = {"default": env.dj_db_url("DATABASE_URL", NO_DATABASE, conn_max_age=KEEP_SECONDS, conn_health_checks=True)}
DATABASES["default"].setdefault("OPTIONS", {})
if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    DATABASES["default"]["OPTIONS"]["connect_timeout"] = 5
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Redis/Valkey: the cache may lose anything; the broker evicts nothing.
REDIS_URL = env.str("REDIS_URL", "redis://127.0.0.1:1/0")
BROKER_URL = env.str("BROKER_URL", "redis://127.0.0.1:1/0")
REDIS_CLIENT = {
    "SERIALIZER": "django_redis.serializers.json.JSONSerializer",  # never pickle
    "SOCKET_CONNECT_TIMEOUT": 0.2,
    "SOCKET_TIMEOUT": 0.2,
    "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 0)},  # redis-py's ten retries make one GET take seconds
}
THROTTLE_CLIENT = {**REDIS_CLIENT, "SOCKET_CONNECT_TIMEOUT": 0.05, "SOCKET_TIMEOUT": 0.05}
CACHES = {
    "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL, "OPTIONS": REDIS_CLIENT},
    "throttle": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": BROKER_URL, "OPTIONS": THROTTLE_CLIENT},
}
SESSION_ENGINE = "django.contrib.sessions.backends.db"

# --- Files: object storage for checkpoints and archives; a folder by default, any S3 by environment.
MEDIA_ROOT = ESPER_HOME / "objects"
S3_BUCKET = env.str("ESPER_S3_BUCKET", "")
OBJECT_STORAGE = (
    object_storage.bucket(
        S3_BUCKET,
        endpoint=env.str("ESPER_S3_ENDPOINT", ""),
        connect_seconds=env.float("ESPER_S3_CONNECT_SECONDS", 2.0),
        read_seconds=env.float("ESPER_S3_READ_SECONDS", 5.0),
        attempts=env.int("ESPER_S3_ATTEMPTS", 2),
    )
    if S3_BUCKET
    else object_storage.folder(MEDIA_ROOT)
)
STORAGES = {
    "default": OBJECT_STORAGE,
    "checkpoints": OBJECT_STORAGE,
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
CHECKPOINTS_ROOT = Path(env.str("ESPER_CHECKPOINTS", str(ESPER_HOME / "checkpoints")))
CHECKPOINT_COPIES = env.bool("ESPER_CHECKPOINT_COPIES", bool(S3_BUCKET))
STATIC_URL = "/static/"
STATIC_ROOT = ESPER_HOME / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True

# --- Accounts
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login"
KNOX_TOKEN_MODEL = "accounts.ApiToken"  # noqa: S105 - a model's name
REST_KNOX = {"AUTH_HEADER_PREFIX": "Bearer", "TOKEN_TTL": timedelta(days=30), "TOKEN_PREFIX": "esper_"}

# --- API
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.accounts.authentication.Bearer", "apps.accounts.authentication.Session"],
    "DEFAULT_PERMISSION_CLASSES": ["apps.core.permissions.HasScope"],
    "DEFAULT_PAGINATION_CLASS": "apps.core.pagination.KeysetPagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PARSER_CLASSES": ["apps.core.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "apps.core.schema.EsperSchema",
    "DEFAULT_THROTTLE_CLASSES": ["apps.core.throttling.ReadThrottle", "apps.core.throttling.WriteThrottle"],
    "DEFAULT_THROTTLE_RATES": {"read": "6000/min", "write": "600/min", "login": "10/min", "login_address": "60/min"},
    "EXCEPTION_HANDLER": "apps.core.problems.exception_handler",
    "NON_FIELD_ERRORS_KEY": "",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
MAX_JSON_BODY = 1 << 20
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 << 20
SPECTACULAR_SETTINGS = {
    "TITLE": "Esper",
    "DESCRIPTION": "Grow neural networks while they train.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "apps.core.schema.add_problems",
    ],
    "ENUM_NAME_OVERRIDES": {
        "RunState": "apps.training.lifecycle.RunState",
        "RunKind": "apps.training.models.RunKind",
        "CreatableRunKind": "apps.training.api.requests.CREATABLE",
        "SeedState": "apps.morphogenesis.lifecycle.SeedState",
        "KernelState": "apps.kernels.lifecycle.KernelState",
        "PlanState": "apps.kernels.lifecycle.PlanState",
        "CachePlanState": "apps.kernels.lifecycle.CachePlanState",
        "CachePlanKind": "apps.kernels.models.CachePlanKind",
        "CacheMovePlace": "apps.kernels.api.cache_forms.PLACES",
        "BreakerState": "apps.kernels.api.cache_forms.BREAKER_STATES",
        "BlobSizeClass": "apps.kernels.cache.stats.SIZE_CLASSES",
        "CachePolicy": "apps.kernels.cache.config.POLICIES",
        "CacheScope": "apps.kernels.cache.reporting.SCOPES",
        "CacheTierName": "apps.kernels.api.cache_forms.TIERS",
        "CacheWindow": "apps.kernels.cache.reporting.WINDOWS",
        "OperationState": "apps.core.operations.STATES",
        "NotificationState": "apps.observability.lifecycle.NotificationState",
        "AlertChannel": "apps.observability.models.Channel",
        "SeriesKind": "apps.observability.models.SeriesKind",
        "SeriesSource": "apps.observability.models.SeriesSource",
        "MatcherOperator": "apps.observability.matchers.OPERATORS",
        "StorageTier": "apps.kernels.models.StorageTier",
        "VersionState": "apps.blueprints.lifecycle.VersionState",
        "CheckpointState": "apps.checkpoints.lifecycle.CheckpointState",
        "CheckpointLocation": "apps.checkpoints.models.Location",
        "CheckpointReason": "apps.checkpoints.models.SaveReason",
        "CheckpointSchedule": "apps.checkpoints.models.Schedule",
        "CheckpointJobKind": "apps.checkpoints.models.JobKind",
        "RecoveryState": "apps.training.lifecycle.RecoveryState",
        "RecoveryCause": "apps.training.models.RecoveryCause",
        "AlertState": "apps.observability.lifecycle.AlertState",
        "AlertSeverity": "apps.observability.models.Severity",
        "AlertRuleKind": "apps.observability.models.RuleKind",
        "SilenceState": "apps.observability.api.alert_forms.SILENCE_STATES",
        "LineageKind": "apps.kernels.api.lineage.KINDS",
        "TagType": "apps.kernels.models.tags.TagType",
        "IndexState": "apps.kernels.models.tags.IndexState",
        "ReportKind": "apps.audit.api.reports.KINDS",
        "ReportState": "apps.audit.lifecycle.ReportState",
    },
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "a token: `manage.py issue_token`"},
            "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
        }
    },
    "SORT_OPERATIONS": True,
}

# --- Celery: JSON only, late acknowledgement, one message at a time; a redelivery finds the run leased: a no-op.
CELERY_BROKER_URL = BROKER_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600, "socket_connect_timeout": 2, "socket_timeout": 10}
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "apps.training.tasks.train_segment": {"queue": "train"},
    "apps.kernels.tasks.compile_kernel": {"queue": "compile"},
}
REQUIRED_QUEUES = ("default", "train", "compile")
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SYNC_EVERY = 1

# --- Runs
LEASE_SECONDS = env.float("ESPER_LEASE_SECONDS", 10.0)
HEARTBEAT_SECONDS = env.float("ESPER_HEARTBEAT_SECONDS", 2.0)
SEGMENT_EPOCHS = env.int("ESPER_SEGMENT_EPOCHS", 50)
ORPHAN_SCAN_SECONDS = env.float("ESPER_ORPHAN_SCAN_SECONDS", 5.0)
COMPILE_PATIENCE_SECONDS = env.float("ESPER_COMPILE_PATIENCE_SECONDS", 600.0)
TORCH_THREADS = env.int("ESPER_TORCH_THREADS", 1)

# --- The kernel cache: docs/cache.md. apps.kernels.cache.config checks the values.
KERNEL_CACHE: dict[str, Any] = {
    "l1_bytes": env.int("ESPER_CACHE_L1_BYTES", 128 << 20),
    "policy": env.str("ESPER_CACHE_POLICY", "cost-aware"),
    "l2_url": env.str("ESPER_CACHE_L2_URL", REDIS_URL),
    "l2_cluster": env.bool("ESPER_CACHE_L2_CLUSTER", False),
    "l2_ttl": env.float("ESPER_CACHE_L2_TTL", 86_400.0),
    "l2_timeout_ms": env.float("ESPER_CACHE_L2_TIMEOUT_MS", 50.0),
    "l2_ms_per_mib": env.float("ESPER_CACHE_L2_MS_PER_MIB", 20.0),
    "l2_largest": env.int("ESPER_CACHE_L2_LARGEST", 32 << 20),
    "write": env.str("ESPER_CACHE_WRITE", "through"),
    "copies": env.bool("ESPER_CACHE_COPIES", True),
    "half_life": env.float("ESPER_CACHE_HALF_LIFE", 3_600.0),
    "hot_reads": env.float("ESPER_CACHE_HOT_READS", 4.0),
    "cold_after_days": env.float("ESPER_CACHE_COLD_AFTER_DAYS", 90.0),
    "warm_share": env.float("ESPER_CACHE_WARM_SHARE", 0.8),
    "warm_bytes_per_second": env.int("ESPER_CACHE_WARM_BYTES_PER_SECOND", 64 << 20),
    "absent_ttl": env.float("ESPER_CACHE_ABSENT_TTL", 5.0),
    "lease": env.float("ESPER_CACHE_LEASE", 5.0),
    "binding_ttl": env.float("ESPER_CACHE_BINDING_TTL", 30.0),
}

# --- Audit: what signs checkpoints (apps.audit.keys). Without a key here, one is made in the data folder.
AUDIT_KEY = env.str("ESPER_AUDIT_KEY", "")
AUDIT_KEY_PREVIOUS = env.str("ESPER_AUDIT_KEY_PREVIOUS", "")
AUDIT_KEEP_MONTHS = env.int("ESPER_AUDIT_KEEP_MONTHS", 0)
AUDIT_SEAL_SECONDS = env.float("ESPER_AUDIT_SEAL_SECONDS", 5.0)

# --- Metrics
PROMETHEUS_EXPORT_MIGRATIONS = False
METRICS_DIR = env.str("ESPER_METRICS_DIR", "")
if METRICS_DIR:
    process_metrics.share(METRICS_DIR)
METRICS_ALLOWED_NETWORKS: list[str] = env.list("ESPER_METRICS_NETWORKS", ["127.0.0.0/8", "::1/128"])
METRICS_MAX_SERIES = env.int("ESPER_METRICS_MAX_SERIES", 20_000)
METRICS_HOT_DAYS = env.int("ESPER_METRICS_HOT_DAYS", 3)
METRICS_RAW_DAYS = env.int("ESPER_METRICS_RAW_DAYS", 30)
METRICS_5M_DAYS = env.int("ESPER_METRICS_5M_DAYS", 90)
METRICS_1H_DAYS = env.int("ESPER_METRICS_1H_DAYS", 730)
DATABASE_BUDGET_BYTES = env.int("ESPER_DATABASE_BUDGET_BYTES", 0)

# --- What people are told: docs/alert-routes.md. Without a mail server, routes are webhooks only.
PUBLIC_URL = env.str("ESPER_PUBLIC_URL", "").rstrip("/")
MAIL_SERVER = mail.server(env.str("ESPER_EMAIL_URL", ""))
EMAIL_HOST, EMAIL_PORT = MAIL_SERVER["host"], MAIL_SERVER["port"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = MAIL_SERVER["user"], MAIL_SERVER["password"]
EMAIL_USE_TLS, EMAIL_USE_SSL = MAIL_SERVER["starttls"], MAIL_SERVER["tls"]
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("ESPER_EMAIL_FROM", "esper@localhost")
WEBHOOK_ALLOWED_NETWORKS: list[str] = env.list("ESPER_WEBHOOK_ALLOWED_NETWORKS", [])
NOTIFICATION_KEEP_DAYS = env.int("ESPER_NOTIFICATION_KEEP_DAYS", 90)

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

# --- Security headers; prod adds those that need HTTPS.
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"

# --- Logs: structured, one line an event, on standard error.
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True  # apps.core.middleware.RequestContext has checked or made it
SHARED_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
]
LOG_FORMAT = env.str("ESPER_LOG_FORMAT", "text")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "lines": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": structlog.processors.JSONRenderer()
            if LOG_FORMAT == "json"
            else structlog.dev.ConsoleRenderer(colors=False),
            "foreign_pre_chain": SHARED_PROCESSORS,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
    "root": {"handlers": ["stderr"], "level": env.str("ESPER_LOG_LEVEL", "INFO")},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},  # every 4xx has its line from django_structlog
        "botocore": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},  # every task received and done: beat's alone fill a screen
        "celery.app.trace": {"level": "WARNING"},
        "django_structlog": {"level": "WARNING"},
    },
}
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *SHARED_PROCESSORS,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)

UNFOLD = {
    "SITE_TITLE": "Esper",
    "SITE_HEADER": "Esper",
    "SITE_SUBHEADER": "Life cycles of the library and the runs",
    "SITE_URL": "/",
    "SHOW_VIEW_ON_SITE": True,
    "SHOW_HISTORY": False,
}

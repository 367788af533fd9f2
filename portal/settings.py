"""Django settings, all of them made from `portal.env`. No other module reads the environment."""

import os
import sys
from importlib.resources import files
from pathlib import Path

import dj_database_url

from deployments.home import Home
from portal import env as environment
from portal.secret import load_or_make_secret

CHECKOUT = environment.CHECKOUT
ENV = environment.load(os.environ)
HOME = Home(ENV.home)
HOME.ensure()

DEBUG = ENV.debug
SECRET_KEY = ENV.secret_key or load_or_make_secret(HOME.secret_key)
ALLOWED_HOSTS = list(ENV.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(ENV.trusted_origins)

INSTALLED_APPS = [
    "portal.apps.PortalConfig",
    "portal.apps.SlipwayAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "django_rq",
    "django_htmx",
    "deployments.apps.DeploymentsConfig",
    "router.telemetry.apps.TelemetryConfig",
    "router.apps.RouterConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "portal.blob_door.BlobMiddleware",
    "portal.middleware.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "portal.middleware.ContentSecurityPolicyMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "portal.middleware.ProblemMiddleware",
]

ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [CHECKOUT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.site",
            ],
            "builtins": ["portal.templatetags.slipway"],
        },
    }
]

if ENV.database_url:
    DATABASES = {
        "default": dj_database_url.parse(ENV.database_url, conn_max_age=60, conn_health_checks=True)
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(HOME.root / "db.sqlite3"),
            "OPTIONS": {
                # Five processes share the file: writers queue up instead of failing half-way.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = ENV.redis_url or f"unix://{HOME.redis_socket}?db=0"
RQ_QUEUES = {"default": {"URL": REDIS_URL, "DEFAULT_TIMEOUT": ENV.build_timeout + 600}}
RQ = {"COMMIT_MODE": "on_db_commit", "WORKER_CLASS": "portal.worker.PreparedWorker"}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "slipway"},
    }
}

STORAGES = {
    "default": {
        "BACKEND": ENV.storage,
        "OPTIONS": ENV.storage_options or {"location": HOME.store},
    },
    "staticfiles": {"BACKEND": "portal.staticfiles.Storage"},
}
STATIC_URL = "static/"
STATIC_ROOT = HOME.root / "static"
STATICFILES_DIRS = [
    CHECKOUT / "static",
    # plotly's own script, out of its package: no copy in the tree, no CDN.
    ("plotly", str(Path(str(files("plotly"))) / "package_data")),
]
STATICFILES_FINDERS = [
    "portal.staticfiles.Finder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
]
WHITENOISE_MAX_AGE = 60

FILE_UPLOAD_TEMP_DIR = HOME.uploads
FILE_UPLOAD_HANDLERS = ["portal.uploads.HashingUploadHandler"]
# A folder of a model may hold thousands of files, each with its path beside it.
DATA_UPLOAD_MAX_NUMBER_FILES = 20_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 50_000
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 2**20

AUTH_USER_MODEL = "portal.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "login"

SESSION_COOKIE_NAME = (
    f"slipway_session_{ENV.port}"  # two copies on one host do not log each other out
)
CSRF_COOKIE_NAME = f"slipway_csrf_{ENV.port}"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ENV.https
SECURE_SSL_REDIRECT = ENV.https
SECURE_HSTS_SECONDS = 31_536_000 if ENV.https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = ENV.https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENV.https else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

USE_TZ = True
TIME_ZONE = ENV.time_zone
LANGUAGE_CODE = "en-us"
USE_I18N = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname).1s %(name)s: %(message)s"},
    },
    "handlers": {
        "stdout": {"class": "logging.StreamHandler", "stream": sys.stdout, "formatter": "line"}
    },
    "root": {"handlers": ["stdout"], "level": ENV.log_level},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
        "rq.worker": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
    },
}

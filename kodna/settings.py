"""All settings, read once from the environment (and a `.env` file). README lists the variables."""

import hmac
import os
from logging import LogRecord
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.urls import reverse_lazy

from kodna import __version__, env, notice_env

BASE_DIR = Path(__file__).resolve().parent.parent
env.load_dotenv(Path.cwd() / ".env")

VERSION = __version__
DATA_DIR = Path(os.environ.get("KODNA_DATA_DIR", "./var")).resolve()
try:
    DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
except OSError as error:
    raise ImproperlyConfigured(f"KODNA_DATA_DIR={str(DATA_DIR)!r}: {error.strerror}") from None

# --- secrets ---------------------------------------------------------------------------------------------------------
SECRET_KEY = env.secret("KODNA_SECRET_KEY", DATA_DIR / "secret_key")
# The first encrypts, all decrypt: put a new key in front to rotate.
ENCRYPTION_KEYS = env.secret("KODNA_ENCRYPTION_KEYS", DATA_DIR / "encryption_keys").split(",")


def _derive(purpose: str) -> bytes:
    return hmac.digest(SECRET_KEY.encode(), purpose.encode(), "sha256")


KEY_PEPPER = _derive("api-keys")  # API keys are stored as HMAC-SHA256 with this

# --- network ---------------------------------------------------------------------------------------------------------
DEBUG = env.flag("KODNA_DEBUG", False)
HOST = os.environ.get("HOST", "127.0.0.1")
PORT = env.port("PORT", 8000)
ALLOWED_HOSTS = env.words("KODNA_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CORS_ORIGINS = env.words("KODNA_CORS_ORIGINS", "*")
TRUSTED_PROXIES = env.networks("KODNA_TRUSTED_PROXIES")
PUBLIC_BASE_URL = os.environ.get("KODNA_PUBLIC_BASE_URL", "").rstrip("/")
CSRF_TRUSTED_ORIGINS = env.words("KODNA_CSRF_TRUSTED_ORIGINS") or (
    ["/".join(PUBLIC_BASE_URL.split("/")[:3])] if PUBLIC_BASE_URL else []
)
WORKERS = int(env.number("WORKERS", 1, least=1))
REDIS_URL = os.environ.get("REDIS_URL", "")
DATABASE_URL = os.environ.get("DATABASE_URL") or f"sqlite:////{str(DATA_DIR / 'kodna.sqlite3').lstrip('/')}"

# --- the gateway -----------------------------------------------------------------------------------------------------
ALLOW_NO_AUTH = env.flag("KODNA_ALLOW_NO_AUTH", False)
DEMO = env.flag("KODNA_DEMO", False)
REGISTRATION = os.environ.get("KODNA_REGISTRATION", "closed")
if REGISTRATION not in {"open", "closed"}:
    raise ImproperlyConfigured(f"KODNA_REGISTRATION={REGISTRATION!r}: expected open or closed")
# How one gets a key, for the docs page.
KEY_HELP = os.environ.get("KODNA_KEY_HELP", "")
CONTACT = os.environ.get("KODNA_CONTACT", "")
SERVICE_NAME = os.environ.get("KODNA_SERVICE_NAME", "Kodna")
# Limits of new keys; 0 = none.
DEFAULT_RPS = int(env.number("KODNA_DEFAULT_RPS", 20))
DEFAULT_RPM = int(env.number("KODNA_DEFAULT_RPM", 40))
DEFAULT_TPM = int(env.number("KODNA_DEFAULT_TPM", 0))
DEFAULT_CONCURRENCY = int(env.number("KODNA_DEFAULT_CONCURRENCY", 0))
MAX_BODY_BYTES = int(env.number("KODNA_MAX_BODY_MB", 64, least=0.001) * 1024 * 1024)
BODY_TIMEOUT = env.number("KODNA_BODY_TIMEOUT", 60, least=0.05)  # seconds for a client to send its whole body
KEEPALIVE_SECONDS = env.number("KODNA_KEEPALIVE_SECONDS", 15, least=0.05)  # silence after which a stream gets a comment
REFRESH_SECONDS = env.number("KODNA_REFRESH_SECONDS", 0.4, least=0.05)  # how often a process looks for changes
# For how long keys and catalog are used that could not be read again, while the database is away.
DATABASE_GRACE = env.number("KODNA_DATABASE_GRACE", 3600)
# The most that the journal may take on the disk: beyond it new requests are refused until it has moved on.
JOURNAL_MAX_BYTES = int(env.number("KODNA_JOURNAL_MAX_MB", 1024, least=0.001) * 1024 * 1024)
# Routes that fail, or whose providers ask to wait, are not asked for a while; off: they always are.
CIRCUITS = env.flag("KODNA_CIRCUITS", True)
# Between two rounds of asking idle providers for their lists of models; 0: they are not asked.
PROBE_SECONDS = env.number("KODNA_PROBE_SECONDS", 30)
USAGE_DAYS = int(env.number("KODNA_USAGE_DAYS", 0))  # for how long rows are kept, 0: for ever; sums and ledger stay
# A journal file is replaced when it is larger than this and wholly in the database.
JOURNAL_BYTES = int(env.number("KODNA_JOURNAL_MB", 16, least=0.001) * 1024 * 1024)
# Responses conversations (`store`, `previous_response_id`) are held in Redis, or in memory where there is none. For how
# many seconds after they last went on (0: nothing is held); how large a response with its input may be; how large all.
RESPONSES_TTL = int(env.number("KODNA_RESPONSES_TTL", 24 * 3600))
RESPONSES_ENTRY_BYTES = int(env.number("KODNA_RESPONSES_ENTRY_MB", 16, least=0.001) * 1024 * 1024)
RESPONSES_BYTES = int(env.number("KODNA_RESPONSES_MB", 64, least=0.001) * 1024 * 1024)
# What `env:NAME` credentials and `${NAME:-default}` base URLs of the catalog are read from.
# Not the gateway's own secrets: who may edit a provider could have them sent anywhere.
_OWN = ("KODNA_", "DJANGO_", "DATABASE_URL", "REDIS_URL")
PROVIDER_ENV = {
    **{name: value for name, value in os.environ.items() if not name.startswith(_OWN)},
    "KODNA_LOOPBACK": f"{'127.0.0.1' if HOST in {'0.0.0.0', '::', ''} else HOST}:{PORT}",  # noqa: S104
    **({"KODNA_DEMO_KEY": _derive("demo").hex()} if DEMO else {}),
}
if OLLAMA := os.environ.get("OLLAMA_BASE_URL"):
    PROVIDER_ENV["OLLAMA_BASE_URL"] = OLLAMA.rstrip("/").removesuffix("/v1")

# Notices (a key expires, a budget or a balance runs out) go out by mail and by a signed webhook, each where it is set.
MAIL_SERVER = notice_env.mail_server("KODNA_SMTP_URL")
OPERATOR_MAIL = env.words("KODNA_OPERATOR_MAIL")
DEFAULT_FROM_EMAIL = os.environ.get("KODNA_MAIL_FROM", "")
if MAIL_SERVER.host and "@" not in DEFAULT_FROM_EMAIL:
    raise ImproperlyConfigured("KODNA_SMTP_URL needs KODNA_MAIL_FROM: the address that mail comes from")
EMAIL_HOST, EMAIL_PORT, EMAIL_HOST_USER, EMAIL_HOST_PASSWORD, EMAIL_USE_TLS, EMAIL_USE_SSL = MAIL_SERVER
EMAIL_TIMEOUT = 15
WEBHOOK_URL, WEBHOOK_SECRET = notice_env.webhook("KODNA_WEBHOOK_URL", "KODNA_WEBHOOK_SECRET")
# The periodic jobs: a function without arguments, which says what it did, and the seconds between. See `proxy.jobs`.
JOBS: dict[str, tuple[str, float]] = {
    "discover-models": ("models_catalog.tasks.discover_models", 30),
    "reap-holds": ("proxy.tasks.reap_holds", 60),
    "notice-low-balances": ("accounts.tasks.notice_low_balances", 60),
    "notice-budgets": ("accounts.tasks.notice_budgets", 60),
    "notice-expiring-keys": ("accounts.tasks.notice_expiring_keys", 3600),
    "notice-providers": ("proxy.tasks.notice_providers", 30),
    "deliver-notices": ("accounts.tasks.deliver_notices", 30),
    "roll-up-hours": ("proxy.tasks.roll_up_hours", 3600),
    "roll-up-days": ("proxy.tasks.roll_up_days", 86400),
    "retention": ("proxy.tasks.retain", 86400),
    "forget-notices": ("accounts.tasks.forget_notices", 86400),
}

# --- Django ----------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "accounts",
    "models_catalog",
    "proxy",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "kodna.urls"
ASGI_APPLICATION = "kodna.asgi.application"
AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "/admin/login/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": env.database(DATABASE_URL)}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}
# django-ratelimit guards the login page only. It warns of caches that are not shared: without Redis one process runs.
SILENCED_SYSTEM_CHECKS = ["django_ratelimit.E003", "django_ratelimit.W001"]
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
            ],
        },
    },
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ru", "Русский")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_BASE_URL.startswith("https://")
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# What key holders ask of their own account: keys as on the hot path, JSON, errors in OpenAI's shape.
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.drf_auth.KeyAuthentication"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "accounts.drf_auth.AnyAccept",
    "DEFAULT_PARSER_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "EXCEPTION_HANDLER": "proxy.api.refuse",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,  # `?format=` is the views' own
}

CELERY_BROKER_URL = REDIS_URL or "memory://"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "celerybeat-schedule")

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def _without_traceback(record: LogRecord) -> bool:
    """A stranger's request for a host that is not ours is one line, not thirty."""
    record.exc_info = None
    return True


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"line": {"()": "django.utils.log.CallbackFilter", "callback": _without_traceback}},
    "loggers": {
        "django.security.DisallowedHost": {"filters": ["line"]},
        "django.request": {"level": "ERROR"},  # not a line for each page that somebody guessed
    },
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("KODNA_LOG_LEVEL", "WARNING")},
}

# Who tells which model a new key's snippets name: `accounts` does not know the catalog.
SNIPPET_MODEL = "models_catalog.checks.example_model_id"
# Who tells what keys have spent by their usage rows, for `credits audit`: nor does it know the proxy.
KEY_SPENDING = "proxy.rollups.spending"
# The model that tells which of the catalog's providers are in trouble: nor does the catalog know the proxy.
ROUTE_TROUBLES = "proxy.RouteTrouble"


def _page(title: str, icon: str, name: str) -> dict[str, object]:
    return {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{name}_changelist")}


UNFOLD = {
    "SITE_TITLE": SERVICE_NAME,
    "SITE_HEADER": SERVICE_NAME,
    "SITE_SUBHEADER": "LLM gateway",
    "SITE_URL": "/",
    "SITE_SYMBOL": "hub",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("docs/logo.svg")}],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Access",
                "items": [
                    _page("API keys", "key", "accounts_apikey"),
                    _page("Accounts", "group", "accounts_account"),
                    _page("Ledger", "account_balance_wallet", "accounts_ledgerentry"),
                    _page("Notices", "notifications", "accounts_notice"),
                    _page("Users", "person", "accounts_user"),
                ],
            },
            {
                "title": "Catalog",
                "items": [
                    _page("Models", "neurology", "models_catalog_model"),
                    _page("Providers", "cloud", "models_catalog_provider"),
                    _page("Aliases", "alt_route", "models_catalog_alias"),
                    _page("Vendors", "storefront", "models_catalog_vendor"),
                    _page("Announcements", "campaign", "models_catalog_announcement"),
                    _page("Settings", "tune", "models_catalog_catalog"),
                ],
            },
            {
                "title": "Usage",
                "items": [
                    _page("Requests", "receipt_long", "proxy_usagerecord"),
                    {"title": "Explain", "icon": "route", "link": reverse_lazy("admin:explain")},
                    _page("Usage report", "bar_chart", "proxy_usagequarter"),
                    _page("Route troubles", "report", "proxy_routetrouble"),
                    _page("Jobs", "schedule", "proxy_job"),
                ],
            },
        ],
    },
}

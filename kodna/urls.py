"""What Django serves: the docs page, the status page, the console, and what key holders ask of their own account.

The model endpoints under /v1 are in `proxy/asgi.py`, which hands these paths of /v1 over.
"""

from django.contrib import admin
from django.urls import include, path

from accounts import api as accounts
from models_catalog.api import PricingView
from proxy import api as proxy
from proxy import status_pages

urlpatterns = [
    path("admin/", admin.site.urls),
    path("v1/auth/me", accounts.MeView.as_view()),
    path("v1/auth/keys", accounts.KeysView.as_view()),
    path("v1/auth/limits", proxy.LimitsView.as_view()),
    path("v1/credits/balance", accounts.BalanceView.as_view()),
    path("v1/credits/pricing", PricingView.as_view()),
    path("v1/usage", proxy.UsageView.as_view()),
    path("v1/requests/<str:request_id>", proxy.RequestView.as_view()),
    path("status", status_pages.status, name="status"),
    path("", include("models_catalog.urls")),
]

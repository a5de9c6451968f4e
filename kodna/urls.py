"""What Django serves: the docs page and the console. The model endpoints under /v1 are in `proxy/asgi.py`."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("models_catalog.urls")),
]

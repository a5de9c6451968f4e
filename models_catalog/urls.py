"""Django's pages of the catalog; `kodna/urls.py` includes them at the root."""

from django.urls import path

from models_catalog import pages

urlpatterns = [path("", pages.docs, name="docs")]

"""Every change of the catalog raises the version that the gateway's processes watch."""

from typing import Any

from django.db.models import F
from django.db.models.signals import post_delete, post_save

from models_catalog.models import Alias, Announcement, Catalog, Credential, Model, Price, Provider, Route, Vendor


def bump(**_: Any) -> None:
    """Call it after a queryset's `update()` too, which sends no signal."""
    row = Catalog.objects.filter(pk=1)
    if not row.update(version=F("version") + 1):
        Catalog.objects.get_or_create(pk=1)  # two processes may be here at once: both raise the number
        row.update(version=F("version") + 1)


def connect() -> None:
    for model in (Alias, Announcement, Catalog, Credential, Model, Price, Provider, Route, Vendor):
        post_delete.connect(bump, sender=model, dispatch_uid=f"bump-{model.__name__}-delete")
        post_save.connect(bump, sender=model, dispatch_uid=f"bump-{model.__name__}-save")

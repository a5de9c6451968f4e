"""What can only be looked at, whoever looks."""

from django.contrib import admin
from django.test import RequestFactory

from accounts.models import LedgerEntry, User
from accounts.read_only import ReadOnlyAdmin


def test_not_even_a_superuser_changes_anything(rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = User(is_superuser=True, is_active=True)
    page = ReadOnlyAdmin(LedgerEntry, admin.site)
    assert page.has_view_permission(request)
    allowed = (
        page.has_add_permission(request),
        page.has_change_permission(request),
        page.has_delete_permission(request),
    )
    assert not any(allowed)

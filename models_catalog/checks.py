"""Which models and providers can be used, and why not, in words for an operator. The console asks.

`example_model_id` is named by the setting SNIPPET_MODEL: the page of a new key fills its snippets with it.
"""

from collections.abc import Iterable

from django.db.models import Count, Q, QuerySet

from models_catalog import pages, snapshot
from models_catalog.models import Model, Provider, Route


def example_model_id() -> str:
    """A model that answers now, the default one where it does; empty where the catalog has none."""
    model = pages.example_model(snapshot.load())
    return model.id if model else ""


def faults(providers: Iterable[Provider]) -> dict[int, str]:
    """By provider, why it cannot be asked; empty where it can."""
    return {provider.pk: snapshot.why_unusable(provider) for provider in providers}


def credential_faults(provider: Provider) -> list[str]:
    """What is wrong with single credentials of a provider that can be asked. One that was switched off is no fault."""
    keyed = snapshot.freeze_provider(provider)
    if not any(each.provider for each in keyed):
        return []
    return [f"{each.label}: {each.fault}" for each in keyed if each.fault not in {"", snapshot.CREDENTIAL_OFF}]


def live_routes(queryset: QuerySet[Model]) -> QuerySet[Model]:
    """The models with `live`, the number of their routes that can be tried now."""
    providers = Provider.objects.prefetch_related("credentials")
    usable = [number for number, fault in faults(providers).items() if not fault]
    usable.append(0)  # no row's number: Django leaves out rows whose aggregate filters on an empty list
    return queryset.annotate(live=Count("routes", filter=Q(routes__is_active=True, routes__provider__in=usable)))


def route_fault(route: Route) -> str:
    if not route.is_active:
        return snapshot.ROUTE_OFF
    return snapshot.why_unusable(route.provider)


def why_dead(model: Model) -> list[str]:
    """What is wrong with each route of a model that has no live one. Empty: it has one."""
    routes = list(model.routes.select_related("provider").prefetch_related("provider__credentials"))
    if not routes:
        return ["It has no route: add one below."]
    reasons = [(route, route_fault(route)) for route in routes]
    if not all(reason for _, reason in reasons):
        return []
    return [f"{route.provider.slug}: {reason}" for route, reason in reasons]

"""What a key holder is told of keys: never a secret; money as strings of exact decimals. Called by `accounts.api`."""

from decimal import Decimal

from rest_framework import serializers

from accounts import keys
from accounts.models import ApiKey

LIMITS = ("rps", "rpm", "tpm", "concurrency")


class UsdField(serializers.Field[Decimal, str, str, ApiKey]):
    def to_representation(self, value: Decimal) -> str:
        return f"{value:f}"


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """`key`: its first characters. Limits of 0: none."""

    key = serializers.CharField(source="prefix")
    state = serializers.SerializerMethodField()
    budget = UsdField()

    class Meta:
        model = ApiKey
        fields = (
            *("key", "name", "state", "created_at", "expires_at", "last_used_at", "allowed_models", "allowed_groups"),
            *(*LIMITS, "budget", "budget_period", "strict"),
        )

    def get_state(self, row: ApiKey) -> str:
        return keys.state(row)

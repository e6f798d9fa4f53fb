"""Housekeeping of the API's own tables."""

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from apps.core.models import IdempotencyKey

KEEP = timedelta(hours=24)


@shared_task
def expire_idempotency_keys() -> None:
    IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEEP).delete()

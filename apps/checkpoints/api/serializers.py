"""Checkpoints as the API shows them."""

from rest_framework import serializers

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint


class CheckpointSerializer(serializers.ModelSerializer[Checkpoint]):
    """``digest`` is the sha256 of the manifest, ``size`` in bytes."""

    state = serializers.ChoiceField(choices=list(CheckpointState), read_only=True)

    class Meta:
        model = Checkpoint
        fields = (
            "id",
            "run_id",
            "name",
            "state",
            "epoch",
            "step",
            "fencing_token",
            "format",
            "digest",
            "size",
            "location",
            "pinned",
            "verified_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields

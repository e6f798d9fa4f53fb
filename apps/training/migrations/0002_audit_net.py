"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("training", "0001_initial"),
    ]

    operations = [
        watch(
            "training_trainingrun",
            subject="run",
            columns=[
                "id",
                "workspace_id",
                "name",
                "kind",
                "state",
                "owner_id",
                "task",
                "host",
                "seed",
                "settings",
                "library_source",
                "library",
                "control_of_id",
                "wants_control",
                "command",
                "epochs",
                "started_at",
                "ended_at",
                "failure",
                "result",
            ],
        ),
        watch("training_seedslot", subject="slot", columns=["id", "run_id", "site", "locked", "embargoed_until_epoch"]),
        watch(
            "training_seed",
            subject="seed",
            columns=[
                "id",
                "run_id",
                "slot_id",
                "number",
                "operator",
                "kernel_digest",
                "kernel_id",
                "kernel_name",
                "state",
                "alpha",
                "germinated_epoch",
                "ended_epoch",
                "outcome",
            ],
        ),
        watch(
            "training_seedtransition",
            subject="seed",
            columns=[
                "id",
                "run_id",
                "seed_id",
                "sequence",
                "epoch",
                "step",
                "source",
                "target",
                "gate",
                "reason",
                "measured",
                "thresholds",
            ],
            of="seed_id",
        ),
        watch(
            "training_decision",
            subject="run",
            columns=[
                "id",
                "run_id",
                "sequence",
                "epoch",
                "step",
                "action",
                "rule",
                "reason",
                "site",
                "seed_number",
                "kernel_digest",
                "observed",
                "refused",
            ],
            of="run_id",
        ),
    ]

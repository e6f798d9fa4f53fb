from django.db import migrations, models


class Migration(migrations.Migration):
    """A chunk whose bytes went to the object storage keeps its sha256; a blob that nothing refers to is marked."""

    dependencies = [("kernels", "0004_audit_net")]

    operations = [
        migrations.RemoveConstraint(model_name="kernelblob", name="blob_lives_somewhere"),
        migrations.AddField(model_name="kernelblob", name="freed_at", field=models.DateTimeField(null=True)),
        migrations.AlterField(model_name="kernelchunk", name="data", field=models.BinaryField(null=True)),
        migrations.AddConstraint(
            model_name="kernelblob",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("in_database", True), ("archived_at__isnull", False), ("freed_at__isnull", False), _connector="OR"
                ),
                name="blob_lives_somewhere",
            ),
        ),
    ]

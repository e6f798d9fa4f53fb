"""A blueprint without symbols has nothing to bind: its kernels' bindings are empty."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("kernels", "0006_lineage_without_a_walk")]

    operations = [
        migrations.AlterField(
            model_name="kernel",
            name="bindings",
            field=models.JSONField(blank=True, default=dict),
        ),
    ]

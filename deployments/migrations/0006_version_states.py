from django.db import migrations, models


def trust_what_serves(apps, schema_editor):
    """Versions of before were made by deployments that had succeeded, or serve nothing."""
    ServiceVersion = apps.get_model("deployments", "ServiceVersion")
    ServiceVersion.objects.filter(current__isnull=False).update(proven=True)


class Migration(migrations.Migration):
    dependencies = [
        ("deployments", "0005_tokens_outlive_services"),
    ]

    operations = [
        migrations.AddField(
            model_name="serviceversion",
            name="proven",
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name="serviceversion",
            name="state",
            field=models.CharField(blank=True, editable=False, max_length=16),
        ),
        migrations.AddField(
            model_name="serviceversion",
            name="state_cause",
            field=models.TextField(blank=True, editable=False),
        ),
        migrations.AddField(
            model_name="serviceversion",
            name="desired_replicas",
            field=models.PositiveIntegerField(editable=False, null=True),
        ),
        migrations.RunPython(trust_what_serves, migrations.RunPython.noop),
    ]

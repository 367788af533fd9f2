"""The sizes of machines that come with the product."""

from django.db import migrations


def add_skus(apps, schema_editor):
    from deployments.clusters.catalogue import ensure_skus

    ensure_skus(apps.get_model("deployments", "Sku"))


class Migration(migrations.Migration):
    dependencies = [("deployments", "0002_initial")]
    operations = [migrations.RunPython(add_skus, migrations.RunPython.noop)]

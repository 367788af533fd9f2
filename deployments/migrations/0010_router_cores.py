"""How many cores a router may use; and routers of production clusters are told what they are."""

from django.db import migrations, models
from django.db.models import F


def tell_their_purpose(apps, schema_editor):
    """A higher generation has the controller write the settings anew, with the purpose in them."""
    clusters = apps.get_model("deployments", "Cluster").objects.exclude(purpose="DevTest")
    clusters.update(router_generation=F("router_generation") + 1)


class Migration(migrations.Migration):
    dependencies = [("deployments", "0009_package_lists")]

    operations = [
        migrations.AddField(
            model_name="cluster",
            name="router_cores",
            field=models.PositiveSmallIntegerField(blank=True, editable=False, null=True),
        ),
        migrations.RunPython(tell_their_purpose, migrations.RunPython.noop, elidable=True),
    ]

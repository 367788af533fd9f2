from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("telemetry", "0005_router_figures"),
    ]

    operations = [
        migrations.AddField(
            model_name="requestplace",
            name="source",
            field=models.CharField(
                blank=True,
                help_text="The router's pod; empty: there is but one router.",
                max_length=63,
            ),
        ),
        migrations.AlterField(
            model_name="requestplace",
            name="cluster",
            field=models.CharField(max_length=24),
        ),
        migrations.AddConstraint(
            model_name="requestplace",
            constraint=models.UniqueConstraint(
                fields=("cluster", "source"), name="one_place_a_request_log"
            ),
        ),
    ]

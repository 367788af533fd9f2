from django.db import migrations


class Migration(migrations.Migration):
    """A token is revoked by its id; nothing needs a digest of it."""

    dependencies = [
        ('deployments', '0006_version_states'),
    ]

    operations = [
        migrations.RemoveField(model_name='issuedtoken', name='digest'),
    ]

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """Made anew, with a cluster: nothing issued tokens before."""

    dependencies = [
        ('deployments', '0004_versions_tokens_tls'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.DeleteModel(name='IssuedToken'),
        migrations.CreateModel(
            name='IssuedToken',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('jti', models.CharField(max_length=40, unique=True)),
                ('digest', models.CharField(max_length=64)),
                ('kid', models.CharField(max_length=40)),
                ('subject', models.CharField(max_length=150)),
                ('issued_at', models.DateTimeField()),
                ('refresh_after', models.DateTimeField()),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('cluster', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='tokens', to='deployments.cluster')),
                ('created_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('service', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='tokens', to='deployments.service')),
            ],
            options={
                'ordering': ['-issued_at', '-pk'],
            },
        ),
    ]

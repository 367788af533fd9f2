"""One row for each change a person (or the system) made."""

from django.conf import settings
from django.db import models


class AuditEntry(models.Model):
    """Who did what to what, when, with the values before and after. Written by `audit.record`."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    actor_name = models.CharField(max_length=150)  # stays when the person is removed
    action = models.CharField(max_length=60)  # "service.create", "model.delete", "user.role"
    object_type = models.CharField(max_length=40)
    object_name = models.CharField(max_length=300)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        ordering = ["-at", "-pk"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.object_name}"

"""The admin panel, for administrators."""

from django.contrib import admin


class SlipwayAdminSite(admin.AdminSite):
    site_header = "Slipway administration"
    site_title = "Slipway"
    index_title = "Everything that is kept"

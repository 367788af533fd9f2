"""URLs of the people and audit pages."""

from django.urls import path

from portal.views import audit, people

urlpatterns = [
    path("login/", people.SignIn.as_view(), name="login"),
    path("logout/", people.SignOut.as_view(), name="logout"),
    path("password/", people.password, name="password"),
    path("people/", people.people_list, name="people-list"),
    path("people/add/", people.person_add, name="person-add"),
    path("people/<int:pk>/", people.person_edit, name="person-edit"),
    path("audit/", audit.audit_list, name="audit-list"),
]

from django.urls import path

from apps.accounts.api import views

urlpatterns = [
    path("tokens", views.TokenListView.as_view()),
    path("tokens/<uuid:id>", views.TokenView.as_view()),
    path("users", views.UserListView.as_view()),
    path("users/<uuid:id>", views.UserView.as_view()),
]

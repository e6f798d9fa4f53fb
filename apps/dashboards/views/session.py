"""Logging in and out. Django's own views; refusals and successes are audited by the signals of ``accounts``."""

from math import ceil
from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from apps.core.throttling import LoginThrottle


class LogIn(LoginView):
    """Name and password. Attempts are limited per address and name; then 429 says when to try again."""

    template_name = "login.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        throttle = LoginThrottle()
        if not throttle.admit_login(request.META.get("REMOTE_ADDR", ""), request.POST.get("username", "")):
            return self._refuse_for_now(throttle.wait())
        return super().post(request, *args, **kwargs)

    def _refuse_for_now(self, seconds: float | None) -> HttpResponse:
        wait = max(1, ceil(seconds or 60))
        form = AuthenticationForm(self.request)
        context = self.get_context_data(form=form, throttled=f"Too many attempts. Try again in {wait} s.")
        return self.render_to_response(context, status=429, headers={"Retry-After": str(wait)})

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        return self.render_to_response(self.get_context_data(form=form), status=401)


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponseRedirect(settings.LOGOUT_REDIRECT_URL)


def home(request: HttpRequest) -> HttpResponse:
    return redirect("dashboards:runs")

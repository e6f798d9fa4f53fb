"""The mail server that ESPER_EMAIL_URL names."""

import pytest
from environs import EnvValidationError

from esper_site.settings.mail import server


@pytest.mark.parametrize(
    ("url", "port", "starttls", "tls"),
    [
        ("smtp://mail.example.org", 25, False, False),
        ("submission://mail.example.org", 587, True, False),
        ("smtps://mail.example.org", 465, False, True),
        ("smtp://mail.example.org:2525/", 2525, False, False),
    ],
)
def test_a_scheme_says_how_it_is_spoken_to(url: str, port: int, starttls: bool, tls: bool) -> None:
    found = server(url)

    assert (found["host"], found["port"]) == ("mail.example.org", port)
    assert (found["starttls"], found["tls"]) == (starttls, tls)


def test_a_password_may_hold_anything() -> None:
    found = server("submission://esper%40example.org:p%40ss%2Fw%25rd@mail.example.org")

    assert (found["user"], found["password"]) == ("esper@example.org", "p@ss/w%rd")


def test_without_one_there_is_no_host() -> None:
    assert server("")["host"] == ""


@pytest.mark.parametrize(
    "url", ["mail.example.org", "http://mail.example.org", "smtp://", "smtp://h:99999", "smtp://h:0", "smtp://h/?ssl=1"]
)
def test_what_is_no_such_url_names_the_variable(url: str) -> None:
    with pytest.raises(EnvValidationError, match="ESPER_EMAIL_URL"):
        server(url)

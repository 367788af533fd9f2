"""The filters and tags that all templates use."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django import forms
from django.conf import settings
from django.template import Context, Template
from django.utils import timezone

from deployments.environments.models import BuildState
from deployments.services.models import DeploymentState, DeploymentStep
from deployments.types import CheckStatus, Phase, ServiceState
from portal.models import Role, User
from portal.templatetags import slipway

TEMPLATES = Path(settings.CHECKOUT) / "templates"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (4.9, "just now"), (5, "5 s ago"), (59.9, "59 s ago"), (60, "1 min ago"),
     (3599, "59 min ago"), (3600, "1 h ago"), (86_399, "23 h ago"), (86_400, "1 day ago"),
     (2 * 86_400, "2 days ago"), (60 * 86_400, "1 month ago"), (90 * 86_400, "2 months ago"),
     (800 * 86_400, "2 years ago"), (-30, "in 30 s"), (-2, "just now"),
     (-43_199.5, "in 12 h"), (-5400, "in 2 h"), (-5399, "in 1 h")],
)  # fmt: skip
def test_how_long_ago(seconds: float, words: str) -> None:
    assert slipway.ago_words(seconds) == words


def test_ago_gives_the_exact_time_on_hover_and_one_that_scripts_can_read() -> None:
    moment = timezone.now() - timedelta(minutes=3)
    html = slipway.ago(moment)
    assert ">3 min ago<" in html
    assert f'datetime="{moment.isoformat(timespec="seconds")}"' in html
    assert moment.strftime("%Y-%m-%d %H:%M:%S UTC") in html


def test_ago_of_nothing_is_never() -> None:
    assert "never" in slipway.ago(None)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), ("", "–"), ("x", "–"), (0, "0 s"), (0.0004, "0 ms"), (0.12, "120 ms"),
     (0.9994, "999 ms"), (0.9996, "1 s"), (1.44, "1.4 s"), (59.94, "59.9 s"), (59.96, "1 min"),
     (185, "3 min 5 s"), (3600, "1 h"), (7440, "2 h 4 min"), (86_400, "1 day"),
     (3 * 86_400 + 3600, "3 days 1 h"), (timedelta(seconds=90), "1 min 30 s"), (-2.5, "-2.5 s")],
)  # fmt: skip
def test_duration(value: object, text: str) -> None:
    assert slipway.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_234_567, "1.2 MiB"),
     (3 * 2**30, "3.0 GiB"), (5 * 2**50, "5.0 PiB")],
)  # fmt: skip
def test_filesize(value: object, text: str) -> None:
    assert slipway.filesize(value) == text


@pytest.mark.parametrize(
    "word",
    [*ServiceState, *Phase, *(s for s in CheckStatus if s != "unknown"), *BuildState.values,
     *DeploymentState.values, *(str(label) for label in DeploymentState.labels),
     *DeploymentStep.State.values],
)  # fmt: skip
def test_each_state_word_of_the_house_has_a_colour_and_a_shape_of_its_own(word: str) -> None:
    assert str(word).lower() in slipway._STATES


@pytest.mark.parametrize("word", [None, "", "unknown", "something new"])
def test_a_state_nobody_knows_never_looks_fine(word: object) -> None:
    html = slipway.badge(word)
    assert "badge-idle" in html
    assert "#s-unknown" in html


def test_a_badge_escapes_its_word() -> None:
    assert "<script>" not in slipway.badge("<script>alert(1)</script>")


def test_the_good_the_bad_and_the_moving_differ_in_shape_too() -> None:
    shapes = {
        re.search(r"#(s-\w+)", slipway.badge(word))[1]
        for word in ("Healthy", "Failed", "Unhealthy", "running", "queued", "stopped", "unknown")
    }
    assert len(shapes) == 7


def test_the_sprite_holds_exactly_the_icons_that_are_listed() -> None:
    sprite = (Path(settings.CHECKOUT) / "static/img/icons.svg").read_text()
    assert set(re.findall(r'<symbol id="([^"]+)"', sprite)) == slipway.ICONS


def test_templates_use_icons_that_exist() -> None:
    used = {
        (name, path.name)
        for path in TEMPLATES.rglob("*.html")
        for name in re.findall(r'{%\s*icon "([^"]+)"', path.read_text())
    }
    assert used
    assert {(name, where) for name, where in used if name not in slipway.ICONS} == set()


def test_templates_have_no_inline_style_or_script_which_the_policy_forbids() -> None:
    wrong = [
        path.relative_to(TEMPLATES).as_posix()
        for path in TEMPLATES.rglob("*.html")
        if re.search(
            r'\sstyle="|<style|\son\w+="|<script(?![^>]*(src=|application/json))', path.read_text()
        )
    ]
    assert wrong == []


class _Form(forms.Form):
    name = forms.CharField(help_text="Letters only.")
    agree = forms.BooleanField(required=False)
    kind = forms.ChoiceField(choices=[("a", "A")], widget=forms.RadioSelect)


def _render(template: str, **context: object) -> str:
    return Template(template).render(Context(context))


def test_a_field_ties_label_help_and_error_to_its_control() -> None:
    html = _render("{% formfield form.name %}", form=_Form({}))
    assert '<label class="label" for="id_name">' in html
    assert 'id="id_name_helptext"' in html
    assert 'id="id_name_error"' in html
    assert 'aria-describedby="id_name_error id_name_helptext"' in html or (
        'aria-describedby="id_name_helptext id_name_error"' in html
    )
    assert 'aria-invalid="true"' in html
    assert "This field is required." in html
    assert 'class="req"' in html


def test_a_checkbox_and_a_group_have_their_own_arrangement() -> None:
    form = _Form()
    assert '<label class="check" for="id_agree">' in _render(
        "{% formfield form.agree %}", form=form
    )
    group = _render("{% formfield form.kind %}", form=form)
    assert 'role="group" aria-labelledby="id_kind_label"' in group
    assert 'id="id_kind_label"' in group


def test_a_field_the_form_does_not_have_is_an_error_not_a_blank() -> None:
    with pytest.raises(Exception, match="no such field"):
        _render("{% formfield form.nmae %}", form=_Form())


def test_copybutton_escapes_what_it_copies() -> None:
    html = _render("{% copybutton text %}", text='"><script>')
    assert 'data-copy="&quot;&gt;&lt;script&gt;"' in html


def test_can_asks_the_one_judge() -> None:
    person = User(username="vera", role=Role.VIEWER)
    assert _render('{% if user|can:"viewer" %}y{% endif %}', user=person) == "y"
    assert _render('{% if user|can:"deployer" %}y{% endif %}', user=person) == ""


def test_a_gap_in_the_figures_breaks_the_line() -> None:
    assert slipway.sparkline([1, 2, None, 3, 4]).count("M") == 2 * 2
    assert slipway.sparkline([0, 0, 0]).count("spark-none") == 0


@pytest.mark.parametrize("values", [[], None, [None, None]])
def test_no_figures_at_all_look_like_none(values: object) -> None:
    assert "spark-none" in slipway.sparkline(values)

"""How do values look on the console's pages?"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from ops.console import rendering
from ops.console.gathering import Meter
from ops.console.picture import HEIGHT, WIDTH, chart, share
from ops.console.rendering import STATIC, Renderer

TEMPLATES = Path(rendering.__file__).parent / "templates"


def test_text_of_others_is_escaped() -> None:
    """Every template escapes what it is given."""
    text = Renderer()._environment.from_string("{{ text }}").render(text="<script>'\"&")

    assert text == "&lt;script&gt;&#39;&#34;&amp;"


def test_a_name_that_is_missing_is_an_error() -> None:
    """A page does not come out with holes."""
    with pytest.raises(UndefinedError):
        Renderer()._environment.from_string("{{ missing }}").render()


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.glob("*.html")))
def test_every_template_can_be_read_and_needs_no_inline_script(template: str) -> None:
    """The policy that every answer carries would refuse it, and styles in attributes as well."""
    text = (TEMPLATES / template).read_text(encoding="utf-8")

    Renderer()._environment.get_template(template)
    assert "<script>" not in text
    assert not [
        word for word in (" style=", " onclick=", " onload=", "javascript:", "<style") if word in text
    ]


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.glob("*.html")))
def test_only_what_we_rendered_ourselves_is_taken_for_safe(template: str) -> None:
    """`safe` stands behind `part` alone, which came out of another template."""
    text = (TEMPLATES / template).read_text(encoding="utf-8")

    assert text.count("| safe") == text.count("{{ part | safe }}")
    assert "autoescape" not in text


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.glob("*.html")))
def test_every_form_that_changes_something_carries_its_key(template: str) -> None:
    """All but the login, before which there is no session."""
    text = (TEMPLATES / template).read_text(encoding="utf-8")

    forms = text.count('<form method="post"')
    assert forms == text.count("{{ ui.key(form_key) }}") + ('action="/login"' in text)


def test_static_files_have_the_address_of_their_content() -> None:
    """So that browsers may keep them for ever."""
    addresses = {name: rendering.address(name) for name in STATIC}

    assert set(addresses) == {"console.css", "console.js", "icon.svg"}
    assert len(set(addresses.values())) == 3
    assert all(address.startswith(f"/static/{name}?v=") for name, address in addresses.items())


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (259_200, "3 d")]
)
def test_a_time_span_has_the_unit_that_fits(seconds: float, text: str) -> None:
    """Not seconds where nobody can read them any more."""
    assert rendering.age(seconds) == text


def test_numbers_are_written_for_people() -> None:
    """With commas, signs and currencies; nothing where there is nothing."""
    assert rendering.number(1234567) == "1,234,567"
    assert (rendering.signed(5), rendering.signed(-5), rendering.signed(0)) == ("+5", "-5", "")
    assert (rendering.rate(0), rendering.rate(1.25), rendering.rate(1234.5)) == ("0", "1.2", "1,234")
    assert (rendering.amount(1250, "EUR"), rendering.amount(None, "EUR"), rendering.amount(1, None)) == (
        "EUR 12.50",
        "",
        "",
    )
    assert rendering.clock(datetime(2026, 3, 1, 12, 0, 1, 2_000, UTC)) == "12:00:01.002"


def test_what_must_not_be_seen_is_masked() -> None:
    """Card numbers, secrets, and what cannot be seen."""
    shown = rendering.masked("4111 1111 1111 1111 whsec_c2VjcmV0c2VjcmV0 \x1b[31m")

    assert "4111 1111" not in shown
    assert "c2VjcmV0" not in shown
    assert "\x1b" not in shown
    assert rendering.masked(None) == ""


def test_a_chart_ends_at_its_right_edge() -> None:
    """The newest value stands there, the largest one at the top; nothing at all is a line at the bottom."""
    drawn = chart("Orders", "/s", [0.0, 2.0, 1.0], length=5)
    flat = chart("Orders", "/s", [0.0, 0.0], length=5)

    points = [tuple(map(float, point.split(","))) for point in drawn.line.split()]
    assert (drawn.now, drawn.peak, points[-1][0]) == (1.0, 2.0, WIDTH)
    assert min(y for _, y in points) == points[1][1] > 0
    assert {point.split(",")[1] for point in flat.line.split()} == {str(HEIGHT - 3.0)}
    assert chart("Orders", "/s", [], length=5).line == ""


def test_what_is_there_at_all_can_be_seen() -> None:
    """A bar of one among a million has a width."""
    assert (share(0, 10), share(5, 10), share(0, 0)) == (0.0, 50.0, 0.0)
    assert share(1, 1_000_000) > 0


def test_a_rate_is_taken_over_the_last_samples() -> None:
    """A counter that was set back begins anew, instead of running backwards."""
    meter = Meter()
    for at, count in ((0.0, 0), (1.0, 10), (2.0, 20)):
        meter.add(at, count)
    steady = meter.per_second
    meter.add(3.0, 5)

    assert (steady, meter.per_second) == (10.0, 0.0)

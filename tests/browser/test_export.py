"""A notebook with panels, exported by nbconvert and opened without a kernel and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

HERE = ("file:", "data:", "blob:")


def test_panels_keep_their_static_faces_in_an_exported_notebook(
    opened_chromium: Any, repository: Path, tmp_path: Path, screenshots: Path
) -> None:
    exporters = pytest.importorskip("nbconvert", reason="nbconvert is not installed: pip install 'perfnb[lab]'")
    body, _ = exporters.HTMLExporter().from_filename(str(repository / "notebooks" / "explore_and_apply.ipynb"))
    file = tmp_path / "exported.html"
    file.write_text(body, encoding="utf-8")
    context = opened_chromium.new_context(viewport={"width": 1280, "height": 1400})
    # what nbconvert's own template asks for (MathJax, require.js) is refused: perfnb's faces need none of it
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith(HERE) else route.abort())
    page = context.new_page()

    page.goto(file.as_uri(), wait_until="domcontentloaded")

    page.get_by_text("Waiting for data takes 55 %").first.wait_for()
    page.get_by_text("inside the interval").first.wait_for()
    pictures = page.locator('img[src^="data:image/svg+xml"]')
    assert pictures.count() >= 4
    assert pictures.first.evaluate("image => image.complete && image.naturalWidth > 300")
    assert page.locator("script[type='application/vnd.jupyter.widget-view+json']").count() == 0
    page.screenshot(path=screenshots / "exported.png", full_page=True)
    context.close()

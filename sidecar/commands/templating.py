"""The templates of what commands write for people."""

from collections.abc import Mapping
from pathlib import Path


def filled(template: str, said: Mapping[str, object]) -> str:
    """A template beside this module with `said` put into it: into a page as text, never as markup."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters["cell"] = lambda text: " ".join(str(text).split()).replace("|", "\\|")
    return environment.get_template(template).render(said)

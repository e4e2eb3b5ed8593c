"What MkDocs is told on its way: formulas become MathML, which browsers show without a script, and kept HTML returns."

import html
import json
import re
from pathlib import Path

from latex2mathml.converter import convert
from pymdownx.slugs import slugify

MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
KEPT = re.compile(r'<div id="(mirage-raw-\d+)"></div>')


def mathml(found) -> str:
    return convert(html.unescape(found[3]).strip(), display='block' if found[2] == '[' else 'inline')


def on_config(config):
    "Headings go by the names that the repository's host gives them, so that links to them lead there on both."
    config.mdx_configs.setdefault('toc', {})['slugify'] = slugify(case='lower')


def on_page_content(markup: str, page, config, files) -> str:
    kept = json.loads((Path(config.config_file_path).parent / 'raw.json').read_text())
    return KEPT.sub(lambda found: kept[found[1]], MATH.sub(mathml, markup))


def on_post_build(config):
    "Its addresses count from a server's root, and a folder has none."
    (Path(config.site_dir) / '404.html').unlink(missing_ok=True)

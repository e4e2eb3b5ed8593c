"""The site opens from a folder without a network: every page, every link, the search, formulas, and the cortex to
turn."""

import os, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat, pytest

from test_overview import BROWSER, browse

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'site'))
import build  # noqa: E402 (of the site)

MKDOCS = shutil.which('mkdocs') or shutil.which('mkdocs', path=Path(sys.executable).parent)
if not MKDOCS:
    pytest.skip('no MkDocs: the site is not built (pip install mirage-encoding[site])', allow_module_level=True)


def made(target: Path) -> Path:
    "The folder of pages that MkDocs makes of a prepared source."
    command = [MKDOCS, 'build', '--quiet', '--config-file', target.parent / 'mkdocs.yml']
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(NO_MKDOCS_2_WARNING='1'))
    assert done.returncode == 0, done.stdout + done.stderr
    return target.parent / 'site'


class Addresses(HTMLParser):
    "What a page refers to, and the names of its parts."

    def __init__(self, page: Path):
        super().__init__()
        self.found, self.parts = [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.parts.add(given.get('id'))
        self.found += [(kind, given[kind]) for kind in ('href', 'src') if given.get(kind)]


def leads_nowhere(page: Path, kind: str, address: str, pages: dict) -> bool:
    "A file or a part that is not there, or something that the page would load from elsewhere."
    if re.match(r'(mailto|data|https?):', address):
        return kind == 'src' and address.startswith('http')
    path, part = urldefrag(address)
    target = (page.parent / unquote(path)).resolve() if path else page
    return not target.is_file() or bool(part and target in pages and unquote(part) not in pages[target].parts)


def broken_links(site: Path) -> list:  # of (page, address)
    pages = {page: Addresses(page) for page in sorted(site.resolve().rglob('*.html'))}
    every = [(page, kind, address) for page, about in pages.items() for kind, address in about.found]
    return [(page.name, address) for page, kind, address in every if leads_nowhere(page, kind, address, pages)]


# what Chromium remarks where a program draws in place of a graphics card
SOFTWARE_GL = 'willReadFrequently|software WebGL|GL Driver Message'
RESULTS = """# Results

[Two](#figure-2--a-é-map)

## Figure 2 — a É map

<details><summary>as text</summary>

| a |
|---|
| 1 |

</details>
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    "Three chapters, a figure, one module and a page of results."
    kept = ('01o_parcels', '03a_pooler', 'fig2_fusion')
    some = [p for p in build.notebooks() if p.stem in kept]
    monkeypatch.setattr(build, 'notebooks', lambda: some)
    site = build.Site(tmp_path / 'source')
    results = site.prose(RESULTS, ROOT / 'README.md', 'index.md')
    site.write('index.md', f'{results}\n\n{build.cortex(site, "embedded", "index.md")}')
    nav = [{'Results': [{'Simulated': 'index.md'}]}, {'Chapters': build.chapters(site)}, {'API': build.api(site)}]
    build.finish(site, nav)
    return made(tmp_path / 'source')


PROBE = """<script>addEventListener('load', () => {
  const box = document.querySelector('[data-md-component=search-query]');
  box.focus(); box.value = 'queries'; box.dispatchEvent(new Event('keyup', {bubbles: true}));
  setInterval(() => document.body.dataset.found = document.querySelectorAll('.md-search-result__item').length, 50)
})</script></head>"""


def test_a_small_site_has_no_broken_link_and_loads_nothing_from_elsewhere(small):
    pages = {str(p.relative_to(small)) for p in small.rglob('*.html')}
    assert {'index.html', 'chapters/03a_pooler.html', 'figures/fig2_fusion.html', 'api/data.parcels.html'} <= pages
    assert broken_links(small) == []
    assert re.search(r'<details>.*<td>1</td>.*</details>', (small / 'index.html').read_text(), re.S)
    text = (small / 'chapters/03a_pooler.html').read_text()
    assert '<math' in text and 'arithmatex' not in text and '$$' not in text
    assert 'subject → (n_tr, parcels) float32' in (small / 'api/data.parcels.html').read_text()
    assert 'fig2_fusion.png' in (small / 'figures/fig2_fusion.html').read_text()


def test_the_check_of_links_sees_a_missing_page_a_missing_part_and_a_foreign_script(small):
    page = small / 'index.html'
    page.write_text(
        page.read_text().replace(
            '</body>',
            '<a href="gone.html">a</a><a href="index.html#nowhere">b</a><img src="https://x.org/i.png"></body>',
        )
    )
    assert [address for _, address in broken_links(small)] == ['gone.html', 'index.html#nowhere', 'https://x.org/i.png']


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the site is not opened')
def test_a_page_opens_from_a_folder_without_an_error_and_its_search_finds(small, tmp_path):
    browsed = browse(small / 'chapters/03a_pooler.html', tmp_path / 'profile')
    assert browsed['faults'] == [] and all(width for _, width, _ in browsed['pictures'])
    page = small / 'searched.html'
    page.write_text((small / 'index.html').read_text().replace('</head>', PROBE))
    flags = '--headless --no-sandbox --disable-gpu --host-resolver-rules=MAP*~NOTFOUND --virtual-time-budget=9000'
    done = subprocess.run(
        [BROWSER, *flags.split(), f'--user-data-dir={tmp_path / "other"}', '--dump-dom', page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert int(re.search(r'data-found="(\d+)"', done.stdout)[1]) > 0, 'the search finds nothing'


def test_a_link_that_leads_nowhere_stops_the_build_and_names_its_page(tmp_path):
    site = build.Site(tmp_path / 'source')
    source = ROOT / 'README.md'
    with pytest.raises(build.BrokenLink, match=r'README.md: nbs/99_gone.ipynb leads to .* does not exist'):
        site.prose('[gone](nbs/99_gone.ipynb)', source, 'readme.md')
    turned = site.prose(
        '[a](nbs/05_train.ipynb#x) `[b](c)` ![d](figures/embedded/fig1_pipeline.png)', source, 'readme.md'
    )
    badge = '[![every figure](https://x.org/b.svg)](figures/embedded/README.md)'
    assert site.prose(badge, source, 'readme.md') == '[every figure](index.md)'
    assert turned == '[a](chapters/05_train.md#x) `[b](c)` ![d](results/embedded/fig1_pipeline.png)'
    assert (tmp_path / 'source/results/embedded/fig1_pipeline.png').is_file()


def test_outputs_become_text_pictures_and_markup_that_markdown_leaves_alone(tmp_path):
    site = build.Site(tmp_path / 'source')
    new = nbformat.v4.new_output
    assert site.output(new('stream', text='50%\r100%\x1b[0m\n'), 'a/b.md', 1, '') == '``` {.text .output}\n100%\n```'
    table = site.output(
        new('display_data', data={'text/html': '<table>\n\n    <tr>', 'text/plain': 'x'}), 'a/b.md', 2, ''
    )
    assert '<table>' not in table and list(site.raw.values()) == ['<div class="output"><table>\n\n    <tr></div>']
    picture = site.output(new('display_data', data={'image/png': 'aGk='}), 'a/b.md', 3, 'a map')
    assert picture == '\n![a map](b-3.png)\n' and (tmp_path / 'source/a/b-3.png').read_bytes() == b'hi'
    with pytest.raises(ValueError, match='a/b.md holds an error: NameError'):
        site.output(new('error', ename='NameError', evalue='x', traceback=[]), 'a/b.md', 4, '')


@pytest.mark.long
def test_the_whole_site_has_no_broken_link_and_opens_without_an_error(tmp_path):
    build.main(tmp_path / 'source')
    site = made(tmp_path / 'source')
    assert broken_links(site) == []
    assert len(list((site / 'chapters').glob('*.html'))) > 40 and len(list((site / 'api').glob('*.html'))) > 30
    for page in ('index.html', 'readme.html', 'chapters/08a_cortex.html', 'api/training.train.html'):
        assert not BROWSER or browse(site / page, tmp_path / 'profile', ignored=SOFTWARE_GL)['faults'] == [], page

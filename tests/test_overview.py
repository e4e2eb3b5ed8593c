"The page of all figures in a real browser: every picture loads, every link leads somewhere, and nothing stale gets on it."
import json, os, re, shutil, subprocess
from pathlib import Path
from urllib.parse import unquote

import nbformat, pandas as pd, pytest
from matplotlib import pyplot as plt

from mirage.figures import COLUMN, PAGE_WIDTH, Claim, new_figure, save_figure
from mirage.overview import account, in_order, write_overview

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
CLAIM = Claim('Native is above post-hoc <b>fusion</b> (§3.1) & more', 'r of a minus r of b, a measure with a long name', .1, .05, .15)


def draw(item, simulated=True, width=COLUMN, claims=(CLAIM,)):
    "One item as its notebook would leave it, the executed notebook included."
    fig = new_figure(width, 1.3); fig.add_axes((.15, .3, .8, .5)).plot([0, 1], [1, 2])
    surface = Path(os.environ['MIRAGE_ROOT'])/'figures/toy'/f'{item}.html'; surface.parent.mkdir(parents=True, exist_ok=True); surface.write_text('<p>surface')
    save_figure(fig, item, 'toy', pd.DataFrame(dict(x=[0, 1])), f'What {item} shows', 'It rises. '*30, simulated, claims, dict(cohort='toy', run='a-very-long-name-of-a-run-that-does-not-wrap'*3), [surface])
    plt.close(fig)
    notebook = Path(os.environ['MIRAGE_ROOT'])/f'results/toy/notebooks/{item}.ipynb'; notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# A figure'), nbformat.v4.new_code_cell('1 + 1', outputs=[nbformat.v4.new_output('stream', text='2')])]), notebook)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    draw('fig10_late'); draw('fig2_early', width=PAGE_WIDTH); draw('table3_licences', simulated=False, claims=())
    return tmp_path


PROBE = """<script>window.faults = []; addEventListener('error', e => faults.push(String(e.message || e.target.src)), true);
addEventListener('load', () => document.body.dataset.seen = JSON.stringify({faults, scroll: document.documentElement.scrollWidth, width: innerWidth, text: document.body.innerText.length,
  pictures: [...document.images].map(i => [i.getAttribute('src'), i.complete ? i.naturalWidth : 0, i.clientWidth])}))</script>"""


def browse(page, profile, width=1100):
    "What a browser without a network sees of the page, a copy of which lies beside it with a probe in it."
    probed = page.with_name('probed.html'); probed.write_text(page.read_text().replace('</head>', PROBE + '</head>'))
    done = subprocess.run([BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND', '--enable-logging=stderr', '--disable-background-networking', '--disable-component-update',
                           '--disable-sync', '--no-first-run', f'--user-data-dir={profile}', f'--window-size={width},2000', '--virtual-time-budget=5000', '--dump-dom', probed.as_uri()],
                          capture_output=True, text=True, timeout=120, env=os.environ | {'HOME': str(profile)})
    assert (found := re.search(r'data-seen="([^"]*)"', done.stdout)), done.stderr[-2000:]
    assert 'CONSOLE' not in done.stderr, done.stderr[-2000:]
    return json.loads(found[1].replace('&quot;', '"').replace('&amp;', '&'))


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the page of figures is not opened')
@pytest.mark.parametrize('width', [1100, 500])
def test_the_page_opens_with_every_picture_and_no_error(toy, tmp_path, width):
    page = write_overview('toy'); seen = browse(page, tmp_path/'profile', width)
    assert seen['faults'] == [] and [p[0] for p in seen['pictures']] == ['fig2_early.png', 'fig10_late.png', 'table3_licences.png']
    assert all(natural > 300 and shown > 100 for _, natural, shown in seen['pictures'])
    assert seen['scroll'] <= seen['width'], 'the page is wider than the window'


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the page of figures is not opened')
def test_the_browser_would_see_a_missing_picture(toy, tmp_path):
    page = write_overview('toy'); (page.parent/'fig2_early.png').unlink()
    with pytest.raises(AssertionError, match='ERR_FILE_NOT_FOUND|faults|CONSOLE'):
        seen = browse(page, tmp_path/'profile'); assert seen['faults'] == [] and all(p[1] for p in seen['pictures']), 'faults'


def test_links_lead_to_files_and_the_text_says_what_it_must(toy):
    page = write_overview('toy'); text = page.read_text()
    targets = [t for t in re.findall(r'(?:href|src)="([^"]+)"', text) if t != 'data:,']
    for t in targets: assert (f'id="{t[1:]}"' in text) if t.startswith('#') else (page.parent/unquote(t)).is_file(), t
    assert {Path(t).suffix for t in targets if not t.startswith('#')} == {'.png', '.pdf', '.csv', '.html', '.ipynb'} and not any('://' in t for t in targets)
    assert '&lt;b&gt;fusion&lt;/b&gt;' in text and '2 claims, of which 2 hold, 0 fail and 0 are undecided' in text
    assert text.index('Simulated data.') < text.index('<table') and text.count('>simulated data<') == 2
    assert 'papermill nbs/figures/fig2_early.ipynb out.ipynb -p cohort toy' in text and 'torch' in text.rsplit('<footer', 1)[1]
    assert text.index('id="fig2_early"') < text.index('id="fig10_late"') < text.index('id="table3_licences"')


def test_a_page_about_people_is_not_called_simulated(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path)); draw('fig2_early', simulated=False)
    assert 'imulated data' not in write_overview('toy').read_text().split('</style>')[1]


def test_nothing_stale_gets_on_the_page(toy):
    picture, said = toy/'figures/toy/fig2_early.png', toy/'results/toy/figures/fig2_early.json'
    page = write_overview('toy'); before = page.read_bytes(); kept = picture.read_bytes()
    picture.write_bytes(kept[:-1])
    with pytest.raises(ValueError, match='fig2_early.png is not the file that fig2_early.json describes: one of them is stale. Draw it again: papermill'): write_overview('toy')
    picture.unlink()
    with pytest.raises(FileNotFoundError, match='fig2_early.png is missing, though'): write_overview('toy')
    picture.write_bytes(kept); about = json.loads(said.read_text()); said.write_text(json.dumps(about | dict(files=list(about['files']))))
    with pytest.raises(ValueError, match='has no digests'): write_overview('toy')
    said.unlink()
    with pytest.raises(FileNotFoundError, match='fig2_early was not drawn for toy'): write_overview('toy', ['fig2_early', 'fig10_late'])
    with pytest.raises(FileNotFoundError, match='no figure was drawn for nobody'): write_overview('nobody')
    assert page.read_bytes() == before                                  # a refused page leaves the one before
    assert sorted(['table1_scores', 'fig10_x', 'control', 'fig2_x'], key=in_order) == ['fig2_x', 'fig10_x', 'table1_scores', 'control']


def test_a_notebook_that_stopped_is_not_shown(toy):
    notebook = toy/'results/toy/notebooks/fig2_early.ipynb'; nb = nbformat.read(notebook, 4); nb.metadata['papermill'] = dict(exception=True); nbformat.write(nb, notebook)
    text = write_overview('toy').read_text()
    assert 'notebooks/fig2_early' not in text and 'notebooks/fig10_late.html' in text
    assert account('toy', 'fig2_early')['claims'][0]['verdict'] == 'holds'

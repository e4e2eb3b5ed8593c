"""The page of all figures in a real browser: every picture loads, every link leads somewhere, and nothing stale gets on
it."""

import json, os, re, shutil, subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import nbformat, pandas as pd, pytest
from matplotlib import pyplot as plt

from mirage.core import write_sealed
from mirage.plotting.figures import COLUMN, PAGE_WIDTH, Claim, new_figure, save_figure
from mirage.plotting.overview import read_account, item_order, write_overview

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
CLAIM = Claim(
    'Native is above post-hoc <b>fusion</b> (§3.1) & more',
    'r of a minus r of b, a measure with a long name',
    0.1,
    0.05,
    0.15,
)


def draw(item, simulated=True, width=COLUMN, claims=(CLAIM,)):
    "One item as its notebook would leave it, the executed notebook included."
    fig = new_figure(width, 1.3)
    fig.add_axes((0.15, 0.3, 0.8, 0.5)).plot([0, 1], [1, 2])
    surface = Path(os.environ['MIRAGE_ROOT']) / 'results/toy/figures' / f'{item}.html'
    surface.parent.mkdir(parents=True, exist_ok=True)
    surface.write_text('<p>surface')
    save_figure(
        fig,
        item,
        'toy',
        pd.DataFrame(dict(x=[0, 1])),
        title=f'What {item} shows',
        caption='It rises. ' * 30,
        shown=SimpleNamespace(name='toy', root=Path('toy'), simulated=True, subjects=('sub-01',))
        if simulated
        else None,
        claims=claims,
        params=dict(cohort='toy', run='a-very-long-name-of-a-run-that-does-not-wrap' * 3),
        extra=[surface],
    )
    plt.close(fig)
    notebook = Path(os.environ['MIRAGE_ROOT']) / f'results/toy/notebooks/{item}.ipynb'
    notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[
                nbformat.v4.new_markdown_cell('# A figure'),
                nbformat.v4.new_code_cell('1 + 1', outputs=[nbformat.v4.new_output('stream', text='2')]),
            ]
        ),
        notebook,
    )


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    draw('fig10_late')
    draw('fig2_early', width=PAGE_WIDTH)
    draw('table3_licences', simulated=False, claims=())
    return tmp_path


PROBE = """<script>window.faults = []; addEventListener('error', e => faults.push(String(e.message || e.target.src)), true);
addEventListener('load', () => document.body.dataset.seen = JSON.stringify({faults, scroll: document.documentElement.scrollWidth, width: innerWidth, text: document.body.innerText.length,
  pictures: [...document.images].map(i => [i.getAttribute('src'), i.complete ? i.naturalWidth : 0, i.clientWidth])}))</script>"""  # noqa: E501


def headless(page, profile, *options):  # CompletedProcess, whose output is what became of the page
    "Open a page in a browser without a network."
    quiet = '--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync'
    return subprocess.run(
        [
            BROWSER,
            '--headless',
            *quiet.split(),
            '--host-resolver-rules=MAP * ~NOTFOUND',
            '--no-first-run',
            f'--user-data-dir={profile}',
            *options,
            '--dump-dom',
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {'HOME': str(profile)},
    )


def browse(page, profile, width=1100, ignored='(?!)'):  # regular expression: lines of the console that are no fault
    "What a browser without a network sees of the page, a copy of which lies beside it with a probe in it."
    probed = page.with_name('probed.html')
    probed.write_text(page.read_text().replace('</head>', PROBE + '</head>'))
    shown = ['--enable-logging=stderr', f'--window-size={width},2000', '--virtual-time-budget=5000']
    done = headless(probed, profile, *shown)
    assert (found := re.search(r'data-seen="([^"]*)"', done.stdout)), done.stderr[-2000:]
    faults = [line for line in done.stderr.splitlines() if 'CONSOLE' in line and not re.search(ignored, line)]
    assert not faults, faults
    return json.loads(found[1].replace('&quot;', '"').replace('&amp;', '&'))


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the page of figures is not opened')
@pytest.mark.parametrize('width', [1100, 500])
def test_the_page_opens_with_every_picture_and_no_error(toy, tmp_path, width):
    page = write_overview('toy')
    browsed = browse(page, tmp_path / 'profile', width)
    assert browsed['faults'] == [] and [p[0] for p in browsed['pictures']] == [
        'fig2_early.png',
        'fig10_late.png',
        'table3_licences.png',
    ]
    assert all(natural > 300 and shown > 100 for _, natural, shown in browsed['pictures'])
    assert browsed['scroll'] <= browsed['width'], 'the page is wider than the window'


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the page of figures is not opened')
def test_the_browser_would_see_a_missing_picture(toy, tmp_path):
    page = write_overview('toy')
    (page.parent / 'fig2_early.png').unlink()
    with pytest.raises(AssertionError, match='ERR_FILE_NOT_FOUND|faults|CONSOLE'):
        browsed = browse(page, tmp_path / 'profile')
        assert browsed['faults'] == [] and all(p[1] for p in browsed['pictures']), 'faults'


def test_links_lead_to_files_and_the_text_says_what_it_must(toy):
    page = write_overview('toy')
    text = page.read_text()
    targets = [t for t in re.findall(r'(?:href|src)="([^"]+)"', text) if t != 'data:,']
    for t in targets:
        assert (f'id="{t[1:]}"' in text) if t.startswith('#') else (page.parent / unquote(t)).is_file(), t
    assert {Path(t).suffix for t in targets if not t.startswith('#')} == {
        '.png',
        '.pdf',
        '.csv',
        '.html',
        '.ipynb',
    } and not any('://' in t for t in targets)
    assert '&lt;b&gt;fusion&lt;/b&gt;' in text and '1 numbers, of which 1 hold, 0 fail and 0 are undecided' in text
    assert text.index('Simulated data.') < text.index('<table') and text.count('>simulated data<') == 2
    assert (
        'papermill nbs/figures/fig2_early.ipynb out.ipynb -p cohort toy' in text
        and 'torch' in text.rsplit('<footer', 1)[1]
    )
    assert text.index('id="fig2_early"') < text.index('id="fig10_late"') < text.index('id="table3_licences"')


def test_a_page_about_people_is_not_called_simulated(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    draw('fig2_early', simulated=False)
    assert 'imulated data' not in write_overview('toy').read_text().split('</style>')[1]


def test_nothing_stale_gets_on_the_page(toy):
    picture, account = toy / 'results/toy/figures/fig2_early.png', toy / 'results/toy/figures/fig2_early.json'
    page = write_overview('toy')
    before = page.read_bytes()
    kept = picture.read_bytes()
    picture.write_bytes(kept[:-1])
    with pytest.raises(
        ValueError,
        match='fig2_early.png is not the file that fig2_early.json describes: one of them is stale. Draw it again: '
        'papermill',
    ):
        write_overview('toy')
    picture.unlink()
    with pytest.raises(FileNotFoundError, match='fig2_early.png is missing, though'):
        write_overview('toy')
    picture.write_bytes(kept)
    about = json.loads(account.read_text())
    account.write_text(json.dumps(about | dict(files=list(about['files']))))
    with pytest.raises(ValueError, match='has no digests'):
        write_overview('toy')
    account.unlink()
    with pytest.raises(FileNotFoundError, match='fig2_early was not drawn for toy'):
        write_overview('toy', ['fig2_early', 'fig10_late'])
    with pytest.raises(FileNotFoundError, match='no figure was drawn for nobody'):
        write_overview('nobody')
    assert page.read_bytes() == before  # a refused page leaves the one before
    assert sorted(['table1_scores', 'fig10_x', 'control', 'fig2_x'], key=item_order) == [
        'fig2_x',
        'fig10_x',
        'table1_scores',
        'control',
    ]


def test_an_account_in_which_a_number_was_changed_is_refused(toy):
    where = toy / 'results/toy/figures/fig2_early.json'
    text = where.read_text()
    account = json.loads(text)
    account['claims'][0]['number'] = '0.999'
    where.write_text(json.dumps(account))
    with pytest.raises(ValueError, match='fig2_early.json was altered since it was written.*Draw it again: papermill'):
        write_overview('toy')


def test_a_notebook_that_stopped_is_not_shown(toy):
    notebook = toy / 'results/toy/notebooks/fig2_early.ipynb'
    nb = nbformat.read(notebook, 4)
    nb.metadata['papermill'] = dict(exception=True)
    nbformat.write(nb, notebook)
    text = write_overview('toy').read_text()
    assert 'notebooks/fig2_early' not in text and 'notebooks/fig10_late.html' in text
    assert read_account('toy', 'fig2_early')['claims'][0]['verdict'] == 'holds'


# ---- results from somebody else

EVIL = '<img src=x onerror="document.title=\'RAN\'"><script>document.title="RAN"</script><!--__DATA__'


@pytest.mark.parametrize(
    'change, says',
    [
        (dict(item='other'), 'item is'),
        (dict(files={'../../../outside.png': 'x'}), 'a file is'),
        (dict(files=3), 'files is'),
        (dict(cohort='../..'), 'cohort is'),
        (dict(cohort=None), 'cohort is'),
        (dict(claims=[dict(paper='a', here='b', number='c', note='', verdict='holds"><script>')]), 'claims is'),
        (dict(table=dict(columns=['a'], data=[['b', 'c']])), 'table is'),
        (dict(table=dict(columns=['a'], data=[[3]])), 'table is'),
        (dict(table='none'), 'table is'),
        (dict(claims='none'), 'claims is'),
        (dict(simulated='no'), 'simulated is'),
        (dict(title=['a']), 'title is'),
        ([], 'is no account'),
        ('cut', 'is not JSON'),
    ],
)
def test_an_account_that_says_something_else_is_refused_by_the_name_of_its_file(toy, change, says):
    where = toy / 'results/toy/figures/fig2_early.json'
    text = where.read_text()
    where.write_text(
        text[:90] if change == 'cut' else json.dumps(json.loads(text) | change if isinstance(change, dict) else change)
    )
    with pytest.raises(ValueError, match=f'fig2_early.json.*{says}'):
        write_overview('toy')
    for name in ('../toy', '', '<b>'):
        with pytest.raises(ValueError, match='item is'):
            read_account('toy', name)


def hostile_account(where):
    account = json.loads(where.read_text())
    account |= dict(title=EVIL, caption=EVIL, command=EVIL, faults=[EVIL])
    account |= dict(
        claims=[dict(paper=EVIL, here=EVIL, number=EVIL, note=EVIL, verdict='fails')],
        table=dict(columns=[EVIL], data=[[EVIL]]),
    )
    account.pop('sha256')
    write_sealed(where, account)  # whoever writes an account can also give it its digest


def hostile_outputs():
    v4 = nbformat.v4
    data = {
        'text/html': '<iframe srcdoc="'
        + EVIL[:40].replace('"', '&quot;')
        + '"></iframe><a href="javascript:document.title=\'RAN\'">a</a><table '
        'style="color:red;position:fixed"><tr><td>cell</table>' + EVIL,
        'text/markdown': EVIL,
        'text/latex': EVIL,
        'application/javascript': 'document.title="RAN"',
        'image/svg+xml': f'<svg xmlns="http://www.w3.org/2000/svg" onload="document.title=\'RAN\'">{EVIL}</svg>',
    }
    return [v4.new_output('display_data', data={k: t}) for k, t in data.items()] + [
        v4.new_output(
            'display_data',
            data={'image/png': 'x" onerror="document.title=\'RAN\'"'},
            metadata={'image/png': {'width': EVIL, 'alt': f'">{EVIL}'}},
        ),
        v4.new_output('stream', text=EVIL),
        v4.new_output('error', ename=EVIL, evalue=EVIL, traceback=[EVIL]),
    ]


def hostile(toy):
    "An account and a notebook full of markup, as they could come with somebody's folder of results."
    hostile_account(toy / 'results/toy/figures/fig2_early.json')
    v4 = nbformat.v4
    nb = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(f'# A heading\n{EVIL}\n\n[l](javascript:1) <img src="/etc/hostname">'),
            v4.new_code_cell(f'x = 3 < 4  # {EVIL}', outputs=hostile_outputs()),
        ],
        metadata=dict(
            title=EVIL,
            language_info=dict(name='python', pygments_lexer=f'">{EVIL}'),
            widgets={
                'application/vnd.jupyter.widget-state+json': dict(
                    state=dict(a=f'</script>{EVIL}'), version_major=2, version_minor=0
                )
            },
        ),
    )
    nb.cells[0].metadata.tags = [f'">{EVIL}']
    path = toy / 'results/toy/notebooks/fig2_early.ipynb'
    nbformat.write(nb, path)
    return path.with_suffix('.html')


class Acts(HTMLParser):
    "Everything in a page that acts."

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name.startswith('on') or str(value).strip().lower().startswith('javascript:') or name == 'srcdoc':
                self.found.append((tag, name, value))
        if tag in ('script', 'iframe', 'object', 'embed', 'svg', 'form', 'base'):
            self.found.append((tag, dict(attrs)))


def test_markup_in_results_of_others_is_shown_as_text(toy):
    executed = hostile(toy)
    page = write_overview('toy').read_text()
    assert Acts(page).found == [] and page.count('&lt;script&gt;') >= 7
    text = executed.read_text()
    body = text[text.index('<body') :]
    assert (
        Acts(body).found == []
        and '<h1' in body
        and 'A heading' in body
        and '>cell</td>' in body
        and 'color:red' in body
        and 'position' not in body
        and '/etc/hostname' not in re.findall('src="([^"]*)"', body)
    )


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the pages of others are not opened')
def test_nothing_that_others_wrote_runs_in_the_browser(toy, tmp_path):
    executed = hostile(toy)
    page = write_overview('toy')
    for path in (page, executed):
        done = headless(path, tmp_path / 'profile', '--virtual-time-budget=3000')
        assert 'A heading' in done.stdout or 'every figure' in done.stdout
        assert '<title>RAN' not in done.stdout, path


def test_a_notebook_that_is_none_is_named(toy):
    for text in ('', '{', '[]', '{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}'):
        (toy / 'results/toy/notebooks/fig2_early.ipynb').write_text(text)
        with pytest.raises(ValueError, match='fig2_early.ipynb is no notebook'):
            write_overview('toy')

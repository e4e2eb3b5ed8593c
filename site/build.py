"""Everything that MkDocs turns into the site: results first, then the chapters, then what every function is given and
returns. Written anew into a folder each time; it needs no network, and no page loads anything from one."""

import argparse
import base64
import html
import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    '00': 'Core', '01': 'Data', '02': 'Features', '03': 'Models', '04': 'Training', '05': 'Training',
    '06': 'Evaluation', '07': 'Interpretation', '08': 'Plotting', '09': 'Prediction',
}  # fmt: skip
DOCUMENTS = {'README.md': 'readme.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md'}
PICTURES = {'image/png': 'png', 'image/jpeg': 'jpg', 'image/svg+xml': 'svg'}
FOREIGN = re.compile(r'!\[([^\]]*)\]\(https?://[^)]*\)')  # a picture of another site, such as a badge
PROSE = re.compile(r'(```.*?```|`[^`\n]*`)', re.S)  # everything but code
LINK = re.compile(r'(!?\[[^\]]*\])\(([^)\s]+)\)|(\]\()([^)\s]+)\)')


class BrokenLink(ValueError):
    "A link of a page leads nowhere."


def notebooks() -> list[Path]:
    "Chapters in their order, then figures and benchmarks."
    found = [p for p in (ROOT / 'nbs').rglob('*.ipynb') if not p.name.startswith('.') and p.stem != 'index']
    return sorted(found, key=lambda p: (len(p.relative_to(ROOT).parts), str(p)))


def page_of(notebook: Path) -> str:  # from the site's root
    "Where a notebook stands on the site."
    inside = notebook.relative_to(ROOT / 'nbs')
    return f'{inside.parent if inside.parent != Path(".") else "chapters"}/{notebook.stem}.md'


def executed(notebook: Path, cohort: str = 'embedded') -> Path:
    "The copy that the pipeline ran, where there is one; else the notebook as it is stored."
    ran = ROOT / 'results' / cohort / 'notebooks' / notebook.name
    return ran if ran.is_file() else notebook


def results_page(cohort: str) -> str:  # from the site's root
    "Where a cohort's results stand; the embedded cohort's open the site."
    return 'index.md' if cohort == 'embedded' else f'results/{cohort}/index.md'


class Site:
    "A folder of Markdown, and what its pages need."

    def __init__(self, target: Path):
        self.target, self.raw = target, {}
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)

    def write(self, page: str, text: str):
        path = self.target / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def copy(self, source: Path, to: str) -> str:
        path = self.target / to
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        return to

    def keep(self, markup: str) -> str:
        "HTML that Markdown must not touch: a mark that the hook replaces."
        self.raw[key := f'mirage-raw-{len(self.raw)}'] = markup
        return f'\n<div id="{key}"></div>\n'

    def place_of(self, path: Path, link: str) -> str:  # from the site's root
        "What a file of the repository is called on the site; BrokenLink where there is no such file."
        if not path.is_relative_to(ROOT) or not path.exists():
            raise BrokenLink(f'{link} leads to {path}, which does not exist')
        inside = path.relative_to(ROOT)
        if path.suffix == '.ipynb' and path.is_relative_to(ROOT / 'nbs'):
            return 'readme.md' if path.stem == 'index' else page_of(path)
        if str(inside) in DOCUMENTS:
            return DOCUMENTS[str(inside)]
        if inside.parts[0] == 'figures' and len(inside.parts) == 3:
            if inside.name == 'README.md':
                return results_page(inside.parts[1])
            return self.copy(path, f'results/{inside.parts[1]}/{inside.name}')
        if path.is_dir():
            raise BrokenLink(f'{link} leads to the folder {inside}; name a file')
        return self.copy(path, f'files/{inside}')

    def link(self, target: str, source: Path, page: str) -> str:
        "A link of a file of the repository, as the page that is made of it has it."
        if re.match(r'[a-z]+:|#', target):
            return target
        address, mark, part = target.partition('#')
        place = self.place_of((source.parent / address).resolve(), f'{source.relative_to(ROOT)}: {target}')
        up = '../' * page.count('/')
        return f'{up}{place}{mark}{part}'

    def prose(self, text: str, source: Path, page: str) -> str:
        "Markdown with its links turned to the site's; what would be loaded from elsewhere is left as its text."

        def turned(found):
            head, target = found[1] or ']', found[2] or found[4]
            return f'{head}({self.link(target, source, page)})'

        parts = PROSE.split(text)
        shown = ''.join(part if k % 2 else LINK.sub(turned, FOREIGN.sub(r'\1', part)) for k, part in enumerate(parts))
        return shown.replace('<details>', '<details markdown>')  # what is folded is Markdown too

    def output(self, out: dict, page: str, number: int, alt: str) -> str:
        "One output of a cell."
        if out['output_type'] == 'error':
            raise ValueError(f'{page} holds an error: {out["ename"]}: {out["evalue"]}')
        if out['output_type'] == 'stream':
            return fenced(out['text']) if out['name'] == 'stdout' else ''
        data = out['data']
        for kind, suffix in PICTURES.items():
            if kind in data:
                return self.picture(data[kind], f'{page.removesuffix(".md")}-{number}.{suffix}', alt)
        if 'text/html' in data:
            return self.keep(f'<div class="output">{data["text/html"]}</div>')
        return data['text/markdown'] + '\n' if 'text/markdown' in data else fenced(data.get('text/plain', ''))

    def picture(self, data: str, name: str, alt: str) -> str:
        path = self.target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith('.svg'):
            path.write_text(data)
        else:
            path.write_bytes(base64.b64decode(data))
        return f'\n![{alt}]({path.name})\n'

    def notebook(self, path: Path, before: str = ''):
        "A notebook as a page: prose, code and outputs; what only nbdev reads is left out."
        page, text, heading, number = page_of(path), [], path.stem, 0
        for cell in nbformat.read(executed(path), as_version=4).cells:
            if cell.cell_type == 'markdown':
                found = re.findall(r'^#+ (.+)$', PROSE.sub('', cell.source), re.M)
                heading = found[-1] if found else heading
                text.append(self.prose(cell.source, path, page))
                if before and len(text) == 1:
                    text.append(before)
            elif cell.cell_type == 'code':
                text.append(code(cell.source))
                for out in cell.outputs:
                    number += 1
                    text.append(self.output(out, page, number, f'drawn under the heading {plain(heading)}'))
        self.write(page, '\n\n'.join(filter(None, text)))


def plain(text: str) -> str:
    "A heading as the words of a picture for those who do not see it."
    return re.sub(r'[\[\]()*`$\\]', '', text)


def fenced(text: str) -> str:
    text = re.sub(r'\x1b\[[0-9;]*[A-Za-z]', '', ''.join(text)).rstrip()
    text = '\n'.join(line.rpartition('\r')[2] for line in text.split('\n'))  # of a progress bar, its end
    return f'``` {{.text .output}}\n{text}\n```' if text.strip() else ''


def code(source: str) -> str:
    "A code cell without directives; empty where nothing else is left."
    lines = [line for line in source.splitlines() if not line.startswith('#|')]
    kept = '\n'.join(lines).strip('\n')
    return f'```python\n{kept}\n```' if kept.strip() else ''


def results(site: Site) -> list:  # of the navigation
    "One page per cohort, as `make figures` wrote it, with the cortex to turn beside it."
    found = [p for p in sorted((ROOT / 'figures').glob('*/README.md')) if p.parent.name != 'smoke']
    found.sort(key=lambda p: p.parent.name != 'embedded')
    pages = []
    for source in found:
        cohort = source.parent.name
        page = results_page(cohort)
        text = site.prose(source.read_text(), source, page)
        site.write(page, f'{text}\n\n{cortex(site, cohort, page)}')
        pages.append({re.search('^# (.+)$', text, re.M)[1]: page})
    if not pages:
        raise FileNotFoundError(f'{ROOT}/figures has no cohort with a README.md: make figures writes it')
    return pages


def cortex(site: Site, cohort: str, page: str) -> str:
    "The surface to turn, drawn from the committed numbers of Figure 3; empty for a cohort without the atlas."
    import pandas as pd

    file = ROOT / 'figures' / cohort / 'fig3_modalities.csv'
    table = pd.read_csv(file) if file.is_file() else pd.DataFrame()
    if not {'net', 'r'} <= set(table):
        return ''
    from mirage.plotting.cortex import surface_html

    place = f'results/{cohort}/cortex.html'
    (site.target / place).parent.mkdir(parents=True, exist_ok=True)
    surface_html(table.r.to_numpy(), site.target / place, f'{cohort}: accuracy per parcel', 'Pearson r')
    up = '../' * page.count('/')
    frame = f'<iframe class="cortex" src="{up}{place}" title="The cortex, to turn: accuracy per parcel"></iframe>'
    caption = f'Accuracy per parcel (cohort `{cohort}`); drag to turn, scroll to zoom.'
    return f'## The cortex, to turn\n{caption}\n{site.keep(frame)}'


def shown_figure(site: Site, notebook: Path) -> str:
    "The committed picture of a figure's notebook, and its numbers."
    picture = ROOT / 'figures' / 'embedded' / f'{notebook.stem}.png'
    if not picture.is_file():
        return ''
    page = page_of(notebook)
    name = f'figures/embedded/{notebook.stem}'
    links = [f'[{kind}](../{site.place_of(ROOT / f"{name}.{kind}", page)})' for kind in ('png', 'pdf', 'csv')]
    drawn = f'![{notebook.stem}, drawn for the embedded cohort](../{site.place_of(picture, page)})'
    return f'{drawn}\n\n*As committed for the embedded cohort, simulated:* {" · ".join(links)}'


def chapters(site: Site) -> list:  # of the navigation
    nav = {}
    for path in notebooks():
        kind = path.parent.name
        group = GROUPS[path.stem[:2]] if kind == 'nbs' else kind.capitalize()
        site.notebook(path, shown_figure(site, path) if kind == 'figures' else '')
        nav.setdefault(group, []).append({title_of(path): page_of(path)})
    return [{group: pages} for group, pages in nav.items()]


def title_of(path: Path) -> str:
    "`01c The cohort`; a figure's title says its number itself."
    cells = nbformat.read(path, as_version=4).cells
    heading = next(re.search('^# (.+)$', c.source, re.M) for c in cells if c.source.lstrip().startswith('# '))
    number = re.match(r'\d\d[a-z]?(?=_)', path.stem)
    return f'{number[0]} {heading[1]}' if number else heading[1]


def documents(site: Site) -> list:
    nav = []
    for name, page in DOCUMENTS.items():
        if (ROOT / name).is_file():
            site.write(page, site.prose((ROOT / name).read_text(), ROOT / name, page))
            nav.append({dict(readme='Read me', contributing='Contributing', changelog='Changes')[page[:-3]]: page})
    return nav


# ---- what every function is given and returns, from the comments beside its arguments


def value(thing) -> str:
    "The source of a default, in short."
    text = getattr(thing, '__name__', None) or repr(thing)
    return text if len(text) < 60 else text[:57] + '…'


def cell(text: str, code: bool = False) -> str:
    "A cell of a table: what would end it, or be markup, is written so that it does not."
    plain = html.escape(text, quote=False).replace('|', '&#124;').replace('\n', ' ')
    return f'<code>{plain}</code>' if code and plain else plain


def row(name: str, about) -> str:
    from inspect import _empty

    kind = '' if about['anno'] in (_empty, None) else getattr(about['anno'], '__name__', str(about['anno']))
    default = '' if about.get('default', _empty) is _empty else value(about['default'])
    return f'| `{name}` | {cell(kind, True)} | {cell(default, True)} | {cell(about["docment"] or "")} |'


def table(thing) -> str:
    "Arguments and result, with types, defaults and what stands beside them."
    from fastcore.docments import docments

    try:
        about = docments(thing, full=True)
    except (TypeError, ValueError, OSError):
        return ''
    rows = [row(name, about[name]) for name in about if name not in ('self', 'cls', 'return')]
    back = about.get('return')
    if back and (back['docment'] or back['anno'] not in (None, type(None)) and 'empty' not in str(back['anno'])):
        rows.append(row('returns', back))
    return '| | type | default | |\n|---|---|---|---|\n' + '\n'.join(rows) if rows else ''


def signature(thing) -> str:
    import inspect

    try:
        names = [
            str(p).partition(':')[0].partition('=')[0].strip() for p in inspect.signature(thing).parameters.values()
        ]
    except (TypeError, ValueError):
        return ''
    return f'({", ".join(n for n in names if n not in ("self", "cls"))})'


def members(cls) -> str:
    "The public methods and properties of a class, one per line."
    lines = []
    for name, thing in vars(cls).items():
        inner = getattr(thing, 'fget', None) or getattr(thing, 'func', None) or getattr(thing, '__func__', thing)
        if name.startswith('_') or not callable(inner) or not getattr(inner, '__module__', '').startswith('mirage'):
            continue
        called = signature(inner) if inner is thing or isinstance(thing, classmethod | staticmethod) else ''
        first_line = (inner.__doc__ or '').strip().partition('\n')[0]
        lines.append(f'- `.{name}{called}` {html.escape(first_line, quote=False)}')
    return '\n'.join(lines)


def described(module, name: str) -> str:
    thing = getattr(module, name)
    if not callable(thing):
        return f'### `{name}` {{ #{name} }}\n```python\n{name} = {value(thing)}\n```'
    doc = html.escape((getattr(thing, '__doc__', '') or '').strip(), quote=False)
    parts = [f'### `{name}` {{ #{name} }}', f'```python\n{name}{signature(thing)}\n```', doc, table(thing)]
    if isinstance(thing, type):
        parts.append(members(thing))
    return '\n\n'.join(filter(None, parts))


def api(site: Site, modules: list | None = None) -> list:  # of the navigation
    "One page a module: everything that its chapter exports."
    sys.path.insert(0, str(ROOT))
    nav = {}
    for path in notebooks():
        first = nbformat.read(path, as_version=4).cells[0].source
        found = re.match(r'#\| default_exp (\S+)', first)
        if not found or (modules is not None and found[1] not in modules):
            continue
        module = importlib.import_module(f'mirage.{found[1]}')
        page = f'api/{found[1]}.md'
        doc = html.escape(module.__doc__ or '', quote=False)
        chapter = f'Told and tried in chapter [{title_of(path)}](../{page_of(path)}).'
        head = f'# mirage.{found[1]}\n\n{doc}\n\n{chapter}'
        shown = [described(module, name) for name in module.__all__ if getattr(module, name).__doc__ is not None]
        site.write(page, '\n\n'.join([head, *shown]))
        nav.setdefault(found[1].partition('.')[0], []).append({found[1].rpartition('.')[2]: page})
    return [{package: pages} for package, pages in nav.items()]


def configuration(target: Path, nav: list) -> dict:
    "site/mkdocs.yml with this site's folders and navigation."
    settings = yaml.safe_load((ROOT / 'site' / 'mkdocs.yml').read_text())
    settings['hooks'] = [str(ROOT / 'site' / 'hooks.py')]
    return settings | dict(docs_dir=str(target), site_dir=str(target.parent / 'site'), nav=nav)


def finish(site: Site, nav: list):
    "What goes beside the pages: assets, kept HTML, and MkDocs' settings."
    for asset in sorted((ROOT / 'site' / 'assets').iterdir()):
        site.copy(asset, f'assets/{asset.name}')
    (site.target.parent / 'raw.json').write_text(json.dumps(site.raw))
    settings = yaml.safe_dump(configuration(site.target, nav), sort_keys=False)
    (site.target.parent / 'mkdocs.yml').write_text(settings)


def main(target: Path):
    site = Site(target)
    nav = [{'Results': results(site)}, *documents(site)[:1], {'Chapters': chapters(site)}, {'API': api(site)}]
    finish(site, nav + documents(site)[1:])
    print(f'{len(list(target.rglob("*.md")))} pages in {target}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('target', type=Path, help='a folder that is written anew')
    main(parser.parse_args().target.resolve())

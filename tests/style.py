"""Functions of more than 40 lines, in notebooks and tests: those that are left are listed, and the list only shrinks.
A cell of a notebook defines at most three functions or classes. No comprehension inside another one. Lines of the
pipeline, which ruff does not read, have at most 120 characters."""

import ast
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = 40
DEFINITIONS = 3
LIST = Path(__file__).with_name('long_functions.txt')
DEFINED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
WIDTH = 120


def pieces():
    "Each piece of code with its name: cells of notebooks, files of tests."
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        if path.name.startswith('.'):
            continue
        for cell in json.loads(path.read_text())['cells']:
            if cell['cell_type'] == 'code':
                yield path, re.sub(r'^\s*(%|!(?!=)).*$', '', ''.join(cell['source']), flags=re.M)
    for path in sorted((ROOT / 'tests').glob('*.py')):
        yield path, path.read_text()


def functions(tree, within=''):
    "Name and number of lines of every function, methods with their class."
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node.end_lineno - node.lineno + 1
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from functions(node, f'{within}{node.name}.' if named else within)


def long_functions():
    "'path function' → lines, of those over the limit."
    return {
        f'{path.relative_to(ROOT)} {name}': lines
        for path, source in pieces()
        for name, lines in functions(ast.parse(source))
        if lines > LINES
    }


def nested(node):
    "Whether a comprehension has another one inside."
    inner = [n for child in ast.iter_child_nodes(node) for n in ast.walk(child)]
    return isinstance(node, COMPREHENSIONS) and any(isinstance(n, COMPREHENSIONS) for n in inner)


def nested_comprehensions():
    "Where a comprehension has another one inside."
    for path, source in pieces():
        for node in filter(nested, ast.walk(ast.parse(source))):
            first = ast.unparse(node)[:60]
            yield f'{path.relative_to(ROOT)} has a comprehension inside another one, {first} …: name the inner one'


def crowded_cells():
    "Cells of notebooks with too many definitions."
    for path, source in pieces():
        named = [n.name for n in ast.parse(source).body if isinstance(n, DEFINED)] if path.suffix == '.ipynb' else []
        if len(named) > DEFINITIONS:
            yield (
                f'{path.relative_to(ROOT)} defines {len(named)} functions or classes in one cell, {", ".join(named)}; '
                f'at most {DEFINITIONS} are allowed: divide the cell'
            )


def problems(found, listed):
    "What is longer than the list allows, and what the list allows without need."
    for key in sorted(found.keys() | listed.keys()):
        have, may = found.get(key, 0), listed.get(key, 0)
        if have > max(may, LINES):
            yield f'{key} has {have} lines, at most {max(may, LINES)} are allowed: divide it'
        elif have < may:
            yield f'{key} has {have or f"{LINES} or fewer"} lines now: say so in {LIST.name}, or strike it out'


def long_lines():
    path = ROOT / 'nbs/paper.smk'
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if len(line) > WIDTH:
            yield f'{path.relative_to(ROOT)}, line {number} has {len(line)} characters, at most {WIDTH} are allowed'


def read_list():
    lines = [line.rsplit(' ', 1) for line in LIST.read_text().splitlines() if line and not line.startswith('#')]
    return {key: int(n) for key, n in lines}


def write_list(found):
    head = f'# functions of more than {LINES} lines and how many they have; this list only gets shorter\n'
    LIST.write_text(head + ''.join(f'{k} {n}\n' for k, n in sorted(found.items())))


if __name__ == '__main__':
    found = long_functions()
    if sys.argv[1:] == ['list']:
        write_list(found)
    wrong = [*problems(found, read_list()), *nested_comprehensions(), *crowded_cells(), *long_lines()]
    print('\n'.join(wrong) or f'{len(found)} functions have more than {LINES} lines, all of them listed')
    sys.exit(bool(wrong))

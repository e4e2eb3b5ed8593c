"Wrong arguments of every notebook that papermill runs: one line each that names the parameter."

import ast
import json
import math
import subprocess
import sys
from pathlib import Path
from types import NoneType
from typing import Optional, Union

import pytest

from mirage.core import CHOICES, NUMBERS, PATHS, WHOLE, WrongParameter, check_parameters, kinds_of

ROOT = Path(__file__).resolve().parents[1]
NAN, INFINITE = math.nan, math.inf


def cells_of(path):
    return [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']


def parameters_cell(path):
    found = [''.join(c['source']) for c in cells_of(path) if 'parameters' in c['metadata'].get('tags', [])]
    return found[0] if found else ''


NOTEBOOKS = {p.stem: p for p in sorted((ROOT / 'nbs').rglob('*.ipynb')) if p.name[0] != '.' and parameters_cell(p)}


def call_of(path):  # what the notebook's own check_parameters(globals(), …) is given
    for cell in cells_of(path):
        source = ''.join(cell['source'])
        if 'check_parameters(globals()' not in source:
            continue
        (call,) = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'check_parameters'
        ]
        return {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    raise AssertionError(f'{path.name} never checks its parameters')


def given(path, name, value):
    "What the notebook says when papermill sets a parameter."
    source, space = parameters_cell(path), dict(Optional=Optional, Union=Union)
    exec(source, space)
    space[name] = value
    space['In'] = ['', source, f'# Parameters\n{name} = None\n', 'check_parameters(globals())']
    return check_parameters(space, **call_of(path))


def defaults(path):
    space = dict(Optional=Optional, Union=Union)
    exec(parameters_cell(path), space)
    kinds = {k: kinds_of(v) for k, v in space['__annotations__'].items()}
    return {k: space[k] for k in kinds}, kinds


def wrong_values(name, kinds, default):
    yield from wrong_for_kind(name, kinds[0], default or '') if len(set(kinds) - {NoneType}) == 1 else [b'x']
    if NoneType not in kinds:
        yield None
    elif str in kinds:
        yield ''


def wrong_for_kind(name, kind, default):
    yield [1]
    if kind is bool:
        yield from ('yes', 1, 0.0, '')
    if kind is int:
        yield from ('3', 1.5, True, -5, 10**30, NAN, '')
    if kind is float:
        yield from ('3', True, NAN, INFINITE, -INFINITE, -5.0, 1e300, '')
    if kind is str:
        yield from (3, 1.5, True, 'a\0b', 'a\nb', '  ', 5000 * 'x')
        if default:
            yield ''
        if name in CHOICES:
            yield from ('nosuch', '../x', CHOICES[name][0].upper())
        elif name not in PATHS:
            yield from ('../../x', 'train/../../x', 'a/b/c/d', '/etc/passwd', '..', '<img>', "x';touch ran")
        if '/' in default:
            yield from ('x', 'train/', '/x', 'nosuch/x', 'train', ',')


@pytest.mark.parametrize('notebook', NOTEBOOKS)
def test_every_wrong_value_of_every_parameter_is_refused_by_its_name(notebook):
    values, kinds = defaults(NOTEBOOKS[notebook])
    for name, kind in kinds.items():
        assert given(NOTEBOOKS[notebook], name, values[name])[name] == values[name]
        for wrong in wrong_values(name, kind, values[name]):
            with pytest.raises(WrongParameter, match=f'^parameter {name} = .*') as found:
                given(NOTEBOOKS[notebook], name, wrong)
            message = str(found.value)
            assert len(message) < 400 and '\n' not in message
            assert found.value._render_traceback_() == [f'WrongParameter: {message}']


@pytest.mark.parametrize('notebook', NOTEBOOKS)
def test_an_unknown_parameter_is_refused_with_those_that_there_are(notebook):
    path = NOTEBOOKS[notebook]
    with pytest.raises(WrongParameter, match='unknown parameter nosuch; this notebook has: '):
        given(path, 'nosuch', 1)


def test_no_range_and_no_choice_is_idle():
    named = {}
    for path in NOTEBOOKS.values():
        for name, kinds in defaults(path)[1].items():
            for kind in kinds:
                named.setdefault(kind, set()).add(name)
    assert set(WHOLE) <= named[int] and set(NUMBERS) <= named[float]  # others go from 0 to a million
    assert set(CHOICES) <= named[str] and set(PATHS) <= named[str]


@pytest.mark.parametrize(
    'notebook, name, values',
    [
        ('06b_evaluate', 'runs', ['train/a', 'ridge/linear-native, train/mirage-native-s0', 'ensemble/mirage-native']),
        ('05_train', 'seed', [None, 0, 2**32 - 1]),
        ('05_train', 'name', ['my-run', 'mirage-of+sub-01+-native-s0', 'mirage-streaming,chunk=4-native-s0']),
        ('05_train', 'subjects', ['all', 'sub-01, sub-02']),
        ('05_train', 'protocol', ['streaming,chunk=20', 'released']),
        ('05_train', 'modality_dropout', [None, 0.0, 1]),
        ('06c_ensemble', 'members', ['mirage-native-s*', 'mirage-native-s0,mirage-native-s1']),
        ('fig2_fusion', 'mirage', ['train/mirage-{}-s1']),
        ('03d_ridge', 'delays', ['4.5,6,7.5']),
        ('03d_ridge', 'folds', ['runs', 5, None]),
        ('02h_extract', 'backbone', ['text=/models/mine,audio=owner/name', 'tiny-tribe']),
        ('02h_extract', 'shard', ['3/64']),
        ('02h_extract', 'revision', ['0123456789abcdef0123456789abcdef01234567']),
        ('09b_predict', 'audio_track', [2, 'fra', '']),
        ('09b_predict', 'weights', ['epfl-neuroai/mirage@abc', '/a folder/of mine']),
        ('01j_manifest', 'url', ['https://host/base/{path}']),
        ('09c_card', 'licence', ['cc-by-4.0']),
    ],
)
def test_what_people_write_is_taken(notebook, name, values):
    for value in values:
        assert given(NOTEBOOKS[notebook], name, value)[name] == value


def test_papermill_shows_one_line_and_no_frames(tmp_path):
    command = [Path(sys.executable).parent / 'papermill', ROOT / 'nbs/06b_evaluate.ipynb', tmp_path / 'out.ipynb']
    done = subprocess.run([*command, '-p', 'runs', 'x'], cwd=tmp_path, capture_output=True, text=True)
    message = done.stderr.split('Exception encountered', 1)[1]
    assert (
        done.returncode and "WrongParameter: parameter runs = 'x'; expected such as train/mirage-native-s0" in message
    )
    assert 'check_text' not in message and '---->' not in message and len(message.splitlines()) < 8

"What mostly waits begins first, so that other tests fill the cores; and no test changes the world of the next one."

import os

import pytest


@pytest.fixture(autouse=True, scope='module')
def world():
    "No file of tests leaves a variable of ours in the environment."

    def ours():
        return {k: v for k, v in os.environ.items() if k.startswith('MIRAGE_')}

    before = ours()
    yield
    assert ours() == before, f'these tests leave {ours()} behind, it was {before}'


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in ('test_pipeline', 'test_chain'))

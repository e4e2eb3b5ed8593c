"What mostly waits begins first, so that other tests fill the cores; and no test changes the world of the next one."

import gc
import os
import signal

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a script starts with &
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope='module')
def world():
    "No file of tests leaves a variable of ours in the environment."

    def ours():
        return {k: v for k, v in os.environ.items() if k.startswith('MIRAGE_')}

    before = ours()
    yield
    assert ours() == before, f'these tests leave {ours()} behind, it was {before}'


@pytest.fixture(autouse=True, scope='module')
def modules_are_no_garbage():
    "nilearn collects garbage after every image, which looks at all that torch and transformers have imported."
    gc.freeze()
    yield
    gc.unfreeze()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in ('test_pipeline', 'test_chain'))

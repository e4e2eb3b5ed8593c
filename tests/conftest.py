"What mostly waits begins first, so that other tests fill the cores meanwhile."


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in ('test_pipeline', 'test_chain'))

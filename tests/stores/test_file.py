from daramjwee.stores import FileStore
from daramjwee.testing.store_suite import CAPACITY, StoreSuite


class TestFileStore(StoreSuite):
    def make_store(self, tmp_path):
        return FileStore(tmp_path, capacity=CAPACITY)

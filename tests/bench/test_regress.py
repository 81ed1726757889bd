"""The guard: trees out of a repository, processes over them, and what it makes of their answers."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daramjwee.bench.regress import guard, side, trees
from daramjwee.bench.regress.guard import Guard, Pace, chosen, compare_trees, workplace
from daramjwee.bench.regress.instructions import FEW, MANY, count_instructions
from daramjwee.bench.regress.report import comparison_text, to_data
from daramjwee.bench.regress.side import Cannot, GuardFailed, Side
from daramjwee.bench.regress.verdict import Verdict
from daramjwee.errors import ConfigError

SOURCE = Path(__file__).parents[2] / "src"
TINY = Pace(restarts=2, turns=2, stages=1)


def git(folder, *arguments):
    subprocess.run(
        ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "-C", str(folder), *arguments],
        check=True, capture_output=True, env={name: value for name, value in os.environ.items() if name != "GIT_DIR"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with three commits: without the package; with one of nothing but a version; with today's. Tests leave
    it as it is."""
    root = tmp_path_factory.mktemp("git") / "repository"
    package = root / trees.PACKAGE
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "commit", "-q", "--allow-empty", "-m", "nothing")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.0.1"\n')
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "a version")
    shutil.rmtree(package)
    shutil.copytree(SOURCE / "daramjwee", package, ignore=shutil.ignore_patterns("__pycache__"))
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "all of it")
    return root


@pytest.fixture
def place():
    """Where processes work."""
    with workplace() as folder:
        yield folder


def quiet(_line):
    """Nobody listens."""


# -- trees ---------------------------------------------------------------------------------------------------


def test_a_revision_is_taken_from_git_and_now_from_the_folder_as_it_is(repository, tmp_path):
    """A change that is not committed is in the new tree only, and the checkout stays as it is."""
    repository = shutil.copytree(repository, tmp_path / "changed")
    file = repository / trees.PACKAGE / "units.py"
    before = file.read_text()
    file.write_text(before + "# changed\n")
    (repository / trees.PACKAGE / "__pycache__").mkdir()
    old = trees.copy_revision(repository, "HEAD", tmp_path / "old")
    new = trees.copy_now(repository, tmp_path / "new")
    assert (old / "daramjwee" / "units.py").read_text() == before
    assert (new / "daramjwee" / "units.py").read_text() == before + "# changed\n"
    assert not (new / "daramjwee" / "__pycache__").exists()
    assert file.read_text() == before + "# changed\n"
    oldest = trees.copy_revision(repository, "main~1", tmp_path / "oldest")
    assert [path.name for path in (oldest / "daramjwee").iterdir()] == ["__init__.py"]


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("no-such-thing", "is no commit of the repository at"),
        ("HEAD~2", "has no src/daramjwee/__init__.py; name a revision from after it was added"),
        ("--output=x", "is an option of git, not a revision"),
        ("", "is no commit of the repository at"),
    ],
)
def test_a_revision_that_cannot_be_had_is_refused_and_nothing_is_made(repository, tmp_path, revision, message):
    with pytest.raises(ConfigError, match=message):
        trees.copy_revision(repository, revision, tmp_path / "old")
    assert not (tmp_path / "old").exists()


def test_a_hook_of_another_repository_does_not_mislead_git(repository, tmp_path, monkeypatch):
    """Git tells its hooks where it is, in the environment."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert (trees.copy_revision(repository, "HEAD", tmp_path / "old") / "daramjwee" / "units.py").is_file()


def test_without_a_repository_or_without_git_it_says_so(tmp_path, monkeypatch):
    """As in an unpacked archive of the sources."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(ConfigError, match="is no git repository; run it in a clone, or compare with a file"):
        trees.copy_revision(tmp_path, "HEAD", tmp_path / "old")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git, which is not installed; install it"):
        trees.copy_revision(tmp_path, "HEAD", tmp_path / "old")


def test_the_checkout_is_the_one_around_us_else_the_one_we_are_imported_from(repository, tmp_path, monkeypatch):
    assert trees.checkout(repository / "src") == repository
    assert trees.checkout(tmp_path) == SOURCE.parent
    monkeypatch.setattr("daramjwee.__path__", [str(tmp_path / "site-packages" / "daramjwee")])
    with pytest.raises(ConfigError, match="daramjwee is not imported from a checkout; run it in one"):
        trees.checkout(tmp_path)


# -- processes -----------------------------------------------------------------------------------------------


def test_a_side_imports_its_own_tree_and_answers_for_every_kind_of_request(place):
    (place / "shared").mkdir()
    with Side(SOURCE, place / "shared", place / "own", seed=3) as one:
        assert one.check()
        assert one.ask("begin", scenario="lease") == {}
        loops = one.ask("loops", seconds=0.0001)["loops"]
        assert loops >= 1
        figures = one.ask("turn", loops=loops, batches=3)
        assert figures["elapsed"] > 0
        assert figures["processor"] > 0
        assert one.ask("begin", scenario="import") == {}
        assert one.ask("turn", loops=1, batches=1)["processor"] > 0
        assert isinstance(one.ask("begin", scenario="nonsense"), Cannot)
        assert one.ask("count") == {}
        assert one.ask("end") == {}


def package(folder, code):
    """A tree whose package is that code."""
    (folder / "daramjwee").mkdir(parents=True)
    (folder / "daramjwee" / "__init__.py").write_text(code)
    return folder


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; print('oh no', file=__import__('sys').stderr); os._exit(3)", "ended when.*oh no"),
        ("raise ValueError('broken')", "ended when.*ValueError: broken"),
    ],
)
def test_a_process_that_ends_is_told_with_its_last_words(place, code, message):
    tree = package(place / "tree", code)
    (place / "shared").mkdir()
    with (
        Side(tree, place / "shared", place / "own", seed=0) as one,
        pytest.raises(GuardFailed, match=f"(?s){message}"),
    ):
        one.check()


def test_a_process_that_imported_another_tree_is_refused(place):
    elsewhere = package(place / "elsewhere", "__version__ = '1'")
    (place / "tree").mkdir()
    (place / "tree" / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {str(elsewhere)!r})")
    (place / "shared").mkdir()
    with (
        Side(place / "tree", place / "shared", place / "own", seed=0) as one,
        pytest.raises(GuardFailed, match=r"imported .*elsewhere.*, which is not of its tree"),
    ):
        one.check()


def test_a_process_that_does_not_answer_is_ended(place, monkeypatch):
    """The time is up at once; the process is gone afterwards."""
    (place / "shared").mkdir()
    with Side(SOURCE, place / "shared", place / "own", seed=0) as one:
        one.check()
        monkeypatch.setattr(side, "ANSWER_SECONDS", 0.0)
        with pytest.raises(GuardFailed, match="gave no answer to loops within 0 s"):
            one.ask("loops", seconds=1000)
        assert one._process.poll() is not None


def test_what_an_older_tree_prints_does_not_come_between_answers(place):
    tree = package(place / "tree", "print('hello')\n__version__ = '1'")
    (place / "shared").mkdir()
    with Side(tree, place / "shared", place / "own", seed=0) as one:
        assert one.check() == "1"
        one.close()
        assert "hello" in one.words


# -- the guard, with processes whose answers are made up -----------------------------------------------------


class MadeUp:
    """A side that takes `seconds[tree name][scenario]` for an operation; a reason in place of a figure: it cannot."""

    seconds: dict[str, dict[str, object]] = {}
    waits: dict[str, float] = {}
    turns = 0
    running = 0

    def __init__(self, tree, shared, own, *, seed):
        self.tree, self.scenario = tree, ""

    def ask(self, what, **arguments):
        if what == "begin":
            self.scenario = arguments["scenario"]
            figure = self.seconds[self.tree.name][self.scenario]
            return Cannot(figure) if isinstance(figure, str) else {}
        if what == "turn":
            MadeUp.turns += 1
            figure = self.seconds[self.tree.name][self.scenario]
            return {"processor": figure, "elapsed": figure * self.waits.get(self.tree.name, 1)}
        return {"loops": 1}

    def __enter__(self):
        MadeUp.running += 1
        return self

    def __exit__(self, *error):
        MadeUp.running -= 1


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """A guard over such sides."""
    monkeypatch.setattr(guard, "Side", MadeUp)
    monkeypatch.setattr(MadeUp, "turns", 0)
    monkeypatch.setattr(MadeUp, "waits", {})

    def make(seconds):
        monkeypatch.setattr(MadeUp, "seconds", seconds)
        return Guard(tmp_path, Path("old"), Path("new"), tell=quiet)

    yield make
    assert MadeUp.running == 0


PACE = Pace(restarts=3, turns=2, stages=3)


def test_only_what_is_not_clear_is_measured_again(made_up):
    """One stage for what is the same and what is faster, another for a suspect; three processes in each turn."""
    found = made_up(
        {"old": {"hit": 1.0, "tee": 1.0, "lease": 1.0}, "new": {"hit": 1.0, "tee": 1.1, "lease": 0.8}}
    ).times(["hit", "tee", "lease"], PACE)
    assert [one.verdict for one in found] == [Verdict.SAME, Verdict.SLOWER, Verdict.FASTER]
    assert [one.processor.restarts for one in found] == [3, 6, 3]
    assert MadeUp.turns == (3 + 6 + 3) * PACE.turns * 3
    assert (found[1].old, found[1].new) == (1.0, 1.1)


def test_what_only_waits_longer_is_slower_too(made_up):
    """Processor time is the same; elapsed time is twice as long, in two stages."""
    checked = made_up({"old": {"hit": 1.0}, "new": {"hit": 1.0}})
    MadeUp.waits = {"new": 2.0}
    (found,) = checked.times(["hit"], PACE)
    assert found.verdict is Verdict.SLOWER
    assert (found.processor.verdict, found.elapsed.verdict) == (Verdict.SAME, Verdict.SLOWER)


def test_what_the_old_tree_cannot_run_is_skipped_and_what_the_new_one_cannot_has_failed(made_up):
    checked = made_up({"old": {"hit": 1.0, "tee": "ImportError: x", "lease": 1.0}, "new": {"hit": "TypeError: y", "tee": 1.0, "lease": 1.0}})  # fmt: skip
    found = checked.times(["hit", "tee", "lease"], PACE)
    assert [one.scenario for one in found] == ["lease"]
    assert checked.skipped == {"tee": "ImportError: x"}
    assert checked.failures == {"hit": "TypeError: y"}


def test_an_unknown_scenario_is_refused_with_the_names_to_choose_from():
    assert chosen(["tee", "hit", "tee"]) == ("tee", "hit")
    with pytest.raises(ConfigError, match="is no scenario; choose from hit, file-hit"):
        chosen(["nonsense"])


# -- all of it -----------------------------------------------------------------------------------------------


def test_a_read_more_in_each_copy_is_found_whatever_the_times_say(repository, place):
    """Two real trees: the new one reads a file once more before each lease."""
    old = trees.copy_revision(repository, "HEAD", place / "tree-1")
    new = trees.copy_now(repository, place / "tree-2")
    file = new / "daramjwee" / "buffers" / "lease.py"
    file.write_text(
        file.read_text()
        + "\n\ndef _enter(self, plain=Lease.__enter__):\n    import os\n    fd = os.open('/dev/zero', 0)\n"
        "    os.read(fd, 1)\n    os.close(fd)\n    return plain(self)\n\n\nLease.__enter__ = _enter\n"
    )
    found = compare_trees(old, new, place, ["lease"], pace=TINY, title="HEAD", tell=quiet)
    assert [(one.counter, one.was, one.now) for one in found.growths] == [("read_calls", 0, 1)]
    assert "lease: read_calls" in found.slower
    text = comparison_text(found)
    assert "lease: read_calls GREW from 0 to 1 each" in text
    assert "SLOWER: " in text.splitlines()[-1]
    assert to_data(found)["slower"] == list(found.slower)


def test_a_tree_too_old_for_every_scenario_is_said_to_be(repository, place):
    """Nothing is compared, nothing is held against it, and nothing runs on."""
    old = trees.copy_revision(repository, "HEAD~1", place / "tree-1")
    new = trees.copy_now(repository, place / "tree-2")
    found = compare_trees(old, new, place, ["hit", "lease"], pace=TINY, title="HEAD~1", tell=quiet)
    assert (found.compared, found.growths, found.failures, found.slower) == ((), (), {}, ())
    assert sorted(path.name for path in place.iterdir()) == ["shared", "tree-1", "tree-2"]
    assert set(found.skipped) == {"hit", "lease"}
    text = comparison_text(found)
    assert "not compared: hit: the old tree has no such thing (ImportError: " in text
    assert text.splitlines()[-1].startswith("nothing could be compared")


def test_a_workplace_is_gone_with_all_that_was_left_in_it():
    with workplace() as folder:
        (folder / "a" / "b").mkdir(parents=True)
    assert not folder.exists()


def test_without_room_in_memory_the_workplace_is_where_temporary_files_are(monkeypatch, tmp_path):
    monkeypatch.setattr(guard, "SHARED_MEMORY", str(tmp_path / "nothing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with workplace() as folder:
        assert folder.parent == tmp_path


# -- instructions --------------------------------------------------------------------------------------------


def valgrind(folder, code, monkeypatch):
    """A valgrind of our own, first on the path."""
    file = folder / "valgrind"
    file.write_text(f"#!{sys.executable}\nimport sys\nloops = int(sys.argv[-2])\n{code}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder) + os.pathsep + os.environ["PATH"])


def test_instructions_are_the_difference_of_two_runs(tmp_path, monkeypatch):
    """What starting and ending cost, here a million, is in none of them."""
    valgrind(tmp_path, "print(f'==1== I refs:  {1_000_000 + 4567 * loops:,}', file=sys.stderr)", monkeypatch)
    assert count_instructions(SOURCE, tmp_path, ["lease", "tee"], tell=quiet) == {"lease": 4567}
    assert FEW < MANY


@pytest.mark.parametrize("code", ["sys.exit(3)", "print('nothing of it', file=sys.stderr)"])
def test_a_valgrind_that_fails_is_told_and_nothing_is_counted(tmp_path, monkeypatch, code):
    valgrind(tmp_path, code, monkeypatch)
    told = []
    assert count_instructions(SOURCE, tmp_path, ["hit"], tell=told.append) == {}
    assert any("no instructions of hit are counted" in line for line in told)


def test_without_valgrind_it_says_so_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = []
    assert count_instructions(SOURCE, tmp_path, ["hit"], tell=told.append) == {}
    assert told == ["no instructions are counted: valgrind is not installed here"]


def test_the_worker_runs_once_as_valgrind_runs_it(place):
    """The same script, by itself."""
    done = subprocess.run(
        [sys.executable, "-P", str(side.WORKER), "--once", "lease", "5", str(place)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, timeout=50,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

"""What all tests share."""

import os

# Tiny products gain nothing from threads, and where tests share a processor with other work they
# lose much; set before torch is imported, and for the processes that tests start as well.
os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path

import pytest

# Two tests' caches must not meet, and the user's must not be touched.
SHARED = Path(__file__).parent / "../../shared/data"


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    os.environ["IGLA_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; without it the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("the real data (../shared/data) are not on this machine")
    return SHARED

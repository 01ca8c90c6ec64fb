import pytest

from tests.gateway.media.pictures import Pictures


@pytest.fixture
def pictures(serve):
    made = Pictures()
    made.url = serve(made)
    yield made
    made.may_answer.set()

"""How requests are split: the default takes what is left, and nothing adds up to more than 100."""

import pytest

from deployments.services.traffic import Share, problems, split

DEFAULT = Share("blue", 0, is_default=True, proven=True)


def other(name: str, percent: int = 0, proven: bool = True) -> Share:
    return Share(name, percent, is_default=False, proven=proven)


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ([], {}),
        ([DEFAULT], {"blue": 100}),
        ([Share("blue", 30, is_default=True, proven=True)], {"blue": 100}),
        ([DEFAULT, other("green", 10)], {"blue": 90, "green": 10}),
        ([DEFAULT, other("green", 60), other("red", 40)], {"blue": 0, "green": 60, "red": 40}),
        # not answered yet: the default has its share meanwhile
        ([DEFAULT, other("green", 10, proven=False)], {"blue": 100, "green": 0}),
    ],
)
def test_the_default_takes_what_is_left(versions, wanted):
    assert split(versions) == wanted


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"green": 0}, "", ""),
        ({"green": 90}, "", ""),
        ({"green": 91}, "green", "101 %"),  # 10 are red's already
        ({"green": -1}, "green", "0 to 100"),
        ({"green": 101}, "green", "0 to 100"),
        ({"green": "5"}, "green", "whole number"),
        ({"green": True}, "green", "whole number"),
        ({"pink": 5}, "pink", "There is no version pink"),
        ({"young": 1}, "young", "succeeded"),
        ({"young": 0}, "", ""),
        # the default's own number counts, and is not needed
        ({"blue": 50, "green": 40}, "", ""),
        ({"blue": 60, "green": 40}, "blue", "110 %"),
        ({"green": 60, "red": 40}, "", ""),
        ({"green": 60, "red": 41}, "green", "101 %"),
    ],
)
def test_each_problem_names_its_version(asked, field, said):
    versions = [DEFAULT, other("green"), other("red", 10), other("young", proven=False)]
    found = problems(asked, versions)
    assert [problem.field for problem in found] == ([field] if field else [])
    assert all(said in problem.message for problem in found)

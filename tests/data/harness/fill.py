"""Which sums are right in one of their first two choices?"""


def firsts(docs):  # type: ignore[no-untyped-def]
    return docs.filter(lambda one: one["label"] < 2)

from benchmarks import chemistry_tables


def test_the_page_is_what_the_documents_make():
    assert chemistry_tables.PAGE.read_text(encoding="utf-8") == chemistry_tables.page()

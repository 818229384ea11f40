"""At the end, how many inputs each reader took."""


def pytest_terminal_summary(terminalreporter):
    """Print the count that each test recorded."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    lines = [v for report in reports for k, v in report.user_properties if k == "count"]
    if lines:
        terminalreporter.write_sep("-", "inputs by reader")
    for line in lines:
        terminalreporter.write_line(line)

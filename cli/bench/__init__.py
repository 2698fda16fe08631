"""``opd bench``: methods head to head.

plan.py         what is compared: arms, seeds, tasks, budget, contrasts
controls.py     the arms that every comparison has
cells.py        the matrix of jobs
ledger.py       what is known on disk, so that nothing is done twice
run.py          submits, waits, collects
statistics.py   intervals and tests, clustered by seed and problem
results.py      every figure of the report, as data
markdown.py, page.py, sheet.py    the report for people, browsers and spreadsheets
"""

"""What does each section of the page need, ready to print?

One module per section turns `Results` into what the templates of `report/page/` show; nothing here
writes HTML but the charts.
"""

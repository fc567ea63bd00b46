"""Charts that need no library, no network and no colour that they did not choose.

Charts are inline SVG with classes instead of colours: the page's stylesheet gives each arm its tone
(`--c`), in light, dark and print, and one short script turns the `data-tip` of each dot into a
tooltip. Everything works without the script, through `<title>`. Texts are escaped here.
"""

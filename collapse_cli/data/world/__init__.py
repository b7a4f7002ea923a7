"""A small invented world in plain English: what is frequent, what is true and how probable each text is are known exactly.

`names` are what things are called, `things` how frequent they are and what is true of them, `grammar` the documents that speak of them,
`expectation` what these are like on average, `parser` reads text, `probability` says how probable it is; `world` is all of it.
"""
